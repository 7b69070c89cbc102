"""The form of Locust's page takes our options."""

from __future__ import annotations

import pytest

DEFAULTS = {
    "userCount": "4",
    "runTime": "6",
    "profile": "read-mostly",
    "cacheUrl": "",
    "ownServers": "memcached",
    "scenario": "steady",
    "shape": "flat",
    "rate": "0",
    "report": "",
}
SCENARIOS = [
    *("steady", "stampede", "app", "examples"),
    *("node-killed", "node-stopped", "node-added", "slow-node"),
]


@pytest.fixture(scope="module", autouse=True)
def _form(page, run_locust):
    with run_locust() as url:
        page.open(url)
        yield


def test_the_form_offers_our_options(page):
    """Each option is in the form with its default, and a choice with all there is to choose."""
    assert {name: page.field(name).get_attribute("value") for name in DEFAULTS} == DEFAULTS
    assert not page.field("yes").is_selected()
    assert page.choices("scenario") == SCENARIOS
    assert page.choices("ownServers") == ["memcached", "redis", "both"]
    assert page.choices("shape") == ["flat", "ramp", "spike"]


def test_the_form_hides_the_cache_url(page):
    """A URL with a password in it cannot be read from the screen."""
    assert page.field("cacheUrl").get_attribute("type") == "password"


def test_the_form_asks_for_no_host(page):
    """The user need not look for a host: the run starts a server that has one."""
    assert "START" in page.text
    assert "no host attribute" not in page.text
