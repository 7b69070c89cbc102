"""When a node is ejected, and what happens to calls to it."""

from __future__ import annotations

import gc
from contextlib import contextmanager

import pytest

from operations.harness import GET, NODE_CHANGES
from operations.simulation import TIMEOUT
from shardcache.core import health
from shardcache.core.commands import GetMany
from shardcache.core.events import CallFinished
from shardcache.core.placement.nodes import Node
from shardcache.errors import (
    ConnectTimeoutError,
    NodeRefusedError,
    NodeTimeoutError,
    NodeUnavailableError,
)
from shardcache.operations.cluster import members
from shardcache.operations.cluster import prober as probing
from shardcache.operations.port import UNANSWERED


class TestFailures:
    """Which failures count against a node."""

    def test_a_short_deadline_is_not_held_against_the_node(self, make_harness):
        """A timeout within less than 10 ms does not count, however often it happens."""
        harness = make_harness()
        harness.nodes[0].stopped = True
        for _ in range(30):
            assert isinstance(harness.ask(within=0.009), NodeTimeoutError)
        assert not harness.ejected()
        for _ in range(3):
            harness.ask(within=0.011)
        assert harness.ejected()

    def test_a_client_with_short_timeouts_ejects_too(self, make_harness):
        """Where all calls are shorter than 10 ms, a timeout of a call that had its full time counts."""
        harness = make_harness(timeout=0.008)
        harness.nodes[0].stopped = True
        for _ in range(3):
            harness.ask(within=0.003)
        assert not harness.ejected()
        for _ in range(3):
            harness.ask()
        assert harness.ejected()

    def test_a_refused_connection_counts_at_any_deadline(self, make_harness):
        """A node that is not there is ejected, however little time its call had."""
        harness = make_harness()
        harness.nodes[0].up = False
        harness.ask(within=0.005)
        assert harness.ejected()

    def test_a_connection_counts_if_there_was_time_to_make_it(self, make_harness):
        """A later step of a call may have too little left for that; a node out of reach is ejected at once."""
        harness = make_harness()
        harness.nodes[0].store.execute = lambda _: ConnectTimeoutError("no connection in time")
        for _ in range(9):
            harness.ask(within=0.45 * TIMEOUT)
        assert not harness.ejected()
        harness.ask(within=0.55 * TIMEOUT)
        assert harness.ejected()

    def test_the_deadline_of_a_batch_counts(self, make_harness):
        """A timeout counts by the time its step had, whether all nodes are awaited or enough of them."""
        harness = make_harness(nodes=2)
        for node in harness.nodes:
            node.stopped = True
        asks = [(member, GET) for member in harness.members]
        for _ in range(5):
            harness.run(harness.cluster.ask_many(asks, harness.now + 0.009))
            harness.run(harness.cluster.ask_many(asks, harness.now + 0.009, lambda _: False))
        assert not harness.ejected(0)
        for _ in range(3):
            harness.run(harness.cluster.ask_many(asks, harness.now + 0.011, lambda _: False))
        assert harness.ejected(0)

    def test_a_node_that_was_not_awaited_is_not_counted(self, make_harness):
        """A node that had no time to answer has neither answered nor failed."""
        harness = make_harness(nodes=2)
        harness.nodes[1].stopped = True
        asks = [(member, GET) for member in harness.members]
        for _ in range(5):
            replies = harness.run(
                harness.cluster.ask_many(
                    asks, harness.cluster.deadline(), lambda heard: heard.count(UNANSWERED) < 2
                )
            )
            assert replies[1] is UNANSWERED
        assert [member.answered for member in harness.members] == [5, 0]
        assert [member.errors for member in harness.members] == [0, 0]

    @pytest.mark.parametrize(("grave", "calls"), [(NodeTimeoutError, 3), (NodeUnavailableError, 1)])
    def test_a_batch_counts_by_its_gravest_error(self, make_harness, grave, calls):
        """A refused value does not excuse the missing replies behind it."""
        harness = make_harness()
        for call in range(calls):
            assert not harness.ejected(), f"after {call} calls"
            harness.answer([NodeRefusedError("too large"), True, grave("not answered")])
            harness.ask(command=GetMany([b"a", b"b", b"c"]))
        assert harness.ejected()
        assert harness.members[0].answered == 0

    def test_a_refusal_within_a_batch_is_an_answer(self, make_harness):
        """Refused values are counted as errors, and the node as one that answers."""
        harness = make_harness()
        harness.answer([NodeRefusedError("too large"), True])
        for _ in range(30):
            harness.ask(command=GetMany([b"a", b"b"]))
        assert not harness.ejected()
        assert (harness.members[0].answered, harness.members[0].errors) == (30, 30)

    def test_a_closed_client_ejects_no_node(self, make_harness):
        """A call that was under way when its client closed starts no prober."""
        harness = make_harness()
        harness.nodes[0].up = False
        harness.cluster.ejector.stop()
        harness.ask()
        harness.advance(10.0)
        assert not harness.ejected()
        assert harness.probes() == 0
        assert harness.node_changes == []


class TestRemovedNodes:
    """A client has lost a node while calls to it are under way."""

    def remove(self, harness, how):
        """Remove the first node of the client, or close the client."""
        ejector = harness.cluster.ejector
        ejector.stop() if how == "closed" else ejector.keep(harness.members[1:])

    @pytest.mark.parametrize("how", ["closed", "removed"])
    def test_a_late_failure_starts_no_probes(self, make_harness, how):
        """A call that was under way when its node was removed starts no prober."""
        harness = make_harness(nodes=2)
        harness.nodes[0].up = False
        call = harness.start_ask()
        self.remove(harness, how)
        harness.advance(10.0)
        assert isinstance(call.result, NodeUnavailableError)
        assert harness.probes() == 0
        assert harness.process.prober._out == {}
        assert harness.node_changes == []

    @pytest.mark.parametrize("how", ["closed", "removed"])
    def test_a_node_removed_during_its_ejection_is_not_probed(self, make_harness, monkeypatch, how):
        """Another thread may remove it between any two steps of the ejection."""
        harness = make_harness(nodes=2)
        harness.nodes[0].up = False
        eject = health.Health.eject

        def late(*args):
            self.remove(harness, how)
            return eject(*args)

        monkeypatch.setattr(health.Health, "eject", late)
        harness.ask()
        harness.advance(10.0)
        assert harness.probes() == 0
        assert harness.process.prober._out == {}
        assert harness.process.prober._watch is None  # its thread has ended

    def test_refused_calls_to_a_removed_node_start_nothing(self, make_harness, monkeypatch):
        """An operation of several steps may go on asking after its client closed."""
        harness = make_harness(nodes=2)
        harness.kill(0)
        harness.cluster.ejector.stop()
        harness.advance(10.0)
        begun = []
        monkeypatch.setattr(type(harness.cluster.io), "spawn", lambda *_: begun.append(1))
        for _ in range(5):
            assert isinstance(harness.ask(0), NodeUnavailableError)
        assert begun == []

    def test_clients_may_be_collected_while_nodes_are_listed(self, make_harness):
        """The collector may find clients, whose nodes then leave the list that is being read."""
        harness = make_harness()
        harness.kill(0)
        prober = harness.process.prober
        harness.advance(5.0)
        others = [members.SharedHealth() for _ in range(200)]
        for each in others:
            each.eject(NodeTimeoutError("late"), harness.now, 0.5)
            each.members[harness.members[0]] = harness.cluster.ejector
            prober._out[each] = probing.Claim(harness.now)

        crowded = others[0]
        for _ in range(200):
            crowded.members[members.Member(Node("memory://x"), None)] = harness.cluster.ejector

        class Mortal:
            def __init__(self):
                self.itself = self
                self.health = members.SharedHealth()
                self.member = members.Member(Node("memory://x"), None)
                prober._out[self.health] = probing.Claim(harness.now)
                crowded.members[self.member] = harness.cluster.ejector

            def __del__(self):
                prober._out.pop(self.health, None)
                crowded.members.pop(self.member, None)

        try:
            for _ in range(10):
                with collecting_soon(lambda: [Mortal() for _ in range(3)]):
                    assert len(prober._ejected(harness.now)) == 201
                with collecting_soon(lambda: [Mortal() for _ in range(3)]):
                    probing.clients_of(crowded)
                with collecting_soon(lambda: [Mortal() for _ in range(3)]):
                    assert crowded.answered == harness.members[0].answered
        finally:
            prober._out.clear()


@contextmanager
def collecting_soon(litter):
    """Make garbage, and have it collected among the next steps."""
    before = gc.get_threshold()
    gc.disable()
    gc.freeze()  # what other tests have left would take the collector seconds
    gc.collect()
    litter()
    try:
        gc.set_threshold(gc.get_count()[0] + 50)
        gc.enable()
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
        gc.enable()


class TestRefusedCalls:
    """What happens to a call to an ejected node."""

    def test_the_error_has_the_cause_and_is_counted(self, make_harness):
        """The call is refused at once; its cause is the error that ejected the node."""
        harness = make_harness()
        harness.kill(0)
        error = harness.events.of(*NODE_CHANGES)[0].error
        before = harness.now
        refused = harness.ask()
        assert harness.now == before
        assert str(refused.__cause__) == str(error)
        assert "ejected" in str(refused)
        counters = harness.members[0].counters()
        assert (counters["errors"], counters["refused_calls"], counters["ejections"]) == (2, 1, 1)

    def test_a_refused_call_is_an_event(self, make_harness):
        """`CallFinished` says that it took no time and failed."""
        harness = make_harness()
        harness.kill(0)
        refused = harness.ask()
        event = harness.events.of(CallFinished)[-1]
        assert (event.command, event.seconds, event.error) == ("get", 0.0, refused)
        assert (event.keys, event.started) == (1, harness.now)

    @pytest.mark.parametrize("raises", [False, True])
    def test_an_error_that_is_raised_is_not_counted_as_swallowed(self, make_harness, raises):
        """Errors and the seconds of failed calls are counted either way."""
        harness = make_harness()
        harness.cluster.raises = raises
        harness.ask()
        harness.silence(0)
        counters = harness.members[0].counters()
        assert (counters["calls"], counters["errors"]) == (4, 3)
        assert counters["swallowed_errors"] == (0 if raises else 3)
        assert counters["mean_seconds"] == pytest.approx((0.002 + 3 * TIMEOUT) / 4)

    def test_refusals_count_as_replies(self, make_harness):
        """A call that needs some of the nodes ends when enough of them have been refused."""
        harness = make_harness(nodes=3)
        harness.kill(0, 1)
        harness.nodes[2].stopped = True
        before = harness.now
        replies = harness.run(
            harness.cluster.ask_many(
                [(member, GET) for member in harness.members],
                harness.cluster.deadline(),
                lambda heard: len(heard) - heard.count(UNANSWERED) >= 2,
            )
        )
        assert harness.now - before < TIMEOUT / 2
        assert replies[2] is UNANSWERED

    def test_with_all_nodes_ejected_no_call_waits(self, make_harness):
        """Every reply is a refusal, and comes at once."""
        harness = make_harness(nodes=2)
        harness.kill(0, 1)
        before = harness.now
        asks = [(member, GET) for member in harness.members]
        for replies in (
            harness.run(harness.cluster.ask_many(asks)),
            harness.run(
                harness.cluster.ask_many(asks, harness.cluster.deadline(), lambda _: False)
            ),
        ):
            assert [type(reply) for reply in replies] == [NodeUnavailableError] * 2
        assert harness.now == before
