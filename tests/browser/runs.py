"""A run as our tab of Locust's page tells of it: its rows, their names, its verdict."""

from __future__ import annotations

from typing import NamedTuple

from browser.pages import Page, Row

TAB = "shardcache"
SHORT = ("-u", "4", "-t", "6s")  # what Locust is told for a run of the tests


class Played(NamedTuple):
    """What the tab showed of a run: rows while it was on, and rows after it."""

    live: list[Row]
    after: list[Row]


def watch(page: Page) -> Played:
    """Turn to the tab while a run is on, and see it to its end."""
    page.look_at(TAB)
    live = page.wait_for_rows(lambda rows: verdict(rows) == "running")
    return Played(live, page.wait_for_rows(is_over))


def verdict(rows: list[Row]) -> str:
    """Return what the first row says of the run as a whole."""
    return rows[0][-1] if rows else ""


def is_over(rows: list[Row]) -> bool:
    """Return whether the rows are those of a run that is over."""
    return verdict(rows) in {"holds", "MISSED"}
