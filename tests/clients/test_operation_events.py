"""`OperationFinished`: one event for each operation of a client, however many nodes it asks."""

from __future__ import annotations

import pytest

from shardcache import KEEP, DecodeError, Observer, PartialFailureError
from shardcache.core.commands import Set
from shardcache.testing.driving import MODES, make_client

NODES = [f"memory://{name}" for name in "abc"]
KEYS = [f"k{number}" for number in range(30)]


class Operations(Observer):
    """An observer that keeps the events of operations."""

    def __init__(self):
        self.events = []

    def operation_finished(self, event):
        """Keep the event."""
        self.events.append(event)


@pytest.fixture(params=MODES)
def make(request):
    """Return a function that creates a client of either kind with an observer, and closes it."""
    clients = []

    def make(urls=NODES, **settings):
        observer = Operations()
        client = make_client(request.param, urls, observers=[observer], **settings)
        clients.append(client)
        return client, observer.events

    yield make
    for client in clients:
        client.close()


def take(events):
    """Return name, keys and hits of all events so far, and drop the events."""
    fields = [event[:3] for event in events]
    assert all(event.error is None and event.seconds >= 0 for event in events)
    events.clear()
    return fields


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (lambda client: client.get("k"), ("get", 1, 1)),
        (lambda client: client.get("none"), ("get", 1, 0)),
        (lambda client: client.get("m", None), ("get", 1, 0)),
        (lambda client: client.get("nothing", None), ("get", 1, 1)),
        (lambda client: client.gets("k"), ("gets", 1, 1)),
        (lambda client: client.gets("none"), ("gets", 1, 0)),
        (lambda client: client.set("k", 1), ("set", 1, 0)),
        (lambda client: client.set("k", 1, ttl=0), ("set", 1, 0)),
        (lambda client: client.add("k", 1), ("add", 1, 0)),
        (lambda client: client.replace("k", 1), ("replace", 1, 0)),
        (lambda client: client.cas("k", 1, 7), ("cas", 1, 0)),
        (lambda client: client.cas("k", 1, 7, ttl=KEEP), ("cas", 1, 0)),
        (lambda client: client.exists("k"), ("exists", 1, 1)),
        (lambda client: client.exists("none"), ("exists", 1, 0)),
        (lambda client: client.ttl("k"), ("ttl", 1, 1)),
        (lambda client: client.ttl("none"), ("ttl", 1, 0)),
        (lambda client: client.touch("k", 60), ("touch", 1, 0)),
        (lambda client: client.touch("k", 0), ("touch", 1, 0)),
        (lambda client: client.incr("n", initial=1), ("incr", 1, 0)),
        (lambda client: client.decr("n", initial=1), ("decr", 1, 0)),
        (lambda client: client.decr("n", initial=1, floor=None), ("decr", 1, 0)),
        (lambda client: client.delete("k"), ("delete", 1, 0)),
        (lambda client: client.get_many(["k", "none", "nothing"]), ("get_many", 3, 2)),
        (lambda client: client.get_many(iter(KEYS)), ("get_many", 30, 0)),
        (lambda client: client.set_many(dict.fromkeys(KEYS, 1)), ("set_many", 30, 0)),
        (lambda client: client.delete_many(iter(KEYS)), ("delete_many", 30, 0)),
    ],
)
def test_each_operation_is_one_event(make, act, expected):
    """Its name, the number of its keys, and how many values were found: `None` is a value as well."""
    client, events = make()
    client.set_many({"k": 1, "nothing": None})
    take(events)
    act(client)
    assert take(events) == [expected]


def test_a_cached_value_is_one_event(make):
    """It is a hit if it was stored, and no hit if it was recomputed, under a lock or not."""
    client, events = make()
    asked = {"lock": True, "tags": ["t"], "ttl": 60}
    assert client.get_or_set("k", lambda: 1, **asked) == 1
    assert take(events) == [("cached", 1, 0)]
    assert client.get_or_set("k", lambda: 1, **asked) == 1
    assert take(events) == [("cached", 1, 1)]


def test_a_failed_operation_carries_its_error(make):
    """The event has the error that the caller got, and the number of values that were found."""
    client, events = make(["memory://a"], on_error="raise")
    client.set("even", 1)
    cluster = getattr(client, "twin", client)._cluster
    _, member, _ = cluster.route("odd")
    member.backend._execute(Set(b"odd", (32 << 16, b"\xc1")))
    take(events)
    with pytest.raises(DecodeError) as undecodable:
        client.get("odd")
    with pytest.raises(PartialFailureError) as partial:
        client.get_many(["odd", "even"])
    assert [event[:3] for event in events] == [("get", 1, 0), ("get_many", 2, 1)]
    assert [event.error for event in events] == [undecodable.value, partial.value]


class Others(Observer):
    """An observer of other events."""

    def node_ejected(self, event):
        """Do nothing."""


@pytest.mark.parametrize("observers", [[], [Others()]])
@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_measured_for_others(mode, observers):
    """Without an observer that listens, an operation is its own coroutine."""
    client = make_client(mode, "memory://a", observers=observers)
    assert not getattr(client, "twin", client)._cluster.observes_operations
    client.close()
