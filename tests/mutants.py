"""Break what protects against stampedes in one place at a time, and see the tests go red.

`python tests/mutants.py [word …]` makes a copy of the package with each fault of `MUTANTS` in turn and
runs the tests that must notice; `tox -e mutants` does so. The exit status is 1 when one survives.
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

ROOT = Path(__file__).parents[1]
REDLOCK = "operations/redlock.py"
LOCK_TESTS = ("operations/test_redlock.py",)
VALUE_TESTS = ("operations/test_computed.py",)
GENERATIONS = "operations/generations.py"
GENERATION_TESTS = ("operations/test_generations.py",)


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
        "        now = self._cluster.io.now()\n        self._left",
        "        now = self._asked = self._cluster.io.now()\n        self._left",
        LOCK_TESTS,
    ),
    Mutant(
        "the clock is that of the wall",
        "io/blocking.py",
        "now = staticmethod(time.monotonic)",
        "now = staticmethod(time.time)",
        ("clients/test_locks.py",),
    ),
    Mutant(
        "no test of the time that asking took",
        REDLOCK,
        "validity(self._policy.ttl, now - self._asked,",
        "validity(self._policy.ttl, 0.0 * (now - self._asked),",
        LOCK_TESTS,
    ),
    Mutant(
        "one token for all attempts",
        REDLOCK,
        "(RAW_FLAGS, cluster.io.token())",
        '(RAW_FLAGS, b"token")',
        LOCK_TESTS,
    ),
    Mutant(
        "release without a look at the token",
        REDLOCK,
        "DeleteIf(key, payload), tokens, cluster.deadline()",
        "__import__('shardcache.core.commands').core.commands.Delete(key), tokens, cluster.deadline()",
        LOCK_TESTS,
    ),
    Mutant(
        "an extension that creates",
        "operations/comparing.py",
        "    return Cas(command.key, command.payload, found[1], command.ttl)",
        "    return Set(command.key, command.payload, command.ttl)",
        LOCK_TESTS,
    ),
    Mutant(
        "an extension of what has expired",
        REDLOCK,
        "deadline = min(asked + self.cluster.timeout, self.until)",
        "deadline = asked + self.cluster.timeout",
        LOCK_TESTS,
    ),
    Mutant(
        "no drift for memcached's second",
        "core/leases.py",
        "COARSE: Final = 1.0",
        "COARSE: Final = 0.0",
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
        "        if unsure:\n",
        "        if unsure and False:\n",
        LOCK_TESTS,
    ),
    Mutant(
        "XFetch with the wrong sign",
        "core/freshness.py",
        "return -value.delta * beta",
        "return value.delta * beta",
        ("core/test_freshness.py", *VALUE_TESTS),
    ),
    Mutant(
        "jitter that lengthens",
        "core/caching.py",
        "return ttl * (1 - jitter * chance)",
        "return ttl * (1 + jitter * chance)",
        ("core/test_freshness.py",),
    ),
    Mutant(
        "the lock before the first read",
        "operations/computed.py",
        "    reply, versions = await call.read()\n    if type(reply) is tuple and not is_mark(reply):",
        "    await redlock.attempt(call.cluster, call.key, call.policy.locking)\n"
        "    reply, versions = await call.read()\n"
        "    if type(reply) is tuple and not is_mark(reply):",
        VALUE_TESTS,
    ),
    Mutant(
        "no second look once the lock is held",
        "operations/making.py",
        "            if outcome is not None:\n                return outcome\n        # Another's",
        "            del outcome\n        # Another's",
        VALUE_TESTS,
    ),
    Mutant(
        "a store that no invalidation voids",
        "operations/making.py",
        "reply = await call.ask(Cas(call.name, payload, claim.token, seconds))",
        "reply = await call.ask(Set(call.name, payload, seconds))",
        VALUE_TESTS,
    ),
    Mutant(
        "a stub of another's is stored over by the holder of the lock",
        "operations/making.py",
        "            if not takes_over:\n                return claim\n",
        "            return claim\n",
        VALUE_TESTS,
    ),
    Mutant(
        "those who wait are not told that a making was given up",
        "operations/claims.py",
        "            await self._ask(Cas(self._name, abandoned(self.mark), self.token, ABANDONED_SECONDS))",
        "            await self._ask(DeleteUnchanged(self._name, self.token))",
        VALUE_TESTS,
    ),
    Mutant(
        "the work of a flight is part of the task that began it",
        "io/tasks.py",
        "        if not self._waiters:\n            self._task.cancel()",
        "        self._task.cancel()",
        ("io/test_flights.py",),
    ),
    Mutant(
        "an interruption is shared",
        "io/threads.py",
        "outcome: T | Landing = Landing.ABANDONED\n        try:",
        "outcome: T | Landing = Landing.LATE\n        try:",
        ("io/test_flights.py",),
    ),
    Mutant(
        "a generation that any one node says is believed",
        "core/generations.py",
        "return _held_by(quorum(nodes) - (nodes - len(heard)), heard)",
        "return max(heard)",
        GENERATION_TESTS,
    ),
    Mutant(
        "a generation that silent nodes may have is missed",
        "core/generations.py",
        "return _held_by(quorum(nodes) - (nodes - len(heard)), heard)",
        "return _held_by(quorum(nodes), heard)",
        GENERATION_TESTS,
    ),
    Mutant(
        "a generation from the far future is believed",
        "core/generations.py",
        "return FIRST if _began(name) > wall + MOST_AHEAD else name",
        "return name",
        GENERATION_TESTS,
    ),
    Mutant(
        "the mark is moved before the generation is in force",
        GENERATIONS,
        "        noted = await _raise(cluster, generation.key, name, held, deadline, wanted)",
        "        await self._move(cluster, links, deadline)\n"
        "        noted = await _raise(cluster, generation.key, name, held, deadline, wanted)",
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
        "        if len(noted) < wanted:",
        "        if not noted:",
        GENERATION_TESTS,
    ),
    Mutant(
        "one node's mark stands for all",
        GENERATIONS,
        "            if len(heard) < quorum(len(links)):",
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
]


def main(words: list[str]) -> int:
    """Try the mutants whose names hold one of `words`, or all; give 1 when one survives."""
    console = Console()
    table = Table("mutant", "seconds", "outcome", title="Mutants", title_justify="left")
    survivors = 0
    for mutant in MUTANTS:
        if words and not any(word in mutant.name for word in words):
            continue
        began = time.monotonic()
        outcome = tried(mutant)
        survivors += outcome != "dies"
        table.add_row(mutant.name, f"{time.monotonic() - began:.1f}", outcome)
        console.print(f"{outcome}: {mutant.name}")
    console.print(table)
    return 1 if survivors else 0


def tried(mutant: Mutant) -> str:
    """Say what becomes of a mutant."""
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
    """Give the text with what a fault may need."""
    needed = "\nfrom shardcache.core.commands import Delete, DeleteUnchanged, Set  # noqa: E402\n"
    if "redlock." in text:
        needed += "import shardcache.operations.redlock as redlock  # noqa: E402\n"
    return text + needed if "from shardcache.operations" in text else text


def passes(copy: Path, tests: tuple[str, ...]) -> bool:
    """Say whether the tests pass on the package in a folder."""
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
