"""What a run prints and saves: tables, the goals row by row, JSON, and bars."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from bench.goals import GOALS, Goal, Results, Sense
from bench.peers import PEERS, Attendance
from bench.rounds import Figure, Figures

STYLES: Final = {"held": "green", "stretch": "bold green"}
ABSENT: Final = "–"


def table_of_case(title: str, figures: Figures) -> Table:
    """Return a table of a case's subjects, each with its ratio to the first."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None)
    for column in ("subject", "µs", "CPU µs", "ratio", "spread"):
        table.add_column(column, justify="left" if column == "subject" else "right")
    first = next(iter(figures.values()), None)
    for name, figure in figures.items():
        if figure.unit != "s":
            table.add_row(Text(name), f"{figure.value:,.1f} {figure.unit}", "", "", "")
            continue
        ratio = ABSENT if not first or not first.value else f"{figure.value / first.value:.2f}"
        cpu = "" if figure.cpu is None else f"{figure.cpu * 1e6:,.1f}"
        spread = "" if figure.spread is None else f"{figure.spread:.0%}"
        table.add_row(Text(name), f"{figure.value * 1e6:,.2f}", cpu, ratio, spread)
    return table


def table_of_goals(results: Results, *, whole: bool = True) -> Table:
    """Return the goals with what this run measured: held, or missed by how much.

    Unless `whole`, goals whose cases were not asked for are left out.
    """
    table = Table(title="Goals", title_justify="left", title_style="bold", box=None)
    for column in ("work", "in", "before", "now", "reach", "stretch", ""):
        right = column in {"before", "now", "reach", "stretch"}
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for goal, row in zip(GOALS, rows_of_goals(results), strict=True):
        if not whole and goal.case not in results:
            continue
        verdict = row["verdict"]
        style = STYLES.get(verdict, "red" if verdict.startswith("missed") else "dim")
        table.add_row(
            row["work"],
            row["in"],
            row["before"],
            _number(row["now"]),
            _bound(row["sense"], row["reach"]),
            _bound(row["sense"], row["stretch"]),
            Text(verdict, style=style),
        )
    return table


def markdown_of_goals(results: Results) -> str:
    """Return the table of goals as a page shows it: four columns, which fit a telephone."""
    lines = ["| work | now | reach | |", "|---|---|---|---|"]
    for row in rows_of_goals(results):
        work = f"{row['work']} *({row['in']})*" if row["in"] else row["work"]
        reach = _bound(row["sense"], row["reach"])
        if row["stretch"] is not None:
            reach += f" ({_bound(row['sense'], row['stretch'])})"
        lines.append(f"| {work} | {_number(row['now'])} | {reach} | {row['verdict']} |")
    return "\n".join(lines) + "\n"


def rows_of_goals(results: Results) -> list[dict[str, Any]]:
    """Return each goal as JSON has it."""
    rows = []
    for goal in GOALS:
        base = goal.base(results)
        against = " or ".join(goal.bases) if base is None else base[0]
        rows.append(
            {
                "work": goal.work,
                "in": f"{goal.sense.value} {against}".strip() or goal.unit[1],
                "sense": goal.sense.name,
                "before": goal.before,
                "now": goal.measured(results),
                "reach": goal.reach,
                "stretch": goal.stretch,
                "verdict": goal.verdict(results),
            }
        )
    return rows


def lines_of_absence(attendance: Attendance) -> Iterator[Text]:
    """Yield a line for each subject that took no part, with the reason."""
    for name, reason in attendance.left_out.items():
        yield Text(f"left out: {name}: {reason}", style="yellow")


def save(path: Path, results: Results, attendance: Attendance, seconds: float) -> None:
    """Write all figures, the goals, who took part and on what machine, as JSON."""
    document = {
        "machine": {
            "python": platform.python_version(),
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "load": os.getloadavg(),
            "seconds": round(seconds, 1),
        },
        "versions": versions(),
        "left_out": attendance.left_out,
        "goals": rows_of_goals(results),
        "cases": {
            case: {name: _plain(figure) for name, figure in figures.items()}
            for case, figures in results.items()
        },
    }
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def versions() -> Mapping[str, str]:
    """Return the versions of shardcache and of each peer that is installed."""
    found = {}
    for distribution in ("shardcache", *sorted({peer.distribution for peer in PEERS.values()})):
        try:
            found[distribution] = version(distribution)
        except PackageNotFoundError:
            continue
    return found


def is_missed(goal: Goal, results: Results) -> bool:
    """Return whether a goal was measured and missed."""
    return goal.verdict(results).startswith("missed")


def _plain(figure: Figure) -> dict[str, Any]:
    told = {"value": figure.value, "cpu": figure.cpu, "spread": figure.spread, "unit": figure.unit}
    return {name: value for name, value in told.items() if value is not None}


def _number(value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"


def _bound(sense: str, value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{'≥' if sense == Sense.FASTER.name else '≤'} {value:g}"
