"""Fuzz what reads the bytes of strangers, for as long as asked.

`python tests/fuzz/run.py [--seconds N] [TARGET …]` gives each target so many seconds. An input that fails
is written to the corpus, where the tests replay it from then on; the exit status is 1 when there is one.
`tox -e fuzz` does so.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path

import hypothesis
from hypothesis import HealthCheck, Phase

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.inputs import INPUTS
from fuzz.targets import TARGETS

CORPUS = Path(__file__).with_name("corpus")
ROUND = 100  # inputs between two looks at the clock


def fuzz(name, seconds):
    """Run a target on inputs by chance for some seconds; return how many, and the one that failed."""
    runs, failed = 0, None

    @hypothesis.settings(
        max_examples=ROUND,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(INPUTS[name])
    def run(data):
        nonlocal runs, failed
        runs += 1
        try:
            TARGETS[name](data)
        except BaseException:
            failed = data
            raise

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            run()
        except Exception as error:  # noqa: BLE001 - told, and kept
            say(f"{name}: {error!r}")
            return runs, failed
    return runs, None


def say(line):
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main():
    """Fuzz the targets that the command line names, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300.0, help="for each target (300)")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    given = parser.parse_args()
    unknown = set(given.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))} (known: {', '.join(TARGETS)})")
    found = 0
    for name in given.targets or TARGETS:
        runs, failed = fuzz(name, given.seconds)
        say(f"{name}: {runs} inputs")
        if failed is not None:
            found += 1
            path = CORPUS / name / f"{hashlib.sha256(failed).hexdigest()[:16]}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(failed)
            say(f"{name}: an input that fails is in {path}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
