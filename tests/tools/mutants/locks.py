"""Faults of locks: quorum, time, release and extension."""

from __future__ import annotations

from mutants.mutant import Mutant

REDLOCK = "operations/locks/redlock.py"
QUORUM = "operations/locks/quorum.py"
HELD = "operations/locks/held.py"
PROVIDER_TESTS = ("operations/locks/test_providers.py",)
LOCK_TESTS = tuple(
    f"operations/locks/test_{subject}.py"
    for subject in ("redlock", "waiting", "extension", "release", "leftovers", "held", "safety")
)

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
        "            self.grant.watch(self._lose_unless_released)\n",
        "            pass\n",
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
        "        await cluster.io.shield(lambda: release_grant(cluster, lock.name, grant))\n        raise",
        "        raise",
        PROVIDER_TESTS,
    ),
    Mutant(
        "a release that fails reaches its caller",
        HELD,
        '        _note(cluster, name, "release", error)\n        return True',
        "        raise",
        ("operations/locks/test_failing_providers.py",),
    ),
    Mutant(
        "a lock of which nothing can be told counts as held",
        HELD,
        '            self._lose_unless_released(f"its provider failed: {error!r}")\n            return 0.0',
        "            return self.policy.ttl",
        ("operations/locks/test_failing_providers.py",),
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
]
