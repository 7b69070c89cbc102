"""Other programs and we read each other's values: plain where it is asked for, bounded always."""

from __future__ import annotations

import contextlib
import json
import pickle
import socket
import tracemalloc
import zlib

import pytest
import redis

from shardcache import DecodeError, EncodeError, PartialFailureError
from shardcache.backends.redis.header import to_redis
from shardcache.core.codecs import Msgpack
from shardcache.core.values.envelopes import Envelope, pack
from shardcache.core.values.flags import ENVELOPE_FLAGS, SHIFT
from shardcache.core.values.other_clients import MAX_INFLATED, InflateBudget
from shardcache.errors import NotACounterError, ValueTooLargeError
from shardcache.testing.driving import make_client

MIB = 1024 * 1024


@pytest.fixture
def make(mode):
    """Return a function that makes a client, closed at the end."""
    with contextlib.ExitStack() as stack:

        def make(url, **options):
            client = make_client(mode, url, timeout=10, **options)
            stack.callback(client.close)
            return client

        yield make


@pytest.fixture
def theirs(redis_servers):
    """Return redis-py's client of an empty server."""
    with redis.Redis(redis_servers[0].host, redis_servers[0].port) as client:
        yield client


def said(server, *stores):
    """Store values in a memcached as other clients do: keys, flags and bytes."""
    with socket.create_connection((server.host, server.port), timeout=10) as line:
        for key, flags, data in stores:
            line.sendall(b"set %b %d 0 %d\r\n%b\r\n" % (key, flags, len(data), data))
            assert line.recv(100) == b"STORED\r\n"


class TestJsonOnRedis:
    """`codec="json"` stores what other programs read, and reads what they stored."""

    @pytest.mark.parametrize(
        "value", [{"a": [1, None]}, "text é", "12", 12, -1, 1.5, True, None, [], 10**30], ids=repr
    )
    def test_every_value_is_json(self, make, redis_servers, theirs, value):
        """Text, numbers and `None` among them, with nothing in front."""
        client = make(redis_servers[0].url, codec="json")
        client.set("set", value)
        client.set_many({"many": value})
        client.add("add", value)
        client.set("cas", 0)
        client.cas("cas", value, client.gets("cas")[1])
        client.get_or_set("computed", lambda: value, ttl=60)
        for key in ("set", "many", "add", "cas", "computed"):
            assert repr(json.loads(theirs.get(key))) == repr(value)
            assert repr(client.get(key)) == repr(value)
        assert repr(client.get_many(["set"])) == repr({"set": value})

    @pytest.mark.parametrize(
        "value", [{"a": [1, None]}, "text é", "12", 12, 1.5, True, None, 10**700], ids=repr
    )
    def test_a_value_changed_and_changed_back_is_a_new_version(
        self, make, redis_servers, theirs, value
    ):
        """`gets` adds a version that every JSON reader skips; the key's life stays."""
        client = make(redis_servers[0].url, codec="json")
        client.set("k", value, ttl=60)
        read, token = client.gets("k")
        assert repr(read) == repr(value)
        assert repr(client.get("k")) == repr(value)
        assert client.gets("k")[1] == token
        assert 0 < theirs.pttl("k") <= 60_000
        if type(value) is not int:
            assert repr(json.loads(theirs.get("k"))) == repr(value)
        client.set("k", value)
        assert client.cas("k", "late", token) is False
        _, token = client.gets("k")
        assert client.cas("k", value, token) is True
        assert repr(json.loads(theirs.get("k"))) == repr(value)

    def test_numbers_are_counted_after_gets(self, make, redis_servers, theirs):
        """`incr` and `decr` make a number bare again, with its life, so that others can count."""
        client = make(redis_servers[0].url)
        client.set("n", 7, ttl=60)
        _, token = client.gets("n")
        assert client.incr("n") == 8
        assert client.decr("n") == 7
        assert theirs.get("n") == b"7"
        assert 0 < theirs.pttl("n") <= 60_000
        assert client.cas("n", 0, token) is False
        client.set("n", -1)
        client.gets("n")
        with pytest.raises(NotACounterError):
            client.incr("n")
        assert client.get("n") == -1

    def test_gets_changes_no_value_of_another_codec(self, make, redis_servers, theirs):
        """Of a client whose codec is msgpack, `gets` changes nothing that is not its own."""
        client = make(redis_servers[0].url)
        for stored in (b"plain", b'{"a": 1}', b"1.5", b"007", b"\xc1\x03"):
            theirs.set("k", stored)
            client.gets("k")
            assert theirs.get("k") == stored

    def test_gets_reads_from_a_full_node(self, make, redis_servers, theirs):
        """Where no version can be stored, the value is read all the same, and compared by value."""
        client = make(redis_servers[0].url)
        client.set("n", 7)
        theirs.config_set("maxmemory", 1)
        try:
            value, token = client.gets("n")
            assert value == 7
            assert token is not None
        finally:
            theirs.config_set("maxmemory", 0)
        assert theirs.get("n") == b"7"
        assert client.cas("n", 8, token) is True

    def test_json_of_others_is_read(self, make, redis_servers, theirs):
        """However it is spaced; what is no JSON is a counted miss."""
        theirs.mset({"k": '{ "a": [1, 2] }', "text": '"text"', "n": 12, "none": "null", "bad": "{"})
        client = make(redis_servers[0].url, codec="json")
        found = client.get_many(["k", "text", "n", "none", "bad"])
        assert found == {"k": {"a": [1, 2]}, "text": "text", "n": 12, "none": None}
        assert client.get("bad", "miss") == "miss"
        (figures,) = client.counters().values()
        assert figures["decode_failures"] == 2

    def test_envelopes_have_a_header(self, make, redis_servers, theirs):
        """An envelope is not JSON and not taken for it; counters count."""
        client = make(redis_servers[0].url, codec="json")
        assert client.get_or_set("k", lambda: {"a": 1}, ttl=60, stale=60) == {"a": 1}
        assert client.get_or_set("k", lambda: {"a": 2}, ttl=60, stale=60) == {"a": 1}
        assert theirs.get("k")[:1] == b"\xc1"
        assert client.incr("n", initial=1) == 1
        assert theirs.incr("n") == 2
        assert client.incr("n") == 3

    def test_bytes_are_refused_as_json(self, make, redis_servers):
        """So is a value that JSON returns as another type: the error says what to do."""
        for value in (b"bytes", (1,), {1: 2}):
            with pytest.raises(EncodeError, match="msgpack"):
                make(redis_servers[0].url, codec="json").set("k", value)

    def test_signed_json_has_its_signature_in_front(self, make, redis_servers, theirs):
        """Unsigned JSON is read too only when asked for."""
        secret = "sixteen bytes or more"
        client = make(redis_servers[0].url, codec="json", secret=secret)
        reading = make(redis_servers[0].url, codec="json", secret=secret, read_unsigned=True)
        client.set("ours", {"a": 1})
        theirs.set("theirs", '{"a": 1}')
        assert theirs.get("ours")[:1] == b"\xc1"
        assert client.get_many(["ours", "theirs"]) == {"ours": {"a": 1}}
        both = {"ours": {"a": 1}, "theirs": {"a": 1}}
        assert reading.get_many(both) == both


class TestRaw:
    """`codec="raw"` stores bytes and text as they are, and gives bytes."""

    @pytest.mark.parametrize("data", [b"bytes", b"", b"12", b"\x00\xff", b'{"a":1}'], ids=repr)
    def test_bytes_are_what_redis_holds(self, make, redis_servers, theirs, data):
        """Other programs read them, and what they stored is read."""
        client = make(redis_servers[0].url, codec="raw")
        client.set("ours", data)
        theirs.set("theirs", data)
        assert theirs.get("ours") == data
        assert client.get_many(["ours", "theirs"]) == {"ours": data, "theirs": data}

    @pytest.mark.parametrize("data", [b"bytes", b"", b"12", b"\x00\xff", b"text \t"], ids=repr)
    @pytest.mark.parametrize("writer", ["ours", "theirs"])
    def test_a_value_changed_and_changed_back_is_a_new_version(
        self, make, redis_servers, theirs, data, writer
    ):
        """`gets` adds a version until the next write, whichever program makes it."""
        client = make(redis_servers[0].url, codec="raw")
        write = client.set if writer == "ours" else theirs.set
        write("k", data)
        theirs.expire("k", 60)
        read, token = client.gets("k")
        assert read == data
        assert client.gets("k") == (data, token)
        assert client.get("k") == data
        assert client.get_many(["k"]) == {"k": data}
        assert 0 < theirs.pttl("k") <= 60_000
        write("k", data)
        assert client.cas("k", b"late", token) is False
        assert theirs.get("k") == data
        _, token = client.gets("k")
        assert client.cas("k", b"next", token) is True
        assert theirs.get("k") == b"next"

    def test_a_version_makes_no_value_too_large(self, make, redis_servers, theirs):
        """A value that has no room for a version stays as it is, and is compared by value."""
        client = make(f"{redis_servers[0].url}?max_value_bytes=1024", codec="raw")
        client.set("k", b"x" * 1024)
        value, token = client.gets("k")
        assert (len(value), theirs.strlen("k")) == (1024, 1024)
        assert client.get("k") == value
        assert client.cas("k", b"next", token) is True

    @pytest.mark.parametrize("data", [b"\xc1", b"\xc1\x20", b"\xc1" * 30], ids=repr)
    def test_bytes_like_a_header_come_back(self, make, redis_servers, data):
        """They get one of our headers, so that they are not taken for it."""
        client = make(redis_servers[0].url, codec="raw")
        client.set("k", data)
        assert client.get("k") == data

    @pytest.mark.parametrize("scheme", ["memory", "memcached", "pymemcache", "redis"])
    def test_raw_values_come_back_as_bytes(self, make, memcached_servers, redis_servers, scheme):
        """Text as UTF-8 and numbers in digits, on all backends alike; servers count them."""
        memcached = memcached_servers[0].url.replace("memcached://", f"{scheme}://")
        url = {"memory": "memory://a", "redis": redis_servers[0].url}.get(scheme, memcached)
        client = make(url, codec="raw")
        client.set_many({"text": "é", "n": 41, "bytes": b"\xff", "empty": b""})
        found = {"text": "é".encode(), "n": b"41", "bytes": b"\xff", "empty": b""}
        assert client.get_many(found) == found
        assert {key: client.get(key) for key in found} == found
        assert client.incr("n") == 42


@pytest.mark.parametrize("scheme", ["memcached", "pymemcache"])
class TestCompressed:
    """zlib of other clients: not by default, and never more than a value and a call may have."""

    @pytest.mark.slow
    def test_compressed_values_are_misses_unless_asked_for(self, make, memcached_servers, scheme):
        """A bomb is a counted miss at the cost of its own bytes."""
        server = memcached_servers[0]
        said(server, (b"bomb", 8, zlib.compress(bytes(64 * MIB))), (b"k", 24, zlib.compress(b"ok")))
        url = server.url.replace("memcached://", f"{scheme}://")
        for options, expected in (({}, {}), ({"read_compressed": True}, {"k": "ok"})):
            client = make(url, **options)
            tracemalloc.start()
            try:
                assert client.get_many(["bomb", "k"]) == expected
                assert client.get("bomb", "miss") == "miss"
                assert tracemalloc.get_traced_memory()[1] < 8 * MIB
            finally:
                tracemalloc.stop()
            (figures,) = client.counters().values()
            assert figures["decode_failures"] == 3 - len(expected)

    def test_a_value_may_be_as_large_as_the_node_takes(self, make, memcached_servers, scheme):
        """`max_value_bytes` is for both directions."""
        server = memcached_servers[0]
        fits, over = zlib.compress(bytes(3 * MIB)), zlib.compress(bytes(3 * MIB + 1))
        said(server, (b"fits", 8, fits), (b"over", 8, over))
        url = server.url.replace("memcached://", f"{scheme}://")
        client = make(f"{url}?max_value_bytes={3 * MIB}", read_compressed=True)
        assert client.get("fits") == bytes(3 * MIB)
        assert client.get("over", "miss") == "miss"

    @pytest.mark.slow
    def test_the_kind_is_checked_before_inflating(self, make, memcached_servers, scheme):
        """A pickle that must not be read is not inflated either."""
        server = memcached_servers[0]
        said(server, (b"k", 9, zlib.compress(bytes(64 * MIB))))
        client = make(
            server.url.replace("memcached://", f"{scheme}://"),
            read_compressed=True,
            on_error="raise",
        )
        with pytest.raises(DecodeError, match="read_unsigned"):
            client.get("k")


def test_the_inflate_budget_of_a_call_is_shared_by_its_keys():
    """The budget of one call over many keys is shared by all of them."""
    budget, data = InflateBudget(MIB), zlib.compress(bytes(MIB))
    for _ in range(MAX_INFLATED // MIB):
        assert len(budget.inflate(data)) == MIB
    with pytest.raises(DecodeError, match="of this call"):
        budget.inflate(data)


def test_a_wrong_checksum_costs_budget_too():
    """It is found when the work has been done."""
    budget, data = InflateBudget(MIB), zlib.compress(bytes(MIB))
    wrong = data[:-1] + bytes([data[-1] ^ 1])
    for _ in range(64):
        with pytest.raises(DecodeError, match="not by zlib"):
            budget.inflate(wrong)
    with pytest.raises(DecodeError, match="of this call"):
        budget.inflate(data)
    budget = InflateBudget(MIB)
    for _ in range(500):  # what is no zlib at all costs less
        with pytest.raises(DecodeError, match="not by zlib"):
            budget.inflate(b"text of some other client")
    assert len(budget.inflate(data)) == MIB


def test_bombs_use_up_the_room_of_their_call(make, memcached_servers):
    """Hundreds of them in one call cost no more than the budget of one."""
    server, bomb = memcached_servers[0], zlib.compress(bytes(2 * MIB))
    said(server, *((b"k%d" % number, 8, bomb) for number in range(300)))
    said(server, (b"last", 8, zlib.compress(b"ok")))
    client = make(server.url, read_compressed=True)
    assert client.get_many([f"k{number}" for number in range(300)] + ["last"]) == {}
    assert client.get("last") == b"ok"


@pytest.mark.parametrize("flags", [1, 8, 9, 2 | 8, 4, 16 | 8])
def test_an_envelope_admits_no_foreign_value(make, redis_servers, theirs, flags):
    """Values of other clients are not read within ours, whatever was asked for."""
    data = zlib.compress(pickle.dumps([1])) if flags & 8 else pickle.dumps([1])
    envelope = pack(Envelope(flags, data, float("inf"), 0.0, 60.0))
    theirs.set("k", to_redis((ENVELOPE_FLAGS, envelope)))
    client = make(redis_servers[0].url, read_unsigned=True, read_compressed=True)
    assert client.get("k", "miss") == "miss"
    assert client.get_or_set("k", lambda: "own", ttl=60, stale=60) == "own"


def test_redis_reads_no_foreign_pickles(make, redis_servers, theirs):
    """Redis has no flags that say what a value is."""
    theirs.set("k", pickle.dumps([1]))
    for codec in ("msgpack", "json"):
        client = make(redis_servers[0].url, codec=codec, read_unsigned=True)
        assert client.get("k", "miss") == "miss"


class TestLargeValues:
    """What is larger than a node may hold for us is not read, and the connection stays good."""

    @pytest.fixture(params=["memcached", "pymemcache", "redis"])
    def url(self, request, memcached_servers, redis_servers):
        """Return the URL of a node."""
        servers = redis_servers if request.param == "redis" else memcached_servers
        return servers[0].url.replace("memcached://", f"{request.param}://")

    @pytest.mark.parametrize("size", [2_000, 900_000])
    def test_a_large_value_is_a_counted_miss(self, make, url, size):
        """The node is not at fault; the other values of the call are found."""
        writer = make(url)
        writer.set_many({"large": b"x" * size, "before": "value", "after": "value"})
        client = make(f"{url}?max_value_bytes=1000")
        others = {"before": "value", "after": "value"}
        for _ in range(3):
            assert client.get("large", "miss") == "miss"
            assert client.get("after") == "value"
            assert client.get_many(["before", "large", "after"]) == others
            assert client.gets("large", "miss") == ("miss", None)
        (figures,) = client.counters().values()
        assert figures["errors"] >= 9
        assert client.ejected == ()

    def test_a_large_value_is_an_error_under_raise(self, make, url):
        """The error has its size and the limit."""
        make(url).set("large", b"x" * 2_000)
        client = make(f"{url}?max_value_bytes=1000", on_error="raise")
        with pytest.raises(ValueTooLargeError, match=r"of 2\d\d\d bytes .*max_value_bytes=1000"):
            client.get("large")
        with pytest.raises(PartialFailureError) as caught:
            client.get_many(["large"])
        assert isinstance(caught.value.failed["large"], ValueTooLargeError)

    def test_a_value_that_may_be_written_may_be_read(self, make, url):
        """The limit is the same in both directions."""
        client = make(f"{url}?max_value_bytes=1000", on_error="raise")
        header = 10 if url.startswith("redis") else 0
        client.set("k", b"x" * (1000 - header))
        assert len(client.get("k")) == 1000 - header
        with pytest.raises(ValueTooLargeError):
            client.set("k", b"x" * (1001 - header))


def test_a_refused_swap_leaves_a_newer_value(make, memcached_servers, redis_servers):
    """A `cas` that would have lost deletes nothing, whatever refused it."""
    for server in (memcached_servers[0], redis_servers[0]):
        for url in (server.url, server.url.replace("memcached://", "pymemcache://")):
            client = make(f"{url}?max_value_bytes=1000")
            client.set("k", "old")
            _, token = client.gets("k")
            client.set("k", "new")
            assert client.cas("k", b"x" * 2000, token) is False
            assert client.get("k") == "new"
            _, token = client.gets("k")
            assert client.cas("k", b"x" * 2000, token) is False
            assert client.get("k") is None


def test_foreign_msgpack_in_redis_is_a_miss(make, redis_servers, theirs):
    """It has no header, or one that is cut short."""
    for stored in (Msgpack().encode(b"k", {"a": 1}), b"\xc1\x20", b"\xc1\x20" + bytes(7)):
        theirs.set("k", stored)
        assert make(redis_servers[0].url).get("k", "miss") == "miss"
    assert SHIFT == 16


@pytest.mark.parametrize("codec", ["msgpack", "pickle"])
def test_foreign_values_beside_signed_ones_need_a_setting(make, memcached_servers, codec):
    """With a secret they are read only when asked for, by cached functions as well."""
    said(memcached_servers[0], (b"text", 16, b"theirs"), (b"bytes", 0, b"theirs"))
    values = {"text": "theirs", "bytes": b"theirs"}
    for reading in (False, True):
        client = make(
            memcached_servers[0].url,
            codec=codec,
            secret="sixteen bytes or more",
            read_unsigned=reading,
        )
        client.set("ours", ["signed"])
        found = client.get_many(["text", "bytes", "ours"])
        assert found == {**(values if reading else {}), "ours": ["signed"]}
    assert client.get_or_set("text", lambda: "own", ttl=60) == "theirs"
