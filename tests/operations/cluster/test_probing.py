"""When a node is left alone and when it is asked again, in a world of virtual time."""

from __future__ import annotations

import errno
import gc
import itertools
from contextlib import contextmanager

import pytest

from interrupting import interrupted_before
from operations.harness import EJECTING, GET, NODE_CHANGES, Harness, closing
from operations.simulation import TIMEOUT
from shardcache.core import health
from shardcache.core.commands import GetMany, Ping
from shardcache.core.events import CallFinished, NodeEjected, NodeRestored
from shardcache.core.health import Circuit
from shardcache.core.nodes import Node
from shardcache.errors import (
    NodeProtocolError,
    NodeRefusedError,
    NodeTimeoutError,
    NodeUnavailableError,
    PoolTimeoutError,
    UnsupportedError,
)
from shardcache.operations.cluster import members
from shardcache.operations.cluster import prober as probing
from shardcache.operations.keys import admin
from shardcache.operations.port import UNANSWERED


@pytest.fixture
def make_harness():
    """Return a maker of harnesses, in which nothing goes on at the end."""
    yield from closing(Harness)


class TestBlame:
    """What a node is blamed for."""

    def test_a_deadline_too_near_says_nothing_of_the_node(self, make_harness):
        """A silence within less than 10 ms is not held against it, however often it is met."""
        harness = make_harness()
        harness.nodes[0].stopped = True
        for _ in range(30):
            assert isinstance(harness.ask(within=0.009), NodeTimeoutError)
        assert not harness.ejected()
        for _ in range(3):
            harness.ask(within=0.011)
        assert harness.ejected()

    def test_a_client_in_a_hurry_ejects_as_well(self, make_harness):
        """Where all calls are shorter than 10 ms, silence in one that had its time counts."""
        harness = make_harness(timeout=0.008)
        harness.nodes[0].stopped = True
        for _ in range(3):
            harness.ask(within=0.003)
        assert not harness.ejected()
        for _ in range(3):
            harness.ask()
        assert harness.ejected()

    def test_nearness_excuses_no_refusal(self, make_harness):
        """A node that is not there is ejected however little time its call had."""
        harness = make_harness()
        harness.nodes[0].up = False
        harness.ask(within=0.005)
        assert harness.ejected()

    def test_the_time_that_a_step_of_a_batch_has_counts(self, make_harness):
        """Also when many nodes are asked, to the end or until it is enough."""
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

    def test_whoever_was_not_waited_for_is_not_counted(self, make_harness):
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
    def test_a_batch_is_blamed_for_its_gravest_error(self, make_harness, grave, calls):
        """A value that was refused does not excuse the gaps behind it."""
        harness = make_harness()
        for call in range(calls):
            assert not harness.ejected(), f"after {call} calls"
            harness.answer([NodeRefusedError("too large"), True, grave("not answered")])
            harness.ask(command=GetMany([b"a", b"b", b"c"]))
        assert harness.ejected()
        assert harness.members[0].answered == 0

    def test_a_no_within_a_batch_is_an_answer(self, make_harness):
        """Refused values are counted as errors, and the node as one that answers."""
        harness = make_harness()
        harness.answer([NodeRefusedError("too large"), True])
        for _ in range(30):
            harness.ask(command=GetMany([b"a", b"b"]))
        assert not harness.ejected()
        assert (harness.members[0].answered, harness.members[0].errors) == (30, 30)

    def test_behind_a_closed_client_nobody_is_ejected(self, make_harness):
        """A call that was under way when it was closed begins no prober."""
        harness = make_harness()
        harness.nodes[0].up = False
        harness.cluster.ejector.stop()
        harness.ask()
        harness.advance(10.0)
        assert not harness.ejected()
        assert harness.probes() == 0
        assert harness.node_changes == []


class TestGone:
    """What becomes of nodes that a client has no more, while calls are still under way."""

    def take_away(self, harness, how):
        """Let the client have its first node no more."""
        ejector = harness.cluster.ejector
        ejector.stop() if how == "closed" else ejector.keep(harness.members[1:])

    @pytest.mark.parametrize("how", ["closed", "removed"])
    def test_a_failure_that_comes_late_lists_nobody(self, make_harness, how):
        """A call that was under way when its node went away begins no prober."""
        harness = make_harness(nodes=2)
        harness.nodes[0].up = False
        call = harness.start_ask()
        self.take_away(harness, how)
        harness.advance(10.0)
        assert isinstance(call.result, NodeUnavailableError)
        assert harness.probes() == 0
        assert harness.process.prober._out == {}
        assert harness.node_changes == []

    @pytest.mark.parametrize("how", ["closed", "removed"])
    def test_a_node_that_goes_while_it_is_ejected_is_not_probed(
        self, make_harness, monkeypatch, how
    ):
        """Another thread may take it away between any two steps of the ejection."""
        harness = make_harness(nodes=2)
        harness.nodes[0].up = False
        eject = health.Health.eject

        def late(*args):
            self.take_away(harness, how)
            return eject(*args)

        monkeypatch.setattr(health.Health, "eject", late)
        harness.ask()
        harness.advance(10.0)
        assert harness.probes() == 0
        assert harness.process.prober._out == {}
        assert harness.process.prober._watch is None  # its thread has ended

    def test_refused_calls_to_a_node_that_is_gone_begin_nothing(self, make_harness, monkeypatch):
        """An operation of several steps that began before may go on asking."""
        harness = make_harness(nodes=2)
        harness.kill(0)
        harness.cluster.ejector.stop()
        harness.advance(10.0)
        begun = []
        monkeypatch.setattr(type(harness.cluster.io), "spawn", lambda *_: begun.append(1))
        for _ in range(5):
            assert isinstance(harness.ask(0), NodeUnavailableError)
        assert begun == []

    def test_garbage_collected_while_nodes_are_listed(self, make_harness):
        """What the collector finds may be clients, whose nodes leave then."""
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
    gc.collect()
    litter()
    try:
        gc.set_threshold(gc.get_count()[0] + 50)
        gc.enable()
        yield
    finally:
        gc.set_threshold(*before)
        gc.enable()


class TestRestoring:
    """What brings an ejected node back."""

    def test_reads_do_not_restore_what_cannot_serve(self, make_harness):
        """A late reply to a call of before leaves a node ejected that said it is not serving."""
        harness = make_harness()
        harness.nodes[0].delay = 0.02
        early = harness.start_ask()
        harness.advance(0.01)
        harness.nodes[0].delay = 0.001
        harness.answer(NodeUnavailableError("became a replica"))
        harness.ask()
        assert harness.ejected()
        harness.answer(None)
        harness.advance(0.1)
        assert early.done
        assert harness.members[0].answered == 1
        assert harness.ejected()
        assert harness.node_changes == [NodeEjected]

    def test_any_reply_restores_what_was_silent(self, make_harness):
        """For whoever answers is silent no more."""
        harness = make_harness()
        harness.nodes[0].delay = 0.1
        early = harness.start_ask(within=1.0)
        harness.advance(0.001)
        for _ in range(3):
            harness.ask(within=0.02)
        assert harness.ejected()
        harness.advance(0.16, lambda: early.done)
        assert early.done
        assert not harness.ejected()
        assert harness.probes() == 0

    @pytest.mark.parametrize("how", ["silence", "kill"])
    def test_a_ping_of_the_user_s_restores(self, make_harness, how):
        """It asks all nodes, the ejected ones too, and nobody waits for the prober."""
        harness = make_harness(nodes=2)
        getattr(harness, how)(0)
        harness.nodes[0].up = True
        harness.nodes[0].resume()
        pings = harness.run(admin.ping(harness.cluster))
        assert all(isinstance(seconds, float) for seconds in pings.values())
        assert not harness.ejected()
        assert harness.node_changes == [NodeEjected, NodeRestored]

    def test_it_is_told_once(self, make_harness):
        """However many replies arrive at a time, a node comes back but once."""
        harness = make_harness()
        harness.silence(0)
        harness.nodes[0].resume()
        pings = [harness.start_ask(command=Ping(), within=1.0) for _ in range(5)]
        harness.advance(0.5)
        assert all(ping.done for ping in pings)
        harness.run(harness.cluster.ask_timed([(harness.members[0], Ping())] * 5, ejected_too=True))
        assert harness.node_changes == [NodeEjected, NodeRestored]
        harness.process.prober.restore(harness.members[0].health)
        assert harness.node_changes == [NodeEjected, NodeRestored]

    def test_for_how_long_it_was_gone_is_told(self, make_harness):
        """The seconds between are those of the client's clock."""
        harness = make_harness()
        harness.kill(0)
        gone = harness.now
        harness.advance(20.0)
        harness.nodes[0].up = True
        harness.advance(20.0, lambda: not harness.ejected())
        ejected, restored = harness.events.of(*NODE_CHANGES)
        assert isinstance(ejected.error, NodeUnavailableError)
        assert restored.seconds == pytest.approx(harness.now - gone)

    def test_what_began_before_says_nothing_of_it(self, make_harness):
        """A call that fails after its node has come back, but was made before, ejects nobody."""
        harness = make_harness()
        harness.nodes[0].stopped = True
        early = [harness.start_ask(within=5.0) for _ in range(3)]
        harness.silence(0)
        harness.nodes[0].stopped = False  # and what came before is lost
        harness.run(admin.ping(harness.cluster))
        assert not harness.ejected()
        harness.advance(10.0)
        assert all(isinstance(call.result, NodeTimeoutError) for call in early)
        assert not harness.ejected()
        assert harness.node_changes == [NodeEjected, NodeRestored]

    def test_it_may_be_ejected_again(self, make_harness):
        """A node comes and goes as often as it likes, and is probed each time."""
        harness = make_harness()
        for turn in range(1, 4):
            harness.kill(0)
            assert harness.members[0].ejections == turn
            harness.nodes[0].up = True
            harness.advance(60.0, lambda: not harness.ejected())
            assert not harness.ejected()
            harness.advance(0.2)
        assert harness.node_changes == [NodeEjected, NodeRestored] * 3

    def test_a_probe_that_is_refused_is_a_sign_of_life(self, make_harness):
        """The node has understood it."""
        harness = make_harness()
        harness.kill(0)
        harness.nodes[0].up = True
        harness.answer(NodeRefusedError("stats are disabled"))
        harness.advance(1.0)
        assert not harness.ejected()

    @pytest.mark.parametrize("silent", [False, True])
    def test_a_probe_that_fails_for_reasons_of_our_own_is_none(self, make_harness, silent):
        """Though it says nothing against the node either: why that is out stays as it was."""
        held_up = NodeTimeoutError("did not answer in time")
        held_up.excused = True
        no_descriptor = NodeUnavailableError("cannot connect")
        no_descriptor.__cause__ = OSError(errno.EMFILE, "too many open files")
        for answer in (held_up, no_descriptor, PoolTimeoutError("all in use")):
            harness = make_harness()
            harness.silence(0) if silent else harness.kill(0)
            why = str(harness.members[0].health.error)
            harness.nodes[0].up = True
            harness.nodes[0].resume()
            intact = harness.nodes[0].store.execute
            harness.answer(answer)
            harness.advance(5.0)
            assert harness.node_changes == [NodeEjected]
            assert str(harness.members[0].health.error) == why
            assert harness.members[0].health.soft == silent
            harness.nodes[0].store.execute = intact
            harness.advance(7.0)
            assert not harness.ejected()

    def test_a_probe_that_makes_no_sense_is_none(self, make_harness):
        """Nor is one that fails in another way; each comes over new connections, and later."""
        harness = make_harness()
        harness.kill(0)
        harness.nodes[0].up = True
        for answer in (NodeProtocolError("nonsense"), NodeUnavailableError("LOADING")):
            harness.answer(answer)
            before = harness.probes()
            harness.advance(8.0, lambda before=before: harness.probes() > before)
            harness.advance(0.01)
            assert harness.ejected()
        assert harness.nodes[0].drops == 1 + harness.probes()

    def test_a_probe_that_cannot_be_made_ends_nothing(self, make_harness, monkeypatch):
        """As of a node that has joined a Redis Cluster: it is probed on, and may come back."""
        harness = make_harness()
        harness.kill(0)
        harness.nodes[0].up = True

        async def refuse(*_):
            raise UnsupportedError("the server is part of a Redis Cluster")

        with monkeypatch.context() as patched:
            patched.setattr(type(harness.cluster.io), "call_many", refuse)
            harness.advance(5.0)
        assert harness.ejected()
        harness.advance(10.0)
        assert not harness.ejected()


# An interrupt between the making of a coroutine and its first step leaves one that never began.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
class TestInterrupts:
    """What an exception at any moment of an ejection leaves behind."""

    @pytest.fixture(autouse=True)
    def _collected(self):
        """Collect what the interrupts have left while its warnings are ignored."""
        yield
        gc.collect()

    def sound(self, harness):
        """Return whether the node is ejected and listed, or neither."""
        prober = harness.process.prober
        return harness.ejected() == (harness.members[0].health in prober._out)

    def test_a_good_probe_leaves_the_claim_of_one_who_is_about_to_eject(self):
        """He would eject a node that nobody probes."""
        harness = Harness()
        prober, (member,) = harness.process.prober, harness.members
        prober._out[member.health] = probing.Claim(harness.now)
        prober._judge(member.health, reply=True)
        assert member.health in prober._out

    def test_a_node_is_listed_when_it_is_ejected_late(self, monkeypatch):
        """Its claim may have passed for abandoned meanwhile."""
        harness = Harness()
        prober, (member,) = harness.process.prober, harness.members
        eject = health.Health.eject

        def late(*args):
            prober._out.clear()
            return eject(*args)

        monkeypatch.setattr(health.Health, "eject", late)
        harness.nodes[0].up = False
        harness.start_ask()
        harness.advance(0.01)
        assert harness.ejected()
        assert member.health in prober._out

    def at_each(self, prepare, act):
        """Give a harness for each bytecode, after an interrupt there."""
        for number in itertools.count(1):
            harness = Harness()
            prepare(harness)
            if not interrupted_before(number, lambda harness=harness: act(harness), EJECTING):
                assert number > 50
                return
            assert self.sound(harness), f"at bytecode {number}"
            yield number, harness
            harness.close()

    @pytest.mark.parametrize("silent", [False, True])
    def test_an_ejection_is_whole_or_none(self, silent):
        """The node is ejected by the next failure at the latest, and comes back when it is well."""

        def prepare(harness):
            harness.nodes[0].up = silent
            harness.nodes[0].stopped = silent
            for _ in range(2 * silent):
                harness.ask()

        for number, harness in self.at_each(prepare, Harness.ask):
            for _ in range(2):
                harness.ask()
            assert harness.ejected(), f"at bytecode {number}"
            assert self.sound(harness), f"at bytecode {number}"
            harness.nodes[0].up = True
            harness.nodes[0].resume()
            harness.advance(5.0, lambda harness=harness: not harness.ejected())
            assert not harness.ejected(), f"at bytecode {number}"

    def test_a_return_is_whole_or_none(self):
        """The node is back, or goes on to be probed."""

        def prepare(harness):
            harness.silence(0)
            harness.nodes[0].resume()

        def act(harness):
            harness.run(admin.ping(harness.cluster))

        for number, harness in self.at_each(prepare, act):
            harness.advance(2.0)
            harness.ask()  # if its prober was stopped, this begins another
            harness.advance(5.0)
            assert not harness.ejected(), f"at bytecode {number}"
            assert harness.members[0].health not in harness.process.prober._out

    def test_a_claim_that_led_to_nothing_keeps_nobody(self):
        """Though its owner was stopped twice, the node is ejected, or forgotten by the prober."""
        for fails in (True, False):
            harness = Harness(nodes=2)
            harness.kill(1)
            harness.process.prober._out[harness.members[0].health] = probing.Claim(harness.now)
            harness.advance(2 * probing.ABANDONED)
            harness.nodes[0].up = not fails
            harness.ask(0)
            assert harness.ejected(0) == fails
            assert self.sound(harness)


class TestProbing:
    """When ejected nodes are probed."""

    def test_nobody_but_the_prober_asks_it(self, make_harness):
        """It alone, after a quarter of a second, and later each time."""
        harness = make_harness(nodes=3)
        harness.kill(0)
        for _ in range(2000):
            assert isinstance(harness.ask(0), NodeUnavailableError)
            harness.advance(0.01)
        assert harness.calls(0) == 1
        assert 6 <= harness.probes(0) <= 15
        assert harness.members[0].refused == 2000

    def test_a_node_under_probe_is_shown_so(self, make_harness):
        """Its circuit says that a sign of life may come at any moment."""
        harness = make_harness()
        harness.silence(0)
        assert harness.members[0].health.circuit is Circuit.OPEN
        harness.advance(1.0, lambda: harness.probes() == 1)
        assert harness.members[0].health.circuit is Circuit.PROBING
        harness.advance(TIMEOUT + 0.01)
        assert harness.members[0].health.circuit is Circuit.OPEN

    def test_a_node_that_is_back_is_shown_so_whatever_becomes_of_its_probe(self, make_harness):
        """Another reply may restore it while a probe is on its way, and the probe fail after that."""
        harness = make_harness()
        harness.silence(0)
        harness.advance(1.0, lambda: harness.probes() == 1)
        harness.cluster.ejector.record_success(harness.members[0], Ping())
        assert not harness.ejected()
        assert harness.members[0].health.circuit is Circuit.CLOSED
        harness.advance(TIMEOUT + 0.01)  # the probe is late now
        assert harness.members[0].health.circuit is Circuit.CLOSED

    def test_a_node_that_was_removed_is_probed_no_more(self, make_harness):
        """Nor is it told of."""
        harness = make_harness(nodes=2)
        harness.kill(0, 1)
        harness.cluster.ejector.keep(harness.members[1:])
        before = harness.probes(0)
        harness.advance(20.0)
        assert harness.probes(0) == before
        assert harness.probes(1) > 5
        harness.nodes[1].up = True
        harness.advance(20.0)
        assert [event.node.name for event in harness.events.of(*NODE_CHANGES)] == ["n0", "n1", "n1"]

    def test_a_prober_that_was_stopped_asks_nobody(self, make_harness):
        """The nodes of a closed client are left in peace."""
        harness = make_harness()
        harness.kill(0)
        harness.cluster.ejector.stop()
        harness.advance(20.0)
        assert harness.probes() == 0


class TestDoubt:
    """When most nodes are silent, the trouble may be this process's own."""

    def probed(self, harness, place, seconds=10.0):
        """Return how often a node is probed in so many seconds, if its own delay is longer."""
        before = harness.probes(place)
        harness.members[place].health.due = harness.now + 100.0
        end = harness.now + seconds
        while harness.now < end:
            harness.ask(place)
            harness.advance(0.02)
            harness.members[place].health.due = max(harness.members[place].health.due, end + 1)
        return harness.probes(place) - before

    def test_each_is_probed_once_a_second(self, make_harness):
        """However long its delay has grown."""
        harness = make_harness(nodes=3)
        harness.silence(0, 1)
        assert 7 <= self.probed(harness, 0) <= 11
        assert 7 <= self.probed(harness, 1) <= 11

    @pytest.mark.parametrize(("nodes", "silent"), [(2, 1), (4, 2), (3, 1)])
    def test_half_of_the_nodes_are_not_most(self, make_harness, nodes, silent):
        """Then they are down, and probed when their delays say so."""
        harness = make_harness(nodes)
        harness.silence(*range(silent))
        assert self.probed(harness, 0) == 0

    def test_nodes_that_are_down_are_not_silent(self, make_harness):
        """They neither count among the silent, nor are they probed for the sake of those."""
        harness = make_harness(nodes=5)
        harness.kill(0)
        harness.silence(1, 2)
        assert self.probed(harness, 1) == 0
        harness.silence(3)
        assert self.probed(harness, 0) == 0
        assert self.probed(harness, 1) > 5

    @pytest.mark.parametrize("nodes", [1, 3, 5])
    def test_no_call_waits_for_them(self, make_harness, nodes):
        """A worker of one thread goes on at full speed with all of its nodes stopped."""
        harness = make_harness(nodes)
        harness.silence(*range(nodes))
        before = [harness.calls(place) for place in range(nodes)]
        asks = [(member, GET) for member in harness.members]
        for _ in range(100):
            began = harness.now
            for place in range(nodes):
                harness.ask(place)
            harness.run(harness.cluster.ask_many(asks))
            harness.run(harness.cluster.ask_many(asks, harness.cluster.deadline(), lambda _: False))
            assert harness.now == began
            harness.advance(0.1)
        assert [harness.calls(place) for place in range(nodes)] == before


class TestRefusals:
    """What becomes of a call to a node that is ejected."""

    def test_it_says_why_and_is_counted(self, make_harness):
        """At once, with the error that the node was ejected for as its cause."""
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

    def test_it_is_told_as_any_other(self, make_harness):
        """It took no time, and has failed."""
        harness = make_harness()
        harness.kill(0)
        refused = harness.ask()
        event = harness.events.of(CallFinished)[-1]
        assert (event.command, event.seconds, event.error) == ("get", 0.0, refused)

    @pytest.mark.parametrize("raises", [False, True])
    def test_what_reaches_the_caller_was_not_swallowed(self, make_harness, raises):
        """Errors are counted either way, and the time that calls took with theirs."""
        harness = make_harness()
        harness.cluster.raises = raises
        harness.ask()
        harness.silence(0)
        counters = harness.members[0].counters()
        assert (counters["calls"], counters["errors"]) == (4, 3)
        assert counters["swallowed_errors"] == (0 if raises else 3)
        assert counters["mean_seconds"] == pytest.approx((0.002 + 3 * TIMEOUT) / 4)

    def test_refusals_count_among_those_who_have_answered(self, make_harness):
        """Nobody waits for others when enough have been refused to decide."""
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

    def test_nobody_is_waited_for_when_none_is_fit(self, make_harness):
        """All replies are refusals then, and come at once."""
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
