"""Which keys a node answered for, and how many bytes each value had."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from shardcache.core.capabilities import Trait, commands_with
from shardcache.core.commands import (
    Cas,
    CasKeep,
    CasUntil,
    Command,
    CommandList,
    Delete,
    DeleteMany,
    Get,
    GetMany,
    Gets,
    Incr,
    IncrSigned,
    Payload,
    Reply,
    Set,
    SetMany,
    Touch,
    keys_of,
)
from shardcache.core.events import KeysAccessed
from shardcache.core.placement.nodes import Node
from shardcache.core.reserved_keys import ESCAPED, HASHED, RESERVED
from shardcache.core.values.flags import is_mark
from shardcache.errors import NodeError

_NO_SIZE: Final = (None,)
_READS: Final = commands_with(Trait.READS)
_USERS: Final = (ESCAPED, HASHED)  # reserved prefixes that stand for a caller's key


class _Access(NamedTuple):
    """One access: the sizes are those of the keys that the node answered for, in their order."""

    operation: str
    sizes: Sequence[int | None]
    ttl: float | None = None


# The reply is of the type that the command names, hence `Any`.
_Reader: TypeAlias = Callable[[Any, Any], _Access | None]


def single_commands(command: Command, reply: Reply) -> Iterable[tuple[Command, Reply]]:
    """Return the commands of a list with the reply to each; any other command with its own."""
    if isinstance(command, CommandList):
        replies = reply if isinstance(reply, list) else [reply] * len(command.commands)
        return zip(command.commands, replies, strict=True)
    return ((command, reply),)


def keys_accessed(command: Command, reply: Reply, node: Node) -> KeysAccessed | None:
    """Return the event of a call that `node` answered; `None` if the call had no caller's key."""
    read = _READERS.get(type(command))
    if read is None or isinstance(reply, NodeError):
        return None
    access = read(command, reply)
    if access is None:
        return None
    operation, sizes, ttl = access
    keys = keys_of(command)
    if isinstance(reply, list):
        keys = _select(keys, _answered(reply))
    if any(key.startswith(RESERVED) for key in keys):
        shown = [not is_ours(key) for key in keys]
        keys, sizes = _select(keys, shown), _select(sizes, shown)
    return KeysAccessed(operation, node, keys, sizes, ttl) if keys else None


def hits_and_misses(command: Command, reply: Reply) -> tuple[int, int]:
    """Return the hits and the misses among the callers' keys that a command read."""
    if type(command) is Get:  # most calls
        return _hit_or_miss(command, reply)
    if type(command) is CommandList:
        counts = [hits_and_misses(*each) for each in single_commands(command, reply)]
        return sum(hits for hits, _ in counts), sum(misses for _, misses in counts)
    found = [
        payload is not None and not is_mark(payload)
        for key, payload in _payloads_read(command, reply)
        if not (key.startswith(RESERVED) and is_ours(key))
    ]
    hits = sum(found)
    return hits, len(found) - hits


def _hit_or_miss(command: Get, reply: Any) -> tuple[int, int]:
    if isinstance(reply, NodeError) or (command.key.startswith(RESERVED) and is_ours(command.key)):
        return 0, 0
    if reply is None:
        return 0, 1
    # A mark stands for a recompute in progress: its followers poll, and each poll is not a miss.
    return (0, 0) if is_mark(reply) else (1, 0)


def _payloads_read(command: Any, reply: Any) -> Iterable[tuple[bytes, Payload | None]]:
    """Return each key that was read with its payload. A key that failed is left out."""
    kind = type(command)
    if isinstance(reply, NodeError) or kind not in _READS:
        return ()
    keys = keys_of(command)
    if kind is GetMany:
        pairs = zip(keys, reply, strict=True)
        return ((key, each) for key, each in pairs if each is None or type(each) is tuple)
    return ((keys[0], None if reply is None else reply[0]),)


def is_ours(name: bytes) -> bool:
    """Return whether a canonical name is one of shardcache's own keys.

    >>> is_ours(b"~sc:l:report"), is_ours(b"~sc:k:4:shop:cart"), is_ours(b"cart")
    (True, False, False)
    """
    return name.startswith(RESERVED) and not name.startswith(_USERS)


def _get(_: Get, reply: Payload | None) -> _Access | None:
    # A mark stands for a recompute in progress: its followers poll, and each poll is not a miss.
    if reply is not None and is_mark(reply):
        return None
    return _Access("get", (_size(reply),))


def _gets(_: Gets, reply: tuple[Payload, object] | None) -> _Access:
    return _Access("get", (_size(None if reply is None else reply[0]),))


def _get_many(_: GetMany, reply: list[Payload | NodeError | None]) -> _Access:
    return _Access("get_many", [_size(each) for each in reply if not isinstance(each, NodeError)])


def _store(command: Set, _: bool) -> _Access | None:  # noqa: FBT001 - a reply
    return _write(command.when.value, command.payload, command.ttl)


def _cas(command: Cas, _: bool | None) -> _Access | None:  # noqa: FBT001 - a reply
    return _write("cas", command.payload, command.ttl)


def _cas_keep(command: CasKeep | CasUntil, _: bool | None) -> _Access | None:  # noqa: FBT001 - a reply
    return _write("cas", command.payload, None)


def _write(operation: str, payload: Payload, ttl: float | None) -> _Access | None:
    """Return the access of a write; `None` for a mark, which is not a caller's value."""
    size = _size(payload)
    return None if size is None else _Access(operation, (size,), ttl)


def _set_many(command: SetMany, reply: list[bool | NodeError]) -> _Access:
    items = _select(command.items, _answered(reply))
    return _Access("set_many", [len(data) for _, (_, data) in items], command.ttl)


def _delete(_command: Delete, _: bool) -> _Access:  # noqa: FBT001 - a reply
    return _Access("delete", _NO_SIZE)


def _delete_many(_: DeleteMany, reply: list[bool | NodeError]) -> _Access:
    return _Access("delete_many", _NO_SIZE * sum(_answered(reply)))


def _touch(command: Touch, _: bool) -> _Access:  # noqa: FBT001 - a reply
    return _Access("touch", _NO_SIZE, command.ttl)


def _incr(_command: Incr | IncrSigned, _: int | None) -> _Access:
    return _Access("incr", _NO_SIZE)


# Commands that are not here touch no caller's key, or only the stub or lock that stands in for one.
# `GetOrStub` is not here either: the read before it has reported the miss. Nor are `GetAged` and `Peek`:
# a look at how long a value lives is no use of it.
_READERS: Final[dict[type, _Reader]] = {
    Get: _get,
    GetMany: _get_many,
    Gets: _gets,
    Set: _store,
    SetMany: _set_many,
    Cas: _cas,
    CasKeep: _cas_keep,
    CasUntil: _cas_keep,
    Delete: _delete,
    DeleteMany: _delete_many,
    Touch: _touch,
    Incr: _incr,
    IncrSigned: _incr,
}


def _size(payload: Payload | None) -> int | None:
    """Return the size of a value in bytes; `None` for a miss or a mark."""
    return None if payload is None or is_mark(payload) else len(payload[1])


def _answered(reply: Sequence[object]) -> list[bool]:
    return [not isinstance(each, NodeError) for each in reply]


def _select(items: Sequence[Any], chosen: Sequence[bool]) -> list[Any]:  # of any one type
    return [item for item, is_chosen in zip(items, chosen, strict=True) if is_chosen]
