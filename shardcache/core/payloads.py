"""How a value's bytes say what they are: memcached's client flags, a header on Redis.

Plain `str`, `bytes` and `int` go without a serializer, so that other clients can read them and
servers can count; the rest goes through the codec. The codec `json` writes JSON for all of them, and
`raw` gives bytes back whatever they were.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, TypeAlias

from shardcache.core.codecs import Codec, Json, Msgpack, Pickle, Raw
from shardcache.core.commands import Payload
from shardcache.core.envelopes import unpack
from shardcache.core.foreign import INTEGERS, PICKLE, Foreign, Room
from shardcache.core.signing import Scope, Signer
from shardcache.errors import ConfigurationError, DecodeError, EncodeError

# What pymemcache, python-memcached and pylibmc write as well, and read: no bit of ours is in these.
UNMARKED_FLAGS: Final = 0  # `bytes`, never empty: memcached's own stub is empty without flags
INTEGER_FLAGS: Final = 2
TEXT_FLAGS: Final = 16

# Everything else has a kind, in bits 16 to 23: the low five mean something to those clients, and so
# are 0. pymemcache and pylibmc then give the bytes as they are; python-memcached raises, as for all
# flags that it does not know.
SHIFT: Final = 16

RAW_FLAGS: Final = 1 << SHIFT  # `bytes` as well, marked as ours
TEXT_KIND, INTEGER_KIND = 2, 3  # kinds where no other bit says it

# No values, but marks in their place. On Redis and embedded nodes a stub has bytes that no other
# stub has; memcached's own are empty and have no flags.
STUB_FLAGS: Final = 4 << SHIFT
ABANDONED_FLAGS: Final = 5 << SHIFT

# A value with an age (`core.envelopes`), and an error that stands for a value for a moment.
ENVELOPE_FLAGS: Final = 6 << SHIFT
ERROR_FLAGS: Final = 7 << SHIFT

# What shardcache keeps under names of its own: versions of tags, tokens, marks of refreshes.
MARK_FLAGS: Final = 8 << SHIFT

OWN_CODECS: Final = frozenset({Msgpack, Json, Pickle, Raw})
CODEC_KINDS: Final = range(32, 128)
PLUGIN_KINDS: Final = range(64, 128)  # those below are kept for codecs of shardcache
JSON_FLAGS: Final = Json.kind << SHIFT

# Beside the kind: a signature stands in front of the bytes (`core.signing`).
SIGNED: Final = 128 << SHIFT

BARE_STUB: Final[Payload] = (UNMARKED_FLAGS, b"")  # memcached's own, the only one that decodes

_MARKS: Final = frozenset({ABANDONED_FLAGS, ERROR_FLAGS, ERROR_FLAGS | SIGNED})

# CPython can be told to refuse ints of more digits than this, though of no fewer, so larger ones go
# through the codec.
MAX_DIGITS: Final = 640
_BIG: Final = 10**MAX_DIGITS

is_decimal = re.compile(rb"0|-?[1-9][0-9]{0,639}").fullmatch


# What a Redis value of none of ours is given, and what one gets that is not to be believed: no
# payload of memcached has these.
UNKNOWN_FLAGS: Final = 1 << 32
REFUSED: Final[Payload] = (1 << 33, b"")


# Each kind as a number of one byte, those too that memcached tells by low flags.
KIND_OF: Final = {
    **{kind << SHIFT: kind for kind in range(1, 256)},
    UNMARKED_FLAGS: RAW_FLAGS >> SHIFT,
    TEXT_FLAGS: TEXT_KIND,
    INTEGER_FLAGS: INTEGER_KIND,
}
FLAGS_OF: Final = tuple(
    {TEXT_KIND: TEXT_FLAGS, INTEGER_KIND: INTEGER_FLAGS}.get(kind, kind << SHIFT)
    for kind in range(256)
)

_BYTES: Final = frozenset({UNMARKED_FLAGS, RAW_FLAGS})

Dump: TypeAlias = Callable[..., Payload]
Load: TypeAlias = Callable[..., Any]  # a value is the caller's own


class Values:
    """Values to payloads and back, by one codec, without signatures."""

    __slots__ = ("_codec", "_flags", "_foreign")

    def __init__(self, codec: Codec, foreign: Foreign) -> None:
        self._codec = codec
        self._flags = codec.kind << SHIFT
        self._foreign = foreign

    # A value is the caller's own; its life matters to signatures alone.
    def dump(self, name: bytes, value: Any, seconds: float | None = None) -> Payload:  # noqa: ARG002
        """Return the flags and bytes of `value`, to be stored as `name`.

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
            return UNMARKED_FLAGS if value else RAW_FLAGS, value
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

    def load(self, name: bytes, payload: Payload, room: Room | None = None) -> Any:  # as above
        """Return the value of a payload stored as `name`; raise `DecodeError` when it is none.

        `room` is what a call over many keys may still inflate.
        """
        flags, data = payload
        if flags == self._flags:  # as nearly always; `_decode` by hand, to save the call
            try:
                return self._codec.decode(name, data)
            except DecodeError:
                raise
            except Exception as error:
                raise DecodeError(self._raised(error)) from error
        if flags == TEXT_FLAGS:
            return _text(data)
        if flags == INTEGER_FLAGS:
            return _integer(data)
        if flags in _BYTES:
            return data
        if flags == ENVELOPE_FLAGS:
            return self.load(name, _held(data))
        return self._load_foreign(flags, data, room)

    def _decode(self, name: bytes, data: bytes) -> Any:  # as above
        # A codec may be anybody's: whatever it raises, the bytes are none that it can read.
        try:
            return self._codec.decode(name, data)
        except DecodeError:
            raise
        except Exception as error:
            raise DecodeError(self._raised(error)) from error

    def _load_foreign(self, flags: int, data: bytes, room: Room | None) -> Any:  # as above
        if flags == UNKNOWN_FLAGS:
            raise DecodeError(
                "of no codec of ours: on Redis only 'json' and 'raw' read others' values"
            )
        kind, data = self._foreign.opened(flags, data, room)
        if kind == UNMARKED_FLAGS:
            return data
        if kind == TEXT_FLAGS:
            return _text(data)
        if kind in INTEGERS:
            return _integer(data)
        return self._foreign.unpickle(data)


class JsonValues(Values):
    """Values to JSON and back, text and whole numbers among them: what other programs read.

    Whoever wrote it, what is plain to other clients is taken for JSON.
    """

    __slots__ = ()

    def dump(self, name: bytes, value: Any, seconds: float | None = None) -> Payload:  # noqa: ARG002
        """Return JSON, a whole number under the flags with which servers count."""
        if type(value) is int and -_BIG < value < _BIG:
            return INTEGER_FLAGS, b"%d" % value
        return JSON_FLAGS, self._encode(name, value)

    def load(self, name: bytes, payload: Payload, room: Room | None = None) -> Any:
        """Return the value of a JSON text."""
        flags, data = payload
        if flags in _JSON:
            return self._decode(name, data)
        if flags == ENVELOPE_FLAGS:
            return self.load(name, _held(data))
        kind, data = self._foreign.opened(flags, data, room)
        return self._foreign.unpickle(data) if kind == PICKLE else self._decode(name, data)


_PLAIN: Final = frozenset(
    {
        UNKNOWN_FLAGS,
        UNMARKED_FLAGS,
        RAW_FLAGS,
        TEXT_FLAGS,
        *INTEGERS,
    }
)
_JSON: Final = _PLAIN | {JSON_FLAGS}


class RawValues(Values):
    """Bytes, text and whole numbers as they are, and bytes back: on Redis nothing tells them apart."""

    __slots__ = ()

    def dump(self, name: bytes, value: Any, seconds: float | None = None) -> Payload:
        """Return the bytes; empty ones, which cannot be unmarked, under flags of this codec."""
        flags, data = Values.dump(self, name, value, seconds)
        return (self._flags if flags == RAW_FLAGS else flags), data

    def load(self, name: bytes, payload: Payload, room: Room | None = None) -> Any:
        """Return the bytes."""
        flags, data = payload
        if flags in _PLAIN or flags == self._flags:
            return data
        if flags == ENVELOPE_FLAGS:
            return self.load(name, _held(data))
        kind, data = self._foreign.opened(flags, data, room)
        return self._foreign.unpickle(data) if kind == PICKLE else data


_VALUES: Final[dict[type, type[Values]]] = {Json: JsonValues, Raw: RawValues}


class Payloads:
    """What is stored for a client's values, and its values again: by one codec, unsigned.

    `encode` and `decode` are for what is stored as a value. Under a signature there is a layer between
    the two forms: `dump` gives what `seal` signs, and `load` reads what `open` has verified. Here
    nothing is signed, and `seal` and `open` give back what they are given.
    """

    __slots__ = ("bytes_flags", "decode", "dump", "encode", "foreign", "load")

    signs: ClassVar[bool] = False

    def __init__(self, codec: Codec, foreign: Foreign | None = None) -> None:
        """Work by `codec`; raise `ConfigurationError` when it cannot be used so."""
        _check_codec(codec)
        if getattr(codec, "signed_only", False) and not self.signs:
            raise ConfigurationError(
                f"codec {codec.name!r} needs a secret, for reading what others could have written runs"
                " code: give `secret`"
            )
        self.foreign = Foreign() if foreign is None else foreign
        values = _VALUES.get(type(codec), Values)(codec, self.foreign)
        self.dump: Dump = values.dump
        self.load: Load = values.load
        self.encode: Dump = values.dump
        self.decode: Load = values.load
        # Those whose bytes are the value: they need no decoder.
        self.bytes_flags = _BYTES if type(values) is Values else frozenset()

    def decoder(self) -> Load:
        """Return `decode` for one call over many keys, which inflates only so much in all."""
        if not self.foreign.compressed:
            return self.decode
        decode, room = self.decode, self.foreign.room()
        return lambda name, payload: decode(name, payload, room)

    def seal(self, name: bytes, payload: Payload, seconds: float | None = None) -> Payload:  # noqa: ARG002
        """Return what is stored as `name` for a payload that lives `seconds`."""
        return payload

    def open(self, name: bytes, payload: Payload) -> Payload:  # noqa: ARG002 - the same under any
        """Return what `seal` was given; raise `DecodeError` for what no secret of ours has signed."""
        return payload


class SignedPayloads(Payloads):
    """What is stored for a client's values, signed, but for whole numbers, with which servers count.

    `wall` is the time of day in seconds. With `foreign.unsigned` what other clients wrote is read as
    well, and nothing that is ours.
    """

    __slots__ = ("_codec", "_signer", "_wall")

    signs: ClassVar[bool] = True

    def __init__(
        self,
        codec: Codec,
        secrets: Sequence[bytes],
        wall: Callable[[], float],
        foreign: Foreign | None = None,
    ) -> None:
        """Sign with the first of `secrets`, and believe what any of them signed."""
        super().__init__(codec, foreign)
        self._codec = codec.name
        self._signer = Signer(secrets)
        self._wall = wall
        self.encode = self._encode
        self.decode = self._decode
        self.bytes_flags = frozenset()

    def _encode(self, name: bytes, value: Any, seconds: float | None = None) -> Payload:  # as above
        payload = self.dump(name, value)
        return payload if payload[0] == INTEGER_FLAGS else self.seal(name, payload, seconds)

    def _decode(self, name: bytes, payload: Payload, room: Room | None = None) -> Any:  # as above
        if payload[0] != INTEGER_FLAGS:
            payload = self._opened(name, payload, self._wall())
        return self.load(name, payload, room)

    def seal(self, name: bytes, payload: Payload, seconds: float | None = None) -> Payload:
        """Return what is stored as `name` for a payload that lives `seconds`, signed."""
        flags, data = payload
        kind = KIND_OF[flags] << SHIFT
        ends = None if seconds is None else self._wall() + seconds
        return kind | SIGNED, self._signer.sign(self._scope(kind, name), data, ends)

    def open(self, name: bytes, payload: Payload) -> Payload:
        """Return what a signature covers, and what needs none; raise `DecodeError` otherwise.

        A stub and its like need none, nor what other clients wrote if that is to be read. Whoever opens an
        envelope has to look at its age, for it may be kept beyond its end while its value is
        recomputed.
        """
        is_envelope = payload[0] == ENVELOPE_FLAGS | SIGNED
        return self._opened(name, payload, 0.0 if is_envelope else self._wall())

    def _opened(self, name: bytes, payload: Payload, now: float) -> Payload:
        flags, data = payload
        if flags & SIGNED:
            kind = flags & ~SIGNED
            data = self._signer.verify(self._scope(kind, name), data, now)
            return FLAGS_OF[kind >> SHIFT], data
        if is_stub(payload) or flags == ABANDONED_FLAGS:
            return payload
        if self.foreign.unsigned and is_plain(flags):
            return payload
        raise DecodeError("not signed; what other clients wrote is read with read_unsigned")

    def _scope(self, kind: int, name: bytes) -> Scope:
        by_codec = kind >= CODEC_KINDS.start << SHIFT or kind in _HOLDERS
        purpose = _PURPOSES.get(kind, b"value")
        return Scope(purpose, kind, self._codec if by_codec else "", name)


_PURPOSES: Final = {ENVELOPE_FLAGS: b"envelope", ERROR_FLAGS: b"error", MARK_FLAGS: b"tag"}
_HOLDERS: Final = frozenset({ENVELOPE_FLAGS, ERROR_FLAGS})  # of what a codec wrote


def payloads_of(
    codec: Codec, secrets: Sequence[bytes], wall: Callable[[], float], foreign: Foreign
) -> Payloads:
    """Return what signs if there are secrets."""
    return SignedPayloads(codec, secrets, wall, foreign) if secrets else Payloads(codec, foreign)


def _check_codec(codec: Codec) -> None:
    kind: object = codec.kind  # a plugin's may be anything
    if type(codec) in OWN_CODECS or kind in PLUGIN_KINDS:
        return
    last = PLUGIN_KINDS.stop - 1
    raise ConfigurationError(
        f"codec {codec.name!r}: kind {kind!r} is not {PLUGIN_KINDS.start} to {last}, which are for codecs"
        " other than shardcache's own"
    )


def is_plain(flags: int) -> bool:
    """Return whether flags are such as other clients write: none of ours has a kind there."""
    return not 0 < flags >> SHIFT < UNKNOWN_FLAGS >> SHIFT


def is_value(flags: int) -> bool:
    """Return whether flags are those of a value that one of our clients wrote, without more around it.

    What is inside an envelope or an error is one: never what other clients write.
    """
    return flags in _SCALARS or (flags >> SHIFT in CODEC_KINDS and not flags & ((1 << SHIFT) - 1))


_SCALARS: Final = frozenset({UNMARKED_FLAGS, RAW_FLAGS, TEXT_FLAGS, INTEGER_FLAGS})


def _held(data: bytes) -> Payload:
    """Return what an envelope holds."""
    envelope = unpack(data)
    if not is_value(envelope.flags):
        raise DecodeError("an envelope of something else than a value")
    return envelope.flags, envelope.data


def stub(mark: bytes) -> Payload:
    """Return the payload that says that a value is being made by whoever knows `mark`."""
    return STUB_FLAGS, mark


def abandoned(mark: bytes) -> Payload:
    """Return the payload that says that the making was given up by whoever knows `mark`."""
    return ABANDONED_FLAGS, mark


def is_abandoned(payload: object) -> bool:
    """Return whether this is a mark that the making of a value was given up."""
    return isinstance(payload, tuple) and payload[0] == ABANDONED_FLAGS


def is_stub(payload: Payload) -> bool:
    """Return whether this is no value but a mark that one is being made."""
    return payload[0] == STUB_FLAGS or payload == BARE_STUB


def is_mark(payload: Payload) -> bool:
    """Return whether this is no value: one is being made, its making was given up, or failed."""
    return is_stub(payload) or payload[0] in _MARKS


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        pass  # it holds the bytes, and would be the context of an error raised here
    raise DecodeError("marked as text, but not UTF-8")


def _integer(data: bytes) -> int:
    digits = data.rstrip(b" ")  # with which memcached pads a counter that lost a digit
    if not is_decimal(digits):
        raise DecodeError(
            "marked as a whole number, but not one: JSON of a JsonSerde is read by the codec 'json'"
        )
    return int(digits)
