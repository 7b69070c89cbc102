"""How a value's bytes say what they are: memcached's client flags, a header on Redis.

Plain `str`, `bytes` and `int` go without a serializer, so that other clients can read them and
servers can count; the rest goes through the codec.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import Any, Final

from shardcache.core.codecs.base import Codec, ReadsPickles
from shardcache.core.commands import Payload
from shardcache.core.envelopes import unpack
from shardcache.errors import ConfigurationError, DecodeError, EncodeError

# Every value written by us carries this bit: an unmarked empty value is another's work in progress.
OWN: Final = 0x100

# The low byte is the kind; these three are read by pymemcache, python-memcached and pylibmc too.
RAW_FLAGS: Final = OWN | 0
INTEGER_FLAGS: Final = OWN | 2
TEXT_FLAGS: Final = OWN | 16
CODEC_KINDS: Final = range(32, 256)

# No values, but marks in their place. On Redis and embedded nodes a stub has bytes that no other
# stub has; memcached's own are empty and have no flags.
STUB_FLAGS: Final = OWN | 1
ABANDONED_FLAGS: Final = OWN | 3

# A value with an age (`core.envelopes`), and an error that stands for a value for a moment.
ENVELOPE_FLAGS: Final = OWN | 4
ERROR_FLAGS: Final = OWN | 5

# What other clients write, without our bit. Compression is a bit beside the kind.
FOREIGN_RAW: Final = 0
FOREIGN_PICKLE: Final = 1
FOREIGN_INTEGERS: Final = (2, 4)
FOREIGN_TEXT: Final = 16
FOREIGN_ZLIB: Final = 8

BARE_STUB: Final[Payload] = (FOREIGN_RAW, b"")  # memcached's own, the only one that decodes

_MARKS: Final = frozenset({ABANDONED_FLAGS, ERROR_FLAGS})

MAX_INFLATED: Final = 64 * 1024 * 1024  # bytes that another client's compressed value may grow to

# CPython can be told to refuse ints of more digits than this, though of no fewer, so larger ones go
# through the codec.
MAX_DIGITS: Final = 640
_BIG: Final = 10**MAX_DIGITS

_decimal = re.compile(rb"0|-?[1-9][0-9]{0,639}").fullmatch

# On Redis a value begins with this byte and its kind; a whole number stands bare. No UTF-8 text,
# JSON, msgpack, pickle or compressed data begins so: nothing that another client left is ours.
REDIS_MARK: Final = 0xC1
_HEADERS: Final = tuple(bytes((REDIS_MARK, kind)) for kind in range(256))
_HEADER_SIZE: Final = 2

# What a Redis value of none of ours is given; no payload of memcached has it.
UNKNOWN_FLAGS: Final = -1


class Payloads:
    """Values to payloads and back, by one codec."""

    __slots__ = ("_codec", "_flags", "_unpickled")

    def __init__(self, codec: Codec) -> None:
        """Work by `codec`; raise `ConfigurationError` when its kind is not one for codecs."""
        if codec.kind not in CODEC_KINDS:
            raise ConfigurationError(f"codec {codec.name!r}: kind {codec.kind!r} is not 32 to 255")
        self._codec = codec
        self._flags = OWN | codec.kind
        self._unpickled: Callable[[bytes], Any] = (  # as all values
            codec.decode_foreign_pickle if isinstance(codec, ReadsPickles) else _refused_pickle
        )

    def encode(self, name: bytes, value: Any) -> Payload:  # a value is the caller's own
        """Give the flags and bytes of `value`, to be stored as `name`.

        Raise `EncodeError` for a value that the codec does not take.
        """
        kind = type(value)
        if kind is str:
            try:
                return TEXT_FLAGS, value.encode()
            except UnicodeEncodeError:
                pass  # lone surrogates: legal text that UTF-8 cannot hold
            return self._flags, self._encode(name, value)
        if kind is bytes:
            return RAW_FLAGS, value
        if kind is int and -_BIG < value < _BIG:
            return INTEGER_FLAGS, b"%d" % value
        return self._flags, self._encode(name, value)

    def _encode(self, name: bytes, value: Any) -> bytes:  # as above
        """Return what the codec makes of `value`; whatever it raises, raise `EncodeError`."""
        try:
            data = self._codec.encode(name, value)
        except EncodeError:
            raise
        except Exception as error:
            raise EncodeError(self._raised(error)) from error
        if not isinstance(data, bytes):
            kind = type(data).__name__
            raise EncodeError(f"codec {self._codec.name!r} returned {kind}, not bytes")
        return data

    def _raised(self, error: Exception) -> str:
        return f"codec {self._codec.name!r} raised {type(error).__name__}"

    def decode(self, name: bytes, payload: Payload) -> Any:  # a value is the caller's own
        """Give the value of a payload stored as `name`; raise `DecodeError` when it is none."""
        flags, data = payload
        if flags == self._flags:
            # A codec may be anybody's: whatever it raises, the bytes are none that it can read.
            try:
                return self._codec.decode(name, data)
            except DecodeError:
                raise
            except Exception as error:
                raise DecodeError(self._raised(error)) from error
        if flags == TEXT_FLAGS:
            return _text(data)
        if flags == RAW_FLAGS:
            return data
        if flags == INTEGER_FLAGS:
            return _integer(data)
        if flags == ENVELOPE_FLAGS:
            envelope = unpack(data)
            if envelope.flags == ENVELOPE_FLAGS:
                raise DecodeError("a value with two ages")
            return self.decode(name, (envelope.flags, envelope.data))
        if flags == UNKNOWN_FLAGS or flags & OWN:
            raise DecodeError("written by another codec, or by none of ours")
        return self._foreign(flags, data)

    def _foreign(self, flags: int, data: bytes) -> Any:  # as above
        if flags & FOREIGN_ZLIB:
            data = _inflated(data)
        kind = flags & ~FOREIGN_ZLIB
        if kind == FOREIGN_RAW:
            return data
        if kind == FOREIGN_TEXT:
            return _text(data)
        if kind in FOREIGN_INTEGERS:
            return _integer(data)
        if kind == FOREIGN_PICKLE:
            try:
                return self._unpickled(data)
            except DecodeError:
                raise
            except Exception as error:
                raise DecodeError(self._raised(error)) from error
        raise DecodeError(f"flags {flags:#x} are of no known client")


def stub(mark: bytes) -> Payload:
    """Give the payload that says that a value is being made by whoever knows `mark`."""
    return STUB_FLAGS, mark


def abandoned(mark: bytes) -> Payload:
    """Give the payload that says that the making was given up by whoever knows `mark`."""
    return ABANDONED_FLAGS, mark


def is_abandoned(payload: object) -> bool:
    """Say whether this is a mark that the making of a value was given up."""
    return isinstance(payload, tuple) and payload[0] == ABANDONED_FLAGS


def is_stub(payload: Payload) -> bool:
    """Say whether this is no value but a mark that one is being made."""
    return payload[0] == STUB_FLAGS or payload == BARE_STUB


def is_mark(payload: Payload) -> bool:
    """Say whether this is no value: one is being made, its making was given up, or failed."""
    return is_stub(payload) or payload[0] in _MARKS


def to_redis(payload: Payload) -> bytes:
    """Give what Redis stores: a header and the data; a whole number bare, so that it counts."""
    flags, data = payload
    return data if flags == INTEGER_FLAGS else _HEADERS[flags & 0xFF] + data


def from_redis(stored: bytes) -> Payload:
    """Give the payload of what Redis stored; with unknown flags when it is none of ours."""
    if len(stored) >= _HEADER_SIZE and stored[0] == REDIS_MARK:
        return OWN | stored[1], stored[_HEADER_SIZE:]
    return (INTEGER_FLAGS if _decimal(stored) else UNKNOWN_FLAGS), stored


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        pass  # it holds the bytes, and would be the context of an error raised here
    raise DecodeError("marked as text, but not UTF-8")


def _integer(data: bytes) -> int:
    digits = data.rstrip(b" ")  # with which memcached pads a counter that lost a digit
    if not _decimal(digits):
        raise DecodeError("marked as a whole number, but not one")
    return int(digits)


def _inflated(data: bytes) -> bytes:
    machine = zlib.decompressobj()
    try:
        inflated = machine.decompress(data, MAX_INFLATED)
    except zlib.error:
        raise DecodeError("marked as compressed, but not by zlib") from None
    if not machine.eof or machine.unused_data:
        raise DecodeError(f"compressed data cut short, or of more than {MAX_INFLATED} bytes")
    return inflated


def _refused_pickle(_: bytes) -> Any:  # nothing comes back
    raise DecodeError("a pickle of another client; the codec 'pickle' can be told to read those")
