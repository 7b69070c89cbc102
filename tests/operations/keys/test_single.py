"""Calls for one key: what the caller gets, and what a node was asked."""

from __future__ import annotations

import math

import pytest

from operations.client_harness import REFUSED, ClientHarness
from operations.harness import EventLog
from shardcache.core.commands import Delete, Get, Gets, Set, Touch, When
from shardcache.core.events import DecodeFailed, OperationFinished
from shardcache.core.lifetimes import DEFAULT
from shardcache.core.values.flags import BARE_STUB, INTEGER_FLAGS, UNKNOWN_FLAGS, stub
from shardcache.errors import DecodeError, NodeRefusedError, NodeUnavailableError
from shardcache.operations.keys import single

TTL = 60.0
GARBAGE = (INTEGER_FLAGS, b"no number")

# Each call, what it returns when the key is missing, and when the key's node is down.
CALLS = [
    (lambda harness: harness.get(default="d"), "d", "d"),
    (lambda harness: harness.gets(default="d"), ("d", None), ("d", None)),
    (lambda harness: harness.store(1), True, False),
    (lambda harness: harness.store(1, when=When.ABSENT), True, False),
    (lambda harness: harness.store(1, when=When.PRESENT), False, False),
    (lambda harness: harness.store(1, 0), True, False),
    (lambda harness: harness.store(1, 0, When.ABSENT), True, False),
    (lambda harness: harness.store(1, 0, When.PRESENT), False, False),
    (lambda harness: harness.cas(1, 7), None, False),
    (lambda harness: harness.delete(), False, False),
    (lambda harness: harness.touch(TTL), False, False),
    (lambda harness: harness.touch(0), False, False),
    (lambda harness: harness.incr(), None, None),
    (lambda harness: harness.incr(initial=3), 3, None),
    (lambda harness: harness.decr(), None, None),
]


@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize(("call", "missing", "down"), CALLS)
def test_a_missing_key_and_a_node_that_is_down(call, missing, down, observed):
    """A node's error is a miss, or a write that was not done; an observer changes no result."""
    harness = ClientHarness(log=EventLog() if observed else None)
    assert call(harness) == missing
    harness = ClientHarness(log=EventLog() if observed else None)
    harness.nodes[0].up = False
    assert call(harness) == down
    assert harness.member().errors == harness.member().swallowed == 1


@pytest.mark.parametrize("call", [call for call, *_ in CALLS])
def test_a_client_that_raises_raises_the_nodes_error(call):
    """The error names the node, and was not swallowed."""
    harness = ClientHarness(raises=True)
    harness.nodes[0].up = False
    with pytest.raises(NodeUnavailableError, match="refused"):
        call(harness)
    assert (harness.member().errors, harness.member().swallowed) == (1, 0)


@pytest.mark.parametrize("value", ["text", b"bytes", 7, None, [1, {"a": 2.5}]])
def test_a_value_comes_back(value):
    """By `get` and by `gets`, each of which is one command and one hit."""
    harness = ClientHarness()
    assert harness.store(value, TTL) is True
    assert harness.sent() == ["Set"]
    assert harness.get(default="d") == value
    assert harness.gets(default="d")[0] == value
    assert harness.sent() == ["Get", "Gets"]
    assert (harness.member().hits, harness.member().misses) == (2, 0)
    harness.advance(TTL)
    assert harness.get(default="d") == "d"


def test_the_ttl_of_the_client_is_the_default():
    """A call that leaves the ttl to the client stores for as long."""
    harness = ClientHarness()
    harness.cluster.default_ttl = TTL

    def life():
        return harness.held()[1] - harness.now

    assert harness.store("v", DEFAULT) is True
    assert life() == pytest.approx(TTL, abs=0.1)
    assert harness.touch(None) is True
    assert life() == math.inf
    assert harness.touch(DEFAULT) is True
    assert life() == pytest.approx(TTL, abs=0.1)
    harness.store("v", None)
    assert harness.cas("w", harness.gets()[1], DEFAULT) is True
    assert life() == pytest.approx(TTL, abs=0.1)


@pytest.mark.parametrize("payload", [stub(b"m"), BARE_STUB], ids=["stub", "memcached's stub"])
def test_a_recompute_in_progress_is_a_miss(payload):
    """Its stub is not a value, and no bytes that cannot be decoded."""
    harness = ClientHarness(raises=True, log=EventLog())
    harness.plant(payload)
    assert harness.get(default="d") == "d"
    assert harness.gets(default="d") == ("d", None)
    member = harness.member()
    assert (member.hits, member.misses, member.decode_failures) == (0, 2, 0)


@pytest.mark.parametrize("payload", [GARBAGE, (UNKNOWN_FLAGS, b"x")])
def test_bytes_that_cannot_be_decoded_are_a_miss_or_an_error(payload):
    """They are counted in both cases, and told to observers without the bytes."""
    harness = ClientHarness(log=EventLog())
    harness.plant(payload)
    assert harness.get(default="d") == "d"
    harness.cluster.raises = True
    with pytest.raises(DecodeError):
        harness.get()
    with pytest.raises(DecodeError):
        harness.gets()
    member = harness.member()
    assert (member.hits, member.misses, member.decode_failures) == (0, 3, 3)
    told = harness.log.of(DecodeFailed)
    assert [(event.node, event.key) for event in told] == [(member.node, b"k")] * 3


class TestCas:
    """A key is stored only if it has not changed."""

    def test_a_swap_needs_the_token_of_the_value(self):
        """The second swap with one token is told that another came first."""
        harness = ClientHarness()
        harness.store("old")
        _, token = harness.gets()
        assert harness.cas("new", token, TTL) is True
        assert harness.cas("newer", token, TTL) is False
        assert harness.get() == "new"
        harness.delete()
        assert harness.cas("newest", token, TTL) is None
        assert harness.get() is None

    def test_a_swap_for_no_time_deletes_the_key(self):
        """It stores, and then deletes, for no server does both at once; a beaten one does neither."""
        harness = ClientHarness()
        harness.store("old")
        _, token = harness.gets()
        harness.store("another's")
        harness.sent()
        assert harness.cas("new", token, 0) is False
        assert harness.sent() == ["Cas"]
        assert harness.get() == "another's"
        _, token = harness.gets()
        harness.sent()
        assert harness.cas("new", token, 0) is True
        assert harness.sent() == ["Cas", "Delete"]
        assert harness.held() is None

    def test_a_key_that_could_not_be_deleted_is_soon_gone(self):
        """A swap for no time lives for a second at most."""
        harness = ClientHarness()
        harness.store("old")
        _, token = harness.gets()
        harness.answer_to(Delete, NodeRefusedError("not permitted"))
        assert harness.cas("new", token, 0) is True
        assert 0 < harness.held()[1] - harness.now <= 1.0


class TestTouch:
    """A key gets another expiry."""

    def test_a_touch_is_one_command(self):
        """It says whether the key was there."""
        harness = ClientHarness()
        assert harness.touch(TTL) is False
        harness.store("v")
        harness.sent()
        assert harness.touch(TTL) is True
        assert harness.sent() == ["Touch"]
        assert harness.held()[1] == pytest.approx(harness.now + TTL, abs=0.1)

    def test_a_touch_for_no_time_deletes(self):
        """The key is gone, and was there."""
        harness = ClientHarness()
        harness.store("v")
        harness.sent()
        assert harness.touch(0) is True
        assert harness.sent() == ["Delete"]
        assert harness.held() is None

    def test_a_signed_value_is_stored_again(self):
        """Its signature has the end of its life: the value lives on after its first one."""
        harness = ClientHarness(signed=True)
        assert harness.touch(TTL) is False
        assert harness.sent() == ["Gets"]
        harness.store({"a": 1}, 10.0)
        harness.sent()
        assert harness.touch(TTL) is True
        assert harness.sent() == ["Gets", "Cas"]
        harness.advance(30.0)
        assert harness.get() == {"a": 1}
        harness.advance(TTL - 30.0)
        assert harness.get() is None

    def test_a_number_is_touched_without_a_signature(self):
        """Servers count with it, so it has none."""
        harness = ClientHarness(signed=True)
        harness.store(7, 10.0)
        harness.sent()
        assert harness.touch(TTL) is True
        assert harness.sent() == ["Gets", "Touch"]
        harness.advance(30.0)
        assert harness.get() == 7

    def test_a_signature_of_another_secret_is_not_renewed(self):
        """The bytes stay as they are, and are counted as undecodable."""
        harness = ClientHarness(signed=True, log=EventLog())
        harness.store("forged", 10.0)
        flags, data = harness.held()[0]
        harness.plant((flags, data[:-1] + b"!"))
        before = harness.held()
        assert harness.touch(TTL) is False
        assert harness.held() == before
        assert harness.member().decode_failures == 1
        harness.cluster.raises = True
        with pytest.raises(DecodeError):
            harness.touch(TTL)
        assert harness.held() == before

    @pytest.mark.parametrize(("rivals", "done"), [(1, True), (2, True), (3, False), (9, False)])
    def test_a_touch_keeps_the_values_of_other_writers(self, rivals, done):
        """It tries three times; the latest value stays, with the ttl of its writer or the new one."""
        harness = ClientHarness(signed=True)
        harness.store(["first"], 10.0)
        left = rivals

        def beaten(command, execute):
            nonlocal left
            found = execute(command)
            if left:
                left -= 1
                harness.plant(harness.cluster.payloads.encode(b"k", [f"rival {left}"], 20.0))
            return found

        harness.answer_to(Gets, beaten)
        harness.sent()
        assert harness.touch(TTL) is done
        assert harness.sent() == ["Gets", "Cas"] * min(rivals + 1, 3)
        assert harness.get() == [f"rival {left}"]

    @pytest.mark.parametrize("kind", [Gets, Touch])
    def test_a_failed_touch_of_a_number_is_not_tried_again(self, kind):
        """A node's refusal is no other writer."""
        harness = ClientHarness(signed=True)
        harness.store(7, 10.0)
        harness.answer_to(kind, REFUSED)
        harness.sent()
        assert harness.touch(TTL) is False
        assert harness.sent() == ["Gets", "Touch"][: 1 if kind is Gets else 2]


class TestCounters:
    """Counters go up and down, and stop at zero."""

    def test_a_counter_counts(self):
        """Each call is one command once it is there; a new one lives as long as asked."""
        harness = ClientHarness()
        assert harness.incr(initial=5, ttl=TTL) == 5
        assert harness.sent() == ["Incr", "Set"]
        assert harness.incr(3, initial=5) == 8
        assert harness.decr(2) == 6
        assert harness.decr(100) == 0
        assert harness.sent() == ["Incr"] * 3
        assert harness.get() == 0
        harness.advance(TTL)
        assert harness.incr() is None

    def test_a_counter_for_no_time_is_not_created(self):
        """Its first value is returned all the same."""
        harness = ClientHarness()
        assert harness.incr(initial=5, ttl=0) == 5
        assert harness.sent() == ["Incr"]
        assert harness.held() is None

    def test_another_clients_counter_is_counted_up(self):
        """It may be created between the look and the store."""
        harness = ClientHarness()

        def beaten(command, execute):
            execute(Set(command.key, (INTEGER_FLAGS, b"10")))
            return execute(command)

        harness.answer_to(Set, beaten)
        assert harness.incr(2, initial=0) == 12
        assert harness.sent() == ["Incr", "Set", "Incr"]

    def test_a_counter_that_keeps_vanishing_is_given_up(self):
        """After three rounds the caller is told that it was not counted."""
        harness = ClientHarness()
        harness.answer_to(Set, reply=False)
        assert harness.incr(initial=0) is None
        assert harness.sent() == ["Incr", "Set"] * 3

    @pytest.mark.parametrize("raises", [False, True])
    def test_what_is_no_counter_is_an_error(self, raises):
        """It is the caller's mistake, whatever `on_error` says."""
        harness = ClientHarness(raises=raises)
        harness.store("text")
        with pytest.raises(NodeRefusedError, match="not a counter"):
            harness.incr()
        assert harness.get() == "text"

    @pytest.mark.parametrize(
        ("delta", "error"), [(-1, ValueError), (2**63, ValueError), (1.5, TypeError)]
    )
    def test_a_delta_must_fit_a_counter(self, delta, error):
        """It is refused before a node is asked."""
        harness = ClientHarness()
        for count in (harness.incr, harness.decr):
            with pytest.raises(error, match="delta must be"):
                count(delta)
        assert harness.received == [[]]

    def test_a_refused_first_value_is_no_count(self):
        """The node is asked no further than the calls that a vanishing counter gets."""
        harness = ClientHarness()
        harness.answer_to(Set, REFUSED)
        assert harness.incr(initial=0) is None
        assert harness.held() is None


class TestEvents:
    """An observer that listens for operations is told of the end of each."""

    @pytest.mark.parametrize(
        ("call", "name", "hits"),
        [
            (lambda harness: harness.get(), "get", 1),
            (lambda harness: harness.gets(), "gets", 1),
            (lambda harness: harness.get("missing", "d"), "get", 0),
            (lambda harness: harness.gets("missing", "d"), "gets", 0),
            (lambda harness: harness.store(1), "set", 0),
            (lambda harness: harness.store(1, when=When.ABSENT), "add", 0),
            (lambda harness: harness.store(1, when=When.PRESENT), "replace", 0),
            (lambda harness: harness.cas(1, 7), "cas", 0),
            (lambda harness: harness.delete(), "delete", 0),
            (lambda harness: harness.touch(TTL), "touch", 0),
            (lambda harness: harness.touch(0), "touch", 0),
            (lambda harness: harness.incr(), "incr", 0),
            (lambda harness: harness.decr(), "decr", 0),
        ],
    )
    def test_a_call_for_one_key_is_one_operation(self, call, name, hits):
        """The event has its length, and a value that was found as a hit, whatever the value is."""
        harness = ClientHarness(log=EventLog(OperationFinished))
        harness.store(1)
        harness.log.events.clear()
        began = harness.now
        call(harness)
        (event,) = harness.log.events
        assert event == (name, 1, hits, event.seconds, None)
        assert event.seconds == pytest.approx(harness.now - began)

    def test_an_operation_that_raises_has_its_error(self):
        """It is the one that the caller gets."""
        harness = ClientHarness(raises=True, log=EventLog(OperationFinished))
        harness.nodes[0].up = False
        with pytest.raises(NodeUnavailableError) as raised:
            harness.get()
        (event,) = harness.log.events
        assert event == ("get", 1, 0, event.seconds, raised.value)

    def test_a_cancelled_operation_is_reported_too(self):
        """The caller was stopped while the node was asked."""
        harness = ClientHarness(log=EventLog(OperationFinished))
        task = harness.start(single.get(harness.cluster, "k", None))
        harness.advance(0.001)
        task.cancel()
        harness.finish(task)
        (event,) = harness.log.events
        assert (event.name, event.hits, event.error) == ("get", 0, task.error)


def test_a_get_sends_one_get():
    """Nothing else is asked of a node, and nothing of the other nodes."""
    harness = ClientHarness(nodes=3)
    node = harness.nodes.index(harness.owner())
    harness.get()
    assert [len(received) for received in harness.received] == [int(n == node) for n in range(3)]
    assert harness.received[node] == [Get(b"k")]
