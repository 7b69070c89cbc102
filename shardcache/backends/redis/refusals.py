"""What Redis says instead of a reply, and which of our errors that is."""

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
MIN_SECRET: Final = 4  # letters; a shorter word of a login stands in texts that are none of it

# The node cannot serve for now. That includes those that only refuse to write: what cannot be
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

# A matter of configuration, in our words: the server's own quote the user's name.
NOT_ALLOWED: Final = {
    "DENIED": "the server is in protected mode, and takes none but local connections",
    "NOAUTH": "the server wants a password, and the node's URL has none",
    "NOPERM": "the server's ACL does not let the user of the node's URL do this",
    "WRONGPASS": "the server does not know the user and password of the node's URL",
}

CLUSTERED: Final = frozenset({"ASK", "CROSSSLOT", "MOVED"})

# What tells a value that is no counter: it has its meaning whatever the user is called.
NO_COUNTER: Final = frozenset(
    {
        "ERR increment or decrement would overflow",
        "ERR value is not an integer or out of range",
    }
)

FULL: Final = "ERR max number of clients"  # reached, perhaps with those of a cluster

# What a server says to a part of the greeting, by how it begins, and what we say: its own words may
# repeat the password.
GREETING: Final[Mapping[str, str]] = {
    "ERR unknown command": "the server does not know this command: it is renamed there, or a proxy",
    "ERR wrong number of arguments": (
        "the server takes a password without a user, as before Redis 6: write redis://:password@host"
    ),
    "ERR AUTH ": "the server wants no password, and the node's URL has one",
    "ERR Client sent AUTH": "the server wants no password, and the node's URL has one",
    "ERR invalid password": NOT_ALLOWED["WRONGPASS"],
    "ERR DB index is out of range": "DB index is out of range",
    "ERR invalid DB index": "DB index is out of range",
}

_is_code = re.compile(r"[A-Z]{2,20}").fullmatch
# Redis repeats the arguments of a command that it does not know: keys, values and passwords too.
_unknown_command = re.compile(
    r"ERR unknown command\W*(?:(DEL|EVAL|FLUSHDB|GET|INFO|MGET|PEXPIRE|PING|SET)\b)?", re.IGNORECASE
).match


def refusal(text: str, node: str) -> NodeError | ConfigurationError:
    """Return the error that an error reply of the server comes to.

    Its cause is a `ReplyError` with as much of the server's text as may be shown.

    >>> refusal("LOADING Redis is loading the dataset in memory", "cache1")
    NodeUnavailableError('cache1: LOADING Redis is loading the dataset in memory')
    """
    shown = _shown(text)
    error = _refusal(shown, node)
    error.__cause__ = hiredis.ReplyError(shown)
    return error


def greeting_refusal(text: str, command: str, node: str) -> NodeError | ConfigurationError:
    """Return the error that a no to a part of the greeting comes to, in our words alone.

    >>> greeting_refusal("ERR unknown command 'AUTH', with args: 'secret'", "AUTH", "cache1")
    NodeRefusedError('cache1: AUTH: the server does not know this command: it is renamed there, or a proxy')
    """
    code = text.partition(" ")[0]
    known = next((ours for begin, ours in GREETING.items() if text.startswith(begin)), None)
    if text.startswith(FULL):
        error = _refusal(f"{FULL} reached", node)
    elif code in NOT_ALLOWED or code in CLUSTERED:  # of these only the code is told
        error = _refusal(code, node)
    elif code in NOT_SERVING:
        error = NodeUnavailableError(f"{command}: the server answered {code}", node)
    else:
        error = NodeRefusedError(f"{command}: {known or 'the server refused it'}", node)
    error.__cause__ = hiredis.ReplyError(str(error))
    return error


def unasked_refusal(text: str, node: str) -> NodeError | ConfigurationError | None:
    """Return the error of what a server says unasked, before it hangs up; `None` for anything else."""
    code = text.partition(" ")[0]
    if text.startswith(FULL):
        return _refusal(f"{FULL} reached", node)
    return _refusal(code, node) if code in NOT_ALLOWED else None


def without_login(text: str, login: Sequence[str]) -> str:
    """Return a server's text, or only its code when the text repeats a word of the login.

    >>> without_login("OOM says hunter2", ["hunter2"])
    'OOM (the rest repeats the login)'
    """
    words = [word for word in login if len(word) >= MIN_SECRET]
    if text in NO_COUNTER or not any(word in text for word in words):
        return text
    code = text.partition(" ")[0]
    told = _is_code(code) and not any(word in code for word in words)
    return f"{code if told else 'ERR'} (the rest repeats the login)"


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
            " here every node must be a server of its own"
        )
    if text.startswith("ERR Protocol error"):
        return NodeProtocolError(f"the server did not understand: {text}", node)
    return NodeRefusedError(text, node)


def _shown(text: str) -> str:
    """Return what may be shown of a server's text, in one printable line of some length."""
    code = text.partition(" ")[0]
    if code in NOT_ALLOWED:  # which goes on with the user's name
        return code
    unknown = _unknown_command(text)
    if unknown is not None:
        name = unknown[1]
        return f"ERR unknown command '{name.upper()}'" if name else "ERR unknown command"
    return printable(text.partition(", with args")[0][:MAX_QUOTED])
