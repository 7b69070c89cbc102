"""What pymemcache raises, and which of our errors that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pymemcache.exceptions import (  # type: ignore[import-untyped]  # it has no types
    MemcacheClientError,
    MemcacheServerError,
    MemcacheUnexpectedCloseError,
    MemcacheUnknownCommandError,
)

from shardcache.errors import (
    NodeError,
    NodeProtocolError,
    NodeRefusedError,
    NodeTimeoutError,
    NodeUnavailableError,
    NotACounterError,
    ValueTooLargeError,
)

# The first that fits; pymemcache's errors inherit from one another.
_KINDS: Final[Sequence[tuple[tuple[type[Exception], ...], type[NodeError], str]]] = (
    ((TimeoutError, BlockingIOError), NodeTimeoutError, "did not answer in time"),
    ((OSError,), NodeUnavailableError, "lost the connection"),
    # A server hangs up when it ends, a proxy also on a command that it does not forward.
    (
        (MemcacheUnexpectedCloseError,),
        NodeUnavailableError,
        "closed the connection instead of answering",
    ),
    # pymemcache does not keep the line, which would tell the one from the other.
    (
        (MemcacheUnknownCommandError,),
        NodeUnavailableError,
        "has too many connections, or lacks this command",
    ),
)


def translated(error: Exception, node: str) -> NodeError:
    """Give our error for what a call to pymemcache raised, whatever it was."""
    if isinstance(error, NodeError):
        return error
    for kinds, ours, text in _KINDS:
        if isinstance(error, kinds):
            return ours(text, node)
    if isinstance(error, (MemcacheServerError, MemcacheClientError)):
        return _refusal(_words(error), node)
    # pymemcache trips over nonsense in many ways: KeyError, ValueError, IndexError …
    return NodeProtocolError("gave an answer that makes no sense here", node)


def _words(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return (said.decode("ascii", "replace") if isinstance(said, bytes) else str(said))[:200]


def _refusal(words: str, node: str) -> NodeError:
    if "non-numeric" in words:
        return NotACounterError("the value is no whole number from 0 to 2**63 - 1", node)
    if "too large" in words:
        return ValueTooLargeError("the value is too large for the server", node)
    return NodeRefusedError(f"the server says: {words}", node)
