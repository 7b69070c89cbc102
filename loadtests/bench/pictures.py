"""Pictures as SVG: bars of each kind of work, and curves of growth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import LogLocator, NullFormatter

from bench.goals import Results
from bench.rounds import Figures

OURS: Final = "#1d4ed8"
FLOOR: Final = "#9ca3af"
PEERS: Final = "#f59e0b"
CURVES: Final = ("#1d4ed8", "#f59e0b", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#9ca3af")
FLOORS: Final = ("raw", "multiplexer")

# The pictures of a run, each of several cases.
BARS: Final[Mapping[str, Sequence[str]]] = {
    "blocking-memcached": (
        *(f"{name}, 8 memcached" for name in ("get", "set", "incr", "delete")),
        *(f"{name}(100), 8 memcached" for name in ("get_many", "set_many", "delete_many")),
    ),
    "blocking-redis": (
        *(f"{name}, 8 redis" for name in ("get", "set", "incr", "delete")),
        *(f"{name}(100), 8 redis" for name in ("get_many", "set_many", "delete_many")),
    ),
    "asyncio": tuple(
        f"async get, {tasks} tasks, 8 {kind}"
        for kind in ("memcached", "redis")
        for tasks in ("50", "500", "5,000")
    ),
    "large-values": tuple(
        f"{operation} {size}, 8 {kind}"
        for kind in ("memcached", "redis")
        for size in ("100 KiB", "1 MB")
        for operation in ("get", "set")
    ),
}


def draw_bars(directory: Path, results: Results) -> list[Path]:
    """Draw the pictures whose cases were measured; return their paths."""
    drawn = []
    for name, cases in BARS.items():
        there = {case: results[case] for case in cases if results.get(case)}
        if there:
            path = directory / f"{name}.svg"
            _save(_bars(there), path)
            drawn.append(path)
    return drawn


def _bars(cases: Mapping[str, Figures]) -> Drawing:
    """Return a column of charts: time a call of each subject, against the fastest that is no floor."""
    heights = [len(figures) for figures in cases.values()]
    figure = Drawing(figsize=(9, 0.32 * sum(heights) + 0.55 * len(heights)), layout="constrained")
    charts = figure.subplots(len(cases), squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, (case, figures) in zip(charts[:, 0], cases.items(), strict=True):
        ours = figures["shardcache"].value
        names = list(figures)[::-1]
        ratios = [figures[name].value / ours for name in names]
        shown = [min(ratio, 6.0) for ratio in ratios]
        axes.barh(names, shown, color=[_color(name) for name in names], height=0.7)
        for row, ratio in enumerate(ratios):
            axes.text(min(ratio, 6.0), row, f" {ratio:.2f}", va="center", fontsize=8)
        axes.set_title(case, loc="left", fontsize=9)
        axes.set_xlim(0, 6.6)
        axes.tick_params(labelsize=8, bottom=False, labelbottom=False)
        for side in ("top", "right", "bottom"):
            axes.spines[side].set_visible(False)
    figure.suptitle("time a call, in times of shardcache's (shorter is faster)", fontsize=10)
    return figure


def draw_curves(  # noqa: PLR0913 - what a picture says
    path: Path,
    title: str,
    across: str,
    up: str,
    curves: Mapping[str, Sequence[tuple[float, float]]],
    *,
    logarithmic: bool = True,
) -> None:
    """Draw one curve for each name, over a logarithmic axis, to an SVG."""
    figure = Drawing(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for (name, points), color in zip(curves.items(), CURVES, strict=False):
        axes.plot(*zip(*points, strict=True), label=name, color=color, marker="o", markersize=3)
    axes.set_xscale("log")
    if logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter("{x:,g}")
    places = sorted({place for points in curves.values() for place, _ in points})
    axes.set_xticks(places, [f"{place:,g}" for place in places], rotation=30, fontsize=8)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    axes.set_title(title, loc="left", fontsize=10)
    _save(figure, path)


def _color(name: str) -> str:
    if name in FLOORS:
        return FLOOR
    return OURS if name.startswith("shardcache") else PEERS


def _save(figure: Any, path: Path) -> None:  # matplotlib's
    with rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "bench"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
