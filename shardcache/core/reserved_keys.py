"""The prefixes of shardcache's own keys. No caller's key begins with one."""

from __future__ import annotations

from typing import Final

RESERVED: Final = b"~sc:"

# Before a caller's key.
HASHED: Final = RESERVED + b"h:"  # the digest of a key that is too long
ESCAPED: Final = RESERVED + b"k:"  # a key that begins like one of shardcache's own
# A key in a namespace that can be cleared, after the generation of the namespace.
CLEARABLE: Final = RESERVED + b"n:"

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

PROBED: Final = RESERVED + b"ping"  # a probe deletes it, to find out whether the node takes writes
