"""A client's values as its nodes keep them, and back: encoded, and signed if there is a secret.

There are two layers. A `ValueFormat` turns a value into a payload (`dump`) and back (`load`).
A signature covers that payload (`seal`, `open`). `encode` and `decode` are both layers in one call,
for payloads that hold a value only. An envelope or an error goes around the inner payload, and is
then sealed as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Final, TypeAlias

from shardcache.core.codecs import Codec, Msgpack, Pickle, ValueFormat
from shardcache.core.commands import Payload
from shardcache.core.own_types.declared import DeclaredType
from shardcache.core.values.flags import (
    ABANDONED_FLAGS,
    CODEC_KINDS,
    ENVELOPE_FLAGS,
    ERROR_FLAGS,
    FLAGS_OF,
    INTEGER_FLAGS,
    KIND_OF,
    MARK_FLAGS,
    SHIFT,
    SIGNED,
    TEXT_FLAGS,
    UNMARKED_FLAGS,
    is_decimal,
    is_from_another_client,
    is_stub,
)
from shardcache.core.values.formats import format_of
from shardcache.core.values.other_clients import InflateBudget, OtherClients
from shardcache.core.values.signing import Scope, Signer
from shardcache.core.values.typed import TypedFormat
from shardcache.errors import ConfigurationError, DecodeError

Encode: TypeAlias = Callable[..., Payload]
Decode: TypeAlias = Callable[..., Any]  # a value may be anything

# Codecs that keep dates, UUIDs and bytes as they are. Others may take no more than JSON has.
_RICH: Final = (Msgpack, Pickle)


class Payloads:
    """The stored form of a client's values, by a codec or a `ValueFormat`, without signatures.

    Nothing is signed here: `encode` is `dump`, `decode` is `load`, and `seal` and `open` return
    their argument. Values of a `declared` type are dumped to built-in ones, and validated when they
    are read; `dump_error` and `load_error`, for what is stored in place of a value, do neither.
    """

    __slots__ = (
        "_typed",
        "bytes_flags",
        "codec",
        "declared",
        "decode",
        "dump",
        "dump_error",
        "encode",
        "load",
        "load_error",
        "name",
        "others",
    )

    signs: ClassVar[bool] = False

    def __init__(
        self,
        codec: Codec | ValueFormat,
        others: OtherClients | None = None,
        declared: DeclaredType | None = None,
    ) -> None:
        """Prepare the codec's format; raise `ConfigurationError` if the codec cannot be used."""
        self.codec = codec
        self.declared = declared
        self.others = OtherClients() if others is None else others
        untyped = format_of(codec, self.others)
        self.dump_error: Encode = untyped.encode
        self.load_error: Decode = untyped.decode
        self._typed: TypedFormat | None = None
        if declared is not None:
            form = declared.rich if isinstance(codec, _RICH) else declared.json
            self._typed = TypedFormat(untyped, declared, form)
        value_format = self._typed or untyped
        if getattr(codec, "signed_only", False) and not self.signs:
            raise ConfigurationError(
                f"codec {codec.name!r} needs a secret, because reading untrusted bytes runs code: give"
                " `secret`"
            )
        self.name = value_format.name
        self.dump: Encode = value_format.encode
        self.load: Decode = value_format.decode
        self.encode: Encode = value_format.encode
        self.decode: Decode = value_format.decode
        # The flags of payloads whose bytes are the value, and need no decoder.
        self.bytes_flags = value_format.bytes_flags

    def dump_result(self, name: bytes, result: Any) -> tuple[Payload, Any]:
        """Return the payload of a function's result, and the result as its readers get it.

        Raise `EncodeError` if it cannot be stored, or would not come back equal and of the same types.
        """
        if self._typed is None:
            return self.dump(name, result), result
        return self._typed.encode_result(name, result)

    def encode_alike(self, values: Sequence[Any]) -> tuple[int, list[bytes]] | None:
        """Return the flags that all values have when they are encoded, and the bytes of each.

        All must be bytes, or all text: these take no call each. Return `None` for others.
        """
        if self.bytes_flags:
            kinds = set(map(type, values))
            if kinds == {bytes} and all(values):  # empty ones have other flags
                return UNMARKED_FLAGS, list(values)
            if kinds == {str}:
                with suppress(UnicodeEncodeError):
                    return TEXT_FLAGS, list(map(str.encode, values))
        return None

    def decoder(self) -> Decode:
        """Return `decode` for one call over many keys, with one budget for all that it inflates."""
        if not self.others.compressed:
            return self.decode
        decode, budget = self.decode, self.others.budget()
        return lambda name, payload: decode(name, payload, budget)

    def seal(self, name: bytes, payload: Payload, seconds: float | None = None) -> Payload:  # noqa: ARG002
        """Return what is stored as `name` for a payload that lives `seconds`."""
        return payload

    def open(self, name: bytes, payload: Payload) -> Payload:  # noqa: ARG002 - for any name
        """Return the payload passed to `seal`; raise `DecodeError` if its signature is not valid."""
        return payload


class SignedPayloads(Payloads):
    """The stored form of a client's values, signed, except whole numbers, with which servers count.

    `wall` is the time of day in seconds. If `others.unsigned` is set, values that other clients wrote
    are read without a signature, but none that shardcache wrote.
    """

    __slots__ = ("_signer", "_wall")

    signs: ClassVar[bool] = True

    def __init__(
        self,
        codec: Codec | ValueFormat,
        secrets: Sequence[bytes],
        wall: Callable[[], float],
        others: OtherClients | None = None,
        declared: DeclaredType | None = None,
    ) -> None:
        """Sign with the first of `secrets`, and accept signatures by any of them."""
        super().__init__(codec, others, declared)
        self._signer = Signer(secrets)
        self._wall = wall
        self.encode = self._encode
        self.decode = self._decode
        self.bytes_flags = frozenset()

    def _encode(self, name: bytes, value: Any, seconds: float | None = None) -> Payload:  # as above
        payload = self.dump(name, value)
        return payload if payload[0] == INTEGER_FLAGS else self.seal(name, payload, seconds)

    def _decode(self, name: bytes, payload: Payload, budget: InflateBudget | None = None) -> Any:
        # Digits alone may be unsigned: the codecs `json` and `raw` read anything under these flags.
        if payload[0] != INTEGER_FLAGS or not is_decimal(payload[1].rstrip(b" ")):
            payload = self._verify(name, payload, self._wall())
        return self.load(name, payload, budget)

    def seal(self, name: bytes, payload: Payload, seconds: float | None = None) -> Payload:
        """Return what is stored as `name` for a payload that lives `seconds`, signed."""
        flags, data = payload
        kind = KIND_OF[flags] << SHIFT
        ends = None if seconds is None else self._wall() + seconds
        return kind | SIGNED, self._signer.sign(self._scope(kind, name), data, ends)

    def open(self, name: bytes, payload: Payload) -> Payload:
        """Return the signed payload, or one that needs no signature; raise `DecodeError` otherwise.

        Stubs and marks of abandoned recomputes need none. Neither do values of other clients, if they
        are to be read. The end of an envelope's signature is not checked: it may be kept longer while
        its value is recomputed, and its caller looks at its age.
        """
        is_envelope = payload[0] == ENVELOPE_FLAGS | SIGNED
        return self._verify(name, payload, 0.0 if is_envelope else self._wall())

    def _verify(self, name: bytes, payload: Payload, now: float) -> Payload:
        flags, data = payload
        if flags & SIGNED:
            kind = flags & ~SIGNED
            data = self._signer.verify(self._scope(kind, name), data, now)
            return FLAGS_OF[kind >> SHIFT], data
        if is_stub(payload) or flags == ABANDONED_FLAGS:
            return payload
        if self.others.unsigned and is_from_another_client(flags):
            return payload
        raise DecodeError("not signed; what other clients wrote is read with read_unsigned")

    def _scope(self, kind: int, name: bytes) -> Scope:
        by_codec = kind >= CODEC_KINDS.start << SHIFT or kind in _AROUND_VALUES
        purpose = _PURPOSES.get(kind, b"value")
        return Scope(purpose, kind, self.name if by_codec else "", name)


_PURPOSES: Final = {ENVELOPE_FLAGS: b"envelope", ERROR_FLAGS: b"error", MARK_FLAGS: b"tag"}
_AROUND_VALUES: Final = frozenset({ENVELOPE_FLAGS, ERROR_FLAGS})  # they hold a codec's payload


def payloads_of(
    codec: Codec | ValueFormat,
    secrets: Sequence[bytes],
    wall: Callable[[], float],
    others: OtherClients,
    declared: DeclaredType | None = None,
) -> Payloads:
    """Return payloads that are signed if there are secrets."""
    if secrets:
        return SignedPayloads(codec, secrets, wall, others, declared)
    return Payloads(codec, others, declared)
