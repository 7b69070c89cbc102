"""One fault met in several ways: a picture with a line for each, and a table of their figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pages import SUFFIX, MatplotlibMissingError, Run, mark, milliseconds, percent
from scenarios import Variant

COMPARED: Final[dict[str, Sequence[Variant]]] = {
    "node-stopped": [Variant("miss"), Variant("next"), Variant("gutter")],
    "node-killed": [Variant("miss"), Variant("next"), Variant("gutter")],
    "node-added": [Variant(), Variant(warm_for=600)],
}
FIGURES: Final = "nodes.json"  # of all pictures in a directory, as they are shown under them
COLORS: Final = ("#b91c1c", "#15803d", "#1d4ed8")
DASHES: Final = ("-", "--", ":")  # so that lines that lie on each other are all seen


def read(report: Path, scenario: str, servers: str) -> list[Run]:
    """Return the runs of a scenario that a directory of reports has, one for each way."""
    return [
        json.loads((report / f"{scenario}-{servers}{way.suffix}{SUFFIX}").read_text("utf-8"))
        for way in COMPARED[scenario]
    ]


def write(directory: Path, runs: Sequence[Run]) -> str:
    """Draw the runs of one scenario, keep their figures, and return them as a table."""
    scenario = runs[0]["scenario"]
    directory.mkdir(parents=True, exist_ok=True)
    draw(directory / f"{scenario}.svg", runs)
    kept = directory / FIGURES
    figures = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    figures[scenario] = [
        {"title": run["title"], "label": label(run), "held": run["held"], **run["outcome"]}
        for run in runs
    ]
    kept.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return table(figures[scenario])


def label(run: Run) -> str:
    """Return how a run met its fault, as it is written in a program."""
    if run["scenario"] == "node-added":
        return f"warm_for={run['warm_for']:g}"
    return "Gutter" if run["failover"] == "gutter" else f'"{run["failover"]}"'


def table(figures: Sequence[dict[str, Any]]) -> str:
    """Return hit rate, calls of the source and p99 of each run, as a table of Markdown.

    They are those of the time of the fault; the first row has those of the first run before it.
    """
    rows = [
        ("before", figures[0]["before"]),
        *((f"`{one['label']}`", one["during"]) for one in figures),
    ]
    return "\n".join(["| | hit rate | source calls | p99 |", "|---|---|---|---|", *map(_row, rows)])


def _row(row: tuple[str, dict[str, Any]]) -> str:
    name, seen = row
    p99 = f"{seen['p99'] * 1000:.2g} ms"
    return f"| {name} | {seen['hit_rate']:.1%} | {seen['loads']:.0f} | {p99} |"


def draw(path: Path, runs: Sequence[Run]) -> None:
    """Draw hit rate, calls of the source and p99 over time, a line for each run, to an SVG.

    Raise `MatplotlibMissingError` without matplotlib.
    """
    try:
        from matplotlib import rc_context  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415 - few runs draw
        from matplotlib.ticker import NullFormatter  # noqa: PLC0415
    except ImportError:
        raise MatplotlibMissingError from None
    figure = Figure(figsize=(7, 5), layout="constrained")
    rates, loads, times = figure.subplots(3, sharex=True)
    for run, color, dash in zip(runs, COLORS, DASHES, strict=False):
        seconds = [point["second"] + 0.5 for point in run["series"]]
        style = {"color": color, "linestyle": dash, "label": label(run)}
        rates.plot(seconds, [percent(point["hit_rate"]) for point in run["series"]], **style)
        loads.plot(seconds, [point["loads"] for point in run["series"]], **style)
        times.plot(seconds, [milliseconds(point["p99"]) for point in run["series"]], **style)
    rates.set_ylabel("hit rate, %")
    rates.legend(loc="lower right")
    loads.set_ylabel("source calls/s")
    times.set_ylabel("p99, ms")
    times.set_yscale("log")
    times.yaxis.set_major_formatter("{x:g}")
    times.yaxis.set_minor_formatter(NullFormatter())
    times.set_xlabel("seconds")
    for axes in (rates, loads, times):
        axes.grid(alpha=0.3)
        axes.set_xlim(0, runs[0]["seconds"])
        mark(axes, {**runs[0], "ejected": [], "restored": []})
    figure.suptitle(f"{runs[0]['scenario']}: three {runs[0]['servers']}, {runs[0]['users']} users")
    with rc_context({"svg.fonttype": "none", "font.family": "sans-serif"}):  # text stays text
        figure.savefig(path, format="svg", metadata={"Date": None})
