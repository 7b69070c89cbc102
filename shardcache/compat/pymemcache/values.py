"""Values as a serde writes and reads them, with any flags."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Protocol

from pymemcache.exceptions import MemcacheIllegalInputError  # type: ignore[import-untyped]  # it has no types

from shardcache.core.commands import Payload
from shardcache.core.values.other_clients import OtherClients
from shardcache.core.values.payloads import Payloads
from shardcache.errors import DecodeError
from shardcache.operations.cluster.routing import Key

LARGEST_FLAGS: Final = (
    0xFFFF  # shardcache's own flags lie above; pymemcache documents the same limit
)

# Values are the caller's own objects, hence `Any`.


class Serde(Protocol):
    """What turns values into bytes and flags, and back, for pymemcache and for us."""

    def serialize(self, key: Key, value: Any) -> tuple[Any, int]:
        """Return the data of `value` and its flags; data other than bytes is stored as its text."""

    def deserialize(self, key: Key, value: bytes, flags: int) -> Any:
        """Return the value of stored data."""


class Item(NamedTuple):
    """A value to store. `flags` replace those of the serde, unless they are `None`."""

    value: Any
    flags: int | None


class Name(bytes):
    """A key's name on its node, which knows the caller's own key: a serde is given that one."""

    key: Key


class SerdePayloads(Payloads):
    """The stored form of values by the caller's serde, as pymemcache stores them."""

    __slots__ = ("_encoding", "_serde")

    def __init__(self, serde: Serde, encoding: str) -> None:
        """Use the serde as it is: unlike a codec, it may set any flags and raise anything."""
        self._serde = serde
        self._encoding = encoding
        self.others = OtherClients()
        self.name = "serde"
        self.bytes_flags = frozenset()
        self.dump = self.encode = self._encode
        self.load = self.decode = self._decode

    def _encode(self, name: Name, item: Item | Payload, seconds: float | None = None) -> Payload:
        """Return the payload of an item; an exception of the serde passes through.

        A payload is stored as it is.
        """
        if not isinstance(item, Item):
            return item
        data, flags = self._serde.serialize(name.key, item.value)
        return _checked(flags if item.flags is None else item.flags), self._as_bytes(data)

    def _as_bytes(self, data: Any) -> bytes:
        if isinstance(data, bytes):
            return data
        try:
            return str(data).encode(self._encoding)
        except UnicodeEncodeError as error:
            raise MemcacheIllegalInputError(
                f"the value is not {self._encoding} text: give bytes, a serde, or encoding='utf8'"
            ) from error

    def _decode(self, name: Name, payload: Payload) -> Any:
        """Return the value of a payload; an exception of the serde is the cause of a `DecodeError`."""
        flags, data = payload
        try:
            return self._serde.deserialize(name.key, data, flags)
        except Exception as error:
            raise DecodeError(f"the serde raised {type(error).__name__}") from error


def _checked(flags: Any) -> int:
    if not isinstance(flags, int) or not 0 <= flags <= LARGEST_FLAGS:
        raise MemcacheIllegalInputError(f"flags must be a number from 0 to {LARGEST_FLAGS}")
    return flags
