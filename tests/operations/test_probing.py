"""When a node is left alone and when it is asked again, in a world of virtual time."""

from __future__ import annotations

import errno
import gc
import itertools
import sys
from contextlib import contextmanager

import pytest

from operations.simulation import TIMEOUT, Process, SimulatedNode, World
from shardcache.core import health
from shardcache.core.commands import Get, GetMany, Ping
from shardcache.core.events import NodeEjected, NodeRestored, Observer
from shardcache.core.health import Circuit
from shardcache.core.placement.nodes import Node
from shardcache.errors import (
    NodeProtocolError,
    NodeRefusedError,
    NodeTimeoutError,
    NodeUnavailableError,
    PoolTimeoutError,
    UnsupportedError,
)
from shardcache.operations.cluster import ejection, members
from shardcache.operations.cluster import prober as probing
from shardcache.operations.keys import admin
from shardcache.operations.port import UNANSWERED

GET = Get(b"k")


class Diary(Observer):
    """Writes down which nodes came and went."""

    def __init__(self):
        self.events = []
        self.calls = []

    def call_finished(self, event):
        """Write down what a node was asked."""
        self.calls.append(event)

    def node_ejected(self, event):
        """Write it down."""
        self.events.append(event)

    node_restored = node_ejected


class Scene:
    """One process and its nodes, and what each of them is asked."""

    def __init__(self, nodes=1, timeout=TIMEOUT):
        self.world = World()
        self.nodes = [SimulatedNode(self.world) for _ in range(nodes)]
        self.diary = Diary()
        self.process = Process(self.world, self.nodes, timeout=timeout, observers=[self.diary])
        self.cluster = self.process.cluster
        self.members = [self.cluster.members[f"n{place}"] for place in range(nodes)]
        self.heard = [[] for _ in self.nodes]  # what each node was asked
        for place, node in enumerate(self.nodes):
            node.ask = self._noted(node.ask, self.heard[place])

    def _noted(self, ask, commands):
        def asked(process, command, deadline, reply):
            commands.append(command)
            ask(process, command, deadline, reply)

        return asked

    def start(self, place=0, command=GET, within=None):
        """Begin to ask a node, by a deadline of its own if it has one."""
        deadline = None if within is None else self.world.now + within
        return self.process.run(self.cluster.ask(self.members[place], command, deadline))

    def do(self, work):
        """Run an operation to its end."""
        task = self.process.run(work)
        self.world.advance(10.0, lambda: task.done)
        if task.error is not None:
            raise task.error
        return task.result

    def ask(self, place=0, command=GET, within=None):
        """Ask a node, and give its reply."""
        task = self.start(place, command, within)
        self.world.advance(10.0, lambda: task.done)
        return task.result

    def answers(self, answer, place=0):
        """Have a node answer so, whatever it is asked."""
        self.nodes[place].store.execute = lambda _: answer

    def silence(self, *places):
        """Stop nodes, and ask each until it is ejected."""
        for place in places:
            self.nodes[place].stopped = True
            for _ in range(3):
                self.ask(place)
            assert self.ejected(place)

    def kill(self, *places):
        """Kill nodes, and ask each until it is ejected."""
        for place in places:
            self.nodes[place].up = False
            self.ask(place)
            assert self.ejected(place)

    def ejected(self, place=0):
        """Say whether a node is ejected."""
        return self.members[place].health.ejected

    def calls(self, place=0):
        """Give how many calls have reached a node, beside probes."""
        return sum(type(command) is not Ping for command in self.heard[place])

    def probes(self, place=0):
        """Give how many probes have."""
        return len(self.heard[place]) - self.calls(place)

    def end(self):
        """Let all that goes on end."""
        self.cluster.ejector.stop()
        self.world.finish(self.nodes, [self.process])

    @property
    def told(self):
        """Give the types of what was told."""
        return [type(event) for event in self.diary.events]


@pytest.fixture
def make_scene():
    """Give a way to make scenes, in which nothing goes on at the end."""
    scenes = []

    def make(*args, **kwargs):
        scenes.append(Scene(*args, **kwargs))
        return scenes[-1]

    yield make
    for scene in scenes:
        scene.end()


class TestBlame:
    """What a node is blamed for."""

    def test_a_deadline_too_near_says_nothing_of_the_node(self, make_scene):
        """A silence within less than 10 ms is not held against it, however often it is met."""
        scene = make_scene()
        scene.nodes[0].stopped = True
        for _ in range(30):
            assert isinstance(scene.ask(within=0.009), NodeTimeoutError)
        assert not scene.ejected()
        for _ in range(3):
            scene.ask(within=0.011)
        assert scene.ejected()

    def test_a_client_in_a_hurry_ejects_as_well(self, make_scene):
        """Where all calls are shorter than 10 ms, silence in one that had its time counts."""
        scene = make_scene(timeout=0.008)
        scene.nodes[0].stopped = True
        for _ in range(3):
            scene.ask(within=0.003)
        assert not scene.ejected()
        for _ in range(3):
            scene.ask()
        assert scene.ejected()

    def test_nearness_excuses_no_refusal(self, make_scene):
        """A node that is not there is ejected however little time its call had."""
        scene = make_scene()
        scene.nodes[0].up = False
        scene.ask(within=0.005)
        assert scene.ejected()

    def test_the_time_that_a_step_of_a_batch_has_counts(self, make_scene):
        """Also when many nodes are asked, to the end or until it is enough."""
        scene = make_scene(nodes=2)
        for node in scene.nodes:
            node.stopped = True
        asks = [(member, GET) for member in scene.members]
        for _ in range(5):
            scene.do(scene.cluster.ask_many(asks, scene.world.now + 0.009))
            scene.do(scene.cluster.ask_many(asks, scene.world.now + 0.009, lambda _: False))
        assert not scene.ejected(0)
        for _ in range(3):
            scene.do(scene.cluster.ask_many(asks, scene.world.now + 0.011, lambda _: False))
        assert scene.ejected(0)

    def test_whoever_was_not_waited_for_is_not_counted(self, make_scene):
        """A node that had no time to answer has neither answered nor failed."""
        scene = make_scene(nodes=2)
        scene.nodes[1].stopped = True
        asks = [(member, GET) for member in scene.members]
        for _ in range(5):
            replies = scene.do(
                scene.cluster.ask_many(
                    asks, scene.cluster.deadline(), lambda heard: heard.count(UNANSWERED) < 2
                )
            )
            assert replies[1] is UNANSWERED
        assert [member.answered for member in scene.members] == [5, 0]
        assert [member.errors for member in scene.members] == [0, 0]

    @pytest.mark.parametrize(("grave", "calls"), [(NodeTimeoutError, 3), (NodeUnavailableError, 1)])
    def test_a_batch_is_blamed_for_its_gravest_error(self, make_scene, grave, calls):
        """A value that was refused does not excuse the gaps behind it."""
        scene = make_scene()
        for call in range(calls):
            assert not scene.ejected(), f"after {call} calls"
            scene.answers([NodeRefusedError("too large"), True, grave("not answered")])
            scene.ask(command=GetMany([b"a", b"b", b"c"]))
        assert scene.ejected()
        assert scene.members[0].answered == 0

    def test_a_no_within_a_batch_is_an_answer(self, make_scene):
        """Refused values are counted as errors, and the node as one that answers."""
        scene = make_scene()
        scene.answers([NodeRefusedError("too large"), True])
        for _ in range(30):
            scene.ask(command=GetMany([b"a", b"b"]))
        assert not scene.ejected()
        assert (scene.members[0].answered, scene.members[0].errors) == (30, 30)

    def test_behind_a_closed_client_nobody_is_ejected(self, make_scene):
        """A call that was under way when it was closed begins no prober."""
        scene = make_scene()
        scene.nodes[0].up = False
        scene.cluster.ejector.stop()
        scene.ask()
        scene.world.advance(10.0)
        assert not scene.ejected()
        assert scene.probes() == 0
        assert scene.told == []


class TestGone:
    """What becomes of nodes that a client has no more, while calls are still under way."""

    def take_away(self, scene, how):
        """Let the client have its first node no more."""
        ejector = scene.cluster.ejector
        ejector.stop() if how == "closed" else ejector.keep(scene.members[1:])

    @pytest.mark.parametrize("how", ["closed", "removed"])
    def test_a_failure_that_comes_late_lists_nobody(self, make_scene, how):
        """A call that was under way when its node went away begins no prober."""
        scene = make_scene(nodes=2)
        scene.nodes[0].up = False
        call = scene.start()
        self.take_away(scene, how)
        scene.world.advance(10.0)
        assert isinstance(call.result, NodeUnavailableError)
        assert scene.probes() == 0
        assert scene.process.prober._out == {}
        assert scene.told == []

    @pytest.mark.parametrize("how", ["closed", "removed"])
    def test_a_node_that_goes_while_it_is_ejected_is_not_probed(self, make_scene, monkeypatch, how):
        """Another thread may take it away between any two steps of the ejection."""
        scene = make_scene(nodes=2)
        scene.nodes[0].up = False
        eject = health.Health.eject

        def late(*args):
            self.take_away(scene, how)
            return eject(*args)

        monkeypatch.setattr(health.Health, "eject", late)
        scene.ask()
        scene.world.advance(10.0)
        assert scene.probes() == 0
        assert scene.process.prober._out == {}
        assert scene.process.prober._watch is None  # its thread has ended

    def test_refused_calls_to_a_node_that_is_gone_begin_nothing(self, make_scene, monkeypatch):
        """An operation of several steps that began before may go on asking."""
        scene = make_scene(nodes=2)
        scene.kill(0)
        scene.cluster.ejector.stop()
        scene.world.advance(10.0)
        begun = []
        monkeypatch.setattr(type(scene.cluster.io), "spawn", lambda *_: begun.append(1))
        for _ in range(5):
            assert isinstance(scene.ask(0), NodeUnavailableError)
        assert begun == []

    def test_garbage_collected_while_nodes_are_listed(self, make_scene):
        """What the collector finds may be clients, whose nodes leave then."""
        scene = make_scene()
        scene.kill(0)
        prober = scene.process.prober
        scene.world.advance(5.0)
        others = [members.SharedHealth() for _ in range(200)]
        for each in others:
            each.eject(NodeTimeoutError("late"), scene.world.now, 0.5)
            each.members[scene.members[0]] = scene.cluster.ejector
            prober._out[each] = probing.Claim(scene.world.now)

        crowded = others[0]
        for _ in range(200):
            crowded.members[members.Member(Node("memory://x"), None)] = scene.cluster.ejector

        class Mortal:
            def __init__(self):
                self.itself = self
                self.health = members.SharedHealth()
                self.member = members.Member(Node("memory://x"), None)
                prober._out[self.health] = probing.Claim(scene.world.now)
                crowded.members[self.member] = scene.cluster.ejector

            def __del__(self):
                prober._out.pop(self.health, None)
                crowded.members.pop(self.member, None)

        try:
            for _ in range(10):
                with collecting_soon(lambda: [Mortal() for _ in range(3)]):
                    assert len(prober._ejected(scene.world.now)) == 201
                with collecting_soon(lambda: [Mortal() for _ in range(3)]):
                    probing.clients_of(crowded)
                with collecting_soon(lambda: [Mortal() for _ in range(3)]):
                    assert crowded.answered == scene.members[0].answered
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

    def test_reads_do_not_restore_what_cannot_serve(self, make_scene):
        """A late reply to a call of before leaves a node ejected that said it is not serving."""
        scene = make_scene()
        scene.nodes[0].delay = 0.02
        early = scene.start()
        scene.world.advance(0.01)
        scene.nodes[0].delay = 0.001
        scene.answers(NodeUnavailableError("became a replica"))
        scene.ask()
        assert scene.ejected()
        scene.answers(None)
        scene.world.advance(0.1)
        assert early.done
        assert scene.members[0].answered == 1
        assert scene.ejected()
        assert scene.told == [NodeEjected]

    def test_any_reply_restores_what_was_silent(self, make_scene):
        """For whoever answers is silent no more."""
        scene = make_scene()
        scene.nodes[0].delay = 0.1
        early = scene.start(within=1.0)
        scene.world.advance(0.001)
        for _ in range(3):
            scene.ask(within=0.02)
        assert scene.ejected()
        scene.world.advance(0.16, lambda: early.done)
        assert early.done
        assert not scene.ejected()
        assert scene.probes() == 0

    @pytest.mark.parametrize("how", ["silence", "kill"])
    def test_a_ping_of_the_user_s_restores(self, make_scene, how):
        """It asks all nodes, the ejected ones too, and nobody waits for the prober."""
        scene = make_scene(nodes=2)
        getattr(scene, how)(0)
        scene.nodes[0].up = True
        scene.nodes[0].resume()
        pings = scene.do(admin.ping(scene.cluster))
        assert all(isinstance(seconds, float) for seconds in pings.values())
        assert not scene.ejected()
        assert scene.told == [NodeEjected, NodeRestored]

    def test_it_is_told_once(self, make_scene):
        """However many replies arrive at a time, a node comes back but once."""
        scene = make_scene()
        scene.silence(0)
        scene.nodes[0].resume()
        pings = [scene.start(command=Ping(), within=1.0) for _ in range(5)]
        scene.world.advance(0.5)
        assert all(ping.done for ping in pings)
        scene.do(scene.cluster.ask_timed([(scene.members[0], Ping())] * 5, ejected_too=True))
        assert scene.told == [NodeEjected, NodeRestored]
        scene.process.prober.restore(scene.members[0].health)
        assert scene.told == [NodeEjected, NodeRestored]

    def test_for_how_long_it_was_gone_is_told(self, make_scene):
        """The seconds between are those of the client's clock."""
        scene = make_scene()
        scene.kill(0)
        gone = scene.world.now
        scene.world.advance(20.0)
        scene.nodes[0].up = True
        scene.world.advance(20.0, lambda: not scene.ejected())
        ejected, restored = scene.diary.events
        assert isinstance(ejected.error, NodeUnavailableError)
        assert restored.seconds == pytest.approx(scene.world.now - gone)

    def test_what_began_before_says_nothing_of_it(self, make_scene):
        """A call that fails after its node has come back, but was made before, ejects nobody."""
        scene = make_scene()
        scene.nodes[0].stopped = True
        early = [scene.start(within=5.0) for _ in range(3)]
        scene.silence(0)
        scene.nodes[0].stopped = False  # and what came before is lost
        scene.do(admin.ping(scene.cluster))
        assert not scene.ejected()
        scene.world.advance(10.0)
        assert all(isinstance(call.result, NodeTimeoutError) for call in early)
        assert not scene.ejected()
        assert scene.told == [NodeEjected, NodeRestored]

    def test_it_may_be_ejected_again(self, make_scene):
        """A node comes and goes as often as it likes, and is probed each time."""
        scene = make_scene()
        for turn in range(1, 4):
            scene.kill(0)
            assert scene.members[0].ejections == turn
            scene.nodes[0].up = True
            scene.world.advance(60.0, lambda: not scene.ejected())
            assert not scene.ejected()
            scene.world.advance(0.2)
        assert scene.told == [NodeEjected, NodeRestored] * 3

    def test_a_probe_that_is_refused_is_a_sign_of_life(self, make_scene):
        """The node has understood it."""
        scene = make_scene()
        scene.kill(0)
        scene.nodes[0].up = True
        scene.answers(NodeRefusedError("stats are disabled"))
        scene.world.advance(1.0)
        assert not scene.ejected()

    @pytest.mark.parametrize("silent", [False, True])
    def test_a_probe_that_fails_for_reasons_of_our_own_is_none(self, make_scene, silent):
        """Though it says nothing against the node either: why that is out stays as it was."""
        held_up = NodeTimeoutError("did not answer in time")
        held_up.excused = True
        no_descriptor = NodeUnavailableError("cannot connect")
        no_descriptor.__cause__ = OSError(errno.EMFILE, "too many open files")
        for answer in (held_up, no_descriptor, PoolTimeoutError("all in use")):
            scene = make_scene()
            scene.silence(0) if silent else scene.kill(0)
            why = str(scene.members[0].health.error)
            scene.nodes[0].up = True
            scene.nodes[0].resume()
            intact = scene.nodes[0].store.execute
            scene.answers(answer)
            scene.world.advance(5.0)
            assert scene.told == [NodeEjected]
            assert str(scene.members[0].health.error) == why
            assert scene.members[0].health.soft == silent
            scene.nodes[0].store.execute = intact
            scene.world.advance(7.0)
            assert not scene.ejected()

    def test_a_probe_that_makes_no_sense_is_none(self, make_scene):
        """Nor is one that fails in another way; each comes over new connections, and later."""
        scene = make_scene()
        scene.kill(0)
        scene.nodes[0].up = True
        for answer in (NodeProtocolError("nonsense"), NodeUnavailableError("LOADING")):
            scene.answers(answer)
            before = scene.probes()
            scene.world.advance(8.0, lambda before=before: scene.probes() > before)
            scene.world.advance(0.01)
            assert scene.ejected()
        assert scene.nodes[0].drops == 1 + scene.probes()

    def test_a_probe_that_cannot_be_made_ends_nothing(self, make_scene, monkeypatch):
        """As of a node that has joined a Redis Cluster: it is probed on, and may come back."""
        scene = make_scene()
        scene.kill(0)
        scene.nodes[0].up = True

        async def refuse(*_):
            raise UnsupportedError("the server is part of a Redis Cluster")

        with monkeypatch.context() as patched:
            patched.setattr(type(scene.cluster.io), "call_many", refuse)
            scene.world.advance(5.0)
        assert scene.ejected()
        scene.world.advance(10.0)
        assert not scene.ejected()


class Interrupt(BaseException):
    """Raised by a signal, between any two bytecodes."""


def interrupted_at(number, act):
    """Do something, with an interrupt before bytecode `number` of `HEALTHCARE`; tell if it came."""
    left = number

    def trace(frame, event, _):
        nonlocal left
        if frame.f_code.co_filename not in HEALTHCARE:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                raise Interrupt
        return trace

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # Python 3.12 looks for it when tracing begins
    sys.settrace(trace)
    try:
        act()
    except Interrupt:
        return True
    finally:
        sys.settrace(before)
    return left <= 0


HEALTHCARE = (health.__file__, ejection.__file__, members.__file__, probing.__file__)


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

    def sound(self, scene):
        """Return whether the node is ejected and listed, or neither."""
        prober = scene.process.prober
        return scene.ejected() == (scene.members[0].health in prober._out)

    def test_a_good_probe_leaves_the_claim_of_one_who_is_about_to_eject(self):
        """He would eject a node that nobody probes."""
        scene = Scene()
        prober, (member,) = scene.process.prober, scene.members
        prober._out[member.health] = probing.Claim(scene.world.now)
        prober._judge(member.health, reply=True)
        assert member.health in prober._out

    def test_a_node_is_listed_when_it_is_ejected_late(self, monkeypatch):
        """Its claim may have passed for abandoned meanwhile."""
        scene = Scene()
        prober, (member,) = scene.process.prober, scene.members
        eject = health.Health.eject

        def late(*args):
            prober._out.clear()
            return eject(*args)

        monkeypatch.setattr(health.Health, "eject", late)
        scene.nodes[0].up = False
        scene.start()
        scene.world.advance(0.01)
        assert scene.ejected()
        assert member.health in prober._out

    def at_each(self, prepare, act):
        """Give a scene for each bytecode, after an interrupt there."""
        for number in itertools.count(1):
            scene = Scene()
            prepare(scene)
            if not interrupted_at(number, lambda scene=scene: act(scene)):
                assert number > 50
                return
            assert self.sound(scene), f"at bytecode {number}"
            yield number, scene
            scene.end()

    @pytest.mark.parametrize("silent", [False, True])
    def test_an_ejection_is_whole_or_none(self, silent):
        """The node is ejected by the next failure at the latest, and comes back when it is well."""

        def prepare(scene):
            scene.nodes[0].up = silent
            scene.nodes[0].stopped = silent
            for _ in range(2 * silent):
                scene.ask()

        for number, scene in self.at_each(prepare, Scene.ask):
            for _ in range(2):
                scene.ask()
            assert scene.ejected(), f"at bytecode {number}"
            assert self.sound(scene), f"at bytecode {number}"
            scene.nodes[0].up = True
            scene.nodes[0].resume()
            scene.world.advance(5.0, lambda scene=scene: not scene.ejected())
            assert not scene.ejected(), f"at bytecode {number}"

    def test_a_return_is_whole_or_none(self):
        """The node is back, or goes on to be probed."""

        def prepare(scene):
            scene.silence(0)
            scene.nodes[0].resume()

        def act(scene):
            scene.do(admin.ping(scene.cluster))

        for number, scene in self.at_each(prepare, act):
            scene.world.advance(2.0)
            scene.ask()  # if its prober was stopped, this begins another
            scene.world.advance(5.0)
            assert not scene.ejected(), f"at bytecode {number}"
            assert scene.members[0].health not in scene.process.prober._out

    def test_a_claim_that_led_to_nothing_keeps_nobody(self):
        """Though its owner was stopped twice, the node is ejected, or forgotten by the prober."""
        for fails in (True, False):
            scene = Scene(nodes=2)
            scene.kill(1)
            scene.process.prober._out[scene.members[0].health] = probing.Claim(scene.world.now)
            scene.world.advance(2 * probing.ABANDONED)
            scene.nodes[0].up = not fails
            scene.ask(0)
            assert scene.ejected(0) == fails
            assert self.sound(scene)


class TestProbing:
    """When ejected nodes are probed."""

    def test_nobody_but_the_prober_asks_it(self, make_scene):
        """It alone, after a quarter of a second, and later each time."""
        scene = make_scene(nodes=3)
        scene.kill(0)
        for _ in range(2000):
            assert isinstance(scene.ask(0), NodeUnavailableError)
            scene.world.advance(0.01)
        assert scene.calls(0) == 1
        assert 6 <= scene.probes(0) <= 15
        assert scene.members[0].refused == 2000

    def test_a_node_under_probe_is_shown_so(self, make_scene):
        """Its circuit says that a sign of life may come at any moment."""
        scene = make_scene()
        scene.silence(0)
        assert scene.members[0].health.circuit is Circuit.OPEN
        scene.world.advance(1.0, lambda: scene.probes() == 1)
        assert scene.members[0].health.circuit is Circuit.PROBING
        scene.world.advance(TIMEOUT + 0.01)
        assert scene.members[0].health.circuit is Circuit.OPEN

    def test_a_node_that_is_back_is_shown_so_whatever_becomes_of_its_probe(self, make_scene):
        """Another reply may restore it while a probe is on its way, and the probe fail after that."""
        scene = make_scene()
        scene.silence(0)
        scene.world.advance(1.0, lambda: scene.probes() == 1)
        scene.cluster.ejector.record_success(scene.members[0], Ping())
        assert not scene.ejected()
        assert scene.members[0].health.circuit is Circuit.CLOSED
        scene.world.advance(TIMEOUT + 0.01)  # the probe is late now
        assert scene.members[0].health.circuit is Circuit.CLOSED

    def test_a_node_that_was_removed_is_probed_no_more(self, make_scene):
        """Nor is it told of."""
        scene = make_scene(nodes=2)
        scene.kill(0, 1)
        scene.cluster.ejector.keep(scene.members[1:])
        before = scene.probes(0)
        scene.world.advance(20.0)
        assert scene.probes(0) == before
        assert scene.probes(1) > 5
        scene.nodes[1].up = True
        scene.world.advance(20.0)
        assert [event.node.name for event in scene.diary.events] == ["n0", "n1", "n1"]

    def test_a_prober_that_was_stopped_asks_nobody(self, make_scene):
        """The nodes of a closed client are left in peace."""
        scene = make_scene()
        scene.kill(0)
        scene.cluster.ejector.stop()
        scene.world.advance(20.0)
        assert scene.probes() == 0


class TestDoubt:
    """When most nodes are silent, the trouble may be this process's own."""

    def probed(self, scene, place, seconds=10.0):
        """Return how often a node is probed in so many seconds, if its own delay is longer."""
        before = scene.probes(place)
        scene.members[place].health.due = scene.world.now + 100.0
        end = scene.world.now + seconds
        while scene.world.now < end:
            scene.ask(place)
            scene.world.advance(0.02)
            scene.members[place].health.due = max(scene.members[place].health.due, end + 1)
        return scene.probes(place) - before

    def test_each_is_probed_once_a_second(self, make_scene):
        """However long its delay has grown."""
        scene = make_scene(nodes=3)
        scene.silence(0, 1)
        assert 7 <= self.probed(scene, 0) <= 11
        assert 7 <= self.probed(scene, 1) <= 11

    @pytest.mark.parametrize(("nodes", "silent"), [(2, 1), (4, 2), (3, 1)])
    def test_half_of_the_nodes_are_not_most(self, make_scene, nodes, silent):
        """Then they are down, and probed when their delays say so."""
        scene = make_scene(nodes)
        scene.silence(*range(silent))
        assert self.probed(scene, 0) == 0

    def test_nodes_that_are_down_are_not_silent(self, make_scene):
        """They neither count among the silent, nor are they probed for the sake of those."""
        scene = make_scene(nodes=5)
        scene.kill(0)
        scene.silence(1, 2)
        assert self.probed(scene, 1) == 0
        scene.silence(3)
        assert self.probed(scene, 0) == 0
        assert self.probed(scene, 1) > 5

    @pytest.mark.parametrize("nodes", [1, 3, 5])
    def test_no_call_waits_for_them(self, make_scene, nodes):
        """A worker of one thread goes on at full speed with all of its nodes stopped."""
        scene = make_scene(nodes)
        scene.silence(*range(nodes))
        before = [scene.calls(place) for place in range(nodes)]
        asks = [(member, GET) for member in scene.members]
        for _ in range(100):
            began = scene.world.now
            for place in range(nodes):
                scene.ask(place)
            scene.do(scene.cluster.ask_many(asks))
            scene.do(scene.cluster.ask_many(asks, scene.cluster.deadline(), lambda _: False))
            assert scene.world.now == began
            scene.world.advance(0.1)
        assert [scene.calls(place) for place in range(nodes)] == before


class TestRefusals:
    """What becomes of a call to a node that is ejected."""

    def test_it_says_why_and_is_counted(self, make_scene):
        """At once, with the error that the node was ejected for as its cause."""
        scene = make_scene()
        scene.kill(0)
        error = scene.diary.events[0].error
        before = scene.world.now
        refused = scene.ask()
        assert scene.world.now == before
        assert str(refused.__cause__) == str(error)
        assert "ejected" in str(refused)
        counters = scene.members[0].counters()
        assert (counters["errors"], counters["refused_calls"], counters["ejections"]) == (2, 1, 1)

    def test_it_is_told_as_any_other(self, make_scene):
        """It took no time, and has failed."""
        scene = make_scene()
        scene.kill(0)
        refused = scene.ask()
        event = scene.diary.calls[-1]
        assert (event.command, event.seconds, event.error) == ("get", 0.0, refused)

    @pytest.mark.parametrize("raises", [False, True])
    def test_what_reaches_the_caller_was_not_swallowed(self, make_scene, raises):
        """Errors are counted either way, and the time that calls took with theirs."""
        scene = make_scene()
        scene.cluster.raises = raises
        scene.ask()
        scene.silence(0)
        counters = scene.members[0].counters()
        assert (counters["calls"], counters["errors"]) == (4, 3)
        assert counters["swallowed_errors"] == (0 if raises else 3)
        assert counters["mean_seconds"] == pytest.approx((0.002 + 3 * TIMEOUT) / 4)

    def test_refusals_count_among_those_who_have_answered(self, make_scene):
        """Nobody waits for others when enough have been refused to decide."""
        scene = make_scene(nodes=3)
        scene.kill(0, 1)
        scene.nodes[2].stopped = True
        before = scene.world.now
        replies = scene.do(
            scene.cluster.ask_many(
                [(member, GET) for member in scene.members],
                scene.cluster.deadline(),
                lambda heard: len(heard) - heard.count(UNANSWERED) >= 2,
            )
        )
        assert scene.world.now - before < TIMEOUT / 2
        assert replies[2] is UNANSWERED

    def test_nobody_is_waited_for_when_none_is_fit(self, make_scene):
        """All replies are refusals then, and come at once."""
        scene = make_scene(nodes=2)
        scene.kill(0, 1)
        before = scene.world.now
        asks = [(member, GET) for member in scene.members]
        for replies in (
            scene.do(scene.cluster.ask_many(asks)),
            scene.do(scene.cluster.ask_many(asks, scene.cluster.deadline(), lambda _: False)),
        ):
            assert [type(reply) for reply in replies] == [NodeUnavailableError] * 2
        assert scene.world.now == before
