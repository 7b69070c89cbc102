"""Run the tests of each adapter, and its framework's own, with the oldest and the newest releases.

    python tests/tools/frameworks.py [ADAPTER …]

It installs each release into the environment that runs it, one after another, so give it one of its own:
`tox -e frameworks`. It prints a table, and ends with 1 if a run failed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DJANGO_SUITE = "plugins/shardcache-django/tests/django_suite/run.py"


class Run(NamedTuple):
    """One run: what is installed for it, and the arguments of Python."""

    adapter: str
    requirements: tuple[str, ...]
    arguments: tuple[str, ...]


def _tests(adapter: str, *requirements: str) -> Run:
    return Run(adapter, requirements, ("-m", "pytest", "-n", "2", f"plugins/shardcache-{adapter}"))


# The oldest releases are those that the adapters' own `pyproject.toml` state. Django has a release between
# the oldest and the newest that it still supports.
RUNS = (
    _tests("django", "django==5.2"),
    Run("django", ("django==5.2.19",), (DJANGO_SUITE, "5.2.19")),
    _tests("django", "django==6.0.10"),
    Run("django", ("django==6.0.10",), (DJANGO_SUITE, "6.0.10")),
    _tests("django", "django==6.1.3"),
    Run("django", ("django==6.1.3",), (DJANGO_SUITE, "6.1.3")),
    _tests("flask", "cachelib==0.9.0", "Flask-Caching==2.1.0"),
    _tests("flask", "cachelib==0.17.0", "Flask-Caching==2.5.1"),
    _tests("dogpile", "dogpile.cache==1.3.0"),
    _tests("dogpile", "dogpile.cache==1.5.0"),
    _tests("fastapi", "fastapi==0.115.0", "litestar==2.8.0"),
    _tests("fastapi", "fastapi==0.165.0", "litestar==2.25.0"),
    _tests("prometheus", "prometheus_client==0.20.0"),
    _tests("prometheus", "prometheus_client==0.26.0"),
    _tests("opentelemetry", "opentelemetry-api==1.33.0", "opentelemetry-sdk==1.33.0"),
    _tests("opentelemetry", "opentelemetry-api==1.45.2", "opentelemetry-sdk==1.45.2"),
    Run("pymemcache", ("pymemcache==4.0.0",), ("tests/compat/judge.py", "4.0.0")),
)


def main(adapters: list[str]) -> int:
    """Run those of some adapters, by default of all; return the status of the program."""
    known = sorted({run.adapter for run in RUNS})
    unknown = sorted(set(adapters) - set(known))
    if unknown:
        sys.stderr.write(f"no such adapter: {', '.join(unknown)} (known: {', '.join(known)})\n")
        return 2
    lines = [_play(run) for run in RUNS if run.adapter in (adapters or known)]
    sys.stdout.write("\n".join(("", *(line for line, _ in lines), "")))
    return 0 if all(good for _, good in lines) else 1


def _play(run: Run) -> tuple[str, bool]:
    """Return a line about a run, and whether it passed."""
    began = time.monotonic()
    install = ("-m", "pip", "install", "--quiet", *run.requirements)
    statuses = [
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=False).returncode
        for arguments in (install, run.arguments)
    ]
    good = statuses == [0, 0]
    what = f"{' '.join(run.requirements)}: {Path(run.arguments[-1]).name}"
    seconds = time.monotonic() - began
    return f"{'passed' if good else 'FAILED'}  {run.adapter:14}{what} ({seconds:.0f} s)", good


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
