"""Plant one fault at a time in a copy of the package, and see the tests go red.

`tox -e mutants -- [WORD …]` tries each fault in turn, or those whose names hold a word, and runs the
tests that must notice: first without the fault. The exit status is 1 when a mutant survives.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from mutants import MUTANTS, ROOT
from mutants.mutant import Mutant

DIES: Final = "dies"


def main(words: Sequence[str]) -> int:
    """Try the mutants whose names hold one of `words`, or all; return 1 when one survives."""
    console = Console()
    table = Table("mutant", "seconds", "outcome", title="Mutants", title_justify="left")
    survivors = 0
    for mutant in chosen(words):
        began = time.monotonic()
        outcome = outcome_of(mutant)
        survivors += outcome != DIES
        table.add_row(mutant.name, f"{time.monotonic() - began:.1f}", outcome)
        console.print(f"{outcome}: {mutant.name}")
    console.print(table)
    if not table.rows:
        console.print(f"no mutant has a name with {' or '.join(words)}")
    return 1 if survivors or not table.rows else 0


def chosen(words: Sequence[str]) -> list[Mutant]:
    """Return the mutants whose names hold one of `words`, or all."""
    return [each for each in MUTANTS if not words or any(word in each.name for word in words)]


def outcome_of(mutant: Mutant) -> str:
    """Plant a mutant and run its tests; return how that ended."""
    if not pass_without(mutant.tests):
        return "the tests fail without it"
    with tempfile.TemporaryDirectory() as folder:
        file = copied_to(Path(folder)) / "shardcache" / mutant.file
        text = file.read_text(encoding="utf-8")
        if text.count(mutant.old) != 1:
            return f"found {text.count(mutant.old)} times in {mutant.file}"
        text = text.replace(mutant.old, mutant.new)
        file.write_text(with_imports(text), encoding="utf-8")
        return "SURVIVES" if passes(Path(folder), mutant.tests) else DIES


@cache
def pass_without(tests: tuple[str, ...]) -> bool:
    """Return whether tests pass on a copy without a fault: else they would notice any."""
    with tempfile.TemporaryDirectory() as folder:
        return passes(copied_to(Path(folder)), tests)


def copied_to(folder: Path) -> Path:
    """Copy the package and its tests to a folder, and return that."""
    for each in ("shardcache", "tests"):
        shutil.copytree(ROOT / each, folder / each)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def with_imports(text: str) -> str:
    """Return the text with the imports that a fault may need."""
    needed = "\nfrom shardcache.core.commands import Delete, DeleteCas, Set  # noqa: E402\n"
    if "redlock." in text:
        needed += "import shardcache.operations.locks.redlock as redlock  # noqa: E402\n"
    return text + needed if "from shardcache.operations" in text else text


def passes(copy: Path, tests: Sequence[str]) -> bool:
    """Return whether the tests pass on the package in a folder."""
    options = ("--import-mode=importlib", "-p", "no:cacheprovider", "-q", "-x", "-k", "not blind")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *(f"tests/{test}" for test in tests)],
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
