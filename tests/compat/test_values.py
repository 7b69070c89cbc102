"""Values belong to the caller's serde, with its flags and its errors."""

from __future__ import annotations

import json
import pickle
import threading
from collections import defaultdict

import pytest
from pymemcache.client.base import Client as PlainClient
from pymemcache.exceptions import MemcacheIllegalInputError
from pymemcache.serde import PickleSerde, compressed_serde, pickle_serde

from shardcache.compat.pymemcache import HashClient


class JsonSerde:
    """Text under flag 1, JSON under flag 2: what a program wrote by pymemcache's own guide."""

    def serialize(self, _key, value):
        """Return text or JSON, and its flag."""
        return (value, 1) if isinstance(value, str) else (json.dumps(value), 2)

    def deserialize(self, _key, value, flags):
        """Return the value; raise for other flags."""
        if flags == 1:
            return value.decode()
        if flags == 2:
            return json.loads(value)
        raise LookupError(f"unknown flags {flags}")


class KeyedSerde:
    """Values that know their key, as its caller wrote it."""

    def serialize(self, key, value):
        """Return the value with its key."""
        return repr((key, value)).encode(), 40_000

    def deserialize(self, key, value, flags):
        """Return the key that was asked for, the stored text, and the flags."""
        return key, value.decode(), flags


SERDES = {
    "pickle": pickle_serde,
    "pickle 0": PickleSerde(pickle_version=0),
    "compressed": compressed_serde,
    "json": JsonSerde(),
    "keyed": KeyedSerde(),
}
VALUES = [
    "",
    "text",
    "ключ",
    0,
    7,
    -7,
    10**30,
    [1, "2"],
    {"a": None},
    None,
    True,
    1.5,
    "long" * 300,
]
ONLY_PICKLED = [b"", b"bytes", b"\0\xff", {1: b"2"}, (1, 2), {3}, defaultdict(int, a=1)]


@pytest.mark.parametrize("name", SERDES)
@pytest.mark.parametrize(("writer", "reader"), [("theirs", "ours"), ("ours", "theirs")])
def test_each_reads_what_the_other_wrote(make, writer, reader, name):
    """The same serde in both clients: every value comes back as from one of them alone."""
    serde = SERDES[name]
    values = VALUES if name in {"json", "keyed"} else VALUES + ONLY_PICKLED
    stored = {f"k{number}": value for number, value in enumerate(values)}
    settings = {"serde": serde, "encoding": "utf8"}  # the serde of JSON returns text
    assert make(writer, **settings).set_many(stored) == []
    alone = make(writer, **settings).get_many(stored)
    assert alone.keys() == stored.keys()
    read = make(reader, **settings)
    assert read.get_many(stored) == alone
    assert {key: read.get(key) for key in stored} == alone
    assert {key: value for key, (value, _) in read.gets_many(stored).items()} == alone
    assert {type(value) for value in alone.values()} == {
        type(value) for value in read.get_many(stored).values()
    }


def test_the_bytes_and_flags_on_a_server_are_theirs(make, hosts):
    """A plain client finds the same bytes and flags, whichever client wrote them."""
    values = {"text": "v", "number": 7, "other": [1], "long": "v" * 999, "empty": b""}
    found = {}
    for whose in ("theirs", "ours"):
        make(whose, hosts[:1], serde=compressed_serde).set_many(values)
        make(whose, hosts[:1]).set("flags", "v", flags=300)
        plain = PlainClient(hosts[0])
        found[whose] = [plain.raw_command(f"get {key}", "END\r\n") for key in (*values, "flags")]
        plain.close()
    assert found["ours"] == found["theirs"]
    assert b" 300 1\r\n" in found["ours"][-1]


def test_a_serde_is_given_the_caller_s_own_key(make):
    """Neither the prefix nor another type of key reaches it."""
    client = make("ours", serde=KeyedSerde(), key_prefix=b"shop:")
    client.set_many({"k": 1, b"l": 2})
    assert client.get("k") == ("k", "('k', 1)", 40_000)
    assert client.get_many([b"l"]) == {b"l": (b"l", "(b'l', 2)", 40_000)}


def test_functions_in_place_of_a_serde(make):
    """`serializer` and `deserializer` work as well, one without the other too."""
    for whose in ("theirs", "ours"):
        client = make(
            whose,
            serializer=lambda _key, value: (pickle.dumps(value), 5),
            deserializer=lambda _key, value, flags: (pickle.loads(value), flags),
        )
        client.set("k", [1])
        assert client.get("k") == ([1], 5)
        assert make(whose, deserializer=lambda *parts: parts[2]).get("k") == 5


def test_without_a_serde_values_are_bytes(make):
    """Text and numbers are stored as their text in `encoding`, and read as bytes."""
    client = make("ours")
    client.set_many({"text": "v", "number": 7, "bytes": b"\xff", "empty": b""})
    assert client.get_many(["text", "number", "bytes", "empty"]) == {
        "text": b"v",
        "number": b"7",
        "bytes": b"\xff",
        "empty": b"",
    }
    with pytest.raises(MemcacheIllegalInputError, match="give bytes, a serde, or encoding='utf8'"):
        client.set("k", "ключ")
    wide = make("ours", encoding="utf8", use_pooling=True)
    wide.set("k", "ключ")
    assert wide.get("k") == "ключ".encode()


@pytest.mark.parametrize("ignore_exc", [False, True])
def test_what_a_serde_raises_for_a_value_is_raised(make, ignore_exc):
    """A value that cannot be stored is a fault of the program, and never swallowed."""
    client = make("ours", serde=pickle_serde, ignore_exc=ignore_exc)
    client.set("k", 1)
    for write in (
        client.set,
        client.add,
        client.replace,
        lambda key, value: client.set_many({key: value}),
    ):
        with pytest.raises(TypeError, match="pickle"):
            write("k", threading.Lock())
    assert client.get("k") == 1


def test_what_a_serde_raises_for_data_is_raised(make):
    """The program's own error arrives, not one of ours around it."""
    make("ours").set("k", "v", flags=9)
    client = make("ours", serde=JsonSerde())
    for read in (
        client.get,
        client.gets,
        lambda key: client.get_many([key]),
        lambda key: client.gets_many([key]),
    ):
        with pytest.raises(LookupError, match="unknown flags 9"):
            read("k")


def test_with_ignore_exc_unreadable_data_is_a_counted_miss(make, hosts):
    """It is the default, and counted as a failure to decode."""
    make("ours", hosts[:1]).set_many({"k": "v", "l": "w"}, flags=9)
    client = make("ours", hosts[:1], serde=JsonSerde(), ignore_exc=True)
    assert client.get("k", 7) == 7
    assert client.gets("k", 7, 8) == (7, 8)
    assert client.get_many(["k"]) == {}
    assert client.gets_many(["k"]) == {}
    (counted,) = client.counters().values()
    assert (counted["decode_failures"], counted["misses"], counted["hits"]) == (4, 4, 0)


def test_an_empty_value_is_a_hit(make, hosts):
    """Other clients of ours may leave empty stubs; a `HashClient` never does."""
    client = make("ours", hosts[:1])
    client.set("k", b"")
    assert client.get("k", "miss") == b""
    assert client.get_many(["k"]) == {"k": b""}
    (counted,) = client.counters().values()
    assert (counted["misses"], counted["hits"]) == (0, 2)
    strict = make("ours", hosts[:1], serde=JsonSerde(), ignore_exc=True)
    assert strict.get("k", "miss") == "miss"


@pytest.mark.parametrize("flags", [-1, 65536, "1"])
def test_flags_that_pymemcache_does_not_document_are_refused(make, flags):
    """Above 16 bits are shardcache's own flags."""
    with pytest.raises(MemcacheIllegalInputError, match="flags must be a number from 0 to 65535"):
        make("ours").set("k", "v", flags=flags)


def test_the_server_decides_how_large_a_value_may_be(make_memcached):
    """A server with a larger limit takes larger values, without a setting."""
    server = make_memcached("-I", "4m")
    client = HashClient([(server.host, server.port)], timeout=10)
    assert client.set("k", b"v" * 3_000_000, noreply=False) is True
    assert len(client.get("k")) == 3_000_000
    client.close()
