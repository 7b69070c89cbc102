"""What pymemcache raises, and which of our errors that is."""

from __future__ import annotations

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


def translated(error: Exception, node: str) -> NodeError:
    """Give our error for what a call to pymemcache raised, whatever it was."""
    if isinstance(error, NodeError):
        return error
    if isinstance(error, (TimeoutError, BlockingIOError)):
        return NodeTimeoutError("did not answer in time", node)
    if isinstance(error, OSError):
        return NodeUnavailableError(f"lost the connection: {error.strerror or error}", node)
    if isinstance(error, MemcacheUnexpectedCloseError):
        # A server hangs up when it ends, a proxy also on a command that it does not forward.
        return NodeUnavailableError("closed the connection instead of answering", node)
    if isinstance(error, MemcacheUnknownCommandError):
        # One word for both, for pymemcache does not keep the line.
        return NodeUnavailableError("has too many connections, or lacks this command", node)
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
