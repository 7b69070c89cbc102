"""Which reads of a call are hits and misses of the caller's keys."""

from __future__ import annotations

import pytest

from shardcache import NodeTimeoutError
from shardcache.core.commands import Get, GetMany, Gets, Incr, ServerStats, Set
from shardcache.core.key_accesses import hits_and_misses, is_ours
from shardcache.core.keys import KeySpace, hash_name
from shardcache.core.values.flags import BARE_STUB, ERROR_FLAGS, RAW_FLAGS, abandoned, stub

VALUE = (RAW_FLAGS, b"12345")
EMPTY = (RAW_FLAGS, b"")
LOST = NodeTimeoutError("no answer in time", "a")
LOCK = b"~sc:l:k"  # the key of a lock called "k"
MARKS = [stub(b"m"), abandoned(b"m"), (ERROR_FLAGS, b"error"), BARE_STUB]


@pytest.mark.parametrize(
    ("command", "reply", "counts"),
    [
        (Get(b"k"), VALUE, (1, 0)),
        (Get(b"k"), None, (0, 1)),
        (Gets(b"k"), (EMPTY, 7), (1, 0)),
        (Gets(b"k"), None, (0, 1)),
        (GetMany([b"k", b"l", b"m"]), [VALUE, None, EMPTY], (2, 1)),
        (GetMany([b"k", b"l", b"m"]), [VALUE, None, LOST], (1, 1)),
        (GetMany([]), [], (0, 0)),
        # Who polls for the value of a running recompute has not missed it once more each time.
        *((Get(b"k"), mark, (0, 0)) for mark in MARKS),
        *((Gets(b"k"), (mark, 7), (0, 1)) for mark in MARKS),
        *((GetMany([b"k", b"l"]), [mark, VALUE], (1, 1)) for mark in MARKS),
        (Get(b"k"), LOST, (0, 0)),
        (Gets(b"k"), LOST, (0, 0)),
        (GetMany([b"k"]), LOST, (0, 0)),
        (Set(b"k", VALUE), True, (0, 0)),
        (Incr(b"k", 1), 4, (0, 0)),
        (ServerStats(), {"pid": "1"}, (0, 0)),
        (Get(LOCK), VALUE, (0, 0)),
        (GetMany([LOCK, b"k", hash_name(b"l")]), [VALUE, None, VALUE], (1, 1)),
    ],
)
def test_hits_and_misses_are_counted_by_key(command, reply, counts):
    """Of keys that were read and answered for; shardcache's own keys are neither."""
    assert hits_and_misses(command, reply) == counts


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        (LOCK, True),
        (b"~sc:", True),
        (KeySpace().canonical(b"~sc:l:k"), False),
        (hash_name(b"two words"), False),
        (b"~sc", False),
        (b"k", False),
    ],
)
def test_a_name_is_ours_or_a_callers(name, ours):
    """Escaped and hashed keys are a caller's."""
    assert is_ours(name) is ours
