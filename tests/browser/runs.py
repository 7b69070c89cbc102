"""A run as our tab of Locust's page shows it: its rows, their names, its verdict."""

from __future__ import annotations

from typing import NamedTuple

from browser.pages import Page, Row

TAB = "shardcache"
SHORT = ("-u", "4", "-t", "6s")  # the options of a run in the tests


class Played(NamedTuple):
    """The rows of the tab during a run, and after it."""

    live: list[Row]
    after: list[Row]


def watch(page: Page) -> Played:
    """Open the tab during a run, and wait for the end of the run."""
    page.look_at(TAB)
    live = page.wait_for_rows(lambda rows: verdict(rows) == "running")
    return Played(live, page.wait_for_rows(is_over))


def verdict(rows: list[Row]) -> str:
    """Return the verdict on the whole run, from the first row."""
    return rows[0][-1] if rows else ""


def is_over(rows: list[Row]) -> bool:
    """Return whether the rows are those of a run that is over."""
    return verdict(rows) in {"holds", "MISSED"}
