"""A `cas` that keeps the expiry, on servers that keep it and on servers that only tell its date."""

from __future__ import annotations

import math

import pytest

from operations.keys.scripted_harness import ScriptedHarness
from shardcache.core.codecs import Msgpack
from shardcache.core.commands import (
    CasKeep,
    CasUntil,
    DeleteCas,
    GetExpiry,
    Peek,
    Touch,
    Until,
    When,
)
from shardcache.core.events import OperationFinished
from shardcache.core.lifetimes import KEEP
from shardcache.core.values.payloads import SignedPayloads
from shardcache.errors import NodeRefusedError, NodeUnavailableError
from shardcache.operations.keys import single

LOST = NodeUnavailableError("lost", "node")
REFUSED = NodeRefusedError("out of memory", "node")


class Keeping(ScriptedHarness):
    """A harness with a value that was read."""

    def store(self, ttl):
        """Store a value, and return its token."""
        self.run(single.store(self.cluster, "k", "old", ttl, When.ALWAYS))
        _, token = self.run(single.gets(self.cluster, "k", None))
        self.commands.clear()
        return token

    def keep(self, token, value="new"):
        """Replace the value."""
        return self.run(single.cas(self.cluster, "k", value, token, KEEP))

    def get(self):
        """Return the value."""
        return self.run(single.get(self.cluster, "k", None))

    def sign(self):
        """Sign values from now on."""
        io = self.cluster.io
        self.cluster.payloads = SignedPayloads(Msgpack(), [b"at least 16 bytes"], io.wall)


@pytest.fixture(params=[False, True], ids=["keeps", "tells"])
def harness(request):
    """Return a harness of each kind of node."""
    return Keeping(coarse=request.param)


@pytest.mark.parametrize("ttl", [60.0, None])
def test_the_expiry_stays(harness, ttl):
    """However late the value is replaced."""
    token = harness.store(ttl)
    _, expires = harness.node.held(b"k")
    harness.world.advance(30.0)
    assert harness.keep(token) is True
    assert harness.get() == "new"
    assert harness.node.held(b"k")[1] == pytest.approx(expires, abs=1)


def test_each_kind_of_server_is_asked_in_its_way():
    """One command where the server keeps the expiry, two where it tells the date."""
    harness = Keeping()
    harness.keep(harness.store(60.0))
    assert harness.kinds == [CasKeep]
    harness = Keeping(coarse=True)
    harness.keep(harness.store(60.0))
    assert harness.kinds == [GetExpiry, CasUntil]
    assert type(harness.commands[-1].until) is Until


def test_it_is_one_event(harness):
    """However many commands it comes to."""
    harness.keep(harness.store(60.0))
    harness.cluster.observes_operations = False
    assert harness.keep(harness.store(60.0)) is True
    names = [event.name for event in harness.events.of(OperationFinished)]
    assert names == ["set", "gets", "cas"]


def test_a_date_that_is_not_exact_is_read_again():
    """Once: a second of the server ends only once a second."""
    harness = Keeping(coarse=True)
    token = harness.store(60.0)
    dates = iter([Until(5, exact=False), Until(0)])
    harness.replies[GetExpiry] = lambda _: next(dates)
    assert harness.keep(token) is True
    assert harness.node.held(b"k")[1] == math.inf


def test_a_changed_or_missing_value_is_not_replaced(harness):
    """The result tells which."""
    token = harness.store(60.0)
    harness.store(60.0)
    assert harness.keep(token) is False
    assert harness.get() == "old"
    harness.drop()
    assert harness.keep(token) is None


@pytest.mark.parametrize(
    ("coarse", "command"), [(False, CasKeep), (True, GetExpiry), (True, CasUntil)]
)
def test_the_failure_of_a_step_is_that_of_the_call(coarse, command):
    """It is `False` with `on_error="miss"`."""
    harness = Keeping(coarse=coarse)
    token = harness.store(60.0)
    before = harness.node.held(b"k")
    harness.replies[command] = LOST
    assert harness.keep(token) is False
    assert harness.node.held(b"k") == before


def test_a_refused_value_leaves_no_old_one(harness):
    """As with any `cas`."""
    token = harness.store(60.0)
    harness.replies = dict.fromkeys((CasUntil, CasKeep), REFUSED)
    assert harness.keep(token) is False
    assert harness.asked(DeleteCas) == [DeleteCas(b"k", token)]
    assert harness.get() is None


class TestSigned:
    """A signature ends with its value."""

    @pytest.mark.parametrize("ttl", [60.0, None])
    def test_the_signature_ends_with_the_value(self, harness, ttl):
        """Neither before, nor with a longer life that the node was told later."""
        harness.sign()
        token = harness.store(ttl)
        harness.world.advance(30.0)
        assert harness.keep(token) is True
        harness.run(_touch_node(harness, 1000.0))
        harness.world.advance(28.0)
        assert harness.get() == "new"
        harness.world.advance(5.0)
        assert harness.get() == (None if ttl else "new")

    def test_a_number_is_not_signed(self, harness):
        """No look at its life is needed."""
        harness.sign()
        token = harness.store(60.0)
        assert harness.keep(token, 7) is True
        assert harness.asked(Peek) == []

    @pytest.mark.parametrize(("reply", "result"), [(LOST, False), (None, None)])
    def test_without_an_answer_nothing_is_stored(self, harness, reply, result):
        """The look at its life failed, or the value is gone."""
        harness.sign()
        token = harness.store(60.0)
        harness.replies[Peek] = reply
        assert harness.keep(token) is result
        assert harness.asked(CasUntil, CasKeep) == []


async def _touch_node(harness, ttl):
    return await harness.cluster.ask(harness.known, Touch(b"k", ttl))
