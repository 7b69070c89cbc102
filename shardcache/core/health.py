"""When a node is ejected, probed and restored: decided from the results of its calls.

Nothing here reads a clock. Hard errors eject at once, soft ones (timeouts, nonsense, one lost
connection) only when they repeat.
"""

from __future__ import annotations

import errno
from copy import copy
from enum import Enum
from typing import Final, NamedTuple

from shardcache.errors import (
    ConnectTimeoutError,
    NodeError,
    NodeRefusedError,
    NodeTimeoutError,
    NodeUnavailableError,
    PoolTimeoutError,
)

# The system's errors when this process, not the node, has run out of a resource.
LOCAL: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
)


class FailureKind(Enum):
    """What an error says about its node."""

    NONE = "none"  # nothing: the node answered, or this process is to blame
    TIMEOUT = "timeout"  # no answer in time
    PROTOCOL = "protocol"  # an answer that makes no sense
    DISCONNECT = "disconnect"  # an open connection was lost
    HARD = "hard"  # connection refused, node unreachable or not serving


_SOFT: Final = (FailureKind.TIMEOUT, FailureKind.PROTOCOL)


class Circuit(Enum):
    """The state of a node's circuit: whether the node is asked."""

    CLOSED = "closed"  # the node is asked
    OPEN = "open"  # the node is ejected, and not asked
    PROBING = "probing"  # the node is ejected, and a probe is on its way
    QUARANTINE = "quarantine"  # the node has answered; it is asked once its old values are gone


class EjectionPolicy(NamedTuple):
    """Stop asking a node that keeps failing, and probe it later.

    A hard error ejects at once. Otherwise a node is ejected after `timeouts` or `losses` in a row,
    or if the share `failures` of at least `calls` calls fails within `window` seconds. A single lost
    connection is not the node's fault: servers and firewalls close idle connections, and a restarted
    server accepts the next one.

    The first probe comes after `first_probe` seconds. Each next delay is `factor` times longer, up
    to `slowest_probe`. Delays are multiplied by a random number from `jitter`, so that many processes
    do not probe at once. A node that is ejected again within `flap_window` seconds of its return
    waits `flap_factor` times longer for its first probe. A silent node costs callers their timeouts:
    it waits up to `flap_limit` seconds, enough for one that flaps, and short enough for one that
    pauses regularly. A node that refuses or loses connections costs a call or two, and may be back
    at once: it waits up to `flap_limit_refused` seconds. `tests/core/test_flapping.py` simulates
    all of this.

    A node that answers again, and may have old values, stays in `quarantine` for that many seconds
    before they are deleted. A write that was sent to it before arrives in that time: of 40 deletes
    that were sent at once, two came before such a write; of those sent 5 ms later, none did.
    """

    timeouts: int = 3
    losses: int = 2
    failures: float = 0.5
    calls: int = 20
    window: float = 2.0
    first_probe: float = 0.25
    factor: float = 1.5
    slowest_probe: float = 5.0
    jitter: tuple[float, float] = (0.8, 1.5)
    flap_window: float = 10.0
    flap_factor: float = 2.5
    flap_limit: float = 10.0
    flap_limit_refused: float = 1.5
    quarantine: float = 0.1


DEFAULT_EJECTION: Final = EjectionPolicy()


class Health:
    """The health of one node. Times are monotonic seconds, chance is 0 to 1.

    While the node is `ejected`, `error` is the reason, `since` the time of the ejection, `looked`
    the time of the last failed probe, and `due` the time of the next probe; in quarantine, that of
    its end. `restored` is when the node last came back.
    """

    __slots__ = (
        "_answered",
        "_delay",
        "_failures",
        "_first_delay",
        "_losses",
        "_policy",
        "_probing",
        "_quarantined",
        "_timeouts",
        "_window_answered",
        "_window_began",
        "due",
        "ejected",
        "error",
        "looked",
        "restored",
        "since",
    )

    def __init__(self, policy: EjectionPolicy = DEFAULT_EJECTION) -> None:
        self._policy = policy
        self.ejected = False  # read before every call
        self._probing = False
        self._quarantined = False
        self.error: NodeError | None = None
        self.since = 0.0
        self.due = 0.0
        self.looked = 0.0
        self._timeouts = 0
        self._losses = 0
        self._answered = 0
        self._failures = 0
        self._window_began = float("-inf")
        self._window_answered = 0
        self.restored = float("-inf")
        self._first_delay = policy.first_probe
        self._delay = policy.first_probe

    def record_failure(self, kind: FailureKind, answered: int, now: float) -> bool:
        """Record a failure; return whether the node must be ejected for it.

        `answered` is how many calls the node has ever answered. With that number, successful calls
        need not be recorded here.
        """
        if kind is FailureKind.NONE:
            return False
        if kind is FailureKind.HARD:
            return True
        return self._fails_in_a_row(kind, answered) | self._fails_often(answered, now)

    def silent(self, answered: int) -> bool:
        """Return whether the last call timed out; `answered` as in `record_failure`."""
        return self._timeouts > 0 and self._answered == answered

    def _fails_in_a_row(self, kind: FailureKind, answered: int) -> bool:
        if answered != self._answered:
            self._answered = answered
            self._timeouts = self._losses = 0
        self._timeouts += kind is FailureKind.TIMEOUT
        self._losses += kind is FailureKind.DISCONNECT
        return self._timeouts >= self._policy.timeouts or self._losses >= self._policy.losses

    def _fails_often(self, answered: int, now: float) -> bool:
        if now - self._window_began > self._policy.window:
            self._window_began = now
            self._window_answered = answered
            self._failures = 0
        self._failures += 1
        calls = self._failures + answered - self._window_answered
        return calls >= self._policy.calls and self._failures >= self._policy.failures * calls

    def eject(self, error: NodeError, now: float, chance: float) -> None:
        """Open the circuit, because of `error`."""
        policy = self._policy
        flapping = now - self.restored < policy.flap_window
        silent = failure_kind(error) in _SOFT
        limit = policy.flap_limit if silent else policy.flap_limit_refused
        longer = min(policy.flap_factor * self._first_delay, limit)
        self._delay = self._first_delay = longer if flapping else policy.first_probe
        self.error = copy(error)  # without its traceback, which keeps its caller's frames alive
        self.since = self.looked = now
        self.due = now + self._next_delay(chance)
        self._probing = self._quarantined = False
        self.ejected = True

    def begin_probe(self) -> None:
        """Record that a probe is on its way."""
        self._probing = True

    def begin_quarantine(self, now: float) -> None:
        """Keep the circuit open a little longer: the node gave a valid reply, and may have old values."""
        self.due = now + self._policy.quarantine
        self._probing = False
        self._quarantined = True

    def record_probe_failure(self, error: NodeError, now: float, chance: float) -> None:
        """Keep the circuit open until the next probe, which comes after a longer delay.

        A quarantine in which the node failed is over as well.
        """
        policy = self._policy
        longest = max(policy.slowest_probe, self._first_delay)
        self._delay = min(self._delay * policy.factor, longest)
        self.looked = now
        self.error = copy(error)  # without its traceback, which keeps its caller's frames alive
        self.due = now + self._next_delay(chance)
        self._probing = self._quarantined = False

    def restore(self, now: float) -> None:
        """Close the circuit: the node gave a valid reply."""
        self.ejected = False
        self.error = None
        self._timeouts = self._losses = 0
        self._window_began = float("-inf")
        self.restored = now

    @property
    def circuit(self) -> Circuit:
        """Return the state of the circuit: closed unless the node is ejected.

        Another reply may restore the node while a probe is on its way. So the probe decides only
        between open and probing.
        """
        if not self.ejected:
            return Circuit.CLOSED
        if self._quarantined:
            return Circuit.QUARANTINE
        return Circuit.PROBING if self._probing else Circuit.OPEN

    @property
    def soft(self) -> bool:
        """Return whether timeouts or nonsense ejected it, which may be this process's fault."""
        return self.error is not None and failure_kind(self.error) in _SOFT

    def _next_delay(self, chance: float) -> float:
        low, high = self._policy.jitter
        return self._delay * (low + (high - low) * chance)


def failure_kind(error: NodeError) -> FailureKind:
    """Return what an error says about its node.

    >>> failure_kind(NodeTimeoutError("did not answer in time")), failure_kind(PoolTimeoutError(""))
    (<FailureKind.TIMEOUT: 'timeout'>, <FailureKind.NONE: 'none'>)
    """
    if isinstance(error, (PoolTimeoutError, NodeRefusedError)):
        return FailureKind.NONE
    if isinstance(error, NodeTimeoutError) and error.excused:
        return FailureKind.NONE
    if isinstance(error, ConnectTimeoutError):
        return FailureKind.HARD
    if isinstance(error, NodeTimeoutError):
        return FailureKind.TIMEOUT
    if isinstance(error, NodeUnavailableError):
        return _failure_kind_of_cause(error.__cause__)
    return FailureKind.PROTOCOL


def _failure_kind_of_cause(cause: BaseException | None) -> FailureKind:
    if isinstance(cause, OSError) and cause.errno in LOCAL:
        return FailureKind.NONE
    if isinstance(cause, ConnectionError) and not isinstance(cause, ConnectionRefusedError):
        return FailureKind.DISCONNECT
    return FailureKind.HARD
