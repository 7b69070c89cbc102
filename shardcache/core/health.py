"""Which nodes are fit to be asked: decided from what became of their calls, without a clock."""

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

# What the system says when this process, not the node, has run out of something.
LOCAL: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
)


class FailureKind(Enum):
    """What an error says about its node."""

    NONE = "none"  # it answered, or the trouble is our own
    TIMEOUT = "timeout"  # no answer in time
    PROTOCOL = "protocol"  # an answer that makes no sense
    DISCONNECT = "disconnect"  # a connection that was there is gone
    HARD = "hard"  # refused, not reached, not serving


_SOFT: Final = (FailureKind.TIMEOUT, FailureKind.PROTOCOL)


class Circuit(Enum):
    """Whether a node is asked.

    A quarantine, between probing and closed, has its place here.
    """

    CLOSED = "closed"  # asked
    OPEN = "open"  # ejected: not asked
    PROBING = "probing"  # ejected, and asked for a sign of life just now


class EjectionPolicy(NamedTuple):
    """Stop asking a node that keeps failing, and look again later.

    A hard error ejects at once; else `timeouts` or `losses` in a row, or the share `failures` of at
    least `calls` calls within `window` seconds. One lost connection alone is none of the node's
    faults: servers and firewalls close them, and a server that restarts takes the next.

    The first probe comes after `first_probe` seconds, each next one `factor` times later, up to
    `slowest_probe`; a delay is multiplied by a number drawn from `jitter`, so that many processes do
    not ask at once. A node ejected again within `flap_window` seconds of its return waits
    `flap_factor` times as long for its first probe. For one that is silent, which costs callers
    their timeouts, that is up to `flap_limit` seconds: enough against one that flaps, and short
    enough not to punish one that pauses regularly. One that refuses or loses connections costs a
    call or two, and may be back at once: up to `flap_limit_refused` seconds (all simulated in
    `tests/core/test_flapping.py`).
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


DEFAULT_EJECTION: Final = EjectionPolicy()


class Health:
    """What is known of one node's fitness. Moments are monotonic seconds, chance is 0 to 1.

    While the node is `ejected`, `error` is why, `since` when that began, `looked` when that was
    last confirmed, and `due` when it is probed next. `restored` is when it came back last.
    """

    __slots__ = (
        "_answered",
        "_delay",
        "_failures",
        "_first_delay",
        "_losses",
        "_policy",
        "_probed",
        "_silences",
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
        self._probed = False
        self.error: NodeError | None = None
        self.since = 0.0
        self.due = 0.0
        self.looked = 0.0
        self._silences = 0
        self._losses = 0
        self._answered = 0
        self._failures = 0
        self._window_began = float("-inf")
        self._window_answered = 0
        self.restored = float("-inf")
        self._first_delay = policy.first_probe
        self._delay = policy.first_probe

    def failed(self, kind: FailureKind, answered: int, now: float) -> bool:
        """Take note of a failure; say whether the node is to be ejected for it.

        `answered` is how many calls the node has ever answered: so the calls that go well, nearly
        all, have nothing to do here.
        """
        if kind is FailureKind.NONE:
            return False
        if kind is FailureKind.HARD:
            return True
        return self._fails_in_a_row(kind, answered) | self._fails_often(answered, now)

    def silent(self, answered: int) -> bool:
        """Return whether its last call was not answered in time; `answered` as in `failed`."""
        return self._silences > 0 and self._answered == answered

    def _fails_in_a_row(self, kind: FailureKind, answered: int) -> bool:
        if answered != self._answered:
            self._answered = answered
            self._silences = self._losses = 0
        self._silences += kind is FailureKind.TIMEOUT
        self._losses += kind is FailureKind.DISCONNECT
        return self._silences >= self._policy.timeouts or self._losses >= self._policy.losses

    def _fails_often(self, answered: int, now: float) -> bool:
        if now - self._window_began > self._policy.window:
            self._window_began = now
            self._window_answered = answered
            self._failures = 0
        self._failures += 1
        calls = self._failures + answered - self._window_answered
        return calls >= self._policy.calls and self._failures >= self._policy.failures * calls

    def eject(self, error: NodeError, now: float, chance: float) -> None:
        """Open the circuit because of `error`."""
        policy = self._policy
        flapping = now - self.restored < policy.flap_window
        silent = failure_kind(error) in _SOFT
        limit = policy.flap_limit if silent else policy.flap_limit_refused
        longer = min(policy.flap_factor * self._first_delay, limit)
        self._delay = self._first_delay = longer if flapping else policy.first_probe
        self.error = copy(error)  # without its traceback, which keeps its caller's frames alive
        self.since = self.looked = now
        self.due = now + self._jittered(chance)
        self._probed = False
        self.ejected = True

    def probing(self) -> None:
        """Take note that a probe is on its way."""
        self._probed = True

    def probe_failed(self, error: NodeError, now: float, chance: float) -> None:
        """Stay open until the next probe, which comes later than this one did."""
        policy = self._policy
        longest = max(policy.slowest_probe, self._first_delay)
        self._delay = min(self._delay * policy.factor, longest)
        self.looked = now
        self.error = copy(error)  # without its traceback, which keeps its caller's frames alive
        self.due = now + self._jittered(chance)
        self._probed = False

    def restore(self, now: float) -> None:
        """Close the circuit: the node gave a valid reply."""
        self.ejected = False
        self.error = None
        self._silences = self._losses = 0
        self._window_began = float("-inf")
        self.restored = now

    @property
    def circuit(self) -> Circuit:
        """Return the state of the circuit: closed unless the node is ejected.

        A probe may still be on its way when another reply restores the node; so its outcome decides
        between open and probing alone.
        """
        if not self.ejected:
            return Circuit.CLOSED
        return Circuit.PROBING if self._probed else Circuit.OPEN

    @property
    def soft(self) -> bool:
        """Return whether it was ejected for silence or nonsense, which could be this process's own."""
        return self.error is not None and failure_kind(self.error) in _SOFT

    def _jittered(self, chance: float) -> float:
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
