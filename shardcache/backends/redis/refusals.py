"""What Redis says instead of a reply, and which of our errors that is."""

from __future__ import annotations

from typing import Final

from shardcache.errors import (
    ConfigurationError,
    NodeError,
    NodeProtocolError,
    NodeRefusedError,
    NodeUnavailableError,
    TooManyConnectionsError,
)

MAX_QUOTED: Final = 200  # characters of the server's text

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


def refusal(text: str, node: str) -> NodeError | ConfigurationError:
    """Give the error that an error reply of the server comes to.

    >>> refusal("LOADING Redis is loading the dataset in memory", "cache1")
    NodeUnavailableError('cache1: LOADING Redis is loading the dataset in memory')
    """
    code = text.partition(" ")[0]
    if text.startswith("ERR max number of clients"):
        return TooManyConnectionsError(text[:MAX_QUOTED], node)
    if code in NOT_SERVING:
        return NodeUnavailableError(text[:MAX_QUOTED], node)
    if code in NOT_ALLOWED:
        return NodeRefusedError(f"{NOT_ALLOWED[code]} ({code}: check the configuration)", node)
    if code in CLUSTERED:
        return ConfigurationError(
            f"{node}: a node of a Redis Cluster (it answered {code}), which shards by itself;"
            " here every node must be a server of its own"
        )
    if text.startswith("ERR Protocol error"):
        return NodeProtocolError(f"the server did not understand: {text[:MAX_QUOTED]}", node)
    # Redis repeats the arguments of a command it does not know: keys, and values too.
    return NodeRefusedError(text.partition(", with args")[0][:MAX_QUOTED], node)
