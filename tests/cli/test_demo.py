"""The demo computes what it shows, on embedded nodes and on real ones."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def demo(*words):
    """Run the demo in a process of its own; give its output."""
    result = subprocess.run(
        [sys.executable, "-P", "-m", "shardcache.cli", "demo", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stderr == ""
    return result.stdout


@pytest.mark.parametrize("words", [(), ("--servers", "memcached"), ("--servers", "redis")])
def test_the_figures(words):
    """Every key is placed, written and read right, and what moves is near the least possible."""
    figures = json.loads(demo(*words, "--json"))
    assert set(figures["balance"]) == set(figures["changes"]["strategies"])
    for placed in figures["balance"].values():
        assert sum(placed["shares"].values()) == pytest.approx(1)
        assert len(placed["shares"]) == 5
    moved = figures["changes"]["strategies"]
    assert moved["rendezvous"]["added"] == pytest.approx(1 / 6, abs=0.02)
    assert moved["modulo"]["added"] > 0.7
    use = figures["use"]
    assert (use["unstored"], use["right"]) == (0, figures["keys"])
    assert use["wrong_after_adding_a_node"] == 0
    assert use["found_after_adding_a_node"] / figures["keys"] == pytest.approx(5 / 6, abs=0.03)


def test_what_people_see():
    """The demo says what it shows, in lines that fit a terminal."""
    shown = demo()
    for words in ("rendezvous", "20,000 of 20,000 right", "0 wrong", "shardcache plan"):
        assert words in shown
    assert max(len(line) for line in shown.splitlines()) <= 80
