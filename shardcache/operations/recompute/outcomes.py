"""What came of making a value, for whoever made it and for all who waited for it."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from shardcache.core.commands import Payload
from shardcache.operations.recompute.progress import Progress

NOT_MADE: Final = object()


class Outcome(NamedTuple):
    """A value as its maker has it (or `NOT_MADE` here), as it is stored, or the error instead.

    It is `late` when it says no more than that its own caller has waited for so long. `progress` is
    that of the flight it comes from.
    """

    value: Any  # the caller's own, as are all values
    payload: Payload | None = None
    error: Exception | None = None
    late: bool = False
    progress: Progress | None = None

    @property
    def shareable(self) -> bool:
        """Return whether others may have it.

        What cannot be copied belongs to whose call made it: of an iterator the second finds nothing.
        """
        return self.error is not None or self.payload is not None


def failed(error: Exception) -> Outcome:
    """Return the outcome of a making that raised."""
    return Outcome(NOT_MADE, None, error)


def read(payload: Payload) -> Outcome:
    """Return the outcome that somebody else has made and stored."""
    return Outcome(NOT_MADE, payload)
