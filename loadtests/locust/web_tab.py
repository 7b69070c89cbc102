"""A tab of Locust's web page with our figures, while a run is on and after it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import profiles
from director import Director
from figures import Event, Figures
from locust.runners import STATE_RUNNING, STATE_SPAWNING
from options import KEPT
from report import MARKS, RECENT, summary, title
from run import current
from verdicts import BY_HAND, LOCKED, Check, Record, held

KEY: Final = "shardcache"
STATS: Final = "/stats/requests"  # what the page asks for again and again, with the state in it
COLUMNS: Final = (("what", "What"), ("measured", "Measured"), ("verdict", "Verdict"))
LAST: Final = f", over the last {RECENT:.0f} s"
ASKS_AGAIN: Final = {STATE_RUNNING, STATE_SPAWNING}

# Locust's page, its runner and its responses have no types, hence `Any`.


class Row(NamedTuple):
    """A row of the tab. A figure has no verdict."""

    what: str
    measured: str
    verdict: str = ""


_last: list[Row] = []  # of a run that is over, or could not begin


def add_to(web_ui: Any, running: Callable[[], Director | None]) -> None:
    """Add the tab: its title and columns to the page, its rows to the data that the page fetches."""
    web_ui.template_args |= {
        "extended_tabs": [{"title": "shardcache", "key": KEY}],
        "extended_tables": [
            {"key": KEY, "structure": [{"key": key, "title": title} for key, title in COLUMNS]}
        ],
    }
    _adapt_form(web_ui)
    runner = web_ui.environment.runner

    @web_ui.app.after_request
    def add_rows(response: Any) -> Any:
        if response.status_code == 200 and _path().endswith(STATS):
            director = running()
            on = director is not None or runner.shape_greenlet is not None
            data = response.get_json()
            # In other states, as the ones before the first user and after the last, the page stops
            # asking: it would never see the run, or its verdict.
            if on and data["state"] not in ASKS_AGAIN:
                data["state"] = STATE_RUNNING
            rows = rows_of_run(director) if on else _last
            data["extended_stats"] = [{"key": KEY, "data": [row._asdict() for row in rows]}]
            response.set_data(json.dumps(data))
        return response


def keep(record: Record, checks: Sequence[Check]) -> None:
    """Keep showing the verdict of a run that is over."""
    _last[:] = rows_of_verdict(record, checks)


def refuse(why: str) -> None:
    """Show why a run could not begin."""
    _last[:] = [Row("the run could not begin", why, "refused")]


def rows_of_run(director: Director | None) -> Iterator[Row]:
    """Return the state of a run: the last seconds, and what has happened."""
    if director is None or not director.prepared:
        yield Row("the run is prepared", "servers are started, values are written", "starting")
        return
    record, moment = director.record(), current.moment()
    figures = record.figures
    recent = figures.recent(moment, RECENT)
    seconds = record.timeline.seconds
    yield Row(title(record), f"{min(moment, seconds):.0f} s of {seconds:.0f} s", "running")
    yield Row("calls a second", f"{figures.total('calls', recent) / RECENT:.0f}{LAST}")
    yield Row("hit rate", _share(figures.hit_rate(recent)))
    yield Row("p99 of a call", _milliseconds(figures.percentile(0.99, recent)))
    yield Row("errors", f"{figures.total('errors'):.0f}")
    yield Row("calls by node", _shares(figures))
    if figures.moments(LOCKED) or figures.moments(BY_HAND):
        yield Row("recomputes of the hot value", _recomputes(figures))
    if record.target:
        yield Row("fault", _happened(figures, "fault"))
    yield Row("nodes ejected", _happened(figures, "ejected"))
    yield Row("nodes asked again", _happened(figures, "restored"))
    yield Row("calls not made in time", f"{figures.total('not made'):.0f}")
    yield Row(
        "how late the load test itself wakes up, p99",
        _milliseconds(figures.lag_percentile(0.99, recent)),
    )


def rows_of_verdict(record: Record, checks: Sequence[Check]) -> Iterator[Row]:
    """Return the verdict of a run that is over, each check, and what it cost."""
    nodes, cost = summary(record).splitlines()
    yield _total(record, checks)
    for check in checks:
        yield Row(check.what, check.measured, MARKS[check.held])
    yield Row("calls by node", nodes.partition(": ")[2])
    yield Row("cost", cost)


def _total(record: Record, checks: Sequence[Check]) -> Row:
    if record.stopped is not None:
        seconds = record.timeline.seconds
        return Row(title(record), f"after {record.stopped:.0f} s of {seconds:.0f} s", "stopped")
    judged = [check.held for check in checks if check.held is not None]
    counted = f"{sum(judged)} of {len(judged)} checks hold"
    return Row(title(record), counted, MARKS[held(checks)])


def _adapt_form(web_ui: Any) -> None:
    """Let the form name the default profile, and ask for no host.

    Users visit the applications that the run starts itself.
    """
    update = web_ui.update_template_args

    def update_for_kit() -> None:
        update()
        profile = web_ui.template_args["profile"] or profiles.DEFAULT
        _hide_url(web_ui.template_args["extra_options"]["cache_url"])
        web_ui.template_args |= {"profile": profile, "host": "", "missing_host_warning": False}

    web_ui.update_template_args = update_for_kit


def _hide_url(option: dict[str, Any]) -> None:
    """Leave the URL out of the page: it may hold a password, and the page has no login."""
    if option["default_value"]:
        option["default_value"] = KEPT


def _path() -> str:
    from flask import request  # noqa: PLC0415 - only the process with a page has one

    return str(request.path)


def _shares(figures: Figures) -> str:
    calls = figures.total("calls")
    shares = figures.by_node("calls") if calls else {}
    return ", ".join(f"{node} {count / calls:.0%}" for node, count in shares.items()) or "none yet"


def _recomputes(figures: Figures) -> str:
    locked, by_hand = (len(figures.moments(what)) for what in (LOCKED, BY_HAND))
    return f"{locked} with the lock, {by_hand} by hand"


def _happened(figures: Figures, what: str) -> str:
    """Return where an event took place, and when first; several processes may have seen it."""
    events = sorted(one for one in figures.events if one.what == what)
    first: dict[str, Event] = {}
    for one in events:
        first.setdefault(one.where, one)
    return ", ".join(f"{node} at {one.moment:.1f} s" for node, one in first.items()) or "none"


def _share(share: float | None) -> str:
    return "nothing read" if share is None else f"{share:.1%}{LAST}"


def _milliseconds(seconds: float | None) -> str:
    return "no calls" if seconds is None else f"{seconds * 1000:.3g} ms{LAST}"
