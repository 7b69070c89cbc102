"""An ejection or a return that is interrupted anywhere leaves a node ejected and probed, or neither."""

from __future__ import annotations

import gc
import itertools

import pytest

from interrupting import interrupted_before
from operations.harness import EJECTING, Harness
from shardcache.core import health
from shardcache.operations.cluster import prober as probing
from shardcache.operations.keys import admin


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

    def test_a_good_probe_keeps_the_claim_of_a_caller_about_to_eject(self):
        """Without the claim the caller would eject a node that is never probed."""
        harness = Harness()
        prober, (member,) = harness.process.prober, harness.members
        prober._out[member.health] = probing.Claim(harness.now)
        prober._judge(member.health, reply=True)
        assert member.health in prober._out

    def test_a_late_ejection_is_probed(self, monkeypatch):
        """The claim may have been given up as abandoned before the ejection."""
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
        """Return a harness for each bytecode, after an interrupt there."""
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
    def test_an_ejection_happens_wholly_or_not_at_all(self, silent):
        """The next failure at the latest ejects the node, and it comes back when it answers."""

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

    def test_a_return_happens_wholly_or_not_at_all(self):
        """The node is back, or is still probed."""

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

    def test_an_abandoned_claim_blocks_no_node(self):
        """After two interrupted owners the node is ejected, or the prober has forgotten it."""
        for fails in (True, False):
            harness = Harness(nodes=2)
            harness.kill(1)
            harness.process.prober._out[harness.members[0].health] = probing.Claim(harness.now)
            harness.advance(2 * probing.ABANDONED)
            harness.nodes[0].up = not fails
            harness.ask(0)
            assert harness.ejected(0) == fails
            assert self.sound(harness)
