"""Our errors as pymemcache's callers catch them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pymemcache.exceptions import (  # type: ignore[import-untyped]  # it has no types
    MemcacheClientError,
    MemcacheServerError,
    MemcacheUnexpectedCloseError,
    MemcacheUnknownError,
)

from shardcache.errors import (
    DecodeError,
    NodeError,
    NodeRefusedError,
    NodeTimeoutError,
    NodeUnavailableError,
    NotACounterError,
    PartialFailureError,
)


class MemcacheUnavailableError(MemcacheUnexpectedCloseError, ConnectionError):  # type: ignore[misc]  # the first has no types
    """A server cannot be reached, or is left out because it failed.

    pymemcache raises an `OSError` or a `MemcacheError`, by what happened: this is both.
    """


# The first match counts, because our errors inherit from one another.
_KINDS: Final[Sequence[tuple[type[NodeError], type[Exception]]]] = (
    (NodeTimeoutError, TimeoutError),  # `socket.timeout`
    (NodeUnavailableError, MemcacheUnavailableError),
    (NotACounterError, MemcacheClientError),
    (NodeRefusedError, MemcacheServerError),
    (NodeError, MemcacheUnknownError),
)


def errors_in(error: Exception) -> list[Exception]:
    """Return the errors of a call, one for each key that failed."""
    return list(error.failed.values()) if isinstance(error, PartialFailureError) else [error]


def translate(error: Exception) -> Exception:
    """Return what pymemcache raises in place of an error; for unreadable data what the serde raised."""
    if isinstance(error, DecodeError):
        cause = error.__cause__
        return cause if isinstance(cause, Exception) else error
    kind = next(theirs for ours, theirs in _KINDS if isinstance(error, ours))
    return kind(str(error))
