"""The error replies of Redis, translated to the errors of shardcache."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import hiredis

from shardcache.errors import (
    ConfigurationError,
    NodeError,
    NodeProtocolError,
    NodeRefusedError,
    NodeUnavailableError,
    TooManyConnectionsError,
    printable,
)

MAX_QUOTED: Final = 200  # characters of the server's text
MIN_SECRET: Final = 4  # letters; a shorter password also occurs in texts that do not quote it

# The node cannot serve now. That includes nodes that only refuse writes: a value that cannot be
# overwritten or deleted must not be read either.
NOT_SERVING: Final = frozenset(
    {
        "BUSY",
        "CLUSTERDOWN",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "NOREPLICAS",
        "READONLY",
        "TRYAGAIN",
    }
)

# Faults of configuration, in our words: the server's own text quotes the user's name.
NOT_ALLOWED: Final = {
    "DENIED": "the server is in protected mode and accepts only local connections",
    "NOAUTH": "the server requires a password, and the node's URL has none",
    "NOPERM": "the server's ACL does not let the user of the node's URL do this",
    "WRONGPASS": "the server does not know the user and password of the node's URL",
}

CLUSTERED: Final = frozenset({"ASK", "CROSSSLOT", "MOVED"})

# These tell a value that is not a counter, so they are kept even if they contain the user's name.
NO_COUNTER: Final = frozenset(
    {
        "ERR increment or decrement would overflow",
        "ERR value is not an integer or out of range",
    }
)

FULL: Final = "ERR max number of clients"  # the text goes on, on a cluster in another way

# Error replies to the greeting by their beginning, and our text for each: the server's own may quote
# the password.
GREETING: Final[Mapping[str, str]] = {
    "ERR unknown command": "the server does not know this command: it is renamed there, or a proxy",
    "ERR wrong number of arguments": (
        "the server expects a password without a user, as before Redis 6: write redis://:password@host"
    ),
    "ERR AUTH ": "the server has no password, and the node's URL has one",
    "ERR Client sent AUTH": "the server has no password, and the node's URL has one",
    "ERR invalid password": NOT_ALLOWED["WRONGPASS"],
    "ERR DB index is out of range": "DB index is out of range",
    "ERR invalid DB index": "DB index is out of range",
}

_is_code = re.compile(r"[A-Z]{2,20}").fullmatch
# Redis quotes the arguments of a command that it does not know: keys, values, even passwords.
_unknown_command = re.compile(
    r"ERR unknown command\W*(?:(DEL|EVAL|FLUSHDB|GET|INFO|MGET|PEXPIRE|PING|SET)\b)?", re.IGNORECASE
).match


def refusal(text: str, node: str) -> NodeError | ConfigurationError:
    """Return the error for an error reply of the server.

    Its cause is a `ReplyError` with the part of the server's text that may be shown.

    >>> refusal("LOADING Redis is loading the dataset in memory", "cache1")
    NodeUnavailableError('cache1: LOADING Redis is loading the dataset in memory')
    """
    shown = _showable_part(text)
    error = _refusal(shown, node)
    error.__cause__ = hiredis.ReplyError(shown)
    return error


def greeting_refusal(text: str, command: str, node: str) -> NodeError | ConfigurationError:
    """Return the error for an error reply to the greeting; it does not quote the server.

    >>> greeting_refusal("ERR unknown command 'AUTH', with args: 'secret'", "AUTH", "cache1")
    NodeRefusedError('cache1: AUTH: the server does not know this command: it is renamed there, or a proxy')
    """
    code = text.partition(" ")[0]
    known = next((ours for begin, ours in GREETING.items() if text.startswith(begin)), None)
    if text.startswith(FULL):
        error = _refusal(f"{FULL} reached", node)
    elif code in NOT_ALLOWED or code in CLUSTERED:  # only the code may be shown
        error = _refusal(code, node)
    elif code in NOT_SERVING:
        error = NodeUnavailableError(f"{command}: the server answered {code}", node)
    else:
        error = NodeRefusedError(f"{command}: {known or 'the server refused it'}", node)
    error.__cause__ = hiredis.ReplyError(str(error))
    return error


def unasked_refusal(text: str, node: str) -> NodeError | ConfigurationError | None:
    """Return the error for a text that a server sends before it hangs up; `None` for another text."""
    code = text.partition(" ")[0]
    if text.startswith(FULL):
        return _refusal(f"{FULL} reached", node)
    return _refusal(code, node) if code in NOT_ALLOWED else None


def without_login(text: str, login: Sequence[str]) -> str:
    """Return a server's text, or only its code if the text contains a word of the login.

    >>> without_login("OOM says hunter2", ["hunter2"])
    'OOM (the rest contains the login)'
    """
    words = [word for word in login if len(word) >= MIN_SECRET]
    if text in NO_COUNTER or not any(word in text for word in words):
        return text
    code = text.partition(" ")[0]
    shows_code = _is_code(code) and not any(word in code for word in words)
    return f"{code if shows_code else 'ERR'} (the rest contains the login)"


def _refusal(text: str, node: str) -> NodeError | ConfigurationError:
    code = text.partition(" ")[0]
    if text.startswith(FULL):
        return TooManyConnectionsError(text, node)
    if code in NOT_SERVING:
        return NodeUnavailableError(text, node)
    if code in NOT_ALLOWED:
        return NodeRefusedError(f"{NOT_ALLOWED[code]} ({code}: check the configuration)", node)
    if code in CLUSTERED:
        return ConfigurationError(
            f"{node}: a node of a Redis Cluster (it answered {code}), which shards by itself;"
            " here every node must be an independent server"
        )
    if text.startswith("ERR Protocol error"):
        return NodeProtocolError(f"the server did not understand: {text}", node)
    return NodeRefusedError(text, node)


def _showable_part(text: str) -> str:
    """Return the part of a server's text that may be shown, as one short printable line."""
    code = text.partition(" ")[0]
    if code in NOT_ALLOWED:  # the text after it contains the user's name
        return code
    unknown = _unknown_command(text)
    if unknown is not None:
        name = unknown[1]
        return f"ERR unknown command '{name.upper()}'" if name else "ERR unknown command"
    return printable(text.partition(", with args")[0][:MAX_QUOTED])
