"""A provider that raises what its protocol does not know: no caller's own exception is replaced."""

from __future__ import annotations

import pytest

from lock_service import TellingService
from operations.harness import LockHarness
from shardcache.core.events import LeaseLost
from shardcache.core.leases import LockPolicy
from shardcache.errors import LockUnavailable
from shardcache.operations.locks.acquire import (
    acquire,
    attempt,
    break_lock,
    find_holder,
    is_held,
    list_holders,
)
from shardcache.operations.locks.held import close_provider

TTL = 4.0
POLICY = LockPolicy(ttl=TTL, renew=False)
RENEWED = LockPolicy(ttl=TTL, renew=True, max_hold=30.0)


class FailingHarness(LockHarness):
    """Three processes whose locks are those of one service, and what is recorded of its failures."""

    def __init__(self) -> None:
        super().__init__()
        self.service = TellingService(lambda: self.now)
        self.failures = []
        for process in self.processes:
            process.cluster.lock_provider = self.service
            process.cluster.note_lock_failure = self.failures.append

    @property
    def failed(self):
        """Return the calls that failed, with the names of their locks."""
        return [(failure.call, failure.name) for failure in self.failures]


@pytest.mark.parametrize("call", ["attempt", "watch"])
@pytest.mark.parametrize("take", ["acquire", "attempt"])
def test_an_attempt_that_fails_is_unavailable(call, take):
    """With what the provider raised as the cause; no lock is left behind."""
    harness = FailingHarness()
    harness.service.failing = {call}
    work = (
        acquire(harness.cluster, harness.NAME, POLICY, 1.0)
        if take == "acquire"
        else attempt(harness.cluster, harness.NAME, POLICY)
    )
    message = f"lock 'report': the lock provider failed: .*no space left for {call}"
    with pytest.raises(LockUnavailable, match=message) as raised:
        harness.run(work)
    assert isinstance(raised.value.__cause__, OSError)
    assert harness.service.held == {}
    assert harness.failed == [(call, b"report")]


def test_an_attempt_whose_release_fails_as_well_keeps_its_own_error():
    """The later failure is recorded."""
    harness = FailingHarness()
    harness.service.failing = {"watch", "release"}
    with pytest.raises(LockUnavailable, match="no space left for watch"):
        harness.run(attempt(harness.cluster, harness.NAME, POLICY))
    assert harness.failed == [("watch", b"report"), ("release", b"report")]


@pytest.mark.parametrize(
    ("call", "work"),
    [
        ("is_held", lambda harness: is_held(harness.cluster, harness.NAME)),
        ("holder", lambda harness: find_holder(harness.cluster, harness.NAME)),
        ("break_lock", lambda harness: break_lock(harness.cluster, harness.NAME)),
        ("holders", lambda harness: list_holders(harness.cluster)),
    ],
)
def test_a_question_that_fails_is_unavailable(call, work):
    """Instead of an error that only this provider's users could know."""
    harness = FailingHarness()
    harness.service.failing = {call}
    with pytest.raises(LockUnavailable, match=f"no space left for {call}"):
        harness.run(work(harness))
    assert [failure.call for failure in harness.failures] == [call]


@pytest.mark.parametrize("failing", [{"release"}, {"end"}, {"release", "end"}])
def test_a_release_that_fails_raises_nothing(failing):
    """The lock was held until then, as far as the provider told; the failure is recorded."""
    harness = FailingHarness()
    hold = harness.attempt(0, POLICY)
    harness.service.failing = failing
    assert harness.run(hold.release()) is True
    assert (hold.lost, hold.remaining()) == ("", 0.0)
    assert {call for call, _ in harness.failed} == failing
    assert harness.run(hold.release()) is False
    assert len(harness.failures) == len(failing)


def test_the_release_of_a_lost_lock_that_fails_is_a_loss():
    """That it was lost is known without the provider."""
    harness = FailingHarness()
    hold = harness.attempt(0, POLICY)
    harness.advance(2 * TTL)
    harness.service.failing = {"release", "end"}
    assert harness.run(hold.release()) is False
    assert hold.lost == "it expired"
    assert len(harness.events.of(LeaseLost)) == 1


def test_an_extension_that_fails_is_unavailable():
    """The lock counts down, and can be extended when the provider works again."""
    harness = FailingHarness()
    hold = harness.attempt(0, POLICY)
    harness.service.failing = {"extend"}
    with pytest.raises(LockUnavailable, match="no space left for extend"):
        harness.run(hold.extend(TTL))
    assert (hold.lost, hold.remaining() > 0) == ("", True)
    harness.service.failing = set()
    assert harness.run(hold.extend(2 * TTL)) is True


def test_a_renewal_that_fails_is_tried_again():
    """As one that reaches no service; after the ttl the lock is lost."""
    harness = FailingHarness()
    hold = harness.attempt(0, RENEWED)
    harness.service.failing = {"extend"}
    harness.advance(TTL / 2)
    assert 0 < hold.remaining() < TTL
    harness.service.failing = set()
    harness.advance(2 * TTL)
    assert hold.remaining() > TTL / 2
    harness.service.failing = {"extend"}
    harness.advance(2 * TTL)
    assert hold.lost == "it expired"


def test_a_lock_of_which_nothing_can_be_told_is_lost():
    """It is not surely held; it stays lost, and is released all the same."""
    harness = FailingHarness()
    hold = harness.attempt(0, POLICY)
    harness.service.failing = {"remaining", "end"}
    assert hold.remaining() == 0.0
    harness.service.failing = set()
    assert hold.remaining() == 0.0
    assert hold.lost == "its provider failed: OSError('no space left for remaining')"
    assert len(harness.events.of(LeaseLost)) == 1
    assert harness.run(hold.release()) is False
    assert harness.service.held == {}
    assert harness.failed == [("remaining", b"report"), ("end", b"report")]


def test_a_close_that_fails_raises_nothing():
    """The client closes its nodes all the same."""
    harness = FailingHarness()
    harness.service.failing = {"close"}
    harness.run(close_provider(harness.service, harness.failures.append))
    assert harness.failed == [("close", b"")]


def test_an_error_that_the_protocol_knows_is_no_failure():
    """It is for the caller alone."""
    harness = FailingHarness()
    harness.service.reachable = False
    with pytest.raises(LockUnavailable, match="cannot be reached"):
        harness.run(attempt(harness.cluster, harness.NAME, POLICY))
    assert harness.failures == []
