"""What a hit of a cached function costs above a `get`, by counts: they are the same on every machine."""

from __future__ import annotations

import sys

import pytest

from shardcache import Client

# Python calls of one warm hit that a `get` of the same value does not make. Lower them with the code.
MORE_CALLS = 15
MORE_CALLS_WITH_AGE = 26


def python_calls(call):
    """Return how many Python functions one warm call enters."""
    for _ in range(3):
        call()
    entered = []

    def note(frame, event, _argument):
        if event == "call":
            entered.append(frame.f_code.co_qualname)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    return len(entered)


@pytest.fixture
def client(memcached_servers):
    """Return a client of real nodes."""
    with Client(memcached_servers.urls, timeout=5) as client:
        yield client


@pytest.mark.parametrize(
    ("options", "most"),
    [({}, MORE_CALLS), ({"lock": True}, MORE_CALLS), ({"stale": 30}, MORE_CALLS_WITH_AGE)],
    ids=str,
)
def test_a_hit_adds_few_calls_to_a_get(client, options, most):
    """By position and by name, with a lock and with an age."""

    @client.cached(ttl=300, namespace="hits", **options)
    def load(number, language="en"):
        return {"number": number, "language": language}

    client.set("key", load(7), ttl=300)
    get = python_calls(lambda: client.get("key"))
    assert python_calls(lambda: load(7)) - get <= most
    assert python_calls(lambda: load(number=7)) - get <= most


def test_one_counter_of_the_function_and_one_of_the_client(client):
    """Both have every hit."""

    @client.cached(ttl=300, namespace="counted")
    def load(number):
        return number

    for _ in range(4):
        load(1)
    assert load.cache_info().hits == client.counters().protection["hits"] == 3
