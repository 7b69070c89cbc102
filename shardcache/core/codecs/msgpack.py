"""msgpack with marks for the types it lacks, so that a hit has the type a miss had.

A value of such a type is an array whose first element is a mark, an empty extension that says
which type it is: `(1, 2)` is `[mark 1, 1, 2]`. So a value of any depth is one message, packed in
one pass, and its nesting is limited by msgpack itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, ClassVar, Final, NamedTuple, NoReturn
from uuid import UUID

import msgpack

from shardcache.core.codecs.base import no_options, refusal
from shardcache.errors import DecodeError, EncodeError

_WAYS: Final = (
    "convert it to built-in types, use the codec 'pickle' with a secret,"
    " or bring a codec of your own"
)

# Whoever can write to the cache can write keys and members that all have one hash, and to find out
# that n of them differ takes n² / 2 comparisons. Numbers, tuples and frozensets have no seed in it.
MAX_ALIKE: Final = 64

# What `decimal` computes with unless it is told otherwise. `int()` of a larger one has as many digits.
MAX_EXPONENT: Final = 999_999

# Values are the callers' own, and what is read back may be anything: every `Any` here is one.


class Msgpack:
    """msgpack, exact: what cannot come back equal and of the same type is refused."""

    name: ClassVar[str] = "msgpack"
    kind: ClassVar[int] = 32

    def __init__(self, **options: Any) -> None:  # refused whatever they are
        no_options(self.name, options)
        # A packer is costly to make and works for one value at a time. Taking from a list and
        # putting back are atomic, so threads and finalisers find one of their own.
        self._packers: list[msgpack.Packer] = []

    def encode(self, name: bytes, value: Any) -> bytes:  # noqa: ARG002 - the same under any name
        """Return the msgpack form of `value`; raise `EncodeError` naming a type it does not take."""
        try:
            _check(value)
            return self._packed(value)
        except (ValueError, RecursionError):
            raise EncodeError("nested too deeply, or too large, for the codec 'msgpack'") from None

    def decode(self, name: bytes, data: bytes) -> Any:  # noqa: ARG002 - the same under any name
        """Return the value of a msgpack form."""
        try:
            if _MARK in data:
                return _unpacked_with_marks(data)
            return _unpacked(data, ext_hook=_unknown)
        except Exception as error:  # noqa: BLE001 - crafted bytes reach many constructors
            fault = type(error).__name__
        # Raised out here, for the first error may hold the bytes and would be the context.
        raise DecodeError(f"not a msgpack form ({fault})")

    def __repr__(self) -> str:
        return "<codec msgpack>"

    def _packed(self, value: Any) -> bytes:
        try:
            packer = self._packers.pop()
        except IndexError:
            packer = _packer()
        packed: bytes = packer.pack(value)
        self._packers.append(packer)  # not reached by one that failed, and may hold half a value
        return packed


def _packer() -> msgpack.Packer:
    return msgpack.Packer(default=_marked, strict_types=True, unicode_errors="surrogatepass")


def _unpacked(data: bytes, *, strict_map_key: bool = False, **hooks: Callable[..., Any]) -> Any:
    # Lengths that promise more than there is are refused: msgpack's limits are the data's own.
    return msgpack.unpackb(
        data,
        strict_map_key=strict_map_key,
        unicode_errors="surrogatepass",
        timestamp=3,  # we write none; in another's data it is a datetime, not a class of msgpack's
        **hooks,
    )


def _check(value: Any) -> None:
    """Refuse what msgpack would take without asking, and give back as another type."""
    kind = type(value)
    if kind is dict:
        plain = True
        for key, item in value.items():
            if type(key) not in _SCALARS:
                plain = False
                _check(key)
            if type(item) not in _SCALARS:
                _check(item)
        if not plain:
            _members(value)
    elif kind in _SEQUENCES:
        for item in value:
            if type(item) not in _SCALARS:
                _check(item)
    elif kind in _LOOKALIKES:
        raise refusal("msgpack", value, _WAYS)


_SCALARS: Final = frozenset({str, int, float, bool, type(None), bytes})
_SEQUENCES: Final = frozenset({list, tuple, set, frozenset})
_LOOKALIKES: Final = frozenset({bytearray, memoryview, msgpack.ExtType, msgpack.Timestamp})


class Mark(NamedTuple):
    """How values of a type that msgpack lacks become arrays, and arrays such values again."""

    code: int  # a part of what is stored: never changes
    parts: Callable[[Any], list[Any]]
    restore: Callable[[list[Any]], Any]


def _marked(value: object) -> list[Any]:
    """Return the array of a value that msgpack asked about."""
    mark = _MARKS.get(type(value))
    if mark is None:
        raise refusal("msgpack", value, _WAYS)
    return [msgpack.ExtType(mark.code, b""), *mark.parts(value)]


# An extension of no bytes, as every packer writes it; its code follows.
_MARK: Final = b"\xc7\x00"


def _unpacked_with_marks(data: bytes) -> Any:
    try:
        return _marks_read(data, strict_map_key=True)
    except ValueError:
        pass  # there are keys beside text and bytes, whose hashes are looked at, or it is no form
    return _marks_read(data, object_pairs_hook=_mapping)


def _marks_read(data: bytes, **options: Any) -> Any:  # msgpack's
    pending: list[Mark] = []  # marks that were read, and have not begun an array yet

    def marked(code: int, contents: bytes) -> Mark:
        if contents:
            raise DecodeError("an extension that is no mark")
        pending.append(_MARKS_BY_CODE[code])
        return pending[-1]

    def restored(items: list[Any]) -> Any:
        if not items or type(items[0]) is not Mark:
            return items
        pending.pop()
        return items[0].restore(items[1:])

    value = _unpacked(data, ext_hook=marked, list_hook=restored, **options)
    if pending:
        raise DecodeError("a mark that begins no array")
    return value


def _unknown(code: int, contents: bytes) -> NoReturn:  # noqa: ARG001 - the same for any contents
    raise DecodeError(f"an extension of code {code}")


def _members(members: Collection[Any]) -> list[Any]:
    """Return the members of a set, or the keys of a dict; raise `EncodeError` if too many are alike."""
    if _crowded(members):
        raise EncodeError(
            f"more than {MAX_ALIKE} members of a set, or keys of a dict, have one hash, for which the"
            " codec 'msgpack' would not read it back"
        )
    return list(members)


def _restored_members(members: list[Any]) -> list[Any]:
    if _crowded(members):
        raise DecodeError("a set of too many members that have one hash")
    return members


def _mapping(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    items = list(pairs)
    if _crowded([key for key, _ in items]):
        raise DecodeError("a dict of too many keys that have one hash")
    return dict(items)


def _crowded(members: Collection[Any]) -> bool:
    """Return whether more than `MAX_ALIKE` have one hash."""
    if len(members) <= MAX_ALIKE:
        return False
    hashes = list(map(hash, members))
    if len(hashes) - len(set(hashes)) < MAX_ALIKE:
        return False
    return max(Counter(hashes).values()) > MAX_ALIKE


def _bounded(value: Decimal, error: type[EncodeError | DecodeError]) -> Decimal:
    if not -MAX_EXPONENT <= value.adjusted() <= MAX_EXPONENT:
        raise error(f"a Decimal of an exponent beyond {MAX_EXPONENT}")
    return value


def _big_int(value: int) -> list[Any]:
    return [value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)]


def _moment(value: datetime | time) -> list[Any]:
    return [value.replace(tzinfo=None).isoformat(), value.fold, _zone(value.tzinfo)]


def _restored_moment(
    read: Callable[[str], datetime] | Callable[[str], time],
) -> Callable[[list[Any]], datetime | time]:
    def restored(parts: list[Any]) -> datetime | time:
        text, fold, zone = parts
        return read(text).replace(fold=fold, tzinfo=_restored_zone(zone))

    return restored


def _zone(zone: tzinfo | None) -> Any:
    """Return a zone by its key, or as a fixed offset in days, seconds and µs with its name."""
    if zone is None:
        return None
    if type(zone) is timezone:
        return [*_offset(zone.utcoffset(None)), zone.tzname(None)]
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - few values have one

    if type(zone) is ZoneInfo and zone.key:
        return zone.key
    raise refusal("msgpack", zone, "use datetime.UTC, a fixed offset or a ZoneInfo with a key")


def _restored_zone(stored: Any) -> tzinfo | None:
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


_MARKS: Final[dict[type, Mark]] = {
    tuple: Mark(1, list, tuple),
    set: Mark(2, _members, lambda parts: set(_restored_members(parts))),
    frozenset: Mark(3, _members, lambda parts: frozenset(_restored_members(parts))),
    # msgpack asks only about ints that 64 bits cannot hold.
    int: Mark(4, _big_int, lambda parts: int.from_bytes(parts[0], "big", signed=True)),
    Decimal: Mark(
        5,
        lambda value: [str(_bounded(value, EncodeError))],
        lambda parts: _bounded(Decimal(parts[0]), DecodeError),
    ),
    datetime: Mark(6, _moment, _restored_moment(datetime.fromisoformat)),
    date: Mark(7, lambda value: [value.isoformat()], lambda parts: date.fromisoformat(parts[0])),
    time: Mark(8, _moment, _restored_moment(time.fromisoformat)),
    timedelta: Mark(9, _offset, lambda parts: timedelta(*parts)),
    UUID: Mark(10, lambda value: [value.bytes], lambda parts: UUID(bytes=parts[0])),
}
_MARKS_BY_CODE: Final = {mark.code: mark for mark in _MARKS.values()}
