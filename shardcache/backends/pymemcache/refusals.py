"""The errors that pymemcache raises, translated to the errors of shardcache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pymemcache.exceptions import (  # type: ignore[import-untyped]  # it has no types
    MemcacheClientError,
    MemcacheError,
    MemcacheServerError,
    MemcacheUnknownCommandError,
)

from shardcache.core.commands import Command, FlushAll, ServerStats
from shardcache.errors import (
    NodeError,
    NodeProtocolError,
    NodeRefusedError,
    NodeTimeoutError,
    NodeUnavailableError,
    NotACounterError,
    TooManyConnectionsError,
    ValueTooLargeError,
)


class HungUpError(ConnectionResetError):
    """The node closed the connection instead of answering; pymemcache has another error for it."""


# The first match counts, because pymemcache's errors inherit from one another.
_KINDS: Final[Sequence[tuple[tuple[type[Exception], ...], type[NodeError], str]]] = (
    ((TimeoutError, BlockingIOError), NodeTimeoutError, "did not answer in time"),
    # A server hangs up when it stops, a proxy also on a command that it does not forward.
    ((HungUpError,), NodeUnavailableError, "closed the connection instead of answering"),
    ((OSError,), NodeUnavailableError, "lost the connection"),
    ((MemcacheUnknownCommandError,), NodeRefusedError, "does not know this command"),
)
# Proxies do not forward these: twemproxy hangs up on them, but works.
_OF_ONE_SERVER: Final = (ServerStats, FlushAll)
_OF_REDIS: Final = ("$", "-", "+")  # the first bytes of its replies


def translate(error: Exception, command: Command, node: str) -> Exception:
    """Return our error for one that pymemcache raised during `command`.

    An error of another library, such as one of a signal handler, is returned as it is.
    """
    # For malformed replies pymemcache raises KeyError, ValueError, IndexError …
    known = isinstance(error, (OSError, MemcacheError)) or type(error).__module__ == "builtins"
    if not known or isinstance(error, NodeError):
        return error
    if isinstance(error, ConnectionError) and isinstance(command, _OF_ONE_SERVER):
        return NodeRefusedError(f"hung up on {type(command).__name__}; is it a proxy?", node)
    for kinds, ours, text in _KINDS:
        if isinstance(error, kinds):
            return ours(text, node)
    if isinstance(error, (MemcacheServerError, MemcacheClientError)):
        return _refusal(_words(error), node)
    if _words(error).startswith(_OF_REDIS):
        return NodeProtocolError("answers like Redis: for a Redis node use redis://", node)
    return NodeProtocolError("sent a reply that does not fit the command", node)


def _words(error: Exception) -> str:
    text = error.args[0] if error.args else ""
    return (text.decode("ascii", "replace") if isinstance(text, bytes) else str(text))[:200]


def _refusal(words: str, node: str) -> NodeError:
    if "non-numeric" in words:
        return NotACounterError("the value is not a whole number from 0 to 2**63 - 1", node)
    if "open connections" in words:
        return TooManyConnectionsError("has too many connections", node)
    if "unauthenticated" in words:
        return NodeProtocolError(
            "requires authentication (memcached -Y), which shardcache does not support", node
        )
    if "too large" in words:
        return ValueTooLargeError("the value is too large for the server", node)
    return NodeRefusedError(f"the server says: {words}", node)
