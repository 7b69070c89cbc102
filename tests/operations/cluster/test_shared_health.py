"""Clients of one process share what they know of a node, in a world of virtual time."""

from __future__ import annotations

import gc
import itertools

import pytest

from operations.cluster.test_probing import GET, Diary, interrupted_at
from operations.simulation import Process, SimulatedNode, World
from shardcache.core.commands import Ping
from shardcache.core.events import NodeEjected, NodeRestored
from shardcache.errors import NodeTimeoutError, NodeUnavailableError
from shardcache.operations.cluster import members
from shardcache.operations.cluster.prober import ProberLog
from shardcache.operations.keys import admin


class Pair:
    """Two clients of one process, with the same nodes; each has its own observer."""

    def __init__(self, nodes=1):
        self.world = World()
        self.nodes = [SimulatedNode(self.world) for _ in range(nodes)]
        self.probes = 0
        for node in self.nodes:
            node.ask = self._noted(node.ask)
        self.lines = []
        self.clients = []
        self.diaries = []
        self.add()
        self.prober = self.clients[0].prober
        self.prober._log = ProberLog(self.lines.append, lambda *line: self.lines.append(line))
        self.add()

    def add(self):
        """Make one more client, and return its number."""
        prober = self.clients[0].prober if self.clients else None
        self.diaries.append(Diary())
        self.clients.append(
            Process(self.world, self.nodes, observers=[self.diaries[-1]], prober=prober)
        )
        return len(self.clients) - 1

    def _noted(self, ask):
        def asked(process, command, deadline, reply):
            self.probes += type(command) is Ping
            ask(process, command, deadline, reply)

        return asked

    def member(self, client, place=0):
        """Return what a client knows of a node."""
        return self.clients[client].cluster.members[f"n{place}"]

    def ask(self, client, place=0):
        """Ask a node with one of the clients, and return its reply."""
        cluster = self.clients[client].cluster
        task = self.clients[client].run(cluster.ask(self.member(client, place), GET))
        self.world.advance(10.0, lambda: task.done)
        if task.error is not None:
            raise task.error
        return task.result

    def close(self, client):
        """Close a client."""
        self.clients[client].cluster.ejector.stop()

    def kill(self, client=0):
        """Kill the first node, and have a client ask it."""
        self.nodes[0].up = False
        self.ask(client)
        assert self.member(client).health.ejected

    def told(self, client):
        """Return the types of what a client's observer was told."""
        return [type(event) for event in self.diaries[client].events]

    def end(self):
        """Let all that goes on end."""
        for client in range(len(self.clients)):
            self.close(client)
        self.world.finish(self.nodes, self.clients)


@pytest.fixture
def pair():
    """Give two clients, with nothing going on at the end."""
    pair = Pair()
    yield pair
    pair.end()


class TestEjection:
    """What one client ejects is out for all."""

    def test_the_other_client_waits_for_no_timeout(self, pair):
        """Three timeouts of one client are enough: the other is refused at once."""
        pair.nodes[0].stopped = True
        for _ in range(3):
            assert isinstance(pair.ask(0), NodeTimeoutError)
        before = pair.world.now
        assert isinstance(pair.ask(1), NodeUnavailableError)
        assert pair.world.now == before
        assert (pair.member(1).refused, pair.member(0).refused) == (1, 0)

    def test_both_are_told_and_one_line_is_written(self, pair):
        """Each observer hears of the ejection and the return once, though one client asked."""
        pair.kill()
        pair.world.advance(1.0)
        pair.nodes[0].up = True
        pair.world.advance(5.0)
        for client in range(2):
            assert pair.told(client) == [NodeEjected, NodeRestored]
            assert not pair.member(client).health.ejected
            assert pair.member(client).counters()["ejections"] == 1
            assert pair.nodes[0].drops >= 2  # of both clients' connections
        assert [type(line) for line in pair.lines] == [NodeUnavailableError, tuple]

    def test_one_series_of_probes_serves_both(self, pair):
        """The node is probed no more often than for one client."""
        pair.kill()
        for client in itertools.islice(itertools.cycle((0, 1)), 400):
            pair.ask(client)
            pair.world.advance(0.05)
        assert 6 <= pair.probes <= 15

    def test_failures_of_both_are_counted_together(self, pair):
        """Two timeouts of one client and the next of the other are three in a row."""
        pair.nodes[0].stopped = True
        for client in (0, 0, 1):
            assert not pair.member(0).health.ejected
            pair.ask(client)
        assert pair.member(0).health.ejected

    def test_an_answer_to_either_ends_a_row(self, pair):
        """A node that answers one client is not silent."""
        for _ in range(4):
            pair.nodes[0].stopped = True
            pair.ask(0)
            pair.ask(0)
            assert pair.member(1).suspect
            pair.nodes[0].resume()
            pair.ask(1)
            assert not pair.member(0).suspect
        assert not pair.member(0).health.ejected

    def test_a_reply_to_either_restores(self, pair):
        """A ping by one of them takes the node back for both."""
        pair.kill(0)
        pair.nodes[0].up = True
        task = pair.clients[1].run(admin.ping(pair.clients[1].cluster))
        pair.world.advance(0.1, lambda: task.done)
        assert not pair.member(0).health.ejected
        assert pair.told(0) == pair.told(1) == [NodeEjected, NodeRestored]

    def test_nodes_of_one_client_in_trouble_are_doubted_though_another_has_more(self):
        """Most nodes of one client are silent: its node is probed each second."""
        pair = Pair(nodes=3)
        pair.clients[1].cluster.ejector.keep([pair.member(1, 0)])
        pair.nodes[0].stopped = True
        for _ in range(3):
            pair.ask(1)
        health = pair.member(1).health
        health.due = pair.world.now + 100.0
        pair.world.advance(1.5)
        assert pair.probes == 1
        pair.close(1)  # one of three is no doubt
        health.due = pair.world.now + 100.0
        pair.world.advance(20.0)
        assert pair.probes == 1
        pair.end()


class TestProbesThatFail:
    """A node whose backend raises what it should not speaks for itself alone."""

    def test_a_probe_that_cannot_be_made_holds_up_no_other(self, monkeypatch):
        """The other client's node comes back, and this one when it can be asked again."""
        pair = Pair(nodes=2)
        for client, place in ((0, 0), (1, 1)):
            pair.nodes[place].up = False
            pair.ask(client, place)
            pair.nodes[place].up = True
        broken, call_many = pair.member(0, 0).backend, type(pair.prober._io).call_many

        async def raising(io, asks, *terms):
            if any(backend is broken for backend, _ in asks):
                raise RuntimeError("a fault in a plugin")
            return await call_many(io, asks, *terms)

        for health in (pair.member(0, 0).health, pair.member(1, 1).health):
            health.due = pair.world.now  # both at once
        with monkeypatch.context() as patched:
            patched.setattr(type(pair.prober._io), "call_many", raising)
            pair.world.advance(5.0)
            assert not pair.member(1, 1).health.ejected
            assert "a fault in a plugin" in str(pair.ask(0, 0))
        pair.world.advance(10.0)
        assert not pair.member(0, 0).health.ejected
        pair.end()

    def test_a_node_that_cannot_be_reached_holds_up_no_other(self):
        """Nor does one for which no backend can be made."""
        pair = Pair(nodes=2)

        def reach(_):
            raise RuntimeError("a fault in a plugin")

        pair.clients[0].cluster.ejector.reach = reach
        for place in range(2):
            pair.nodes[place].up = False
            pair.ask(place, place)
            pair.nodes[place].up = True
        pair.clients[0].cluster.ejector.keep([pair.member(0, 0)])
        pair.clients[1].cluster.ejector.keep([pair.member(1, 1)])
        pair.world.advance(5.0)
        assert pair.member(0, 0).health.ejected
        assert not pair.member(1, 1).health.ejected
        pair.end()

    def test_a_client_whose_end_was_interrupted_is_not_probed_for(self, pair):
        """The rest of its end may never come: the thread of the prober ends, and does not spin."""
        pair.kill()
        for client in range(2):
            pair.clients[client].cluster.ejector._stopped = True
        turns = []
        due = type(pair.prober)._due

        def counted(prober, now):
            turns.append(now)
            assert len(turns) < 100
            return due(prober, now)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(type(pair.prober), "_due", counted)
            pair.world.advance(5.0)
        assert pair.prober._out == {}
        assert pair.prober._watch is None


class TestComingAndGoing:
    """Clients come and go while a node is out."""

    def test_a_client_made_meanwhile_is_told_with_its_first_refused_call(self, pair):
        """It waits for no timeout, and its observers hear of both, in order."""
        pair.kill()
        late, idle = pair.add(), pair.add()
        assert pair.member(late).health.ejected
        assert pair.told(late) == []
        for _ in range(3):
            assert isinstance(pair.ask(late), NodeUnavailableError)
        assert pair.told(late) == [NodeEjected]
        assert pair.member(late).ejections == 1
        pair.nodes[0].up = True
        pair.world.advance(5.0)
        assert pair.told(late) == [NodeEjected, NodeRestored]
        assert pair.told(idle) == []

    @pytest.mark.parametrize("closed", [0, 1])
    def test_who_closes_leaves_the_node_to_the_other(self, pair, closed):
        """It is probed on, whoever ejected it, and comes back."""
        pair.kill()
        pair.world.advance(1.0)
        pair.close(closed)
        pair.nodes[0].up = True
        pair.world.advance(5.0)
        assert not pair.member(1 - closed).health.ejected
        assert pair.told(1 - closed) == [NodeEjected, NodeRestored]
        assert pair.told(closed) == [NodeEjected]

    def test_the_last_takes_what_is_known_with_it(self, pair):
        """A client made after that finds a node of which nothing is known."""
        pair.kill()
        pair.close(0)
        pair.close(1)
        assert pair.prober._known == {}
        before = pair.probes
        after = pair.add()
        assert not pair.member(after).health.ejected
        pair.world.advance(5.0)
        assert pair.probes == before
        assert pair.prober._out == {}
        assert pair.prober._watch is None

    def test_who_comes_while_the_last_goes_shares_with_those_after_it(self, pair):
        """Though another thread removed what it was about to share."""
        pair.close(1)
        (health,) = pair.prober._known.values()

        class Busy(dict):
            def setdefault(self, key, value):
                shared = super().setdefault(key, value)
                if shared is health and pair.clients[0].cluster.ejector.stopped is False:
                    pair.close(0)
                return shared

        pair.prober._known = Busy(pair.prober._known)
        first, second = pair.add(), pair.add()
        assert pair.member(first).health is pair.member(second).health

    def test_who_comes_while_the_last_goes_gets_its_node_probed(self, pair):
        """Though the prober had let go of it in between."""
        pair.kill()
        pair.close(1)

        class Busy(dict):
            def setdefault(self, key, value):
                shared = super().setdefault(key, value)
                if not pair.clients[0].cluster.ejector.stopped:
                    pair.close(0)
                    pair.world.advance(1.0)
                    assert pair.prober._out == {}
                return shared

        pair.prober._known = Busy(pair.prober._known)
        late = pair.add()
        pair.ask(late)
        pair.nodes[0].up = True
        pair.world.advance(5.0)
        assert not pair.member(late).health.ejected

    def test_what_a_client_counted_stays_when_it_goes(self, pair):
        """The calls that it made are not taken for calls that were never answered."""
        for _ in range(50):
            pair.ask(0)
        answered = pair.member(1).health.answered
        pair.close(0)
        assert pair.member(1).health.answered == answered == 50

    def test_only_equal_identities_share(self, pair):
        """Other nodes, and those that are a client's own, are not touched."""
        own = Process(pair.world, pair.nodes, prober=pair.prober)
        (member,) = own.cluster.members.values()
        own.cluster.ejector.keep([])
        member.health = type(member.health)()
        own.cluster.ejector.add(member, None)
        pair.kill()
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
        """Give a pair for each bytecode, after an interrupt there."""
        for number in itertools.count(1):
            pair = Pair()
            prepare(pair)
            if not interrupted_at(number, lambda pair=pair: act(pair)):
                assert number > 50
                return
            health = pair.member(0).health
            assert health.ejected == (health in pair.prober._out), f"at bytecode {number}"
            yield number, pair
            pair.end()

    def test_an_ejection_leaves_both_with_a_node_that_is_probed(self):
        """Both are told of it, with their next call at the latest, and of its return."""

        def prepare(pair):
            pair.nodes[0].up = False

        for number, pair in self.at_each(prepare, lambda pair: pair.ask(0)):
            for client in (0, 0, 1, 1):
                pair.ask(client)
            assert pair.member(0).health.ejected, f"at bytecode {number}"
            pair.nodes[0].up = True
            pair.world.advance(5.0)
            for client in range(2):
                assert not pair.member(client).health.ejected, f"at bytecode {number}"
                assert pair.told(client)[-1:] == [NodeRestored], f"at bytecode {number}"

    def test_a_return_leaves_both_to_be_told_of_the_next_ejection(self):
        """Whoever was not told of the return is told then, and connections are dropped once more."""

        def prepare(pair):
            pair.kill()
            pair.nodes[0].up = True

        def act(pair):
            task = pair.clients[0].run(admin.ping(pair.clients[0].cluster))
            pair.world.advance(0.1, lambda: task.done)

        for number, pair in self.at_each(prepare, act):
            pair.world.advance(0.1)
            if pair.member(0).health.ejected:
                continue
            drops = pair.nodes[0].drops
            pair.kill()
            pair.ask(0)
            pair.ask(1)
            assert pair.nodes[0].drops == drops + 2, f"at bytecode {number}"
            for client in range(2):
                assert pair.member(client).ejections == 2, f"at bytecode {number}"
                assert pair.told(client).count(NodeEjected) == 2, f"at bytecode {number}"

    def test_a_client_that_was_not_told_of_a_return_is_told_of_it_with_the_next_ejection(
        self, pair, monkeypatch
    ):
        """In order, and with how long the node was out."""
        pair.kill()
        pair.nodes[0].up = True
        with monkeypatch.context() as patched:
            patched.setattr(
                type(pair.clients[0].cluster.ejector), "notify_restored", lambda *_: None
            )
            pair.world.advance(1.0)
        pair.world.advance(60.0)
        pair.kill()
        for client in range(2):
            assert pair.told(client) == [NodeEjected, NodeRestored, NodeEjected]
            assert 0.1 < pair.diaries[client].events[1].seconds < 1.0

    def test_a_client_that_joins_leaves_a_node_that_is_probed(self):
        """Whatever became of it, the other client gets its node back."""

        def act(pair):
            pair.add()

        for number, pair in self.at_each(Pair.kill, act):
            pair.nodes[0].up = True
            pair.world.advance(5.0)
            assert not pair.member(0).health.ejected, f"at bytecode {number}"
            assert pair.told(0) == [NodeEjected, NodeRestored], f"at bytecode {number}"

    def test_a_join_that_is_interrupted_can_be_taken_back(self):
        """A client that gives up leaves no part of it with the others."""

        def prepare(pair):
            pair.kill()
            pair.add()
            member = pair.member(2)
            pair.clients[2].cluster.ejector.keep([])
            member.health = members.SharedHealth()

        def act(pair):
            pair.clients[2].cluster.ejector.add(pair.member(2), "n0")

        for number, pair in self.at_each(prepare, act):
            pair.close(2)
            shared = pair.member(0).health
            assert list(shared.members) == [pair.member(0), pair.member(1)], f"at bytecode {number}"

    def test_closing_that_is_interrupted_keeps_nobody_s_node(self):
        """The rest is done when it is closed again, or dropped; nothing is probed for it meanwhile."""

        def prepare(pair):
            pair.kill()
            pair.close(1)

        for number, pair in self.at_each(prepare, lambda pair: pair.close(0)):
            if pair.clients[0].cluster.ejector.stopped:
                assert not pair.member(pair.add()).health.ejected, f"at bytecode {number}"
                pair.close(2)
            pair.close(0)
            assert pair.prober._known == {}, f"at bytecode {number}"
            pair.world.advance(1.0)
            assert pair.prober._out == {}, f"at bytecode {number}"
            assert not pair.member(pair.add()).health.ejected, f"at bytecode {number}"
