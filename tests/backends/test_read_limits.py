"""A value larger than the limit is refused by its first line, and its bytes are not kept."""

from __future__ import annotations

import re
import tracemalloc

import pytest

from shardcache.backends.memcached.wire import MemcachedWire
from shardcache.backends.redis.options import RedisOptions
from shardcache.backends.redis.wire import RedisWire
from shardcache.core.commands import Get, GetMany, GetOrStub, Gets
from shardcache.errors import NodeProtocolError, ValueTooLargeError

LIMIT = 100


def opaque(request):
    """Return the opaque tokens of a request of the meta protocol."""
    return re.findall(rb" (O\d+)", b"".join(request))


def feed_in_chunks(wire, stream, size):
    """Return the replies in a stream that arrives in pieces of some size."""
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    return [reply for piece in pieces for reply in wire.feed(piece)]


class TestMemcached:
    """The meta protocol."""

    @pytest.fixture
    def wire(self):
        """Return the wire of a new connection."""
        return MemcachedWire("node", max_value=LIMIT)

    @pytest.mark.parametrize(
        ("command", "flags"),
        [(Get(b"k"), b"f0"), (Gets(b"k"), b"f0 c1"), (GetOrStub(b"k", b"mark", 30), b"f0 c1")],
    )
    @pytest.mark.parametrize("chunk", [1, 7, 1000])
    def test_a_large_value_is_refused_by_its_first_line(self, wire, command, flags, chunk):
        """Its bytes are dropped as they arrive, and the next reply is read behind them."""
        (token,) = opaque(wire.encode(command))
        (error,) = wire.feed(b"VA 5000 %b %b\r\n" % (flags, token))
        assert isinstance(error, ValueTooLargeError)
        assert "5000 bytes" in str(error)
        assert not wire.idle
        (following,) = opaque(wire.encode(Get(b"l")))
        rest = b"\r\n" * 2500 + b"\r\nVA 2 f16 %b\r\nok\r\n" % following
        replies = feed_in_chunks(wire, rest, chunk)
        assert replies == [(16, b"ok")]
        assert wire.idle

    @pytest.mark.parametrize("chunk", [1, 7, 10_000])
    def test_a_large_value_of_a_batch_is_an_error_in_its_place(self, wire, chunk):
        """The other values are found."""
        tokens = opaque(wire.encode(GetMany([b"a", b"b", b"c"])))
        stream = b"".join(
            b"VA %d f16 %b\r\n%b\r\n" % (size, token, b"x" * size)
            for token, size in zip(tokens, (2, 5000, 3), strict=True)
        )
        stream += b"MN\r\n"
        replies = feed_in_chunks(wire, stream, chunk)
        ((first, error, last),) = replies
        assert (first, last) == ((16, b"xx"), (16, b"xxx"))
        assert isinstance(error, ValueTooLargeError)
        assert wire.idle

    @pytest.mark.parametrize("end", [b"xx", b"\rx", b"x\n"])
    @pytest.mark.parametrize("chunk", [1, 10_000])
    def test_a_wrong_length_is_noticed(self, wire, end, chunk):
        """A dropped value must end where its length says, or the connection is lost."""
        (token,) = opaque(wire.encode(Get(b"k")))
        stream = b"VA 5000 f0 %b\r\n" % token + b"x" * 5000 + end
        with pytest.raises(NodeProtocolError, match="longer or shorter"):
            feed_in_chunks(wire, stream, chunk)

    def test_a_large_value_with_another_token_is_no_reply(self, wire):
        """One of another token is no reply of ours, however large."""
        wire.encode(Get(b"k"))
        with pytest.raises(NodeProtocolError):
            wire.feed(b"VA 5000 f0 O0\r\n")

    def test_the_bytes_of_a_large_value_are_not_kept(self, wire):
        """Not those of a gibibyte, either."""
        (token,) = opaque(wire.encode(Get(b"k")))
        assert isinstance(wire.feed(b"VA 1073741824 f0 %b\r\n" % token)[0], ValueTooLargeError)
        data = bytes(1024 * 1024)
        tracemalloc.start()
        try:
            for _ in range(64):
                assert wire.feed(data) == []
            assert tracemalloc.get_traced_memory()[1] < len(data)
        finally:
            tracemalloc.stop()


class TestRedis:
    """RESP."""

    @pytest.fixture
    def wire(self):
        """Return the wire of a new connection."""
        return RedisWire(RedisOptions(max_value_bytes=LIMIT), "node")

    @pytest.mark.parametrize("command", [Get(b"k"), Gets(b"k"), GetOrStub(b"k", b"mark", 30)])
    @pytest.mark.parametrize("chunk", [1, 7, 1000])
    def test_a_large_value_is_refused_by_its_first_line(self, wire, command, chunk):
        """Its bytes are dropped as they arrive, and the next reply is read behind them."""
        wire.encode(command)
        (error,) = wire.feed(b"$5000\r\n")
        assert isinstance(error, ValueTooLargeError)
        assert "5000 bytes" in str(error)
        assert not wire.idle
        wire.encode(Get(b"l"))
        rest = b"\r\n" * 2500 + b"\r\n$2\r\n12\r\n"
        replies = feed_in_chunks(wire, rest, chunk)
        assert replies == [(2, b"12")]
        assert wire.idle

    @pytest.mark.parametrize("chunk", [1, 7, 100_000])
    def test_a_large_value_of_a_batch_is_an_error_in_its_place(self, wire, chunk):
        """The other values are found."""
        wire.encode(GetMany([b"a", b"b", b"c"]))
        stream = b"*3\r\n$2\r\n12\r\n$5000\r\n" + b"x" * 5000 + b"\r\n$2\r\n13\r\n"
        replies = feed_in_chunks(wire, stream, chunk)
        ((first, error, last),) = replies
        assert (first, last) == ((2, b"12"), (2, b"13"))
        assert isinstance(error, ValueTooLargeError)
        assert wire.idle

    @pytest.mark.parametrize("chunk", [1, 10_000])
    def test_a_wrong_length_is_noticed(self, wire, chunk):
        """A dropped value must end where its length says, or the connection is lost."""
        wire.encode(Get(b"k"))
        stream = b"$5000\r\n" + b"x" * 5002
        with pytest.raises(NodeProtocolError, match="longer or shorter"):
            feed_in_chunks(wire, stream, chunk)

    def test_the_bytes_of_a_large_value_are_not_kept(self, wire):
        """Not those of the largest value of all, either."""
        wire.encode(Get(b"k"))
        assert isinstance(wire.feed(b"$536870912\r\n")[0], ValueTooLargeError)
        data = bytes(1024 * 1024)
        tracemalloc.start()
        try:
            for _ in range(64):
                assert wire.feed(data) == []
            assert tracemalloc.get_traced_memory()[1] < len(data)
        finally:
            tracemalloc.stop()
