"""The directory of a report: figures and a picture of each run, and one page of them all."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

COLORS: Final = {"hits": "#15803d", "calls": "#1d4ed8", "p50": "#9ca3af", "p99": "#b91c1c"}
SUFFIX: Final = ".figures.json"

# Runs are what `report.plain` makes of them, in JSON, hence `Any`.
Run = dict[str, Any]


class MatplotlibMissingError(RuntimeError):
    """matplotlib is not installed; the error tells how to install it."""

    def __init__(self) -> None:
        super().__init__("drawing needs matplotlib; it comes with: pip install --group load")


def write(directory: Path, run: Run) -> None:
    """Write a run's figures and picture, and rewrite the page of all runs in the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    name = run["name"]
    (directory / f"{name}{SUFFIX}").write_text(json.dumps(run, indent=1), encoding="utf-8")
    draw(directory / f"{name}.svg", run)
    runs = [json.loads(path.read_text("utf-8")) for path in sorted(directory.glob(f"*{SUFFIX}"))]
    (directory / "index.html").write_text(page(runs), encoding="utf-8")


def page(runs: Sequence[Run]) -> str:
    """Return the page that shows all runs: a picture and a line of verdict for each."""
    parts = "".join(map(_part, runs))
    held = sum(run["held"] for run in runs)
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Load test</title>
<style>
body {{ font-family: sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em }}
img {{ width: 100%; height: auto }}
td {{ padding: .2em 1em .2em 0; vertical-align: top }}
.MISSED {{ color: #b91c1c; font-weight: bold }}
pre {{ white-space: pre-wrap }}
</style>
<h1>Load test: {held} of {len(runs)} verdicts hold</h1>
{parts}
</html>
"""


def _part(run: Run) -> str:
    name = run["name"]
    mark = "" if run["held"] else "MISSED"
    rows = "".join(
        f'<tr><td>{html.escape(what)}</td><td>{html.escape(measured)}</td><td class="{mark}">{mark}'
        "</td></tr>"
        for what, measured, mark in run["checks"]
    )
    return f"""<h2 id="{name}">{html.escape(run["title"])}</h2>
<img src="{name}.svg" alt="hit rate, calls and p99 over time">
<p class="{mark}">Verdict: {html.escape(run["verdict"])}</p>
<details><summary>What was checked</summary><table>{rows}</table>
<pre>{html.escape(run["summary"])}</pre></details>
"""


def draw(path: Path, run: Run) -> None:
    """Draw hit rate, calls a second, p50 and p99 over time, with the fault marked, to an SVG.

    Raise `MatplotlibMissingError` without matplotlib.
    """
    try:
        from matplotlib import rc_context  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415 - few runs draw
        from matplotlib.ticker import LogLocator, NullFormatter  # noqa: PLC0415
    except ImportError:
        raise MatplotlibMissingError from None
    series = run["series"]
    seconds = [point["second"] + 0.5 for point in series]
    figure = Figure(figsize=(9, 6), layout="constrained")
    rates, calls, times = figure.subplots(3, sharex=True)
    if any(point["hit_rate"] is not None for point in series):
        _line(rates, seconds, [percent(point["hit_rate"]) for point in series], "hits")
        rates.set_ylabel("hit rate, %")
    else:
        _line(rates, seconds, [point["recomputes_by_hand"] for point in series], "by hand", "p99")
        _line(rates, seconds, [point["recomputes_locked"] for point in series], "lock", "hits")
        rates.set_ylabel("recomputes")
        rates.set_yscale("symlog")
        rates.legend(loc="upper right")
    _line(calls, seconds, [point["calls"] for point in series], "calls")
    calls.set_ylabel("calls a second")
    calls.set_ylim(bottom=0)
    _line(times, seconds, [milliseconds(point["p99"]) for point in series], "p99")
    _line(times, seconds, [milliseconds(point["p50"]) for point in series], "p50")
    times.set_ylabel("milliseconds")
    times.set_yscale("log")
    times.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    times.yaxis.set_major_formatter("{x:g}")
    times.yaxis.set_minor_formatter(NullFormatter())
    times.set_xlabel("seconds")
    times.legend(loc="upper right")
    for axes in (rates, calls, times):
        axes.grid(alpha=0.3)
        axes.set_xlim(0, run["seconds"])
        mark(axes, run)
    figure.suptitle(run["title"])
    with rc_context({"svg.fonttype": "none", "font.family": "sans-serif"}):  # text stays text
        figure.savefig(path, format="svg", metadata={"Date": None})


def _line(
    axes: Any, seconds: Sequence[float], values: Sequence[Any], label: str, color: str = ""
) -> None:
    axes.plot(seconds, values, label=label, color=COLORS[color or label])


def mark(axes: Any, run: Run) -> None:
    """Shade the time of the fault, and mark where a node was ejected and asked again."""
    for begin in run["fault"]:
        end = next((moment for moment in run["repaired"] if moment > begin), None)
        if end is None:
            axes.axvline(begin, color="black", linestyle="--")
        else:
            axes.axvspan(begin, end, color="#fca5a5", alpha=0.35)
    for what in ("ejected", "restored"):
        for moment in run[what]:
            axes.axvline(moment, color="#6b7280", linewidth=0.6, linestyle=":")


def percent(share: float | None) -> float | None:
    """Return a share as a percentage."""
    return None if share is None else share * 100


def milliseconds(seconds: float | None) -> float | None:
    """Return seconds as milliseconds."""
    return None if seconds is None else seconds * 1000
