"""The report of a run: lines in the terminal, and files."""

from __future__ import annotations

import html
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pages
from figures import Window
from rich.console import Console
from rich.table import Table
from scenarios import Variant
from verdicts import BY_HAND, LOCKED, VOID, Check, Record, held

SERVERS: Final = {"both": "memcached and redis", "given": "servers of --cache-url"}
RECENT: Final = 2.0  # seconds that a line of progress is about
MARKS: Final = {True: "holds", False: "MISSED", None: "shown"}
ROOT: Final = '<div id="root"></div>'  # before which our part of Locust's page stands

log = logging.getLogger("shardcache.loadtest")


def progress(record: Record, moment: float) -> str:
    """Return a line on the last seconds of a run."""
    figures = record.figures
    recent = figures.recent(moment, RECENT)
    rate, p99 = figures.hit_rate(recent), figures.percentile(0.99, recent)
    parts = [
        f"{moment:.0f} s of {record.timeline.seconds:.0f}",
        f"{figures.total('calls', recent) / RECENT:.0f} calls/s",
        "nothing read" if rate is None else f"{rate:.1%} hits",
        "no calls" if p99 is None else f"p99 {p99 * 1000:.1f} ms",
        f"{figures.total('errors'):.0f} errors",
    ]
    return ", ".join(parts)


def show(record: Record, checks: Sequence[Check]) -> None:
    """Print the verdict: a row for each check, the share of each node, and what a call cost."""
    table = Table(title=title(record), title_justify="left")
    for heading in ("what must hold", "measured", ""):
        table.add_column(heading, overflow="fold")
    for check in checks:
        table.add_row(check.what, check.measured, MARKS[check.held])
    console = Console()
    console.print(table)
    console.print(summary(record), soft_wrap=True, highlight=False)
    console.print(f"verdict: {verdict(checks)}", style="bold", highlight=False)


def title(record: Record) -> str:
    """Return what was run, in one line."""
    how = described(record.variant)
    return (
        f"{record.scenario}{how} on {SERVERS.get(record.servers, record.servers)}:"
        f" profile {record.profile.name},"
        f" {record.users} users, {record.timeline.seconds:.0f} s"
    )


def described(variant: Variant) -> str:
    """Return how a client differs from one as it comes, in words that follow a scenario's name.

    >>> described(Variant()), described(Variant("next")), described(Variant(warm_for=600))
    ('', ', failover next', ', warm_for 600')
    """
    failover = "" if variant.failover == "miss" else f", failover {variant.failover}"
    return failover + (f", warm_for {variant.warm_for:g}" if variant.warm_for else "")


def verdict(checks: Sequence[Check]) -> str:
    """Return the verdict in a line."""
    missed = [check.what for check in checks if check.held is False]
    if missed:
        return f"MISSED: {'; '.join(missed)}"
    void = sum(VOID in check.measured for check in checks)
    return f"holds; {void} checks void, this machine was too busy" if void else "holds"


def summary(record: Record) -> str:
    """Return the calls and their cost, in two lines."""
    figures = record.figures
    calls = figures.total("calls")
    shares = figures.by_node("calls")
    nodes = ", ".join(f"{node} {count / calls:.1%}" for node, count in shares.items() if calls)
    cpu = figures.total("cpu")
    cost = f"{cpu / calls * 1e6:.0f} µs of processor time a call" if calls else "no calls"
    lag = figures.lag_percentile(1.0)
    longest = "" if lag is None else f"; longest gap of the hub {lag * 1000:.0f} ms"
    return f"calls by node: {nodes or 'none'}\n{calls:.0f} calls in all, {cost}{longest}"


def write(record: Record, checks: Sequence[Check], directory: str) -> None:
    """Write figures, picture and page to a directory, if there is to be one."""
    if not directory:
        return
    try:
        pages.write(Path(directory), plain(record, checks))
    except (OSError, pages.MatplotlibMissingError) as error:
        log.error("no report in %s: %s", directory, error)  # noqa: TRY400 - one line


def add_to_locust_page(record: Record, checks: Sequence[Check], page: Path) -> None:
    """Add the verdict to the page that Locust has written."""
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace(ROOT, _section(record, checks) + ROOT, 1), encoding="utf-8")


def plain(record: Record, checks: Sequence[Check]) -> dict[str, Any]:
    """Return a run for JSON."""
    line, figures = record.timeline, record.figures
    return {
        "scenario": record.scenario,
        "servers": record.servers,
        "users": record.users,
        "failover": record.variant.failover,
        "warm_for": record.variant.warm_for,
        "name": f"{record.scenario}-{record.servers}{record.variant.suffix}",
        "title": title(record),
        "held": held(checks),
        "verdict": verdict(checks),
        "summary": summary(record),
        "checks": [[check.what, check.measured, MARKS[check.held]] for check in checks],
        "seconds": line.seconds,
        "fault": figures.moments("fault"),
        "repaired": figures.moments("repaired"),
        "ejected": figures.moments("ejected"),
        "restored": figures.moments("restored"),
        "outcome": _outcome(record),
        "series": [_point(record, begin) for begin in range(int(line.seconds))],
    }


def _point(record: Record, begin: int) -> dict[str, float | None]:
    """Return the figures of one second."""
    second, figures = Window(begin, begin + 1), record.figures
    return {
        "second": begin,
        "hit_rate": figures.hit_rate(second),
        "calls": figures.total("calls", second),
        "loads": figures.total("loads", second),
        "p50": figures.percentile(0.5, second),
        "p99": figures.percentile(0.99, second),
        "recomputes_locked": len(figures.moments(LOCKED, second)),
        "recomputes_by_hand": len(figures.moments(BY_HAND, second)),
    }


def _outcome(record: Record) -> dict[str, dict[str, float | None]]:
    """Return the hit rate, calls of the source and p99 before, during and after the fault."""
    line, figures = record.timeline, record.figures
    return {
        when: {
            "hit_rate": figures.hit_rate(within),
            "loads": figures.total("loads", within),
            "p99": figures.percentile(0.99, within),
        }
        for when, within in (
            ("before", line.before),
            ("during", line.during),
            ("after", line.after),
        )
    }


def _section(record: Record, checks: Sequence[Check]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(check.what)}</td><td>{html.escape(check.measured)}</td>"
        f"<td><b>{MARKS[check.held]}</b></td></tr>"
        for check in checks
    )
    return (
        '<section id="shardcache" style="font-family:sans-serif;margin:2em">'
        f"<h2>shardcache: {html.escape(verdict(checks))}</h2><p>{html.escape(title(record))}</p>"
        f'<table cellpadding="6">{rows}</table><pre>{html.escape(summary(record))}</pre></section>'
    )
