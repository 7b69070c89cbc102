"""The figures on the page of limits are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shardcache.backends.base import BackendOptions
from shardcache.backends.memcached.reader import DEFAULT_MAX_VALUE, MAX_VALUE
from shardcache.backends.memory import DEFAULT_MAX_BYTES
from shardcache.backends.redis import header, options
from shardcache.backends.redis.batches import MGET_KEYS
from shardcache.clients import membership, recompute_log, swallowed_log
from shardcache.core import generations, leases, lifetimes, timeouts
from shardcache.core.key_building.arguments import MAX_DEPTH
from shardcache.core.keys import MAX_PLAIN
from shardcache.core.placement.nodes import MAX_WEIGHT
from shardcache.core.values import envelopes, other_clients
from shardcache.io import blocking
from shardcache.operations.cluster import leftovers, pending
from shardcache.operations.invalidation import tag_log
from shardcache.operations.keys.counters import SIGNED_TRIES
from shardcache.operations.recompute.protection import MOST_MARKS
from shardcache.settings import Settings
from shardcache.strategies.maglev import TABLE_SIZES
from shardcache.strategies.modulo import MAX_SERVERS

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "know-the-limits.md").read_text("utf-8")
MIB = 1024 * 1024

# By the first column of a row: the second, from the constants.
FIGURES = {
    "a key that is sent as it is to memcached": f"{MAX_PLAIN} bytes",
    "a value on memcached": f"{DEFAULT_MAX_VALUE // MIB} MiB",
    "`max_value_bytes` of memcached": f"{MAX_VALUE // MIB} MiB",
    "a value on Redis": f"{options.MAX_VALUE_BYTES // MIB} MiB",
    "all of a memory node": f"{DEFAULT_MAX_BYTES // MIB} MiB",
    "what one call inflates with `read_compressed`": f"{other_clients.MAX_INFLATED // MIB} MiB",
    "an argument of a cached function": f"{MAX_DEPTH} levels",
    "tags of a value": f"{envelopes.MAX_VERSIONS}",
    "`timeout` of a call": f"{timeouts.MAX_TIMEOUT:.0f} s",
    "`ttl` of a lock, and `max_hold`": f"{leases.MAX_TTL:.0f} s",
    "a clock that is ahead of another process's": f"{generations.MAX_AHEAD:.0f} s",
    "the weight of a node": f"{MAX_WEIGHT}",
    "nodes of `maglev`": f"{TABLE_SIZES[0]}",
    "entries of `modulo`'s list": f"{MAX_SERVERS}",
    "nodes that vote on a lock": f"{leases.MAX_LOCK_NODES}",
    "nodes below which a lock is lost with one of them": f"{membership.MIN_LOCK_NODES}",
    "threads that refresh stale values": f"{blocking.REFRESHERS}",
    "threads that take back locks and placeholders, or delete keys whose writes failed": (
        f"{blocking.CLEANERS}"
    ),
    "things to take back, by node": f"{leftovers.MOST}, for {leftovers.PATIENCE:.0f} s each",
    "[keys whose writes failed](../explanation/health.md#no-old-value-after-a-return), by node": (
        f"{pending.MOST}"
    ),
    "refreshes that a client remembers": f"{MOST_MARKS}",
    "kinds of errors that are logged apart": f"{swallowed_log.MAX_KINDS}",
    "functions that are logged apart": f"{recompute_log.MAX_FUNCTIONS}",
    "invalidated tags that a node's log keeps": f"{tag_log.MOST_ENTRIES}",
    "keys of one `MGET` to Redis": f"{MGET_KEYS}",
    "rounds of `incr(…, floor=None)` on memcached": f"{SIGNED_TRIES}",
}
# Rows whose limit is no constant; the tests of counters and lifetimes have them.
WORDS = {
    "a key of any node": "none",
    "a `ttl`, `stale`, `wait`": "ten years",
    "a counter": "0 to 2**63 - 1",
    "a counter with `floor=None`": "-2**63 to 2**63 - 1",
    "nodes of a client": "none",
}


def test_each_figure_is_the_constant():
    """The page has a row for each, and no row besides."""
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|(?: [^|]+ \|)?$", PAGE, flags=re.MULTILINE)
    shown = {row: figure for row, figure in rows if row != "what"}
    assert shown == FIGURES | WORDS
    assert lifetimes.MAX_SECONDS == 10 * 365 * 24 * 3600


def test_the_connections_of_each_fleet_are_counted_by_the_formula():
    """Processes × (the smaller of threads and `pool_size`, plus loops)."""
    pool_size = Settings.from_url("memory://a").pool_size
    assert f"`pool_size` ({pool_size})" in PAGE
    assert BackendOptions().pool_size == pool_size
    rows = re.findall(
        r"^\| [^|]+ \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, flags=re.MULTILINE
    )
    assert len(rows) == 5
    for processes, threads, loops, connections in (map(int, row) for row in rows):
        assert processes * (min(threads, pool_size) + loops) == connections


@pytest.mark.parametrize(
    ("words", "size"),
    [
        ("a header of ten bytes on Redis", header.HEADER_SIZE == 10),
        ("an envelope of 30 bytes", envelopes._HEADER.size == 30),
    ],
)
def test_what_is_added_is_what_the_page_says(words, size):
    """The sizes of header and envelope."""
    assert words in PAGE
    assert size
