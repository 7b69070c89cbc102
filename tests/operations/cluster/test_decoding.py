"""One way from a node's payload to a value: what a `get` reads, a `get_many` reads as well."""

from __future__ import annotations

import pytest

from shardcache import Client, DecodeError, PartialFailureError
from shardcache.core.commands import Set
from shardcache.core.values.flags import (
    BARE_STUB,
    ERROR_FLAGS,
    INTEGER_FLAGS,
    RAW_FLAGS,
    TEXT_FLAGS,
    UNMARKED_FLAGS,
    abandoned,
    stub,
)
from shardcache.operations.port import run

MISSING = object()
UNKNOWN_KIND = 99 << 16

PAYLOADS = {
    "bytes": (UNMARKED_FLAGS, b"x"),
    "bytes, marked": (RAW_FLAGS, b"x"),
    "no bytes": (RAW_FLAGS, b""),
    "text": (TEXT_FLAGS, b"x"),
    "empty text": (TEXT_FLAGS, b""),
    "number": (INTEGER_FLAGS, b"7"),
    "no number": (INTEGER_FLAGS, b"x"),
    "of no codec": (UNKNOWN_KIND, b"x"),
    "stub": stub(b"m"),
    "memcached's stub": BARE_STUB,
    "abandoned": abandoned(b"m"),
    "error": (ERROR_FLAGS, b"x"),
}


def read(payload, on_error, *, many):
    """Return the result of reading a stored payload, and the counters of its node."""
    with Client("memory://a", on_error=on_error) as client:
        name, member, _ = client._cluster.route("k")
        assert run(lambda: client._cluster.ask(member, Set(name, payload))) is True
        try:
            value = client.get_many(["k"]).get("k", MISSING) if many else client.get("k", MISSING)
        except DecodeError as error:
            value = str(error)
        except PartialFailureError as error:
            value = str(error.failed["k"])
        counted = client.counters()["a"]
        return value, [counted[each] for each in ("hits", "misses", "decode_failures")]


@pytest.mark.parametrize("on_error", ["miss", "raise"])
@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_one_key_and_many_are_decoded_alike(payload, on_error):
    """Value, miss or error are the same, and are counted the same."""
    alone, counted = read(payload, on_error, many=False)
    assert read(payload, on_error, many=True) == (alone, counted)
    assert sum(counted[:2]) == 1
