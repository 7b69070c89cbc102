"""Counters, on servers that count below zero and on others."""

from __future__ import annotations

import math

import pytest

from operations.harness import ROUND_TRIP
from operations.keys.scripted_harness import ScriptedHarness
from shardcache.core.commands import CasUntil, Gets, Incr, IncrSigned, Set, Until
from shardcache.core.events import OperationFinished
from shardcache.core.lifetimes import DEFAULT
from shardcache.core.values.flags import INTEGER_FLAGS, RAW_FLAGS, TEXT_FLAGS
from shardcache.errors import NodeRefusedError, NodeUnavailableError, NotACounterError
from shardcache.operations.keys import counters

LOST = NodeUnavailableError("lost", "node")


class Counting(ScriptedHarness):
    """A harness with one counter."""

    def incr(self, delta=1, initial=None, ttl=DEFAULT, floor=None):
        """Count up."""
        return self.run(counters.incr(self.cluster, "k", delta, initial, ttl, floor))

    def decr(self, delta=1, initial=None, ttl=DEFAULT, floor=None):
        """Count down."""
        return self.run(counters.decr(self.cluster, "k", delta, initial, ttl, floor))

    def put(self, data, flags=INTEGER_FLAGS, ttl=None):
        """Store what is counted."""
        self._execute(Set(b"k", (flags, data), ttl))


@pytest.mark.parametrize(
    ("initial", "floor", "error"),
    [
        (-1, 0, ValueError),
        (2**63, 0, ValueError),
        (1.0, 0, TypeError),
        (2**63, None, ValueError),
        (-(2**63) - 1, None, ValueError),
    ],
)
def test_an_initial_count_must_fit_a_counter(initial, floor, error):
    """A number that no server counts is refused before a node is asked."""
    harness = Counting()
    with pytest.raises(error, match="initial must be"):
        harness.incr(initial=initial, floor=floor)
    assert harness.commands == []


@pytest.mark.parametrize("floor", [1, -1, True, False, 0.5, "0"], ids=repr)
def test_a_floor_is_zero_or_none(floor):
    """Any other is refused before a node is asked."""
    harness = Counting()
    with pytest.raises(ValueError, match="floor must be 0, or None"):
        harness.incr(floor=floor)
    assert harness.commands == []


@pytest.mark.parametrize("floor", [0, None])
def test_a_counter_that_keeps_vanishing_is_missing(floor):
    """It is neither counted nor created, however often another client removes it."""
    harness = Counting()
    harness.replies = {Incr: None, IncrSigned: None, Set: False}
    assert harness.incr(initial=5, floor=floor) is None
    assert len(harness.asked(Set)) == counters.COUNTER_TRIES


@pytest.mark.parametrize("floor", [0, None])
def test_a_ttl_of_zero_creates_no_counter(floor):
    """The result is that of any other ttl."""
    harness = Counting()
    assert harness.incr(initial=5, ttl=0, floor=floor) == 5
    assert harness.asked(Set) == []
    harness.put(b"7")
    assert harness.incr(initial=5, ttl=0, floor=floor) == 8


@pytest.mark.parametrize("floor", [0, None])
def test_the_failure_of_a_node_is_a_miss(floor):
    """With `on_error="miss"`; the counter is not created either."""
    harness = Counting()
    harness.replies = {Incr: LOST, IncrSigned: LOST}
    assert harness.incr(initial=5, floor=floor) is None
    assert harness.asked(Set) == []


def test_each_count_is_one_event():
    """However many commands it comes to."""
    harness = Counting(coarse=True)
    harness.incr(initial=-5)
    harness.decr()
    harness.cluster.observes_operations = False
    assert harness.decr() == -7
    assert [event.name for event in harness.events.of(OperationFinished)] == ["incr", "decr"]


def test_a_server_that_can_counts_by_itself():
    """One command is enough."""
    harness = Counting()
    assert harness.decr(5, initial=-3) == -3
    harness.commands.clear()
    assert harness.decr(5) == -8
    assert harness.kinds == [IncrSigned]


class TestCoarse:
    """A server that cannot count below zero."""

    @pytest.fixture
    def harness(self):
        """Return a harness with such a node."""
        return Counting(coarse=True)

    def test_it_counts_up_by_itself(self, harness):
        """From zero on; the client only looks at the number."""
        harness.put(b"0")
        assert harness.incr(5) == 5
        assert harness.kinds == [Gets, Incr]

    @pytest.mark.parametrize("ttl", [50.0, None])
    def test_below_zero_the_client_counts(self, harness, ttl):
        """It stores the next number in place of the one that it read, and keeps the expiry."""
        harness.put(b"3", ttl=ttl)
        before = harness.node.held(b"k")
        assert harness.decr(5) == -2
        payload, expires = harness.node.held(b"k")
        assert payload == (INTEGER_FLAGS, b"-2")
        assert expires == pytest.approx(before[1], abs=1)
        assert math.isinf(expires) is (ttl is None)
        assert harness.incr(1) == -1

    def test_the_padding_of_a_shrunken_number_is_no_part_of_it(self, harness):
        """Memcached pads a counter that has lost a digit."""
        harness.put(b"9 ")
        assert harness.decr(10) == -1
        assert harness.node.held(b"k")[0] == (INTEGER_FLAGS, b"-1")

    def test_digits_of_another_client_keep_their_flags(self, harness):
        """Memcached counts whatever is in digits, and so does the client."""
        harness.put(b"5", TEXT_FLAGS)
        assert harness.decr(6) == -1
        assert harness.node.held(b"k")[0] == (TEXT_FLAGS, b"-1")

    @pytest.mark.parametrize(
        ("data", "delta"),
        [
            (b"text", 1),
            (b"", 1),
            (b"%d" % 2**63, -1),
            (b"%d" % (2**63 - 1), 1),
            (b"%d" % (-(2**63) - 1), 1),
            (b"%d" % -(2**63), -1),
        ],
    )
    def test_what_does_not_fit_is_not_counted(self, harness, data, delta):
        """Neither a number beyond 64 bits, nor a sum."""
        harness.put(data, RAW_FLAGS)
        with pytest.raises(NotACounterError, match=r"from -2\*\*63 to"):
            (harness.incr if delta > 0 else harness.decr)(1)
        assert harness.node.held(b"k")[0] == (RAW_FLAGS, data)
        assert harness.asked(CasUntil, Incr) == []

    def test_another_client_may_be_faster(self, harness):
        """Then the client reads again."""
        harness.put(b"0")
        changes = iter([b"10", b"20"])

        def race(command):
            if (data := next(changes, None)) is not None:
                harness.put(data)
            return harness.respond(command)

        harness.replies[CasUntil] = race
        assert harness.decr(21) == -1

    def test_another_client_may_cross_zero_first(self, harness):
        """The server then refuses to count, and the client does."""
        harness.put(b"0")

        def race(command):
            harness.put(b"-5")
            return harness.respond(command)

        harness.replies[Incr] = race
        assert harness.incr(2) == -3

    def test_a_counter_that_vanishes_is_created(self, harness):
        """Between the read and the store."""
        harness.put(b"0")

        harness.replies[CasUntil] = lambda _: harness.drop()
        assert harness.decr(1, initial=-7) == -7

    def test_it_gives_up_in_the_end(self, harness):
        """A bounded number of tries; the error is counted."""
        harness.put(b"0")
        harness.replies[CasUntil] = False
        harness.cluster.timeout = 1000.0
        assert harness.decr(1) is None
        assert len(harness.asked(CasUntil)) == counters.SIGNED_TRIES
        assert harness.known.errors == 1
        harness.cluster.raises = True
        with pytest.raises(NodeRefusedError, match="kept changing the counter"):
            harness.decr(1)

    def test_it_gives_up_at_the_deadline(self, harness):
        """A node that answers each step is not ejected for it."""
        harness.put(b"0")
        harness.replies[CasUntil] = False
        harness.cluster.timeout = 0.02
        for _ in range(20):
            began = harness.now
            assert harness.decr(1) is None
            assert harness.now - began <= 0.021
        assert 20 < len(harness.asked(CasUntil)) < 200
        assert harness.known.health.ejected is False

    def test_it_pauses_between_its_tries(self, harness):
        """Longer each time, up to a bound, so that a slow client has its turn."""
        harness.put(b"0")
        harness.replies[CasUntil] = False
        harness.cluster.timeout = 1000.0
        began = harness.now
        harness.decr(1)
        paused = harness.now - began - 3 * counters.SIGNED_TRIES * ROUND_TRIP
        assert 0.3 < paused / (counters.SIGNED_TRIES * counters.LONGEST_PAUSE) < 0.6

    @pytest.mark.parametrize("command", [Gets, CasUntil])
    def test_the_failure_of_a_step_ends_the_call(self, harness, command):
        """It is that of the call."""
        harness.put(b"0")
        harness.replies[command] = LOST
        assert harness.decr(1, initial=3) is None
        assert harness.asked(Set) == []
        assert len(harness.asked(command)) == 1


def test_a_date_of_zero_is_no_expiry():
    """As memcached means it."""
    assert Until(0) == (0, True)
