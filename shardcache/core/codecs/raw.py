"""The codec for callers that store bytes: it takes nothing else."""

from __future__ import annotations

from typing import Any

from shardcache.core.codecs.base import no_options, refusal
from shardcache.errors import DecodeError


class Raw:
    """Bytes, text and whole numbers as they are; every other type is refused."""

    name = "raw"
    kind = 35

    def __init__(self, **options: Any) -> None:  # refused whatever they are
        no_options(self.name, options)

    def encode(self, name: bytes, value: Any) -> bytes:  # noqa: ARG002 - refused under any name
        """Raise `EncodeError`: values that can be stored as they are do not come to a codec."""
        raise refusal(self.name, value, "make it bytes first, or use the codec 'msgpack'")

    def decode(self, name: bytes, data: bytes) -> Any:  # noqa: ARG002 - refused under any name
        """Raise `DecodeError`: this codec writes no bytes."""
        raise DecodeError("the codec 'raw' writes nothing of this kind")

    def __repr__(self) -> str:
        return "<codec raw>"
