"""Values to payloads and back, before signatures: by the codec, and as plain bytes where possible.

Plain `str`, `bytes` and `int` are not serialised, so that other clients can read them and servers
can count. All other values go through the codec. The codec `json` writes JSON for all values, and
`raw` returns bytes whatever was stored.
"""

from __future__ import annotations

from typing import Any, Final, TypeGuard, cast

from shardcache.core.codecs import Codec, Json, Raw, ValueFormat
from shardcache.core.commands import Payload
from shardcache.core.values.envelopes import unpack
from shardcache.core.values.flags import (
    BYTES_FLAGS,
    ENVELOPE_FLAGS,
    INTEGER_FLAGS,
    JSON_FLAGS,
    MAX_DIGITS,
    OWN_CODECS,
    PLUGIN_KINDS,
    RAW_FLAGS,
    SHIFT,
    TEXT_FLAGS,
    UNKNOWN_FLAGS,
    UNMARKED_FLAGS,
    is_decimal,
    is_value,
)
from shardcache.core.values.other_clients import INTEGERS, PICKLE, InflateBudget, OtherClients
from shardcache.errors import ConfigurationError, DecodeError, EncodeError

_BIG: Final = 10**MAX_DIGITS

# Values may be anything: every `Any` here is one.


class CodecFormat:
    """The default `ValueFormat`: `str`, `bytes` and `int` as they are, the rest by a codec.

    `seconds`, the life of a value, is ignored: it matters to signatures only. `budget` limits what a
    call over many keys may inflate.
    """

    __slots__ = ("_codec", "_flags", "_others")

    def __init__(self, codec: Codec, others: OtherClients | None = None) -> None:
        self._codec = codec
        self._flags = codec.kind << SHIFT
        self._others = OtherClients() if others is None else others

    @property
    def name(self) -> str:
        """Return the codec's name."""
        return self._codec.name

    @property
    def bytes_flags(self) -> frozenset[int]:
        """Return the flags of payloads whose data is the value itself."""
        return BYTES_FLAGS if type(self) is CodecFormat else frozenset()

    def encode(self, name: bytes, value: Any, seconds: float | None = None) -> Payload:  # noqa: ARG002
        """Return the payload of `value`, to be stored as `name`.

        Raise `EncodeError` for a value that the codec does not take.
        """
        kind = type(value)
        if kind is str:
            try:
                return TEXT_FLAGS, value.encode()
            except UnicodeEncodeError:
                pass  # lone surrogates: legal text that UTF-8 cannot hold
            return self._flags, self._serialise(name, value)
        if kind is bytes:
            return UNMARKED_FLAGS if value else RAW_FLAGS, value
        if kind is int and -_BIG < value < _BIG:
            return INTEGER_FLAGS, b"%d" % value
        return self._flags, self._serialise(name, value)

    def decode(self, name: bytes, payload: Payload, budget: InflateBudget | None = None) -> Any:
        """Return the value of a payload stored as `name`; raise `DecodeError` if it has none."""
        flags, data = payload
        if flags == self._flags:  # nearly always; the text of `_deserialise`, to save the call
            try:
                return self._codec.decode(name, data)
            except DecodeError:
                raise
            except Exception as error:
                raise DecodeError(self._failure(error)) from error
        if flags == TEXT_FLAGS:
            return _text(data)
        if flags == INTEGER_FLAGS:
            return _integer(data)
        if flags in BYTES_FLAGS:
            return data
        if flags == ENVELOPE_FLAGS:
            return self.decode(name, open_envelope(data))
        return self._decode_from_others(flags, data, budget)

    def _serialise(self, name: bytes, value: Any) -> bytes:
        """Return the codec's bytes of `value`; turn any exception into an `EncodeError`."""
        try:
            data = self._codec.encode(name, value)
        except EncodeError:
            raise
        except Exception as error:
            raise EncodeError(self._failure(error)) from error
        if not isinstance(data, bytes):
            kind = type(data).__name__
            raise EncodeError(f"codec {self._codec.name!r} returned {kind}, not bytes")
        return data

    def _deserialise(self, name: bytes, data: bytes) -> Any:
        """Return the codec's value of `data`; turn any exception into a `DecodeError`."""
        try:
            return self._codec.decode(name, data)
        except DecodeError:
            raise
        except Exception as error:
            raise DecodeError(self._failure(error)) from error

    def _failure(self, error: Exception) -> str:
        return f"codec {self._codec.name!r} raised {type(error).__name__}"

    def _decode_from_others(self, flags: int, data: bytes, budget: InflateBudget | None) -> Any:
        if flags == UNKNOWN_FLAGS:
            raise DecodeError(
                "not written by shardcache: on Redis only the codecs 'json' and 'raw' read others'"
                " values"
            )
        kind, data = self._others.open(flags, data, budget)
        if kind == UNMARKED_FLAGS:
            return data
        if kind == TEXT_FLAGS:
            return _text(data)
        if kind in INTEGERS:
            return _integer(data)
        return self._others.unpickle(data)


class JsonFormat(CodecFormat):
    """All values as JSON, text and whole numbers included: other programs read them.

    A payload that carries no kind is read as JSON, whatever program wrote it.
    """

    __slots__ = ()

    def encode(self, name: bytes, value: Any, seconds: float | None = None) -> Payload:  # noqa: ARG002
        """Return JSON, with a whole number under the flags with which servers count."""
        if type(value) is int and -_BIG < value < _BIG:
            return INTEGER_FLAGS, b"%d" % value
        return JSON_FLAGS, self._serialise(name, value)

    def decode(self, name: bytes, payload: Payload, budget: InflateBudget | None = None) -> Any:
        """Return the value of a JSON text."""
        flags, data = payload
        if flags in _READ_AS_JSON:
            return self._deserialise(name, data)
        if flags == ENVELOPE_FLAGS:
            return self.decode(name, open_envelope(data))
        kind, data = self._others.open(flags, data, budget)
        return self._others.unpickle(data) if kind == PICKLE else self._deserialise(name, data)


_PLAIN: Final = BYTES_FLAGS | INTEGERS | {UNKNOWN_FLAGS, TEXT_FLAGS}
_READ_AS_JSON: Final = _PLAIN | {JSON_FLAGS}


class RawFormat(CodecFormat):
    """Bytes, text and whole numbers as they are, read back as bytes: Redis does not tell them apart."""

    __slots__ = ()

    def encode(self, name: bytes, value: Any, seconds: float | None = None) -> Payload:
        """Return the bytes; empty ones, which cannot be unmarked, under this codec's flags."""
        flags, data = CodecFormat.encode(self, name, value, seconds)
        return (self._flags if flags == RAW_FLAGS else flags), data

    def decode(self, name: bytes, payload: Payload, budget: InflateBudget | None = None) -> Any:
        """Return the bytes."""
        flags, data = payload
        if flags in _PLAIN or flags == self._flags:
            return data
        if flags == ENVELOPE_FLAGS:
            return self.decode(name, open_envelope(data))
        kind, data = self._others.open(flags, data, budget)
        return self._others.unpickle(data) if kind == PICKLE else data


class CheckedFormat:
    """Another author's `ValueFormat`, with its flags and exceptions checked, and envelopes opened."""

    __slots__ = ("_inner",)

    bytes_flags: Final[frozenset[int]] = frozenset()

    def __init__(self, inner: ValueFormat) -> None:
        self._inner = inner

    @property
    def name(self) -> str:
        """Return the format's name."""
        return self._inner.name

    def encode(self, name: bytes, value: Any, seconds: float | None = None) -> Payload:  # noqa: ARG002
        """Return the format's payload of `value`; raise `EncodeError` if it is not a value's."""
        try:
            flags, data = self._inner.encode(name, value)
        except EncodeError:
            raise
        except Exception as error:
            raise EncodeError(self._failure(error)) from error
        if not (isinstance(data, bytes) and isinstance(flags, int) and is_value(flags)):
            raise EncodeError(
                f"codec {self.name!r} returned flags {flags!r} and {type(data).__name__}, not the flags"
                " of a value and bytes"
            )
        return flags, data

    def decode(self, name: bytes, payload: Payload, budget: InflateBudget | None = None) -> Any:  # noqa: ARG002
        """Return the format's value of a payload; turn any exception into a `DecodeError`."""
        if payload[0] == ENVELOPE_FLAGS:
            payload = open_envelope(payload[1])
        try:
            return self._inner.decode(name, payload)
        except DecodeError:
            raise
        except Exception as error:
            raise DecodeError(self._failure(error)) from error

    def _failure(self, error: Exception) -> str:
        return f"codec {self.name!r} raised {type(error).__name__}"


_FORMATS: Final[dict[type, type[CodecFormat]]] = {Json: JsonFormat, Raw: RawFormat}


def format_of(codec: Codec | ValueFormat, others: OtherClients) -> CodecFormat | CheckedFormat:
    """Return the format of a codec, or a format of another author with checks around it.

    Raise `ConfigurationError` if the codec's kind is not one for plugins.
    """
    if not _is_codec(codec):
        return CheckedFormat(cast("ValueFormat", codec))
    kind: object = codec.kind  # a plugin's may be anything
    if type(codec) not in OWN_CODECS and kind not in PLUGIN_KINDS:
        last = PLUGIN_KINDS.stop - 1
        raise ConfigurationError(
            f"codec {codec.name!r}: kind {kind!r} is not {PLUGIN_KINDS.start} to {last}, which are for"
            " codecs other than shardcache's own"
        )
    return _FORMATS.get(type(codec), CodecFormat)(codec, others)


def _is_codec(codec: Codec | ValueFormat) -> TypeGuard[Codec]:
    return hasattr(codec, "kind")


def open_envelope(data: bytes) -> Payload:
    """Return the payload in an envelope; raise `DecodeError` if it is not a value's."""
    envelope = unpack(data)
    if not is_value(envelope.flags):
        raise DecodeError("an envelope that does not hold a value")
    return envelope.flags, envelope.data


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        pass  # this error holds the bytes, and would be the context of one raised here
    raise DecodeError("marked as text, but not UTF-8")


def _integer(data: bytes) -> int:
    digits = data.rstrip(b" ")  # memcached pads a counter that lost a digit
    if not is_decimal(digits):
        raise DecodeError(
            "marked as a whole number, but not one: JSON of a JsonSerde is read by the codec 'json'"
        )
    return int(digits)
