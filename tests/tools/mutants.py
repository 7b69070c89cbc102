"""Plant one fault at a time in a copy of the package, and see the tests go red.

`python tests/tools/mutants.py [word …]` tries each fault of `MUTANTS` in turn, or those
whose names hold a word, and runs the tests that must notice. `tox -e mutants` does so. The exit
status is 1 when a mutant survives.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
REDLOCK = "operations/locks/redlock.py"
QUORUM = "operations/locks/quorum.py"
HELD = "operations/locks/held.py"
PROVIDER_TESTS = ("operations/locks/test_providers.py",)
LOCK_TESTS = tuple(
    f"operations/locks/test_{subject}.py"
    for subject in ("redlock", "waiting", "extension", "release", "leftovers", "held", "safety")
)
VALUE_TESTS = tuple(
    f"operations/recompute/test_{subject}.py"
    for subject in ("recompute", "refresh", "claims", "waiting", "takeover", "outcomes")
)
FLIGHT_TESTS = ("operations/recompute/test_single_flight.py",)
TYPE_TESTS = tuple(
    f"operations/recompute/test_{subject}.py" for subject in ("typed_results", "uncacheable")
)
MOVING_TESTS = (
    "operations/cluster/test_warming.py",
    "operations/cluster/test_moving_races.py",
)
RESULT_TAG_TESTS = ("operations/recompute/test_result_tags.py",)
SIGNED_TESTS = ("clients/test_signed.py", "clients/test_replay.py")
FOREIGN_TESTS = ("clients/test_foreign_values.py",)
GENERATIONS = "operations/invalidation/generations.py"
GENERATION_TESTS = tuple(
    f"operations/invalidation/test_{subject}.py"
    for subject in ("generation_names", "generations", "planted_generations", "generation_safety")
)


class Mutant(NamedTuple):
    """A fault: `old` becomes `new` in a file of the package, and one of `tests` must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTANTS = [
    Mutant(
        "a quorum of half the nodes",
        "core/leases.py",
        "return nodes // 2 + 1",
        "return nodes // 2",
        LOCK_TESTS,
    ),
    Mutant(
        "the clock is read after the nodes were asked",
        REDLOCK,
        "        now = self.cluster.io.now()\n        self._left",
        "        now = self._asked = self.cluster.io.now()\n        self._left",
        LOCK_TESTS,
    ),
    Mutant(
        "the clock is that of the wall",
        "io/blocking.py",
        "now = staticmethod(time.monotonic)",
        "now = staticmethod(time.time)",
        ("clients/test_locks.py", "clients/test_lock_blocks.py"),
    ),
    Mutant(
        "no test of the time that asking took",
        REDLOCK,
        "validity_of(self._ttl, now - self._asked,",
        "validity_of(self._ttl, 0.0 * (now - self._asked),",
        LOCK_TESTS,
    ),
    Mutant(
        "one token for all attempts",
        REDLOCK,
        "(MARK_FLAGS, cluster.io.token())",
        '(MARK_FLAGS, b"token")',
        LOCK_TESTS,
    ),
    Mutant(
        "release without a look at the token",
        QUORUM,
        "            CompareAndDelete(key, payload),\n",
        "            __import__('shardcache.core.commands').core.commands.Delete(key),\n",
        LOCK_TESTS,
    ),
    Mutant(
        "an extension without a look at what has come in between",
        "operations/locks/compare.py",
        "    return Cas(command.key, command.payload, found[1], command.ttl)",
        "    return Set(command.key, command.payload, command.ttl)",
        LOCK_TESTS,
    ),
    Mutant(
        "an extension that stores over another's token",
        QUORUM,
        "return Acquire(self.key, self.payload, member_ttl(member, ttl))",
        "return Set(self.key, self.payload, member_ttl(member, ttl))",
        LOCK_TESTS,
    ),
    Mutant(
        "an extension that puts back what has ended",
        QUORUM,
        "            if not self.remaining():\n                return None\n            put_back",
        "            put_back",
        LOCK_TESTS,
    ),
    Mutant(
        "an extension that does not put back what a node has lost",
        QUORUM,
        "            put_back.append(member)\n",
        "            return None\n            put_back.append(member)\n",
        LOCK_TESTS,
    ),
    Mutant(
        "an extension that is content with the first nodes to answer",
        QUORUM,
        "        if late:\n",
        "        if late and False:\n",
        LOCK_TESTS,
    ),
    Mutant(
        "an extension of what has expired",
        QUORUM,
        "deadline = min(deadline, self.until)",
        "deadline = max(deadline, self.until)",
        LOCK_TESTS,
    ),
    Mutant(
        "a lock that does not listen for its loss",
        HELD,
        "        self.grant.watch(self._lose_unless_released)\n",
        "",
        PROVIDER_TESTS,
    ),
    Mutant(
        "a renewal that gives up when it reaches no service",
        HELD,
        "it counts down: the next turn extends it, or finds it expired\n            return True",
        "it counts down\n            return False",
        PROVIDER_TESTS,
    ),
    Mutant(
        "a grant that an interrupted caller leaves behind",
        "operations/locks/acquire.py",
        "        await cluster.io.shield(grant.release)\n        raise",
        "        raise",
        PROVIDER_TESTS,
    ),
    Mutant(
        "no drift for memcached's second",
        "core/leases.py",
        "COARSE: Final = 1.0",
        "COARSE: Final = 0.0",
        LOCK_TESTS,
    ),
    Mutant(
        "memcached is asked for no more than the lock's own time",
        "core/leases.py",
        "max(COARSE_TTL, float(math.ceil(ttl)))",
        "float(math.ceil(ttl))",
        LOCK_TESTS,
    ),
    Mutant(
        "all nodes are asked at once, without a gate",
        REDLOCK,
        "if silent == SILENT_GATES:",
        "if silent <= SILENT_GATES:",
        LOCK_TESTS,
    ),
    Mutant(
        "what failed is not taken back",
        REDLOCK,
        "        if at_once:\n            tokens",
        "        if at_once and False:\n            tokens",
        LOCK_TESTS,
    ),
    Mutant(
        "what takes two steps is not taken back beside the caller",
        "operations/cluster/leftovers.py",
        "        leftovers[key, payload] = Leftover(io.now(), looks)",
        "        leftovers.pop((key, payload), None)",
        LOCK_TESTS,
    ),
    Mutant(
        "one look is taken for the truth",
        "operations/cluster/leftovers.py",
        "LOOKS: Final = 6",
        "LOOKS: Final = 1",
        LOCK_TESTS,
    ),
    Mutant(
        "silent nodes are not asked any more",
        "operations/cluster/leftovers.py",
        "ask_timed(asks, ejected_too=True)",
        "ask_timed(asks)",
        LOCK_TESTS,
    ),
    Mutant(
        "XFetch with the wrong sign",
        "core/values/freshness.py",
        "return -value.delta * beta",
        "return value.delta * beta",
        ("core/values/test_freshness.py", *VALUE_TESTS),
    ),
    Mutant(
        "jitter that lengthens",
        "core/cache_policy.py",
        "return ttl * (1 - jitter * chance)",
        "return ttl * (1 + jitter * chance)",
        ("core/values/test_freshness.py",),
    ),
    Mutant(
        "the lock before the first read",
        "operations/recompute/cached_value.py",
        "    reply, versions = await request.read()\n    if type(reply) is tuple:",
        "    await redlock.attempt(request.cluster, request.key, request.policy.locking)\n"
        "    reply, versions = await request.read()\n"
        "    if type(reply) is tuple:",
        VALUE_TESTS,
    ),
    Mutant(
        "no second look once the lock is held",
        "operations/recompute/recompute.py",
        "            if outcome is not None:\n                return outcome\n        # Another's",
        "            del outcome\n        # Another's",
        VALUE_TESTS,
    ),
    Mutant(
        "a store that no invalidation voids",
        "operations/recompute/recompute.py",
        "reply = await request.ask(Cas(request.name, payload, claim.token, seconds))",
        "reply = await request.ask(Set(request.name, payload, seconds))",
        VALUE_TESTS,
    ),
    Mutant(
        "a void flight is joined",
        "operations/recompute/progress.py",
        "if claim is None or progress.as_of >= self.began:",
        "if True:",
        FLIGHT_TESTS,
    ),
    Mutant(
        "a flight whose tags were invalidated is joined",
        "operations/recompute/progress.py",
        "return still_holds and tags_agree(self.versions, progress.versions)",
        "return still_holds",
        FLIGHT_TESTS,
    ),
    Mutant(
        "those who see the stub of their leader do not join",
        "operations/recompute/progress.py",
        "return still_holds and tags_agree(self.versions, progress.versions)",
        "return False",
        FLIGHT_TESTS,
    ),
    Mutant(
        "those whose node is down do not join",
        "operations/recompute/progress.py",
        "return True  # unknown, and joining spares the source",
        "return False",
        FLIGHT_TESTS,
    ),
    Mutant(
        "an older forced refresh stores over a newer one",
        "operations/recompute/recompute.py",
        "        if refresh is not None:\n            return refresh\n",
        "        if reply.payload is not None:\n            return claim\n",
        VALUE_TESTS,
    ),
    Mutant(
        "an invalidation during a recompute is missed, if the result has the tag",
        "operations/recompute/recompute.py",
        "    if logged:\n        return Tagged(result_tags, None)\n",
        "",
        RESULT_TAG_TESTS,
    ),
    Mutant(
        "a tag is logged after its version is removed",
        "operations/invalidation/tags.py",
        "        reply = failure or await cluster.ask(member, Delete(name), deadline)\n",
        "        reply = failure or reply\n",
        RESULT_TAG_TESTS,
    ),
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
    Mutant(
        "a lost log of tags is no reason",
        "operations/invalidation/tag_log.py",
        "    if end not in entries:\n        return True\n",
        "    if end not in entries:\n        return False\n",
        RESULT_TAG_TESTS,
    ),
    Mutant(
        "a late follower does not look at the tags of its result",
        "operations/recompute/cached_value.py",
        "or await _is_void(request, ended, leader.first_read)",
        "or False",
        RESULT_TAG_TESTS,
    ),
    Mutant(
        "a refresh joins a recompute that may serve an old value",
        "operations/recompute/leader.py",
        "if self.progress.renews and not progress.renews:",
        "if False:",
        ("operations/recompute/test_blocks.py",),
    ),
    Mutant(
        "an orphan goes on for ever",
        "io/task_flights.py",
        "        self._outlives = None\n        self.leave()",
        "        self.leave()",
        ("operations/recompute/test_orphans.py", "io/test_task_flights.py"),
    ),
    Mutant(
        "any bare stub passes for the leader's",
        "operations/recompute/claims.py",
        "return token is not None and token == self.token",
        "return True",
        FLIGHT_TESTS,
    ),
    Mutant(
        "what was recomputed in place of a hung refresh is not stored",
        "operations/recompute/leader.py",
        "claim = await claim_refresh(request, last_resort, When.ALWAYS)",
        "claim = None",
        FLIGHT_TESTS,
    ),
    Mutant(
        "the stub of a void recompute is left in the way",
        "operations/recompute/leader.py",
        "            await self.void.release()\n",
        "            pass\n",
        FLIGHT_TESTS,
    ),
    Mutant(
        "a renewed stub is not known again",
        "operations/recompute/recompute.py",
        "if reply is not False or not await claim.find_again():",
        "if True:",
        FLIGHT_TESTS,
    ),
    Mutant(
        "an exception is kept that would not come back equal",
        "operations/recompute/request.py",
        "return None if twin is None or not equal(twin, error) else payload",
        "return payload",
        ("clients/test_kept_errors.py",),
    ),
    Mutant(
        "what cannot be copied is given to all",
        "operations/recompute/cached_value.py",
        "    if not ended.shareable:\n        return await _recompute_alone(request)\n",
        "    if ended.payload is None and ended.error is None:\n        return ended.value\n",
        ("clients/test_recomputing.py",),
    ),
    Mutant(
        "a stub of another's is stored over by the holder of the lock",
        "operations/recompute/recompute.py",
        "            if not takes_over:\n                return claim\n",
        "            return claim\n",
        VALUE_TESTS,
    ),
    Mutant(
        "those who wait are not told that a making was given up",
        "operations/recompute/claims.py",
        "            await self._ask(Cas(self._name, abandoned(self.mark), self.token, ABANDONED_SECONDS))",
        "            await self._ask(DeleteCas(self._name, self.token))",
        VALUE_TESTS,
    ),
    Mutant(
        "the work of a flight is part of the task that began it",
        "io/task_flights.py",
        "        if self.followed or self._task.done():\n            return\n",
        "",
        ("io/test_task_flights.py",),
    ),
    Mutant(
        "values to be refreshed and missing ones take two calls of a factory",
        "operations/recompute/lockstep.py",
        "            elif _wishing(operations, Enter):\n                return\n",
        "",
        ("operations/recompute/test_many_policies.py",),
    ),
    Mutant(
        "claims of many keys stay when their caller is stopped",
        "operations/recompute/lockstep.py",
        "await self.io.shield(lambda: self._stop(operations))",
        "await self.io.shield(lambda: self._stop(()))",
        ("operations/recompute/test_many.py",),
    ),
    Mutant(
        "the flights of a batch do not stand for each other in the wait-for graph",
        "io/single_flight.py",
        "Edge(own, self.work)",
        "Edge(own, self)",
        ("operations/recompute/test_many.py", "io/test_flight_batches.py"),
    ),
    Mutant(
        "an interruption is shared",
        "io/thread_flights.py",
        "outcome: T | FlightEnd = FlightEnd.CANCELLED\n        try:",
        "outcome: T | FlightEnd = FlightEnd.TIMED_OUT\n        try:",
        ("io/test_thread_flights.py",),
    ),
    Mutant(
        "a signature that is good for every key",
        "core/values/signing.py",
        "        len(name),\n        name,\n",
        "        0,\n        b'',\n",
        SIGNED_TESTS,
    ),
    Mutant(
        "a signature that is good for every kind",
        "core/values/payloads.py",
        "return Scope(purpose, kind, self.name if by_codec else",
        "return Scope(b'value', 0, self.name if not purpose else",
        SIGNED_TESTS,
    ),
    Mutant(
        "a signature without an end",
        "core/values/signing.py",
        "if now > ends + LEEWAY:",
        "if now < 0 < ends:",
        SIGNED_TESTS,
    ),
    Mutant(
        "what nobody signed is believed",
        "core/values/payloads.py",
        "if self.others.unsigned and is_from_another_client(flags):",
        "if is_from_another_client(flags):",
        SIGNED_TESTS,
    ),
    Mutant(
        "what other clients write comes in by an envelope",
        "core/values/freshness.py",
        "if not is_value(flags):",
        "if flags < 0:",
        FOREIGN_TESTS,
    ),
    Mutant(
        "every pickle of others is read when some are",
        "core/values/other_clients.py",
        "if len(data) < 2 or data[0] != _PICKLE_MARK or data[1] not in _PROTOCOLS:",
        "if len(data) < 0:",
        ("compatibility/test_mixed_fleet.py",),
    ),
    Mutant(
        "two writes on Redis are the same",
        "backends/redis/wire.py",
        "self._version = (self._version + 1) & LAST_VERSION",
        "self._version = self._version & LAST_VERSION",
        ("backends/redis/test_wire.py",),
    ),
    Mutant(
        "a refused swap deletes what is newer",
        "operations/keys/single.py",
        "await cluster.ask(member, DeleteCas(name, token), deadline)",
        "await cluster.ask(member, Delete(name), deadline)",
        FOREIGN_TESTS,
    ),
    Mutant(
        "a kept expiry moves by a second",
        "operations/keys/keeping.py",
        "if isinstance(expiry, Until) and not expiry.exact:",
        "if False:",
        ("operations/keys/test_keeping.py",),
    ),
    Mutant(
        "a kept value has no expiry",
        "backends/redis/wire.py",
        'return self._compare_and_set(command, (b"KEEPTTL",))',
        "return self._compare_and_set(command, ())",
        ("backends/redis/test_ages.py",),
    ),
    Mutant(
        "a count that another client voided is returned",
        "operations/keys/counters.py",
        "return new if reply is True else reply",
        "return new",
        ("operations/keys/test_counters.py",),
    ),
    Mutant(
        "the mark of a recompute exists",
        "operations/keys/ages.py",
        "    if is_mark(payload):",
        "    if False:",
        ("operations/keys/test_ages.py",),
    ),
    Mutant(
        "a generation that any one node says is believed",
        "core/generations.py",
        "return _held_by(quorum(nodes) - (nodes - len(answers)), answers)",
        "return max(answers)",
        GENERATION_TESTS,
    ),
    Mutant(
        "a generation that silent nodes may have is missed",
        "core/generations.py",
        "return _held_by(quorum(nodes) - (nodes - len(answers)), answers)",
        "return _held_by(quorum(nodes), answers)",
        GENERATION_TESTS,
    ),
    Mutant(
        "a generation from the far future is believed",
        "core/generations.py",
        "return FIRST if _began(name) > wall + MAX_AHEAD else name",
        "return name",
        GENERATION_TESTS,
    ),
    Mutant(
        "the mark is moved before the generation is in force",
        GENERATIONS,
        "        stored = await _store_newer(cluster, generation.key, name, found, deadline, wanted)",
        "        await self._move(cluster, members, deadline)\n"
        "        stored = await _store_newer(cluster, generation.key, name, found, deadline, wanted)",
        GENERATION_TESTS,
    ),
    Mutant(
        "what was read along with a mark half moved is the last word",
        GENERATIONS,
        "return after if len(set(marks.values())) == 1 else before",
        "return after",
        GENERATION_TESTS,
    ),
    Mutant(
        "a generation is stored over whatever is there",
        GENERATIONS,
        "return Cas(key, payload, reply[1])",
        "return Set(key, payload)",
        GENERATION_TESTS,
    ),
    Mutant(
        "in force is what one node has noted",
        GENERATIONS,
        "        if len(stored) < wanted:",
        "        if not stored:",
        GENERATION_TESTS,
    ),
    Mutant(
        "one node's mark stands for all",
        GENERATIONS,
        "            if len(heard) < quorum(len(members)):",
        "            if len(heard) < 1:",
        GENERATION_TESTS,
    ),
    Mutant(
        "the second until the next look begins with the answer",
        GENERATIONS,
        "self.due = began + LOOK_AGAIN",
        "self.due = cluster.io.now() + LOOK_AGAIN",
        GENERATION_TESTS,
    ),
    Mutant(
        "a result that cannot be stored keeps the followers waiting",
        "operations/recompute/recompute.py",
        "    except EncodeError as error:\n        await _skip_storing(request, claim)\n",
        "    except EncodeError as error:\n",
        TYPE_TESTS,
    ),
    Mutant(
        "a result is stored that would come back as something else",
        "core/values/typed.py",
        "if difference is not None:",
        "if difference == 1:",
        TYPE_TESTS,
    ),
    Mutant(
        "a value of an older type raises",
        "operations/recompute/request.py",
        " and not isinstance(error, InvalidValueError)",
        "",
        TYPE_TESTS,
    ),
    Mutant(
        "the leader gets another value than the followers",
        "operations/recompute/request.py",
        "return self.payloads.dump_result(self.name, result)",
        "return self.payloads.dump_result(self.name, result)[0], result",
        TYPE_TESTS,
    ),
    Mutant(
        "any class of a known name is taken for the one in the table",
        "core/codecs/subclasses.py",
        "return code if code and SUBCLASSES[code].find() is kind else 0",
        "return code",
        ("core/codecs/test_subclasses.py",),
    ),
]


def main(words: list[str]) -> int:
    """Try the mutants whose names hold one of `words`, or all; return 1 when one survives."""
    console = Console()
    table = Table("mutant", "seconds", "outcome", title="Mutants", title_justify="left")
    survivors = 0
    for mutant in MUTANTS:
        if words and not any(word in mutant.name for word in words):
            continue
        began = time.monotonic()
        outcome = outcome_of(mutant)
        survivors += outcome != "dies"
        table.add_row(mutant.name, f"{time.monotonic() - began:.1f}", outcome)
        console.print(f"{outcome}: {mutant.name}")
    console.print(table)
    return 1 if survivors else 0


def outcome_of(mutant: Mutant) -> str:
    """Plant a mutant and run its tests; return how that ended."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copytree(ROOT / "shardcache", copy / "shardcache")
        shutil.copytree(ROOT / "tests", copy / "tests")
        shutil.copy(ROOT / "pyproject.toml", copy)
        healthy = passes(copy, mutant.tests) if mutant is MUTANTS[0] else True
        if not healthy:
            return "the tests fail without it"
        file = copy / "shardcache" / mutant.file
        text = file.read_text(encoding="utf-8")
        if text.count(mutant.old) != 1:
            return f"found {text.count(mutant.old)} times in {mutant.file}"
        text = text.replace(mutant.old, mutant.new)
        file.write_text(with_imports(text), encoding="utf-8")
        return "SURVIVES" if passes(copy, mutant.tests) else "dies"


def with_imports(text: str) -> str:
    """Return the text with the imports that a fault may need."""
    needed = "\nfrom shardcache.core.commands import Delete, DeleteCas, Set  # noqa: E402\n"
    if "redlock." in text:
        needed += "import shardcache.operations.locks.redlock as redlock  # noqa: E402\n"
    return text + needed if "from shardcache.operations" in text else text


def passes(copy: Path, tests: tuple[str, ...]) -> bool:
    """Return whether the tests pass on the package in a folder."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--import-mode=importlib",
            "-p",
            "no:cacheprovider",
            "-q",
            "-x",
            "-k",
            "not blind",
            *(f"tests/{test}" for test in tests),
        ],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise RuntimeError(done.stdout + done.stderr)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
