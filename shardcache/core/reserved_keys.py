"""shardcache's own keys: their prefixes, and how their names are built. No caller's key begins so."""

from __future__ import annotations

from typing import Final

RESERVED: Final = b"~sc:"

# Before a caller's key.
HASHED: Final = RESERVED + b"h:"  # the digest of a key that is too long
ESCAPED: Final = RESERVED + b"k:"  # a key that begins like one of shardcache's own
# A key in a namespace that can be cleared, after the generation of the namespace.
CLEARABLE: Final = RESERVED + b"n:"
GENERATION_SIZE: Final = 16  # bytes of that generation; a colon follows

# Before the name of a key that another node keeps, while the key's own node is ejected.
DETOURED: Final = RESERVED + b"f:"

# Invalidation.
TAGS: Final = RESERVED + b"t:"  # the version of a tag
TAG_LOGS: Final = RESERVED + b"i:"  # the tags that were invalidated of late on a node
GENERATIONS: Final = RESERVED + b"g:"  # the generation of a cached function
CLEARED: Final = RESERVED + b"c:"  # the generation of a namespace
MARKS: Final = RESERVED + b"m:"  # moved with each generation of a namespace

# Recomputes and locks.
REFRESHING: Final = RESERVED + b"r:"  # the claim of the process that refreshes a value
LOCKS: Final = RESERVED + b"l:"  # a lock of `client.lock`
VALUE_LOCKS: Final = RESERVED + b"v:"  # the lock of a recompute; no user's lock has this prefix

PROBES: Final = RESERVED + b"ping"  # a probe deletes it, to find out whether the node takes writes


def own_key(prefix: bytes, about: bytes = b"") -> bytes:
    """Return the name of one of shardcache's own keys, about a caller's key, a tag, a function.

    All these names are built here and nowhere else: where a key's name decides which server keeps it,
    as in a Redis Cluster, this is the place that binds a name to a node.

    >>> own_key(LOCKS, b"report"), own_key(PROBES)
    (b'~sc:l:report', b'~sc:ping')
    """
    return prefix + about


def without_generation(name: bytes) -> bytes:
    """Return a name without the generation of a namespace that can be cleared.

    >>> without_generation(b"~sc:n:0123456789abcdef:4:shop:cart"), without_generation(b"cart")
    (b'4:shop:cart', b'cart')
    """
    return name[_STAMP:] if name.startswith(CLEARABLE) else name


_STAMP: Final = len(CLEARABLE) + GENERATION_SIZE + 1  # bytes in front of a key's own name
