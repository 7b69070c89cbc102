"""Clients of one process share the health of a node, in virtual time."""

from __future__ import annotations

import gc
import itertools

import pytest

from interrupting import interrupted_before
from operations.harness import EJECTING, NODE_CHANGES, TwoClients
from operations.simulation import Process
from shardcache.core.events import NodeEjected, NodeRestored
from shardcache.errors import NodeTimeoutError, NodeUnavailableError
from shardcache.operations.cluster import members
from shardcache.operations.keys import admin


@pytest.fixture
def harness():
    """Return two clients, with nothing going on at the end."""
    harness = TwoClients()
    yield harness
    harness.close()


class TestEjection:
    """A node that one client ejects is ejected for all clients of the process."""

    def test_the_other_client_waits_for_no_timeout(self, harness):
        """Three timeouts of one client are enough: the other is refused at once."""
        harness.nodes[0].stopped = True
        for _ in range(3):
            assert isinstance(harness.ask(process=0), NodeTimeoutError)
        before = harness.now
        assert isinstance(harness.ask(process=1), NodeUnavailableError)
        assert harness.now == before
        assert (harness.member(process=1).refused, harness.member(process=0).refused) == (1, 0)

    def test_both_clients_hear_of_it_and_one_line_is_logged(self, harness):
        """Each observer hears of the ejection and the return once, though one client asked."""
        harness.kill(0)
        harness.advance(1.0)
        harness.nodes[0].up = True
        harness.advance(5.0)
        for client in range(2):
            assert harness.changes_told(client) == [NodeEjected, NodeRestored]
            assert not harness.ejected(process=client)
            assert harness.member(process=client).counters()["ejections"] == 1
            assert harness.nodes[0].drops >= 2  # of both clients' connections
        assert [type(line) for line in harness.lines] == [NodeUnavailableError, tuple]

    def test_one_series_of_probes_serves_both(self, harness):
        """The node is probed no more often than for one client."""
        harness.kill(0)
        for client in itertools.islice(itertools.cycle((0, 1)), 400):
            harness.ask(process=client)
            harness.advance(0.05)
        assert 6 <= harness.probes() <= 15

    def test_failures_of_both_are_counted_together(self, harness):
        """Two timeouts of one client and the next of the other are three in a row."""
        harness.nodes[0].stopped = True
        for client in (0, 0, 1):
            assert not harness.ejected(process=0)
            harness.ask(process=client)
        assert harness.ejected(process=0)

    def test_an_answer_to_either_resets_the_count(self, harness):
        """A node that answers one client is not silent."""
        for _ in range(4):
            harness.nodes[0].stopped = True
            harness.ask(process=0)
            harness.ask(process=0)
            assert harness.member(process=1).suspect
            harness.nodes[0].resume()
            harness.ask(process=1)
            assert not harness.member(process=0).suspect
        assert not harness.ejected(process=0)

    def test_a_reply_to_either_restores_the_node(self, harness):
        """A ping by one client restores the node for both."""
        harness.kill(0, process=0)
        harness.nodes[0].up = True
        task = harness.processes[1].run(admin.ping(harness.processes[1].cluster))
        harness.advance(0.1, lambda: task.done)
        assert not harness.ejected(process=0)
        assert harness.changes_told(0) == harness.changes_told(1) == [NodeEjected, NodeRestored]

    def test_a_client_with_most_nodes_silent_probes_each_second(self):
        """Another client of the process may have more nodes that answer."""
        harness = TwoClients(nodes=3)
        harness.processes[1].cluster.ejector.keep([harness.member(0, process=1)])
        harness.nodes[0].stopped = True
        for _ in range(3):
            harness.ask(process=1)
        health = harness.member(process=1).health
        health.due = harness.now + 100.0
        harness.advance(1.5)
        assert harness.probes() == 1
        harness.close_client(1)  # one of three is no doubt
        health.due = harness.now + 100.0
        harness.advance(20.0)
        assert harness.probes() == 1
        harness.close()


class TestProbesThatFail:
    """A node whose backend raises what it should not affects no other node."""

    def test_a_probe_that_raises_delays_no_other(self, monkeypatch):
        """The other client's node comes back, and this one when it can be asked again."""
        harness = TwoClients(nodes=2)
        for client, place in ((0, 0), (1, 1)):
            harness.nodes[place].up = False
            harness.ask(place, process=client)
            harness.nodes[place].up = True
        broken, call_many = harness.member(0, process=0).backend, type(harness.prober._io).call_many

        async def raising(io, asks, *terms):
            if any(backend is broken for backend, _ in asks):
                raise RuntimeError("a fault in a plugin")
            return await call_many(io, asks, *terms)

        for health in (harness.member(0, process=0).health, harness.member(1, process=1).health):
            health.due = harness.now  # both at once
        with monkeypatch.context() as patched:
            patched.setattr(type(harness.prober._io), "call_many", raising)
            harness.advance(5.0)
            assert not harness.ejected(1, process=1)
            assert "a fault in a plugin" in str(harness.ask(0, process=0))
        harness.advance(10.0)
        assert not harness.ejected(0, process=0)
        harness.close()

    def test_a_node_without_a_backend_delays_no_other(self):
        """A backend that cannot be made ends only the probes of its own node."""
        harness = TwoClients(nodes=2)

        def reach(_):
            raise RuntimeError("a fault in a plugin")

        harness.processes[0].cluster.ejector.reach = reach
        for place in range(2):
            harness.nodes[place].up = False
            harness.ask(place, process=place)
            harness.nodes[place].up = True
        harness.processes[0].cluster.ejector.keep([harness.member(0, process=0)])
        harness.processes[1].cluster.ejector.keep([harness.member(1, process=1)])
        harness.advance(5.0)
        assert harness.ejected(0, process=0)
        assert not harness.ejected(1, process=1)
        harness.close()

    def test_a_half_closed_client_is_not_probed_for(self, harness):
        """The rest of its close may never happen: the prober's thread ends, and does not spin."""
        harness.kill(0)
        for client in range(2):
            harness.processes[client].cluster.ejector._stopped = True
        turns = []
        due = type(harness.prober)._due

        def counted(prober, now):
            turns.append(now)
            assert len(turns) < 100
            return due(prober, now)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(type(harness.prober), "_due", counted)
            harness.advance(5.0)
        assert harness.prober._out == {}
        assert harness.prober._watch is None


class TestClientsComeAndGo:
    """Clients are made and closed while a node is ejected."""

    def test_a_new_client_hears_of_it_with_its_first_refused_call(self, harness):
        """It waits for no timeout, and its observers hear of both events, in order."""
        harness.kill(0)
        late, idle = harness.add_process(), harness.add_process()
        assert harness.ejected(process=late)
        assert harness.changes_told(late) == []
        for _ in range(3):
            assert isinstance(harness.ask(process=late), NodeUnavailableError)
        assert harness.changes_told(late) == [NodeEjected]
        assert harness.member(process=late).ejections == 1
        harness.nodes[0].up = True
        harness.advance(5.0)
        assert harness.changes_told(late) == [NodeEjected, NodeRestored]
        assert harness.changes_told(idle) == []

    @pytest.mark.parametrize("closed", [0, 1])
    def test_a_client_that_closes_leaves_the_node_to_the_other(self, harness, closed):
        """The node is still probed, whichever client ejected it, and comes back."""
        harness.kill(0)
        harness.advance(1.0)
        harness.close_client(closed)
        harness.nodes[0].up = True
        harness.advance(5.0)
        assert not harness.ejected(process=1 - closed)
        assert harness.changes_told(1 - closed) == [NodeEjected, NodeRestored]
        assert harness.changes_told(closed) == [NodeEjected]

    def test_the_last_client_takes_the_health_with_it(self, harness):
        """A client made after that starts with a node of which nothing is known."""
        harness.kill(0)
        harness.close_client(0)
        harness.close_client(1)
        assert harness.prober._known == {}
        before = harness.probes()
        after = harness.add_process()
        assert not harness.ejected(process=after)
        harness.advance(5.0)
        assert harness.probes() == before
        assert harness.prober._out == {}
        assert harness.prober._watch is None

    def test_a_client_made_while_the_last_closes_shares_with_later_ones(self, harness):
        """Another thread may remove the health that it was about to share."""
        harness.close_client(1)
        (health,) = harness.prober._known.values()

        class Busy(dict):
            def setdefault(self, key, value):
                shared = super().setdefault(key, value)
                if shared is health and harness.processes[0].cluster.ejector.stopped is False:
                    harness.close_client(0)
                return shared

        harness.prober._known = Busy(harness.prober._known)
        first, second = harness.add_process(), harness.add_process()
        assert harness.member(process=first).health is harness.member(process=second).health

    def test_a_client_made_while_the_last_closes_gets_its_node_probed(self, harness):
        """The prober may have dropped the node in between."""
        harness.kill(0)
        harness.close_client(1)

        class Busy(dict):
            def setdefault(self, key, value):
                shared = super().setdefault(key, value)
                if not harness.processes[0].cluster.ejector.stopped:
                    harness.close_client(0)
                    harness.advance(1.0)
                    assert harness.prober._out == {}
                return shared

        harness.prober._known = Busy(harness.prober._known)
        late = harness.add_process()
        harness.ask(process=late)
        harness.nodes[0].up = True
        harness.advance(5.0)
        assert not harness.ejected(process=late)

    def test_the_counts_of_a_closed_client_stay(self, harness):
        """Its answered calls are not taken for calls that were never answered."""
        for _ in range(50):
            harness.ask(process=0)
        answered = harness.member(process=1).health.answered
        harness.close_client(0)
        assert harness.member(process=1).health.answered == answered == 50

    def test_only_equal_identities_share(self, harness):
        """Other nodes, and nodes of a client's own, are not touched."""
        own = Process(harness.world, harness.nodes, prober=harness.prober)
        (member,) = own.cluster.members.values()
        own.cluster.ejector.keep([])
        member.health = type(member.health)()
        own.cluster.ejector.add(member, None)
        harness.kill(0)
        assert not member.health.ejected
        own.cluster.ejector.stop()


# An interrupt between the making of a coroutine and its first step leaves one that never began.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
class TestInterrupts:
    """What an exception at any moment leaves behind for two clients."""

    @pytest.fixture(autouse=True)
    def _collected(self):
        """Collect what the interrupts have left while its warnings are ignored."""
        yield
        gc.collect()

    def at_each(self, prepare, act):
        """Return a harness for each bytecode, after an interrupt there."""
        for number in itertools.count(1):
            harness = TwoClients()
            prepare(harness)
            if not interrupted_before(number, lambda harness=harness: act(harness), EJECTING):
                assert number > 50
                return
            health = harness.member(process=0).health
            assert health.ejected == (health in harness.prober._out), f"at bytecode {number}"
            yield number, harness
            harness.close()

    @pytest.mark.slow
    def test_after_an_interrupted_ejection_both_have_a_probed_node(self):
        """Both are told of it by their next call, and of its return."""

        def prepare(harness):
            harness.nodes[0].up = False

        for number, harness in self.at_each(prepare, lambda harness: harness.ask(process=0)):
            for client in (0, 0, 1, 1):
                harness.ask(process=client)
            assert harness.ejected(process=0), f"at bytecode {number}"
            harness.nodes[0].up = True
            harness.advance(5.0)
            for client in range(2):
                assert not harness.ejected(process=client), f"at bytecode {number}"
                assert harness.changes_told(client)[-1:] == [NodeRestored], f"at bytecode {number}"

    @pytest.mark.slow
    def test_after_an_interrupted_return_both_hear_of_the_next_ejection(self):
        """A client that missed the return is told of it then, and drops its connections again."""

        def prepare(harness):
            harness.kill(0)
            harness.nodes[0].up = True

        def act(harness):
            task = harness.processes[0].run(admin.ping(harness.processes[0].cluster))
            harness.advance(0.1, lambda: task.done)

        for number, harness in self.at_each(prepare, act):
            harness.advance(0.1)
            if harness.ejected(process=0):
                continue
            drops = harness.nodes[0].drops
            harness.kill(0)
            harness.ask(process=0)
            harness.ask(process=1)
            assert harness.nodes[0].drops == drops + 2, f"at bytecode {number}"
            for client in range(2):
                assert harness.member(process=client).ejections == 2, f"at bytecode {number}"
                assert harness.changes_told(client).count(NodeEjected) == 2, f"at bytecode {number}"

    def test_a_missed_return_is_reported_with_the_next_ejection(self, harness, monkeypatch):
        """The events come in order, with the seconds that the node was out."""
        harness.kill(0)
        harness.nodes[0].up = True
        with monkeypatch.context() as patched:
            patched.setattr(
                type(harness.processes[0].cluster.ejector), "notify_restored", lambda *_: None
            )
            harness.advance(1.0)
        harness.advance(60.0)
        harness.kill(0)
        for client in range(2):
            assert harness.changes_told(client) == [NodeEjected, NodeRestored, NodeEjected]
            assert 0.1 < harness.logs[client].of(*NODE_CHANGES)[1].seconds < 1.0

    def test_after_an_interrupted_join_the_node_is_probed(self):
        """The other client gets its node back in any case."""

        def act(harness):
            harness.add_process()

        for number, harness in self.at_each(lambda harness: harness.kill(0), act):
            harness.nodes[0].up = True
            harness.advance(5.0)
            assert not harness.ejected(process=0), f"at bytecode {number}"
            assert harness.changes_told(0) == [NodeEjected, NodeRestored], f"at bytecode {number}"

    def test_an_interrupted_join_can_be_undone(self):
        """A client that is closed leaves no part of itself with the others."""

        def prepare(harness):
            harness.kill(0)
            harness.add_process()
            member = harness.member(process=2)
            harness.processes[2].cluster.ejector.keep([])
            member.health = members.SharedHealth()

        def act(harness):
            harness.processes[2].cluster.ejector.add(harness.member(process=2), "n0")

        for number, harness in self.at_each(prepare, act):
            harness.close_client(2)
            shared = harness.member(process=0).health
            assert list(shared.members) == [harness.member(process=0), harness.member(process=1)], (
                f"at bytecode {number}"
            )

    def test_an_interrupted_close_keeps_no_node(self):
        """Closing again, or dropping the client, does the rest; nothing is probed for it meanwhile."""

        def prepare(harness):
            harness.kill(0)
            harness.close_client(1)

        for number, harness in self.at_each(prepare, lambda harness: harness.close_client(0)):
            if harness.processes[0].cluster.ejector.stopped:
                assert not harness.ejected(process=harness.add_process()), f"at bytecode {number}"
                harness.close_client(2)
            harness.close_client(0)
            assert harness.prober._known == {}, f"at bytecode {number}"
            harness.advance(1.0)
            assert harness.prober._out == {}, f"at bytecode {number}"
            assert not harness.ejected(process=harness.add_process()), f"at bytecode {number}"
