"""What brings an ejected node back, and what does not."""

from __future__ import annotations

import errno

import pytest

from operations.harness import NODE_CHANGES
from shardcache.core.commands import Ping
from shardcache.core.events import NodeEjected, NodeRestored
from shardcache.errors import (
    NodeProtocolError,
    NodeRefusedError,
    NodeTimeoutError,
    NodeUnavailableError,
    PoolTimeoutError,
    UnsupportedError,
)
from shardcache.operations.keys import admin


class TestRestoring:
    """What brings an ejected node back."""

    def test_a_read_does_not_restore_a_node_that_cannot_serve(self, make_harness):
        """A late reply to an earlier call leaves a node ejected that said it does not serve."""
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

    def test_any_reply_restores_a_silent_node(self, make_harness):
        """A node that answers is silent no longer."""
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
    def test_a_ping_by_the_user_restores_a_node(self, make_harness, how):
        """A ping asks all nodes, the ejected ones too, and does not wait for the prober."""
        harness = make_harness(nodes=2)
        getattr(harness, how)(0)
        harness.nodes[0].up = True
        harness.nodes[0].resume()
        pings = harness.run(admin.ping(harness.cluster))
        assert all(isinstance(seconds, float) for seconds in pings.values())
        assert not harness.ejected()
        assert harness.node_changes == [NodeEjected, NodeRestored]

    def test_a_return_is_reported_once(self, make_harness):
        """Many replies may arrive at once; the node comes back once."""
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

    def test_the_seconds_of_an_ejection_are_reported(self, make_harness):
        """`NodeRestored` has them by the client's clock."""
        harness = make_harness()
        harness.kill(0)
        gone = harness.now
        harness.advance(20.0)
        harness.nodes[0].up = True
        harness.advance(20.0, lambda: not harness.ejected())
        ejected, restored = harness.events.of(*NODE_CHANGES)
        assert isinstance(ejected.error, NodeUnavailableError)
        assert restored.seconds == pytest.approx(harness.now - gone)

    def test_a_call_from_before_the_return_ejects_no_node(self, make_harness):
        """A call that was sent before the node came back may fail after it."""
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

    def test_a_node_may_be_ejected_again(self, make_harness):
        """It is probed each time."""
        harness = make_harness()
        for turn in range(1, 4):
            harness.kill(0)
            assert harness.members[0].ejections == turn
            harness.nodes[0].up = True
            harness.advance(60.0, lambda: not harness.ejected())
            assert not harness.ejected()
            harness.advance(0.2)
        assert harness.node_changes == [NodeEjected, NodeRestored] * 3

    def test_a_refused_probe_restores_the_node(self, make_harness):
        """The node has understood the probe."""
        harness = make_harness()
        harness.kill(0)
        harness.nodes[0].up = True
        harness.answer(NodeRefusedError("stats are disabled"))
        harness.advance(1.0)
        assert not harness.ejected()

    @pytest.mark.parametrize("silent", [False, True])
    def test_a_probe_that_fails_in_this_process_says_nothing(self, make_harness, silent):
        """It neither restores the node nor replaces the reason of its ejection."""
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

    def test_a_probe_that_fails_in_this_process_may_come_after_the_return(self, make_harness):
        """The node stays in: nothing is known of it that would put it out again."""
        harness = make_harness()
        harness.silence(0)
        held_up = NodeTimeoutError("did not answer in time")
        held_up.excused = True
        harness.nodes[0].stopped = False
        harness.answer(held_up)
        before = harness.probes()
        harness.advance(1.0, lambda: harness.probes() > before)
        harness.cluster.ejector.record_success(harness.member(), Ping())
        harness.advance(5.0)
        assert not harness.ejected()
        assert harness.member().health.error is None
        assert harness.node_changes == [NodeEjected, NodeRestored]

    def test_a_probe_with_a_senseless_reply_does_not_restore(self, make_harness):
        """Each probe after it uses new connections, and comes later."""
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

    def test_a_probe_that_raises_is_repeated(self, make_harness, monkeypatch):
        """A node may have joined a Redis Cluster: it is still probed, and may come back."""
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
