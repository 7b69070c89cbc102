"""What another thread may do between two steps of an ejection or a return, and what an interrupt leaves."""

from __future__ import annotations

import pytest

from operations.harness import GET, Harness, TwoClients, closing
from operations.later import Cancelled
from shardcache.core import health
from shardcache.core.commands import Ping
from shardcache.core.events import NodeEjected, NodeRestored
from shardcache.errors import NodeUnavailableError
from shardcache.operations.cluster import prober as probing
from shardcache.operations.cluster.prober import ProberLog


@pytest.fixture
def make_clients():
    """Return a maker of two clients of one process."""
    yield from closing(TwoClients)


def on_ejected(harness, act):
    """Have another thread act just after a node was ejected, before its clients are told."""
    harness.process.prober._log = ProberLog(lambda _: act(), lambda *_: None)


class Raced(dict):
    """A dict in which another thread acts just before the next `pop`."""

    def __init__(self, items, act):
        super().__init__(items)
        self.act = act

    def pop(self, *args):
        """Have the other thread act, once."""
        act, self.act = self.act, lambda: None
        act()
        return super().pop(*args)


class TestEjecting:
    """Several callers, and the prober, meet at one node."""

    def test_a_client_that_is_refused_just_then_hears_of_it_once(self, make_clients):
        """Its own refused call tells it, and not the ejection a second time."""
        harness = make_clients()
        on_ejected(
            harness, lambda: harness.processes[1].cluster.ejector.refuse(harness.member(0, 1))
        )
        harness.kill(0)
        for client in range(2):
            assert harness.changes_told(client) == [NodeEjected]
            assert harness.member(process=client).ejections == 1

    def test_a_node_that_is_back_before_its_clients_hear_of_it(self, make_harness):
        """They are told of neither; the next ejection is a new one."""
        harness = make_harness()
        on_ejected(harness, lambda: harness.process.prober.restore(harness.member().health))
        harness.nodes[0].up = False
        harness.ask()
        assert not harness.ejected()
        assert (harness.node_changes, harness.member().ejections) == ([], 0)
        on_ejected(harness, lambda: None)
        harness.ask()
        assert harness.ejected()
        assert (harness.node_changes, harness.member().ejections) == ([NodeEjected], 1)

    def test_a_node_that_another_thread_ejects_is_not_ejected_twice(self, make_harness):
        """Until its claim is void: then that thread was interrupted, and this one takes over."""
        harness = make_harness()
        prober, member = harness.process.prober, harness.member()
        claim = prober._out[member.health] = probing.Claim(harness.now)
        harness.nodes[0].up = False
        harness.advance(0.9 * probing.ABANDONED)
        harness.ask()
        assert not harness.ejected()
        assert prober._out == {member.health: claim}
        harness.advance(0.1 * probing.ABANDONED)
        harness.ask()
        assert harness.ejected()
        assert prober._out[member.health] is not claim
        assert harness.node_changes == [NodeEjected]

    def test_an_ejected_node_is_not_ejected_again(self, make_harness):
        """The failure of a call from before comes when it is out already."""
        harness = make_harness()
        harness.kill(0)
        member = harness.member()
        harness.advance(0.2)
        late = NodeUnavailableError("late")
        harness.process.prober.eject(member.health, late, harness.now + probing.ABANDONED)
        assert harness.node_changes == [NodeEjected]
        assert "late" not in str(member.health.error)

    @pytest.mark.parametrize("done", [False, True])
    def test_an_interrupt_leaves_it_whole_or_undone(self, make_harness, monkeypatch, done):
        """The node is ejected and listed, or neither; the next call does the rest."""
        harness = make_harness()
        prober, member = harness.process.prober, harness.member()
        eject = health.Health.eject

        def interrupted(*args):
            if done:
                eject(*args)
            raise Cancelled

        harness.nodes[0].up = False
        with monkeypatch.context() as patched:
            patched.setattr(health.Health, "eject", interrupted)
            with pytest.raises(Cancelled):
                harness.ask()
        assert harness.ejected() is (member.health in prober._out) is done
        harness.ask()
        assert harness.ejected()
        assert harness.node_changes == [NodeEjected]
        harness.nodes[0].up = True
        harness.advance(5.0)
        assert harness.node_changes == [NodeEjected, NodeRestored]

    def test_an_interrupt_takes_no_claim_of_another_thread(self, make_harness, monkeypatch):
        """That one may be about to eject the node."""
        harness = make_harness()
        prober, member = harness.process.prober, harness.member()
        other = probing.Claim(harness.now)

        def interrupted(*_):
            prober._out[member.health] = other
            raise Cancelled

        harness.nodes[0].up = False
        with monkeypatch.context() as patched:
            patched.setattr(health.Health, "eject", interrupted)
            with pytest.raises(Cancelled):
                harness.ask()
        assert prober._out == {member.health: other}

    def test_one_lost_connection_is_one_failure(self, make_harness):
        """It fails all calls on it with the same error; two lost connections eject the node."""
        harness = make_harness()
        for lost in range(2):
            assert not harness.ejected(), lost
            error = NodeUnavailableError("lost the connection")
            error.__cause__ = ConnectionResetError()
            harness.answer(error)
            for task in [harness.start_ask() for _ in range(9)]:
                harness.finish(task)
                assert task.result is error
        assert harness.ejected()
        assert harness.member().errors == 18


class TestReturning:
    """A node that answers comes back once."""

    def test_two_threads_restore_it_at_once(self, make_harness):
        """One of them does, and tells the clients."""
        harness = make_harness()
        harness.kill(0)
        prober, node = harness.process.prober, harness.member().health
        prober._out = Raced(prober._out, lambda: prober.restore(node))
        prober.restore(node)
        assert not harness.ejected()
        assert harness.node_changes == [NodeEjected, NodeRestored]

    @pytest.mark.parametrize("done", [False, True])
    def test_an_interrupt_leaves_it_whole_or_undone(self, make_harness, monkeypatch, done):
        """A node that is still ejected is still probed."""
        harness = make_harness()
        harness.kill(0)
        prober, member = harness.process.prober, harness.member()
        restore = health.Health.restore

        def interrupted(*args):
            if done:
                restore(*args)
            raise Cancelled

        with monkeypatch.context() as patched:
            patched.setattr(health.Health, "restore", interrupted)
            with pytest.raises(Cancelled):
                harness.cluster.ejector.record_success(member, Ping())
        assert harness.ejected() is (member.health in prober._out) is not done
        harness.nodes[0].up = True
        harness.advance(5.0)
        assert not harness.ejected()

    def test_the_return_of_a_node_without_clients_is_not_reported(self, make_clients):
        """The last may have been closed just then."""
        harness = make_clients()
        harness.kill(0)
        for client in range(2):
            harness.processes[client].cluster.ejector._stopped = True
        node = harness.member().health
        harness.prober.restore(node)
        assert not node.ejected
        assert harness.changes_told(0) == harness.changes_told(1) == [NodeEjected]
        assert len(harness.lines) == 1  # of the ejection


class TestThreads:
    """The prober's thread may not start, or end at any moment."""

    def test_without_a_thread_nodes_stay_out_until_one_can_be_started(self, make_harness):
        """Each refused call tries again; the caller sees nothing of that."""
        harness = make_harness()
        io = harness.process.prober._io
        tries = []

        def fail(*_):
            tries.append(harness.now)
            raise OSError("can't start new thread")

        io.spawn = fail
        harness.kill(0)
        harness.nodes[0].up = True
        harness.ask()
        harness.advance(10.0)
        assert harness.ejected()
        assert len(tries) == 2
        del io.spawn
        harness.ask()
        harness.advance(5.0)
        assert not harness.ejected()

    def test_an_interrupt_while_it_starts_keeps_no_other_from_starting(self, make_harness):
        """The next refused call starts one at once."""
        harness = make_harness()
        io = harness.process.prober._io

        def interrupt(*_):
            raise Cancelled

        io.spawn = interrupt
        harness.nodes[0].up = False
        with pytest.raises(Cancelled):
            harness.ask()
        del io.spawn
        assert harness.process.prober._watch is None
        harness.ask()
        harness.nodes[0].up = True
        harness.advance(5.0)
        assert not harness.ejected()

    def test_a_forked_child_starts_its_own(self, make_harness):
        """It has no threads of its parent: the next refused call starts one."""
        harness = make_harness()
        harness.kill(0)
        prober = harness.process.prober
        parents = prober._watch
        harness.ask()
        assert prober._watch is parents
        prober._io.process = lambda: 2
        harness.ask()
        assert prober._watch is not parents
        harness.advance(1.0)
        assert prober._watch is not None
        harness.nodes[0].up = True
        harness.advance(5.0)
        assert (harness.ejected(), prober._watch) == (False, None)

    def test_one_that_hangs_is_replaced(self, make_harness):
        """A watch that has not been seen for long is dead; when it wakes, it leaves all to the other."""
        harness = make_harness()
        harness.kill(0)
        harness.advance(0.5 * probing.TICK)
        prober = harness.process.prober
        prober._alive = harness.now - harness.timeout - 20 * probing.TICK
        first = prober._watch
        harness.ask()
        second = prober._watch
        assert second is not first
        harness.advance(10 * probing.TICK)
        assert prober._watch is second
        before = harness.probes()
        harness.advance(20.0)
        assert harness.probes() - before <= 10


class TestComingAndGoing:
    """Clients are made and closed between two steps."""

    def test_a_client_made_while_the_last_is_forgotten_shares_with_later_ones(self, make_clients):
        """It has the health that was about to go."""
        harness = make_clients()
        harness.close_client(1)
        made = []
        harness.prober._known = Raced(
            harness.prober._known, lambda: made.append(harness.add_process())
        )
        harness.close_client(0)
        late = harness.add_process()
        assert harness.member(process=made[0]).health is harness.member(process=late).health

    def test_a_client_made_while_its_node_is_dropped_gets_it_probed(self, make_clients):
        """It joins between the prober's look at the clients and the drop."""
        harness = make_clients()
        harness.kill(0)
        prober, node = harness.prober, harness.member().health
        ejectors = [harness.processes[client].cluster.ejector for client in range(2)]
        for ejector in ejectors:
            ejector._stopped = True

        def join():
            ejectors[1]._stopped = False

        prober._out = Raced(prober._out, join)
        assert prober._ejected(harness.now) == [node]
        assert node in prober._out

    def test_a_half_closed_client_shares_with_no_new_one(self, make_clients):
        """The node may have been restarted since: the new client begins with what it finds out."""
        harness = make_clients()
        harness.kill(0)
        for client in range(2):
            harness.processes[client].cluster.ejector._stopped = True
        late = harness.add_process()
        assert not harness.ejected(process=late)
        (known,) = harness.prober._known.values()
        assert list(known.members) == [harness.member(process=late)]

    def test_a_client_may_leave_twice(self, make_clients):
        """Its answered calls are counted once."""
        harness = make_clients()
        harness.ask(process=0)
        member, node = harness.member(), harness.member().health
        for _ in range(2):
            harness.prober.leave(member)
            assert node.answered == 1
        assert list(node.members) == [harness.member(process=1)]


class TestProbes:
    """A node is probed over a backend that its client names."""

    def test_a_backend_for_probes_is_closed_after_each(self, make_harness):
        """An asyncio client's own cannot be used by the prober's thread."""
        harness = make_harness()

        class Blocking:
            closed = 0

            def __init__(self, node):
                self.ask = node.ask

            def close(self):
                Blocking.closed += 1

        harness.cluster.ejector.reach = lambda member: Blocking(member.backend)
        harness.kill(0)
        drops = harness.nodes[0].drops
        harness.advance(3.0)
        assert harness.probes() == Blocking.closed > 2
        assert harness.nodes[0].drops == drops
        harness.nodes[0].up = True
        harness.advance(5.0)
        assert not harness.ejected()
        assert harness.probes() == Blocking.closed

    def test_the_clients_own_loses_its_connections_after_a_failed_probe(self, make_harness):
        """The next probe uses new ones."""
        harness = make_harness()
        harness.kill(0)
        drops = harness.nodes[0].drops
        harness.advance(3.0)
        assert harness.nodes[0].drops - drops == harness.probes() > 2


def test_a_client_without_observers_ejects_as_well():
    """And gets its node back."""
    harness = Harness()
    harness.add_process()
    harness.cluster.observers = harness.cluster.ejector._observers = type(
        harness.cluster.observers
    )()
    harness.kill(0)
    harness.nodes[0].up = True
    harness.advance(5.0)
    assert not harness.ejected()
    assert harness.node_changes == []
    assert harness.ask(command=GET) is None
    harness.close()
