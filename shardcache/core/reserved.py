"""The prefixes of the keys that shardcache keeps for itself; no caller's key begins with one."""

from __future__ import annotations

from typing import Final

RESERVED: Final = b"~sc:"

# In front of a caller's key.
HASHED: Final = RESERVED + b"h:"  # the digest of a key that is too long
ESCAPED: Final = RESERVED + b"k:"  # a key that begins as one of ours
CLEARABLE: Final = (
    RESERVED + b"n:"
)  # the generation of a namespace that can be cleared, and the key

# Invalidation.
TAGS: Final = RESERVED + b"t:"  # the version of a tag
GENERATIONS: Final = RESERVED + b"g:"  # the generation of a cached function
CLEARED: Final = RESERVED + b"c:"  # the generation of a namespace
MARKS: Final = RESERVED + b"m:"  # moved with each generation of a namespace

# Recomputes and locks.
REFRESHING: Final = RESERVED + b"r:"  # the claim of the process that refreshes a value
LOCKS: Final = RESERVED + b"l:"  # a lock of `client.lock`
VALUE_LOCKS: Final = RESERVED + b"v:"  # the lock of a recompute: no lock of a user has such a name

PROBED: Final = RESERVED + b"ping"  # deleted by a probe, to see whether the node takes writes
