"""A codec: JSON that is compressed, for large values and little memory."""

from __future__ import annotations

import zlib
from typing import Any

from shardcache import ConfigurationError, DecodeError
from shardcache.core.codecs import Json

# Bytes of JSON. A few planted bytes could otherwise become gigabytes.
LARGEST = 64 * 1024 * 1024


class JsonZlib:
    """JSON compressed by zlib, at a `level` from 1 (fast) to 9 (small)."""

    name = "json-zlib"
    kind = 64  # stored with each value, so it must never change

    def __init__(self, level: str | int = 6, **options: Any) -> None:  # refused, whatever they are
        if options or str(level) not in tuple("123456789"):
            raise ConfigurationError("codec 'json-zlib' has one option, level=1 to 9")
        self._json = Json()
        self._level = int(level)

    def encode(self, name: bytes, value: Any) -> bytes:  # any value, until seen to be JSON
        """Return compressed JSON; raise `EncodeError` for a value that JSON does not give back."""
        return zlib.compress(self._json.encode(name, value), self._level)

    def decode(self, name: bytes, data: bytes) -> Any:  # whatever JSON it is
        """Return the value; raise `DecodeError` for bytes that are something else."""
        inflater = zlib.decompressobj()
        try:
            text = inflater.decompress(data, LARGEST)
        except zlib.error:
            raise DecodeError("not compressed by zlib") from None
        if not inflater.eof or inflater.unused_data:
            raise DecodeError(f"incomplete, or more than {LARGEST} bytes")
        return self._json.decode(name, text)
