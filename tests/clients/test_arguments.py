"""Options that see the arguments of a call besides its result."""

from __future__ import annotations

import functools

import pytest

from clients.sources import Source, as_called
from shardcache import Client, ConfigurationError
from shardcache.testing.driving import MODES, make_client


@pytest.fixture(params=MODES)
def client(request):
    """Return a client of each kind."""
    client = make_client(request.param, "memory://a")
    yield client
    client.close()


def recorder(seen, answer):
    """Return a function of result and arguments that records what it gets."""

    def record(result, arguments):
        seen.append((result, dict(arguments)))
        return answer

    return record


def test_arguments_are_passed_by_name(client):
    """However the call is written, and with defaults applied; for `set` and `refresh` too."""
    seen = []

    source = Source(client)
    f = source.cached(ttl=recorder(seen, 60), condition=recorder(seen, answer=True))
    assert f() == "made"
    assert seen == [("made", {"number": 1})] * 2
    assert f(number=1) == "made"
    assert len(seen) == 2
    f(2)
    f.refresh(number=3)
    f.set("put", 4)
    assert seen[2::2] == [("made", {"number": 2}), ("made", {"number": 3}), ("put", {"number": 4})]


def test_a_condition_on_the_arguments(client):
    """It may say "not for today": what it refuses is returned and not stored."""
    calls = []

    def report(day):
        calls.append(day)
        return day

    f = as_called(client, report, ttl=60, condition=lambda _, call: call["day"] != "today")
    assert [f("today"), f("today"), f("yesterday"), f("yesterday")] == [
        "today",
        "today",
        "yesterday",
        "yesterday",
    ]
    assert calls == ["today", "today", "yesterday"]


def test_a_ttl_of_the_arguments(client):
    """Zero means that the result is not kept."""
    calls = []

    def load(seconds):
        calls.append(seconds)
        return seconds

    f = as_called(client, load, ttl=lambda _, call: call["seconds"])
    assert [f(0), f(0), f(60), f(60)] == [0, 0, 60, 60]
    assert calls == [0, 0, 60]


def test_a_method_has_its_instance_among_them():
    """Variable arguments are under the name of their parameter."""
    seen = []
    with Client("memory://a") as client:

        class Shop:
            @client.cached(ttl=recorder(seen, 60), ignore="self", namespace="shop")
            def price(self, article, *more, **others):
                return article, more, others

        shop = Shop()
        shop.price.set(1, 2)
        shop.price.refresh(3, 4, tax=5)
    assert seen == [
        (1, {"self": shop, "article": 2, "more": (), "others": {}}),
        ((3, (4,), {"tax": 5}), {"self": shop, "article": 3, "more": (4,), "others": {"tax": 5}}),
    ]


def test_a_wrapper_passes_them_as_it_gets_them():
    """It may insert an argument, so that the names may be those of other parameters."""
    seen = []
    with Client("memory://a") as client:

        def load(session, number=1):
            return session, number

        @functools.wraps(load)
        def inserting(*args, **kwargs):
            return load("session", *args, **kwargs)

        f = client.cached(ttl=recorder(seen, 60), namespace="f")(inserting)
        f(7)
        f(number=7)
    assert [arguments for _, arguments in seen] == [
        {"session": 7},
        {"kwargs": {"number": 7}},
    ]


@pytest.mark.parametrize("option", ["ttl", "condition"])
def test_get_or_set_has_no_arguments(client, option):
    """A function that needs them is refused at the call."""
    with pytest.raises(ConfigurationError, match=f"get_or_set: {option} must be .* alone"):
        client.get_or_set("k", lambda: 7, **{"ttl": 60, option: lambda _, call: call["k"]})
