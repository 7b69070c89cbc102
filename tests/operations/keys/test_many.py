"""Calls for many keys: all nodes are asked at once, and what came of the others is kept."""

from __future__ import annotations

from types import MappingProxyType, SimpleNamespace

import pytest

from operations.client_harness import REFUSED, ClientHarness
from operations.harness import ROUND_TRIP, EventLog
from shardcache import Client
from shardcache.core.commands import DeleteMany, GetMany, SetMany
from shardcache.core.events import DecodeFailed, OperationFinished
from shardcache.core.lifetimes import DEFAULT
from shardcache.core.values.flags import BARE_STUB, INTEGER_FLAGS, UNMARKED_FLAGS
from shardcache.errors import DecodeError, NodeUnavailableError, PartialFailureError
from shardcache.io.thread_flights import ThreadSingleFlight
from shardcache.operations.keys import many

GARBAGE = (INTEGER_FLAGS, b"no number")


@pytest.fixture(params=[False, True], ids=["unobserved", "observed"])
def make_harness(request):
    """Return a maker of harnesses of three nodes, without an observer and with one."""

    def make(**options):
        return ClientHarness(3, log=EventLog() if request.param else None, **options)

    return make


def keys_of_all(harness):
    """Return two keys of each node, those of the first node first."""
    return [key for node in range(3) for key in harness.keys_of(node)]


def test_all_nodes_are_asked_at_once(make_harness):
    """Each call takes one round trip, with one command for each node."""
    harness = make_harness()
    keys = keys_of_all(harness)
    items = {key: [key] for key in keys}
    began = harness.now
    assert harness.set_many(items, 60.0) == []
    assert harness.get_many(*keys, "missing") == items
    assert harness.delete_many(*keys[1:], "missing") == 5
    assert harness.now - began == pytest.approx(3 * ROUND_TRIP)
    assert [harness.sent(node) for node in range(3)] == [["SetMany", "GetMany", "DeleteMany"]] * 3
    assert harness.get_many(*keys) == {keys[0]: [keys[0]]}
    assert harness.held(keys[0])[1] == pytest.approx(harness.now + 60.0, abs=0.1)


def test_no_keys_are_no_command(make_harness):
    """An empty call returns at once."""
    harness = make_harness()
    assert (harness.get_many(), harness.set_many({}), harness.delete_many()) == ({}, [], 0)
    assert harness.received == [[], [], []]


def test_the_ttl_of_the_client_is_the_default(make_harness):
    """All items live as long."""
    harness = make_harness()
    harness.cluster.default_ttl = 10.0
    harness.set_many({"k1": 1, "k2": 2}, DEFAULT)
    assert harness.get_many("k1", "k2") == {"k1": 1, "k2": 2}
    harness.advance(10.0)
    assert harness.get_many("k1", "k2") == {}


def test_a_ttl_of_zero_deletes(make_harness):
    """Storing for no time leaves no key, old or new."""
    harness = make_harness()
    keys = keys_of_all(harness)
    harness.set_many(dict.fromkeys(keys, "old"))
    assert harness.set_many(dict.fromkeys(keys, "new"), 0) == []
    assert [harness.sent(node) for node in range(3)] == [["SetMany", "DeleteMany"]] * 3
    assert harness.get_many(*keys) == {}


class TestFailures:
    """A node that fails costs the caller its own keys alone."""

    def test_the_keys_of_a_node_that_is_down_are_missing(self, make_harness):
        """The error is swallowed and counted; the keys of the others are found, stored, deleted."""
        harness = make_harness()
        keys = keys_of_all(harness)
        items = dict.fromkeys(keys, "v")
        harness.set_many(items)
        harness.nodes[1].up = False
        assert harness.get_many(*keys) == dict.fromkeys(keys[:2] + keys[4:], "v")
        assert sorted(harness.set_many(items)) == sorted(keys[2:4])
        assert harness.delete_many(*keys) == 4
        assert [member.swallowed for member in harness.members] == [0, 3, 0]

    def test_a_client_that_raises_tells_what_was_done(self, make_harness):
        """The error has the keys that were read or written, and why the others were not."""
        harness = make_harness(raises=True)
        keys = keys_of_all(harness)
        items = dict.fromkeys(keys, "v")
        harness.set_many(items)
        harness.nodes[1].up = False
        calls = [
            lambda: harness.get_many(*keys),
            lambda: harness.set_many(items),
            lambda: harness.delete_many(*keys),
        ]
        done = keys[:2] + keys[4:]
        for call, found, succeeded in zip(
            calls, [dict.fromkeys(done, "v"), {}, {}], [[], done, done], strict=True
        ):
            with pytest.raises(PartialFailureError, match="2 of 6 keys failed on 1 of 3") as raised:
                call()
            assert raised.value.found == found
            assert sorted(raised.value.succeeded) == sorted(succeeded)
            assert sorted(raised.value.failed) == sorted(keys[2:4])
            for error in raised.value.failed.values():
                assert isinstance(error, NodeUnavailableError)
        assert [member.swallowed for member in harness.members] == [0, 0, 0]
        assert harness.get_many(*done) == {}

    @pytest.mark.parametrize("raises", [False, True])
    def test_single_keys_of_a_node_may_fail(self, make_harness, raises):
        """A node may refuse some keys of a call, and serve the others."""
        harness = make_harness(raises=raises)
        first, second = keys = harness.keys_of(0)
        harness.set_many(dict.fromkeys(keys, "v"))
        for kind in (GetMany, DeleteMany):
            harness.answer_to(kind, lambda command, execute: [REFUSED, *execute(command)[1:]], 0)
        if not raises:
            assert harness.get_many(*keys) == {second: "v"}
            assert harness.delete_many(*keys) == 1
            return
        with pytest.raises(PartialFailureError) as raised:
            harness.get_many(*keys)
        assert (raised.value.found, raised.value.failed) == ({second: "v"}, {first: REFUSED})
        with pytest.raises(PartialFailureError) as raised:
            harness.delete_many(*keys)
        assert (raised.value.succeeded, raised.value.failed) == ([second], {first: REFUSED})

    def test_a_key_that_was_not_there_was_deleted_too(self, make_harness):
        """The error counts it among the keys that are gone."""
        harness = make_harness(raises=True)
        keys = harness.keys_of(0)
        (down,) = harness.keys_of(1, 1)
        harness.store("v", key=keys[0])
        harness.nodes[1].up = False
        with pytest.raises(PartialFailureError) as raised:
            harness.delete_many(*keys, down)
        assert sorted(raised.value.succeeded) == sorted(keys)

    def test_a_refused_overwrite_is_raised_and_leaves_no_old_value(self, make_harness):
        """The old value is deleted, and the caller is told which value was not stored."""
        harness = make_harness(raises=True)
        first, second = keys = harness.keys_of(0)
        harness.set_many(dict.fromkeys(keys, "old"))
        harness.sent()

        def refuse_first(command, execute):
            return [REFUSED, *execute(SetMany(command.items[1:], command.ttl))]

        harness.answer_to(SetMany, refuse_first, 0)
        with pytest.raises(PartialFailureError) as raised:
            harness.set_many(dict.fromkeys(keys, "new"))
        assert (raised.value.succeeded, raised.value.failed) == ([second], {first: REFUSED})
        assert harness.sent() == ["SetMany", "DeleteMany"]
        assert harness.get_many(*keys) == {second: "new"}

    def test_a_reply_that_is_no_list_is_an_error_of_the_backend(self):
        """A backend of a plugin may be wrong: the error names the node, whatever `on_error` says."""
        harness = ClientHarness(3)
        (key,) = harness.keys_of(0, 1)
        harness.answer_to(GetMany, reply=True)
        with pytest.raises(TypeError, match=r"n0.*a call over many keys was answered True"):
            harness.get_many(key)


class TestValues:
    """A value of many is read as one alone."""

    def test_bytes_are_their_own_value(self, make_harness):
        """They count as hits as all others do; memcached's empty stub is a miss."""
        harness = make_harness()
        keys = harness.keys_of(0, 4)
        payloads = [(UNMARKED_FLAGS, b"bytes"), (INTEGER_FLAGS, b"7"), BARE_STUB]
        for key, payload in zip(keys, payloads, strict=False):
            harness.plant(payload, key)
        assert harness.get_many(*keys) == {keys[0]: b"bytes", keys[1]: 7}
        assert (harness.member(0).hits, harness.member(0).misses) == (2, 2)

    @pytest.mark.parametrize("raises", [False, True])
    def test_bytes_that_cannot_be_decoded_cost_their_own_key(self, make_harness, raises):
        """The others are returned, or in the error; observers are told."""
        harness = make_harness(raises=raises)
        bad, good = harness.keys_of(0)
        harness.store("v", key=good)
        harness.plant(GARBAGE, bad)
        if raises:
            with pytest.raises(PartialFailureError, match="1 of 2 keys failed, because") as raised:
                harness.get_many(bad, good)
            assert raised.value.found == {good: "v"}
            assert isinstance(raised.value.failed[bad], DecodeError)
        else:
            assert harness.get_many(bad, good) == {good: "v"}
        assert harness.member(0).decode_failures == 1
        if harness.log is not None:
            (event,) = harness.log.of(DecodeFailed)
            assert event.key == bad.encode()


class TestEvents:
    """An observer that listens for operations is told of one for each call, however many nodes it asks."""

    @pytest.mark.parametrize(
        ("call", "expected"),
        [
            (lambda harness, keys: harness.get_many(*keys), ("get_many", 6, 4)),
            (
                lambda harness, keys: harness.set_many(dict.fromkeys(keys, 1)),
                ("set_many", 6, 0),
            ),
            (lambda harness, keys: harness.delete_many(*keys), ("delete_many", 6, 0)),
        ],
    )
    @pytest.mark.parametrize("raises", [False, True])
    def test_a_call_for_many_keys_is_one_operation(self, call, expected, raises):
        """The hits are those found, even when the caller gets an error for the rest."""
        harness = ClientHarness(3, log=EventLog(OperationFinished), raises=raises)
        keys = keys_of_all(harness)
        harness.set_many(dict.fromkeys(keys, "v"))
        harness.nodes[1].up = False
        harness.log.events.clear()
        error = None
        try:
            call(harness, keys)
        except PartialFailureError as raised:
            error = raised
        (event,) = harness.log.events
        assert event == (*expected, event.seconds, error)
        assert (error is not None) is raises

    def test_an_iterator_of_keys_is_read_once(self):
        """The keys are counted, and asked for, in any case."""
        for log in (None, EventLog(OperationFinished)):
            harness = ClientHarness(3, log=log)
            harness.set_many({"k1": 1, "k2": 2})
            assert harness.run(many.get_many(harness.cluster, iter(["k1", "k2"]))) == {
                "k1": 1,
                "k2": 2,
            }
            assert harness.run(many.delete_many(harness.cluster, iter(["k1", "k2"]))) == 2


def test_the_replies_of_a_watched_node_are_looked_at():
    """A node with pending deletes: a batch of writes that was done is noted."""
    with Client("memory://a") as client:
        (member,) = client._cluster.members.values()
        member.health.watched = True
        noted = []
        ejector = client._cluster.ejector
        client._cluster.ejector = SimpleNamespace(
            note_writes=lambda _member, command, _reply: noted.append(command)
        )
        assert client.set_many({"a": 1, "b": 2}, 60) == []
        assert client.delete_many(["a", "b"]) == 2
        client._cluster.ejector = ejector
        assert [type(command) for command in noted] == [SetMany, DeleteMany]
        (counted,) = client.counters().values()
        assert counted["calls"] == 2


def test_writes_of_many_keys_are_joined_by_no_older_recompute(monkeypatch):
    """What a recompute returns that began before them may be old."""
    forgotten = []
    monkeypatch.setattr(
        ThreadSingleFlight, "forget", lambda _group, *names: forgotten.extend(names)
    )
    with Client(["memory://a", "memory://b"]) as client:
        for call in (
            lambda keys: client.set_many(dict.fromkeys(keys, 1), 60),
            lambda keys: client.set_many(dict.fromkeys(keys, 1), 0),
            client.delete_many,
        ):
            call(["a", "b", "c", "d"])
            assert sorted(forgotten) == [b"a", b"b", b"c", b"d"]
            forgotten.clear()


def test_any_mapping_is_stored_and_any_collection_is_read(make_harness):
    """Not text, which is a list of its letters, and not pairs."""
    harness = make_harness()
    assert harness.set_many(MappingProxyType({"k1": 1, "k2": 2})) == []
    assert harness.get_many("k1", "k2") == {"k1": 1, "k2": 2}
    with pytest.raises(TypeError, match=r"^set_many: must be a mapping"):
        many.set_many(harness.cluster, [("k1", 1)], None)
    for call in (many.get_many, many.delete_many):
        with pytest.raises(TypeError, match=f"^{call.__name__}: keys must be a list, not str"):
            call(harness.cluster, "k1")
