"""Our tab shows a run that the form starts: figures during the run, then its verdict."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from browser.pages import Page
from browser.runs import TAB, Played, is_over, verdict, watch

CHECKED = [
    "no errors that reached a caller",
    "no values of another key",
    "no worker lost",
    "hit rate within 1 point of the profile's 97.9%",
    "no writes that were not stored",
    "no nodes ejected",
]
FIGURES = {
    *("calls a second", "hit rate", "p99 of a call", "errors", "calls by node", "nodes ejected"),
    "calls not made in time",
}


@pytest.fixture(scope="module", autouse=True)
def played(page: Page, run_locust) -> Iterator[Played]:
    """Yield the rows of a run; the page still shows it."""
    with run_locust() as url:
        page.open(url)
        page.fill(userCount="4", scenario="steady")
        page.start()
        yield watch(page)


def test_a_run_shows_its_figures_until_its_end(played):
    """The tab shows at any moment how far the run is, and how the servers are."""
    assert played.live[0][0] == "steady on memcached: profile read-mostly, 4 users, 6 s"
    assert played.live[0][1].endswith(" s of 6 s")
    assert {name for name, _, _ in played.live} >= FIGURES


def test_a_run_is_not_judged_before_its_end(played):
    """No check is called missed before the end of the run."""
    assert {mark for _, _, mark in played.live[1:]} == {""}


def test_a_run_that_is_over_shows_each_check_with_its_verdict(played):
    """Every check is a row that holds, below the verdict on all of them."""
    marks = {name: mark for name, _, mark in played.after}
    assert verdict(played.after) == "holds"
    assert {name: marks.get(name) for name in CHECKED} == dict.fromkeys(CHECKED, "holds")
    assert marks["calls made of those that were due"] == "shown"


def test_the_statistics_name_our_calls(page):
    """Locust's own table has a row for each kind of call."""
    page.look_at("STATISTICS")
    rows = page.wait_for_rows(bool)
    assert {"get hit", "get miss"} <= {row[1] for row in rows}


@pytest.mark.parametrize("pixels", [390, 1280])
def test_the_tab_fits_the_screen(page, pixels):
    """A table that is too wide scrolls within the page; the page never scrolls sideways."""
    page.look_at(TAB)
    page.wait_for_rows(is_over)
    with page.width(pixels):
        assert page.browser.execute_script("return document.documentElement.scrollWidth") <= pixels


def test_no_request_leaves_the_machine(page):
    """The page, from its form to the verdict, requests nothing but from Locust."""
    requested = [urlsplit(url) for url in page.requested_urls()]
    # The browser opens with its own page, whose content comes from the browser itself.
    asked = [url for url in requested if url.scheme not in {"chrome", "chrome-untrusted", "data"}]
    assert {"/", "/swarm", "/stats/requests"} <= {url.path for url in asked}
    assert {url.hostname for url in asked} == {"127.0.0.1"}
