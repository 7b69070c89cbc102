"""When a node is ejected and when it is asked again: by its failures alone, at any clock."""

from __future__ import annotations

import errno
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache import (
    ConnectTimeoutError,
    NodeProtocolError,
    NodeRefusedError,
    NodeTimeoutError,
    NodeUnavailableError,
    NotACounterError,
    PoolTimeoutError,
)
from shardcache.core.health import Circuit, EjectionPolicy, FailureKind, Health, failure_kind

POLICY = EjectionPolicy(jitter=(1.0, 1.0))
REFUSED = NodeUnavailableError("refused")
SILENT = NodeTimeoutError("late")


def caused(error, cause):
    """Return an error with its cause."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NodeTimeoutError("late"), FailureKind.TIMEOUT),
        (ConnectTimeoutError("unreached"), FailureKind.HARD),
        (PoolTimeoutError("busy"), FailureKind.NONE),
        (NodeRefusedError("no memory"), FailureKind.NONE),
        (NotACounterError("text"), FailureKind.NONE),
        (NodeProtocolError("nonsense"), FailureKind.PROTOCOL),
        (NodeUnavailableError("LOADING"), FailureKind.HARD),
        (caused(NodeUnavailableError("refused"), ConnectionRefusedError()), FailureKind.HARD),
        (caused(NodeUnavailableError("lost"), ConnectionResetError()), FailureKind.DISCONNECT),
        (caused(NodeUnavailableError("full"), OSError(errno.EMFILE, "")), FailureKind.NONE),
        (
            caused(NodeUnavailableError("no route"), OSError(errno.EHOSTUNREACH, "")),
            FailureKind.HARD,
        ),
    ],
)
def test_an_error_counts_against_its_own_node(error, kind):
    """Never an error of the caller or of this process."""
    assert failure_kind(error) is kind


@pytest.mark.parametrize(
    ("kind", "needed"),
    [(FailureKind.HARD, 1), (FailureKind.DISCONNECT, 2), (FailureKind.TIMEOUT, 3)],
)
@pytest.mark.parametrize("answered", [0, 5])
def test_failures_in_a_row_eject(kind, needed, answered):
    """One refusal, two lost connections or three timeouts without an answer between them."""
    health = Health(POLICY)
    verdicts = [health.record_failure(kind, answered, now=0.0) for _ in range(needed)]
    assert verdicts == [False] * (needed - 1) + [True]


@pytest.mark.parametrize(
    "kind", [FailureKind.DISCONNECT, FailureKind.TIMEOUT, FailureKind.PROTOCOL]
)
def test_an_answer_resets_the_count(kind):
    """A node that answers three of four calls is not ejected."""
    health = Health(POLICY)
    for call in range(200):
        assert not health.record_failure(kind, answered=3 * call, now=call * 0.01)


def test_half_of_twenty_calls_failing_ejects():
    """Failures between answers eject by their share, from the twentieth call on."""
    health = Health(POLICY)
    verdicts = [
        health.record_failure(FailureKind.PROTOCOL, answered=number, now=0.0)
        for number in range(12)
    ]
    assert verdicts.index(True) == 10  # eleven failures and ten answers: before, it is below 20


def test_failures_of_long_ago_do_not_count():
    """The window is two seconds: a rare failure ejects no node."""
    health = Health(POLICY)
    assert not any(
        health.record_failure(FailureKind.PROTOCOL, n, now=n * 0.5) for n in range(1, 200)
    )


def test_an_empty_pool_never_ejects():
    """However often it happens."""
    health = Health(POLICY)
    assert not any(health.record_failure(FailureKind.NONE, 0, 0.0) for _ in range(100))


def test_probes_come_later_and_later():
    """The first after 0.25 s, each next 1.5 times later, up to 5 s."""
    health = Health(POLICY)
    health.eject(REFUSED, now=100.0, chance=0.5)
    moments = [health.due]
    for _ in range(12):
        health.begin_probe()
        assert health.circuit is Circuit.PROBING
        health.record_probe_failure(REFUSED, moments[-1], chance=0.5)
        moments.append(health.due)
    delays = [later - sooner for sooner, later in pairwise(moments)]
    assert moments[0] == 100.25
    assert delays[:3] == pytest.approx([0.375, 0.5625, 0.84375])
    assert delays[-1] == 5.0


@pytest.mark.parametrize(
    ("error", "longer", "longest"),
    [(SILENT, [0.25, 0.625, 1.5625, 3.90625, 9.765625], 10.0), (REFUSED, [0.25, 0.625], 1.5)],
    ids=["silent", "refused"],
)
def test_a_flapping_node_waits_longer_each_time(error, longer, longest):
    """Ejected again within ten seconds of its return, it is probed later; after those, not."""
    health, now, waits = Health(POLICY), 0.0, []
    for _ in range(10):
        health.eject(error, now, chance=0.5)
        waits.append(health.due - now)
        now = health.due
        health.restore(now)
    assert waits == pytest.approx(longer + [longest] * (10 - len(longer)))
    health.eject(error, now + 10.1, chance=0.5)
    assert health.due - (now + 10.1) == pytest.approx(0.25)


@given(chance=st.floats(0, 1, exclude_max=True))
def test_chance_spreads_the_probes(chance):
    """Many processes must not probe at once: from 0.8 to 1.5 times the delay."""
    health = Health()
    health.eject(REFUSED, 0.0, chance)
    assert 0.2 <= health.due <= 0.375


def test_a_restored_node_starts_afresh():
    """Failures counted before do not eject it again."""
    health = Health(POLICY)
    for _ in range(2):
        health.record_failure(FailureKind.TIMEOUT, 0, 0.0)
    health.eject(REFUSED, 0.0, 0.5)
    health.restore(1.0)
    assert (health.circuit, health.ejected) == (Circuit.CLOSED, False)
    assert not health.record_failure(FailureKind.TIMEOUT, 0, 1.1)


def test_an_excused_timeout_says_nothing_of_its_node():
    """The node was sending, or this process was held up."""
    for kind in (NodeTimeoutError, ConnectTimeoutError):
        error = kind("late")
        error.excused = True
        assert failure_kind(error) is FailureKind.NONE


def test_only_timeouts_may_be_our_own_fault():
    """A refused connection means that the node is down; a timeout may mean a busy process."""
    for error, soft in [(REFUSED, False), (NodeTimeoutError("late"), True)]:
        health = Health(POLICY)
        assert not health.soft
        health.eject(error, 0.0, 0.5)
        assert health.soft is soft


def test_failures_from_before_a_return_are_forgotten():
    """A restored node has a new window: nine earlier failures do not count."""
    health = Health(POLICY)
    assert not any(
        health.record_failure(FailureKind.PROTOCOL, number, now=0.0) for number in range(10)
    )
    health.eject(REFUSED, 0.0, 0.5)
    health.restore(0.1)
    assert not any(
        health.record_failure(FailureKind.PROTOCOL, number, now=0.2) for number in range(10, 20)
    )


def test_answers_of_long_ago_do_not_count():
    """A node that answered a thousand calls is ejected as soon as any other when half fail."""
    health = Health(POLICY)
    assert not health.record_failure(FailureKind.PROTOCOL, answered=0, now=0.0)
    verdicts = [
        health.record_failure(FailureKind.PROTOCOL, answered=1000 + number, now=10.0)
        for number in range(12)
    ]
    assert verdicts.index(True) == 10


def test_no_probe_comes_sooner_than_the_first():
    """A flapping node waits long for its first probe, and as long for each next one."""
    health, now = Health(POLICY), 0.0
    for _ in range(10):
        health.eject(SILENT, now, chance=0.5)
        now = health.due
        health.restore(now)
    health.eject(SILENT, now, chance=0.5)
    for _ in range(3):
        assert health.due - now == pytest.approx(10.0)
        now = health.due
        health.begin_probe()
        health.record_probe_failure(SILENT, now, chance=0.5)


def test_an_answer_clears_the_suspicion():
    """A node that has answered since is not asked last."""
    health = Health(POLICY)
    assert not health.silent(5)
    health.record_failure(FailureKind.TIMEOUT, answered=5, now=0.0)
    assert health.silent(5)
    assert not health.silent(6)
    health.record_failure(FailureKind.DISCONNECT, answered=6, now=0.0)
    assert not health.silent(6)


def test_the_reason_of_an_ejection_has_no_traceback():
    """It would keep its caller's objects alive."""
    health = Health(POLICY)
    with pytest.raises(NodeUnavailableError) as raised:
        raise NodeUnavailableError("refused")
    error = raised.value
    health.eject(error, 0.0, 0.5)
    ejected = health.error
    health.record_probe_failure(error, 1.0, 0.5)
    for kept in (ejected, health.error):
        assert str(kept) == str(error)
        assert kept.__traceback__ is None
    assert error.__traceback__ is not None


def test_the_circuit_of_a_restored_node_is_closed_whatever_a_probe_says():
    """A probe may begin, and fail, in the moment in which another reply restores the node."""
    for late in (Health.begin_probe, lambda health: health.record_probe_failure(REFUSED, 3.0, 0.5)):
        health = Health(POLICY)
        health.eject(REFUSED, 1.0, 0.5)
        health.restore(2.0)
        late(health)
        assert (health.circuit, health.ejected) == (Circuit.CLOSED, False)
    health.eject(REFUSED, 4.0, 0.5)
    assert health.circuit is Circuit.OPEN


def test_a_node_that_may_have_old_values_is_quarantined_first():
    """For 100 ms after its first valid reply it is still not asked."""
    health = Health(POLICY)
    health.eject(SILENT, 10.0, 0.5)
    health.begin_probe()
    health.begin_quarantine(20.0)
    assert (health.circuit, health.ejected) == (Circuit.QUARANTINE, True)
    assert health.due == pytest.approx(20.1)
    health.restore(20.1)
    assert health.circuit is Circuit.CLOSED
    health.eject(SILENT, 60.0, 0.5)
    assert health.circuit is Circuit.OPEN


def test_a_node_that_fails_in_quarantine_is_probed_again():
    """After a longer delay, as after any failed probe."""
    health = Health(POLICY)
    health.eject(SILENT, 10.0, 0.5)
    health.begin_quarantine(10.25)
    health.record_probe_failure(SILENT, 10.35, 0.5)
    assert health.circuit is Circuit.OPEN
    assert health.due == pytest.approx(10.35 + 0.375)
    health.begin_probe()
    assert health.circuit is Circuit.PROBING


def test_a_probe_that_is_on_its_way_does_not_end_the_quarantine():
    """Another reply came first."""
    health = Health(POLICY)
    health.eject(SILENT, 10.0, 0.5)
    health.begin_quarantine(10.2)
    health.begin_probe()
    assert health.circuit is Circuit.QUARANTINE
