"""Which keys a node answered for, and how many bytes each value had."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from shardcache.core.commands import (
    Cas,
    Command,
    Delete,
    DeleteMany,
    Get,
    GetMany,
    Gets,
    Incr,
    Payload,
    Reply,
    Set,
    SetMany,
    Touch,
)
from shardcache.core.events import KeysAccessed
from shardcache.core.placement.nodes import Node
from shardcache.core.reserved_keys import ESCAPED, HASHED, RESERVED
from shardcache.core.values.flags import is_mark
from shardcache.errors import NodeError

_NO_SIZE: Final = (None,)
_USERS: Final = (ESCAPED, HASHED)  # what is reserved, but stands for a caller's key


class _Access(NamedTuple):
    """What a command and its reply say of the keys, ours among them."""

    operation: str
    keys: Sequence[bytes]
    sizes: Sequence[int | None]
    ttl: float | None = None


# The reply is of the type that the command names, hence `Any`.
_Reader: TypeAlias = Callable[[Any, Any], _Access | None]


def keys_accessed(command: Command, reply: Reply, node: Node) -> KeysAccessed | None:
    """Return the event for a call that `node` answered; `None` when no key of a caller was in it."""
    read = _READERS.get(type(command))
    if read is None or isinstance(reply, NodeError):
        return None
    access = read(command, reply)
    if access is None:
        return None
    operation, keys, sizes, ttl = access
    if any(key.startswith(RESERVED) for key in keys):
        shown = [not is_ours(key) for key in keys]
        keys, sizes = _selected(keys, shown), _selected(sizes, shown)
    return KeysAccessed(operation, node, keys, sizes, ttl) if keys else None


def hits_and_misses(command: Command, reply: Reply) -> tuple[int, int]:
    """Return how many of the callers' keys that a command read had a value, and how many had none."""
    found = [
        payload is not None and not is_mark(payload)
        for key, payload in _payloads_read(command, reply)
        if not (key.startswith(RESERVED) and is_ours(key))
    ]
    hits = sum(found)
    return hits, len(found) - hits


def _payloads_read(command: Any, reply: Any) -> Iterable[tuple[bytes, Payload | None]]:
    """Return the keys that were read with what was found; none for what failed."""
    kind = type(command)
    if isinstance(reply, NodeError) or kind not in (Get, Gets, GetMany):
        return ()
    if kind is GetMany:
        pairs = zip(command.keys, reply, strict=True)
        return ((key, each) for key, each in pairs if each is None or type(each) is tuple)
    if kind is Gets:
        return ((command.key, None if reply is None else reply[0]),)
    # A mark says that a value is being made: who waits for it looks again and again.
    return () if reply is not None and is_mark(reply) else ((command.key, reply),)


def is_ours(name: bytes) -> bool:
    """Return whether a canonical name is of a key that shardcache keeps for itself.

    >>> is_ours(b"~sc:l:report"), is_ours(b"~sc:k:4:shop:cart"), is_ours(b"cart")
    (True, False, False)
    """
    return name.startswith(RESERVED) and not name.startswith(_USERS)


def _get(command: Get, reply: Payload | None) -> _Access | None:
    # A mark says that a value is being made: who waits for it looks again and again.
    if reply is not None and is_mark(reply):
        return None
    return _Access("get", (command.key,), (_size(reply),))


def _gets(command: Gets, reply: tuple[Payload, object] | None) -> _Access:
    return _Access("get", (command.key,), (_size(None if reply is None else reply[0]),))


def _get_many(command: GetMany, reply: list[Payload | NodeError | None]) -> _Access:
    answered = _answered(reply)
    sizes = [_size(each) for each in reply if not isinstance(each, NodeError)]
    return _Access("get_many", _selected(command.keys, answered), sizes)


def _store(command: Set, _: bool) -> _Access | None:  # noqa: FBT001 - a reply
    return _written(command.when.value, command)


def _cas(command: Cas, _: bool | None) -> _Access | None:  # noqa: FBT001 - a reply
    return _written("cas", command)


def _written(operation: str, command: Set | Cas) -> _Access | None:
    """Return the access of a write; `None` for a mark, which is no value of a caller."""
    size = _size(command.payload)
    if size is None:
        return None
    return _Access(operation, (command.key,), (size,), command.ttl)


def _set_many(command: SetMany, reply: list[bool | NodeError]) -> _Access:
    items = _selected(command.items, _answered(reply))
    sizes = [len(data) for _, (_, data) in items]
    return _Access("set_many", [key for key, _ in items], sizes, command.ttl)


def _delete(command: Delete, _: bool) -> _Access:  # noqa: FBT001 - a reply
    return _Access("delete", (command.key,), _NO_SIZE)


def _delete_many(command: DeleteMany, reply: list[bool | NodeError]) -> _Access:
    keys = _selected(command.keys, _answered(reply))
    return _Access("delete_many", keys, _NO_SIZE * len(keys))


def _touch(command: Touch, _: bool) -> _Access:  # noqa: FBT001 - a reply
    return _Access("touch", (command.key,), _NO_SIZE, command.ttl)


def _incr(command: Incr, _: int | None) -> _Access:
    return _Access("incr", (command.key,), _NO_SIZE)


# What is not here touches no key of a caller, or only the stub or lock that stands in for one. So
# does `GetOrStub`: the read before it has told of the miss already.
_READERS: Final[dict[type, _Reader]] = {
    Get: _get,
    GetMany: _get_many,
    Gets: _gets,
    Set: _store,
    SetMany: _set_many,
    Cas: _cas,
    Delete: _delete,
    DeleteMany: _delete_many,
    Touch: _touch,
    Incr: _incr,
}


def _size(payload: Payload | None) -> int | None:
    """Return the bytes of a value; `None` when there is none, or a mark in its place."""
    return None if payload is None or is_mark(payload) else len(payload[1])


def _answered(reply: Sequence[object]) -> list[bool]:
    return [not isinstance(each, NodeError) for each in reply]


def _selected(items: Sequence[Any], chosen: Sequence[bool]) -> list[Any]:  # of any one type
    return [item for item, is_chosen in zip(items, chosen, strict=True) if is_chosen]
