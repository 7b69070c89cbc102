"""Play the scenarios one after another: `python loadtests/locust/suite.py [--quick] [scenario …]`.

Each is a Locust of its own on servers of its own. All figures, pictures and pages are in the
directory `report`, with one page of them all, `index.html`.

With `--compare DIR` the scenarios in which nodes die or are added are played once for each failover,
with and without a warm-up, and drawn into one picture each, in DIR.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import comparisons
from rich.console import Console
from rich.table import Table
from scenarios import SCENARIOS, Variant

LOCUSTFILE: Final = Path(__file__).parent / "locustfile.py"
KINDS: Final = ("memcached", "redis", "both")
QUICK: Final = ("steady", "stampede", "app", "examples")  # those that judge no times
SECONDS, QUICK_SECONDS = 30, 8
QUICK_USERS: Final = 40
SPARE: Final = 90.0  # seconds that a run may take beyond its own

STATUSES: Final = {0: "holds", 1: "MISSED", 2: "refused"}
LEFT: Final = ("figures.json", "svg")  # that a page would take for this run's


@dataclass(frozen=True, slots=True)
class Play:
    """One run to play."""

    scenario: str
    servers: str
    seconds: int
    report: Path
    more: Sequence[str]
    variant: Variant = Variant()  # noqa: RUF009 - a frozen value

    def forget(self) -> None:
        """Remove the figures of an earlier run of the same."""
        for suffix in LEFT:
            self._file(suffix).unlink(missing_ok=True)

    def verdict(self, status: int) -> str:
        """Return its result, from its figures if it has any."""
        figures = self._file("figures.json")
        if figures.exists():
            return str(json.loads(figures.read_text(encoding="utf-8"))["verdict"])
        return STATUSES.get(status, f"ended with status {status}")

    def _file(self, suffix: str) -> Path:
        return self.report / f"{self.name}.{suffix}"

    @property
    def name(self) -> str:
        """Return what its files are called."""
        return f"{self.scenario}-{self.servers}{self.variant.suffix}"

    @property
    def command(self) -> list[str]:
        """Return the command that plays it."""
        name = self.report / self.name
        return [
            *[sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless"],
            *["--only-summary", "--scenario", self.scenario, "--own-servers", self.servers],
            *["--failover", self.variant.failover, "--warm-for", f"{self.variant.warm_for:g}"],
            *["-t", f"{self.seconds}s", "--report", str(self.report)],
            *["--html", f"{name}.locust.html", "--csv", str(name), *self.more],
        ]


def main() -> int:
    """Play the chosen scenarios; return 1 unless every verdict holds."""
    arguments = _arguments()
    arguments.report.mkdir(parents=True, exist_ok=True)
    console = Console()
    table = Table("scenario", "how", "servers", "verdict")
    statuses = []
    for play in _plays(arguments):
        console.rule(play.name)
        play.forget()
        statuses.append(_status(play))
        how = play.variant.suffix.removeprefix("-")
        table.add_row(play.scenario, how, play.servers, play.verdict(statuses[-1]))
    console.print(table)
    console.print(f"pictures: {arguments.report / 'index.html'}", soft_wrap=True)
    if arguments.compare:
        for name in _compared(arguments):
            runs = comparisons.read(arguments.report, name, arguments.servers)
            console.print(f"\n{name}\n{comparisons.write(arguments.compare, runs)}", soft_wrap=True)
    return 1 if any(statuses) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="suite", description="Play load-test scenarios.")
    parser.add_argument(
        "scenarios", nargs="*", metavar="scenario", help=f"default: all ({', '.join(SCENARIOS)})"
    )
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)}, shorter")
    parser.add_argument(
        "--servers",
        choices=[*KINDS, "all"],
        default="both",
        help="three nodes of a kind, three of each (the default), or one after the other",
    )
    parser.add_argument("--report", type=Path, default=Path("report"), help="default: report")
    parser.add_argument("--seconds", type=int, help=f"of each run (default: {SECONDS})")
    parser.add_argument("--profile", default="", help="the traffic: a name or a TOML file")
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="DIR",
        help=f"draw {', '.join(comparisons.COMPARED)} in each way that a client may meet them",
    )
    arguments = parser.parse_args()
    if arguments.compare and arguments.servers == "all":
        parser.error("--compare draws one kind of servers: memcached, redis or both")
    unknown = [name for name in arguments.scenarios if name not in SCENARIOS]
    if unknown:
        parser.error(f"no scenario {', '.join(unknown)} (known: {', '.join(SCENARIOS)})")
    return arguments


def _plays(arguments: argparse.Namespace) -> Iterator[Play]:
    names = arguments.scenarios or (QUICK if arguments.quick else SCENARIOS)
    seconds = arguments.seconds or (QUICK_SECONDS if arguments.quick else SECONDS)
    more = ["-u", str(QUICK_USERS)] if arguments.quick else []
    if arguments.profile:
        more += ["--profile", arguments.profile]
    if arguments.compare:
        for name in _compared(arguments):
            for way in comparisons.COMPARED[name]:
                yield Play(name, arguments.servers, seconds, arguments.report, more, way)
        return
    for servers in KINDS if arguments.servers == "all" else (arguments.servers,):
        for name in names:
            yield Play(name, servers, seconds, arguments.report, more)


def _compared(arguments: argparse.Namespace) -> list[str]:
    """Return the scenarios to compare: those that were named, or all."""
    return [name for name in comparisons.COMPARED if name in (arguments.scenarios or SCENARIOS)]


def _status(play: Play) -> int:
    """Play a run and show its output; return its exit status."""
    try:
        return subprocess.run(play.command, check=False, timeout=play.seconds + SPARE).returncode
    except subprocess.TimeoutExpired:
        return -1


if __name__ == "__main__":
    sys.exit(main())
