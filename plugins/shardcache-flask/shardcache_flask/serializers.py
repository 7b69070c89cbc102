"""A serializer of cachelib in the place of a codec."""

from __future__ import annotations

from typing import Any, Final, Protocol

import cachelib.serializers

from shardcache.core.codecs import Msgpack
from shardcache.core.commands import Payload
from shardcache.core.values.flags import INTEGER_FLAGS, SHIFT
from shardcache.core.values.formats import CodecFormat
from shardcache.errors import DecodeError, EncodeError

FLAGS: Final = 120 << SHIFT  # stored with each value, so it must never change

# cachelib has it since 0.15. All its other serializers read pickles.
JSON: Final[type | None] = getattr(cachelib.serializers, "JSONSerializer", None)


class Serializer(Protocol):
    """What is used of a `cachelib.serializers.BaseSerializer`."""

    def dumps(self, value: Any) -> bytes | None:  # any value
        """Return the bytes of `value`, or `None` if it cannot be serialized."""

    def loads(self, bvalue: bytes) -> Any:  # whatever value it is
        """Return the value of some bytes, or `None` if they cannot be read."""


class SerializerFormat:
    """All values through a serializer, except whole numbers, with which servers count.

    Most serializers read pickles, so they need a secret. `JSONSerializer` needs none.
    """

    name = "cachelib"

    def __init__(self, serializer: Serializer) -> None:
        self._serializer = serializer
        self._numbers = CodecFormat(Msgpack())
        self.signed_only = JSON is None or not isinstance(serializer, JSON)

    def encode(self, name: bytes, value: Any) -> Payload:  # any value
        """Return the payload of `value`; raise `EncodeError` if the serializer refuses it."""
        if type(value) is int:
            payload = self._numbers.encode(name, value)
            if payload[0] == INTEGER_FLAGS:
                return payload
        data = self._serializer.dumps(value)
        if data is None:
            kind, own = type(value).__name__, type(self._serializer).__name__
            raise EncodeError(f"the serializer {own} cannot store {kind}")
        return FLAGS, data

    def decode(self, name: bytes, payload: Payload) -> Any:  # whatever value it is
        """Return the value; raise `DecodeError` if something else stored it."""
        flags, data = payload
        if flags == INTEGER_FLAGS:
            return self._numbers.decode(name, payload)
        if flags != FLAGS:
            raise DecodeError("stored without a serializer of cachelib")
        return self._serializer.loads(data)
