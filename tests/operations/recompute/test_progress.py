"""Whether a caller may share the outcome of a flight, from what both have read."""

from __future__ import annotations

import pytest

from shardcache.core.values.flags import BARE_STUB, abandoned, stub
from shardcache.errors import NodeTimeoutError
from shardcache.operations.recompute.claims import NoClaim, RefreshClaim, StubClaim
from shardcache.operations.recompute.progress import UNREACHABLE, FirstRead, Progress

OWN = stub(b"own")
OLD = (256, b"old value")
BEFORE, NOW = 10.0, 20.0  # a flight began before its caller


def stub_claim(at_start=OWN, token=7):
    """Return a claim to a stub."""
    claim = StubClaim(None, None, b"k", b"own")
    claim.at_start, claim.token, claim.leads = at_start, token, True
    return claim


def refresh_claim():
    """Return a claim to the refresh of an old value."""
    return RefreshClaim(None, None, b"k", b"r", (0, b"mark"), OLD, 7, 0.0)


def flight(claim, versions=(), as_of=BEFORE):
    """Return the progress of a flight that computes."""
    progress = Progress(0.0)
    progress.compute(as_of, claim, versions)
    return progress


def test_a_flight_that_has_not_computed_yet_may_be_joined():
    """It will read what is there then."""
    progress = Progress(BEFORE)
    assert (progress.as_of, progress.claim) == (BEFORE, None)
    assert FirstRead(NOW, None).may_join(progress)
    progress.read(NOW + 1)
    assert (progress.as_of, progress.claim) == (NOW + 1, None)


@pytest.mark.parametrize(("as_of", "joins"), [(BEFORE, False), (NOW, True), (NOW + 1, True)])
def test_a_flight_that_began_after_the_caller_may_be_joined(as_of, joins):
    """Whatever the caller has read, the flight has read something newer."""
    assert FirstRead(NOW, None).may_join(flight(stub_claim(), as_of=as_of)) is joins


def test_a_node_that_does_not_answer_hides_no_invalidation():
    """Joining spares the source."""
    assert FirstRead(NOW, NodeTimeoutError("late")).may_join(flight(stub_claim()))


@pytest.mark.parametrize(
    ("reply", "token", "joins"),
    [
        (OWN, None, True),
        (stub(b"another's"), None, False),
        (abandoned(b"own"), None, False),
        (None, None, False),
        (OLD, None, False),
        (BARE_STUB, 7, True),
        (BARE_STUB, 8, False),
        (BARE_STUB, None, False),
    ],
)
def test_the_stub_of_the_leader_must_still_be_there(reply, token, joins):
    """An invalidation removes it. memcached's stubs are told apart by their tokens."""
    assert FirstRead(NOW, reply, (), token).may_join(flight(stub_claim())) is joins


def test_a_renewed_stub_of_memcached_says_whose_it_is():
    """At the start it had no name."""
    assert FirstRead(NOW, OWN).may_join(flight(stub_claim(at_start=BARE_STUB)))
    assert not FirstRead(NOW, stub(b"x")).may_join(flight(stub_claim(at_start=BARE_STUB)))


def test_where_no_stub_was_stored_nothing_is_known():
    """The node refused it: joining spares the source."""
    assert FirstRead(NOW, None).may_join(flight(stub_claim(at_start=None, token=None)))


@pytest.mark.parametrize(("reply", "joins"), [(OLD, True), (None, False), ((256, b"new"), False)])
def test_the_old_value_must_still_be_there(reply, joins):
    """A refresh is void once its old value was replaced or removed."""
    assert FirstRead(NOW, reply).may_join(flight(refresh_claim())) is joins


@pytest.mark.parametrize("reply", [None, OWN, OLD])
def test_a_flight_without_a_claim_is_not_joined_once_the_node_answers(reply):
    """The node could not be reached when it began, so what it may have missed is not known."""
    assert not FirstRead(NOW, reply).may_join(flight(NoClaim()))


@pytest.mark.parametrize(
    ("seen", "versions", "joins"),
    [
        ((b"1",), [b"1"], True),
        ((b"2",), [b"1"], False),
        ((None,), [b"1"], False),
        ((UNREACHABLE,), [b"1"], True),
        ((b"1", b"2"), [b"1", b"3"], False),
        ((b"1", UNREACHABLE), [b"1", b"3"], True),
        ((b"1",), None, False),
        ((UNREACHABLE,), None, True),
        ((None,), None, True),
    ],
)
def test_no_tag_may_have_been_invalidated(seen, versions, joins):
    """As far as is known: of a tag whose node fails nothing is, and the flight may have failed there too."""
    assert FirstRead(NOW, OWN, seen).may_join(flight(stub_claim(), versions)) is joins
