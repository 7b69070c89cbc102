"""What the figures mean: round trips without start-up, and the least that must move."""

from __future__ import annotations

import json

import pytest

from shardcache.cli.plan import least_possible
from shardcache.core.placement.movement import Movement
from shardcache.core.placement.nodes import Node
from shardcache.core.placement.topology import Topology
from shardcache.plugin.manager import load


def topology(strategy, *names):
    """Make a topology of in-process nodes."""
    return Topology([Node(f"memory://{name}") for name in names], load().strategies[strategy]())


def test_ping_measures_an_open_connection(typed, memcached_servers):
    """The round trip holds neither the start of the command nor the dial, which stands apart."""
    urls = " ".join(server.url for server in memcached_servers)
    status, out, _ = typed("ping", "--json", "--url", urls)
    answers = json.loads(out).values()
    assert status == 0
    assert all(0 < answer["seconds"] < answer["first_seconds"] for answer in answers)


@pytest.mark.parametrize("strategy", sorted(load().strategies))
@pytest.mark.parametrize(
    "names",
    [("abc", "abcd"), ("abcd", "abc"), ("abcdef", "abcxyz"), ("abc", "abc"), ("abcdefgh", "a")],
)
def test_nothing_moves_less_than_the_least(strategy, names):
    """The least is of the shares that there are, not of those that weights promise."""
    before, after = (topology(strategy, *each) for each in names)
    movement = Movement.between(before.placement, after.placement)
    assert 0 <= least_possible(movement) <= movement.moved
    elsewhere = Movement.between(topology("modulo", *names[0]).placement, after.placement)
    assert 0 <= least_possible(elsewhere) <= elsewhere.moved


def test_plan_says_the_least_in_words(typed):
    """A strategy that moves no more than it must is told from one that does."""
    _, out, _ = typed("plan", "--add", "memory://d", "--url", "memory://a,b,c?strategy=ketama")
    assert "No strategy could move less" in out
    _, out, _ = typed("plan", "--strategy", "jump", "--url", "memory://a,b,c")
    assert "must move to reach these shares" in out


def test_plan_takes_a_host_for_a_name(typed):
    """`--add`, `--remove` and `--weight` take a bare host where it can mean one node only."""
    url = "memcached://10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.3:1"
    words = ("--add", "10.0.0.4", "--remove", "10.0.0.2", "--weight", "10.0.0.1=2")
    status, out, _ = typed("plan", *words, "--json", "--url", url)
    after = json.loads(out)["after"]
    assert status == 0
    assert set(after) == {"10.0.0.1:11211", "10.0.0.3:11211", "10.0.0.3:1", "10.0.0.4:11211"}
    assert after["10.0.0.1:11211"] == pytest.approx(0.4, abs=0.02)
    status, _, errors = typed("plan", "--remove", "10.0.0.3", "--url", url)
    assert (status, "known: 10.0.0.1:11211" in errors) == (2, True)
