"""What observers are told, and what they cannot break."""

from __future__ import annotations

import pytest

from shardcache import (
    CallFinished,
    Client,
    DecodeError,
    DecodeFailed,
    NodeFailed,
    NodeUnavailableError,
    Observer,
    PartialFailureError,
    TopologyChanged,
)
from shardcache.core.commands import Set
from shardcache.testing.driving import MODES, make_client


@pytest.fixture(params=MODES)
def mode(request):
    """Give each of the two clients in turn."""
    return request.param


class Diary(Observer):
    """Notes all it is told."""

    def __init__(self):
        self.events = []

    def call_finished(self, event):
        """Note any event."""
        self.events.append(event)

    node_failed = decode_failed = topology_changed = call_finished


def test_calls_and_changes_are_told(mode):
    """Each node asked, and each change of nodes, is an event."""
    diary = Diary()
    client = make_client(mode, ["memory://a"], observers=[diary])
    client.set("k", 1)
    client.get("k")
    client.add_node("memory://b")
    calls = [event.command for event in diary.events if isinstance(event, CallFinished)]
    assert calls == ["set", "get"]
    assert all(e.seconds >= 0 and e.error is None for e in diary.events[:2])
    (changed,) = [event for event in diary.events if isinstance(event, TopologyChanged)]
    assert [node.name for node in changed.change.added] == ["b"]


def test_swallowed_errors_are_told_and_counted(mode):
    """A miss that was an error is an event and a count."""
    diary = Diary()
    client = make_client(mode, "memcached://127.0.0.1:1", observers=[diary], timeout=5)
    assert client.get("k") is None
    (failed,) = [event for event in diary.events if isinstance(event, NodeFailed)]
    assert isinstance(failed.error, NodeUnavailableError)
    assert failed.swallowed
    client.close()


def test_garbage_is_a_counted_miss(mode):
    """Bytes that no codec can read are a miss, counted and told, and never shown."""
    diary = Diary()
    client = make_client(mode, "memory://a", observers=[diary])
    inner = getattr(client, "twin", client)
    link = next(iter(inner._cluster.links.values()))
    store = link.backend._execute
    store(Set(b"k", (0x100 | 32, b"\xc1 top secret")))
    assert client.get("k", "default") == "default"
    assert client.get_many(["k"]) == {}
    told = [event for event in diary.events if isinstance(event, DecodeFailed)]
    assert len(told) == 2
    assert "secret" not in repr(told)
    assert link.counters()["decode_failures"] == 2


def test_an_observer_that_raises_breaks_nothing(mode):
    """What an observer raises is counted, and the call goes on."""

    class Broken:
        def call_finished(self, event):
            raise RuntimeError(event)

    client = make_client(mode, "memory://a", observers=[Broken()])
    assert client.set("k", 1)
    assert client.get("k") == 1
    assert client.observer_errors == 2


def test_what_cannot_be_read_takes_nothing_from_the_rest(memcached_servers, mode):
    """Under `on_error="raise"` the values that were read come with the error."""
    url = memcached_servers[0].url
    client = make_client(mode, url, on_error="raise", timeout=5.0)
    with Client(url, codec="json", timeout=5.0) as other:
        other.set("odd", {"by": "another codec"})
    client.set("even", {"ours": 1})
    with pytest.raises(PartialFailureError, match="cannot be read") as raised:
        client.get_many(["odd", "even"])
    assert raised.value.found == {"even": {"ours": 1}}
    assert [type(error) for error in raised.value.failed.values()] == [DecodeError]
    client.close()
