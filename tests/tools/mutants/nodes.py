"""Faults of nodes that move, fail over and come back."""

from __future__ import annotations

from mutants.mutant import Mutant

MOVING_TESTS = (
    "operations/cluster/test_warming.py",
    "operations/cluster/test_moving_races.py",
)

MUTANTS = [
    Mutant(
        "a tag that moves is logged on its new node alone",
        "operations/invalidation/tags.py",
        "    holders = cluster.holders(name, member)\n",
        "    holders = [member]\n",
        MOVING_TESTS,
    ),
    Mutant(
        "a copy is not read again behind its stub",
        "operations/cluster/warming.py",
        "        again = await self._look({name: others[name] for name in claims}, until)\n",
        "        again = found\n",
        MOVING_TESTS,
    ),
    Mutant(
        "a delete does not go to the old node",
        "operations/cluster/warming.py",
        "        deleted = await self._delete(_names(asks, others, replaces), until)\n",
        "        deleted = await self._delete({}, until)\n",
        MOVING_TESTS,
    ),
    Mutant(
        "deletes on old nodes end with the reads",
        "operations/cluster/moves.py",
        "self.reads_until + SPREAD",
        "self.reads_until",
        MOVING_TESTS,
    ),
    Mutant(
        "a delete does not go to the stand-in of an old node",
        "operations/cluster/warming.py",
        'cast("Moving", self.moving).reached(name)',
        'cast("Moving", self.moving).owner(name)',
        ("operations/cluster/test_moving_with_failover.py",),
    ),
    Mutant(
        "a warm-up ends with keys that move alone",
        "operations/cluster/warming.py",
        "        if self._is_over() or not self._others([(member, command)]):\n",
        "        if not self._others([(member, command)]):\n",
        ("operations/cluster/test_warming.py",),
    ),
    Mutant(
        "a token of a stand-in is one of the owner",
        "operations/cluster/failover.py",
        "    return DetouredToken(token) if isinstance(member, StandIn) else token\n",
        "    return token\n",
        ("operations/cluster/test_failover.py",),
    ),
    Mutant(
        "a node under other options is asked before its pending deletes",
        "operations/cluster/prober.py",
        "        if error is not None and not health.ejected:\n            self.eject(",
        "        if False:\n            self.eject(",
        ("operations/cluster/test_replay.py",),
    ),
    Mutant(
        "what a call in flight notes is lost with its member",
        "operations/cluster/ejection.py",
        "            member = member.successor\n",
        "            break\n",
        ("operations/cluster/test_replay.py",),
    ),
]
