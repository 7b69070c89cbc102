"""The outcome of a recompute, for the caller that did it and for its followers."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from shardcache.core.commands import Payload
from shardcache.operations.recompute.progress import Progress

NO_VALUE: Final = object()  # distinct from every value, `None` included
ABSENT: Final = object()  # in place of the value of a key that a factory of many keys has left out
ABSENT_PAYLOAD: Final[Payload] = (
    0,
    bytes(bytearray(b"absent")),
)  # in place of its payload, by identity


class AbsentError(Exception):
    """Raised in place of a value by a factory of many keys that has left out its key."""


class Outcome(NamedTuple):
    """The result of a recompute: a value, its payload, or an error.

    `value` is the object that the function returned, or `NO_VALUE` if another process recomputed it;
    `payload` is what is stored. A `late` outcome says only that its own caller has timed out.
    `progress` is the progress of the flight that it comes from.
    """

    value: Any  # the caller's own, as are all values
    payload: Payload | None = None
    error: Exception | None = None
    late: bool = False
    progress: Progress | None = None

    @property
    def shareable(self) -> bool:
        """Whether followers may get it.

        A value that cannot be copied belongs to the leader alone: a second reader of an iterator
        would find nothing.
        """
        return self.error is not None or self.payload is not None


def failed(error: Exception) -> Outcome:
    """Return the outcome of a recompute that raised."""
    return Outcome(NO_VALUE, None, error)


def absent_outcome() -> Outcome:
    """Return the outcome of a recompute that found that there is no value."""
    return Outcome(ABSENT, ABSENT_PAYLOAD)


def stored_outcome(payload: Payload) -> Outcome:
    """Return the outcome of a recompute that another process has stored."""
    return Outcome(NO_VALUE, payload)
