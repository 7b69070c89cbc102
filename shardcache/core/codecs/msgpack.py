"""msgpack with marks for the types it lacks, so that a hit has the same type as a miss.

A value of such a type becomes an array. Its first element is a mark, an empty extension whose code
names the type: `(1, 2)` is `[mark 1, 1, 2]`. A value of any depth is thus one message, packed in
one pass, and msgpack itself limits the nesting.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, Final, NamedTuple, NoReturn
from uuid import UUID

import msgpack

from shardcache.core.codecs.base import OWN_TYPES, no_options, refusal
from shardcache.core.codecs.subclasses import SUBCLASSES, Subclass, code_of
from shardcache.errors import DecodeError, EncodeError

_WAYS: Final = (
    f"convert it to built-in types, {OWN_TYPES}, use the codec 'pickle' with a secret, or bring a codec"
    " of your own"
)

# An attacker who can write to the cache can write keys and members that all have the same hash:
# n of them take n² / 2 comparisons. The hashes of numbers, tuples and frozensets have no seed.
MAX_COLLISIONS: Final = 64

# The default limit of `decimal`. `int()` of a larger one has as many digits.
MAX_EXPONENT: Final = 999_999

# Values may be anything, and so may stored bytes: every `Any` here is one.


class Msgpack:
    """Exact msgpack: a value that would not come back equal and of the same type is refused."""

    name = "msgpack"
    kind = 32

    def __init__(self, **options: Any) -> None:  # refused whatever they are
        no_options(self.name, options)
        # A packer is costly to make and packs one value at a time. Pop and append of a list are
        # atomic, so no two threads or finalisers share a packer.
        self._packers: list[msgpack.Packer] = []

    def encode(self, name: bytes, value: Any) -> bytes:  # noqa: ARG002 - the same under any name
        """Return the msgpack of `value`; raise `EncodeError` naming a type it does not take."""
        try:
            _check(value)
            return self._pack(value)
        except (ValueError, RecursionError):
            raise EncodeError("nested too deeply, or too large, for the codec 'msgpack'") from None

    def decode(self, name: bytes, data: bytes) -> Any:  # noqa: ARG002 - the same under any name
        """Return the value of a msgpack message."""
        try:
            if _MARK in data:
                return _unpack_with_marks(data)
            return _unpack(data, ext_hook=_refuse_extension)
        except Exception as error:  # noqa: BLE001 - crafted bytes reach many constructors
            fault = type(error).__name__
        # Raised here because the first error may hold the bytes, and would be the context.
        raise DecodeError(f"not a msgpack form ({fault})")

    def __repr__(self) -> str:
        return "<codec msgpack>"

    def _pack(self, value: Any) -> bytes:
        try:
            packer = self._packers.pop()
        except IndexError:
            packer = _packer()
        packed: bytes = packer.pack(value)
        self._packers.append(packer)  # a packer that failed is dropped: it may hold half a value
        return packed


def _packer() -> msgpack.Packer:
    return msgpack.Packer(default=_to_array, strict_types=True, unicode_errors="surrogatepass")


def _unpack(data: bytes, *, strict_map_key: bool = False, **hooks: Callable[..., Any]) -> Any:
    # msgpack refuses lengths beyond the end of the data.
    return msgpack.unpackb(
        data,
        strict_map_key=strict_map_key,
        unicode_errors="surrogatepass",
        timestamp=3,  # not written here; read as a datetime, not as a class of msgpack's
        **hooks,
    )


def _check(value: Any) -> None:
    """Raise `EncodeError` for what msgpack would pack silently, and return as another type."""
    kind = type(value)
    if kind is dict:
        _check_items(value)
    elif kind in _SEQUENCES:
        for item in value:
            if type(item) not in _SCALARS:
                _check(item)
    elif kind in _MAPPINGS:
        _check_items(value)
        if vars(value):
            raise refusal("msgpack", value, "it has attributes of its own")
    elif kind in _LOOKALIKES:
        raise refusal("msgpack", value, _WAYS)


def _check_items(value: dict[Any, Any]) -> None:
    plain = True
    for key, item in value.items():
        if type(key) not in _SCALARS:
            plain = False
            _check(key)
        if type(item) not in _SCALARS:
            _check(item)
    if not plain:
        _list_members(value)


_SCALARS: Final = frozenset({str, int, float, bool, type(None), bytes})
_MAPPINGS: Final = frozenset({OrderedDict, Counter})
_SEQUENCES: Final = frozenset({list, tuple, set, frozenset})
_LOOKALIKES: Final = frozenset({bytearray, memoryview, msgpack.ExtType, msgpack.Timestamp})


class Mark(NamedTuple):
    """How a value of a type that msgpack lacks becomes an array, and is restored from it."""

    code: int  # stored with the value: it never changes
    parts: Callable[[Any], list[Any]]
    restore: Callable[[list[Any]], Any]


def _to_array(value: object) -> list[Any]:
    """Return the array for a value of a type that msgpack lacks."""
    kind = type(value)
    mark = _MARKS.get(kind) or _MARKS_BY_CODE.get(code_of(kind))
    if mark is None:
        raise refusal("msgpack", value, _WAYS)
    return [msgpack.ExtType(mark.code, b""), *mark.parts(value)]


# An extension without bytes, as every packer writes it; its code follows.
_MARK: Final = b"\xc7\x00"


def _unpack_with_marks(data: bytes) -> Any:
    try:
        return _unpack_marks(data, strict_map_key=True)
    except ValueError:
        pass  # a key is neither text nor bytes, so its hashes are counted; or it is not msgpack
    return _unpack_marks(data, object_pairs_hook=_restore_dict)


def _unpack_marks(data: bytes, **options: Any) -> Any:  # msgpack's
    pending: list[Mark] = []  # marks whose array has not begun yet

    def read_mark(code: int, contents: bytes) -> Mark:
        if contents:
            raise DecodeError("an extension that is not a mark")
        pending.append(_MARKS_BY_CODE[code])
        return pending[-1]

    def restore(items: list[Any]) -> Any:
        if not items or type(items[0]) is not Mark:
            return items
        pending.pop()
        return items[0].restore(items[1:])

    value = _unpack(data, ext_hook=read_mark, list_hook=restore, **options)
    if pending:
        raise DecodeError("a mark that does not begin an array")
    return value


def _refuse_extension(code: int, contents: bytes) -> NoReturn:  # noqa: ARG001 - for any contents
    raise DecodeError(f"an extension of code {code}")


def _list_members(members: Collection[Any]) -> list[Any]:
    """Return the members of a set, or the keys of a dict; raise `EncodeError` if they collide."""
    if _collide(members):
        raise EncodeError(
            f"more than {MAX_COLLISIONS} members of a set, or keys of a dict, have the same hash: the"
            " codec 'msgpack' would not read it back"
        )
    return list(members)


def _restore_members(members: list[Any]) -> list[Any]:
    if _collide(members):
        raise DecodeError("too many members or keys of the same hash")
    return members


def _restore_dict(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    items = list(pairs)
    if _collide([key for key, _ in items]):
        raise DecodeError("a dict with too many keys of the same hash")
    return dict(items)


def _list_items(value: dict[Any, Any]) -> list[Any]:
    """Return each key of a dict with its value after it; raise `EncodeError` if the keys collide."""
    return [each for key in _list_members(value) for each in (key, value[key])]


def _restore_items(parts: list[Any]) -> Iterable[tuple[Any, Any]]:
    keys = _restore_members(parts[::2])
    return zip(keys, parts[1::2], strict=True)


def _collide(members: Collection[Any]) -> bool:
    """Return whether more than `MAX_COLLISIONS` have the same hash."""
    if len(members) <= MAX_COLLISIONS:
        return False
    hashes = list(map(hash, members))
    if len(hashes) - len(set(hashes)) < MAX_COLLISIONS:
        return False
    return max(Counter(hashes).values()) > MAX_COLLISIONS


def _check_exponent(value: Decimal, error: type[EncodeError | DecodeError]) -> Decimal:
    if not -MAX_EXPONENT <= value.adjusted() <= MAX_EXPONENT:
        raise error(f"a Decimal of an exponent beyond {MAX_EXPONENT}")
    return value


def _big_int(value: int) -> list[Any]:
    return [value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)]


def _time_parts(value: datetime | time) -> list[Any]:
    return [value.replace(tzinfo=None).isoformat(), value.fold, _zone_parts(value.tzinfo)]


def _time_restorer(
    read: Callable[[str], datetime] | Callable[[str], time],
) -> Callable[[list[Any]], datetime | time]:
    def restore(parts: list[Any]) -> datetime | time:
        text, fold, zone = parts
        return read(text).replace(fold=fold, tzinfo=_restore_zone(zone))

    return restore


def _zone_parts(zone: tzinfo | None) -> Any:
    """Return a zone's key, or its fixed offset in days, seconds and µs with its name."""
    if zone is None:
        return None
    if type(zone) is timezone:
        return [*_offset(zone.utcoffset(None)), zone.tzname(None)]
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - few values have one

    if type(zone) is ZoneInfo and zone.key:
        return zone.key
    raise refusal("msgpack", zone, "use datetime.UTC, a fixed offset or a ZoneInfo with a key")


def _restore_zone(stored: Any) -> tzinfo | None:
    if stored is None:
        return None
    if type(stored) is str:
        from zoneinfo import ZoneInfo  # noqa: PLC0415 - as above

        return ZoneInfo(stored)
    *offset, name = stored
    plain = timezone(timedelta(*offset))
    return plain if plain.tzname(None) == name else timezone(timedelta(*offset), name)


def _offset(value: timedelta) -> list[Any]:
    return [value.days, value.seconds, value.microseconds]


def _mark_of(code: int, subclass: Subclass) -> Mark:
    def restore(parts: list[Any]) -> Any:
        (value,) = parts
        return subclass.restore(value)

    return Mark(code, lambda value: [subclass.to_builtin(value)], restore)


_MARKS: Final[dict[type, Mark]] = {
    tuple: Mark(1, list, tuple),
    set: Mark(2, _list_members, lambda parts: set(_restore_members(parts))),
    frozenset: Mark(3, _list_members, lambda parts: frozenset(_restore_members(parts))),
    # msgpack asks only about ints that 64 bits cannot hold.
    int: Mark(4, _big_int, lambda parts: int.from_bytes(parts[0], "big", signed=True)),
    Decimal: Mark(
        5,
        lambda value: [str(_check_exponent(value, EncodeError))],
        lambda parts: _check_exponent(Decimal(parts[0]), DecodeError),
    ),
    datetime: Mark(6, _time_parts, _time_restorer(datetime.fromisoformat)),
    date: Mark(7, lambda value: [value.isoformat()], lambda parts: date.fromisoformat(parts[0])),
    time: Mark(8, _time_parts, _time_restorer(time.fromisoformat)),
    timedelta: Mark(9, _offset, lambda parts: timedelta(*parts)),
    UUID: Mark(10, lambda value: [value.bytes], lambda parts: UUID(bytes=parts[0])),
    OrderedDict: Mark(15, _list_items, lambda parts: OrderedDict(_restore_items(parts))),
    Counter: Mark(16, _list_items, lambda parts: Counter(dict(_restore_items(parts)))),
}
_MARKS_BY_CODE: Final = {
    **{mark.code: mark for mark in _MARKS.values()},
    **{code: _mark_of(code, subclass) for code, subclass in SUBCLASSES.items()},
}
