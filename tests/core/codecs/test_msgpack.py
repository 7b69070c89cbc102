"""msgpack: a hit has the value and the type that a miss had, at any depth."""

from __future__ import annotations

import decimal
import sys
import threading
import uuid
from collections import OrderedDict, defaultdict, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shardcache.core.codecs import Msgpack
from shardcache.errors import DecodeError, EncodeError

NAME = b"k"
CODEC = Msgpack()

offsets = st.timedeltas(
    min_value=timedelta(hours=-24, microseconds=1), max_value=timedelta(hours=24, microseconds=-1)
)
zones = st.one_of(
    st.none(),
    st.just(UTC),
    st.timezones(no_cache=True),
    st.builds(timezone, offsets),
    st.builds(timezone, offsets, st.text(max_size=5)),
)
text = st.text(alphabet=st.characters())  # lone surrogates included
keyable = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    text,
    st.binary(),
    st.dates(),
    st.builds(datetime.replace, st.datetimes(), tzinfo=zones, fold=st.integers(0, 1)),
    st.builds(time.replace, st.times(), tzinfo=zones, fold=st.integers(0, 1)),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
)
keys = st.recursive(
    keyable,
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4),
    max_leaves=8,
)
values = st.recursive(
    keys | st.decimals(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(keys, inner, max_size=5),
        st.sets(keys, max_size=4),
    ),
    max_leaves=20,
)


def form(value: Any) -> Any:
    """Return what tells two values apart that `==` calls equal: types, signs, folds and zones."""
    kind = type(value)
    if kind in (list, tuple):
        return kind, [form(item) for item in value]
    if kind in (set, frozenset):
        return kind, sorted(repr(form(item)) for item in value)
    if kind is dict:
        return kind, [(form(key), form(item)) for key, item in value.items()]
    if kind in (datetime, time):
        plain = value.replace(tzinfo=None, fold=0)
        return kind, plain.isoformat(), value.fold, zone_form(value.tzinfo)
    if kind is Decimal:
        return kind, value.as_tuple()
    return kind, repr(value)


def zone_form(zone: tzinfo | None) -> Any:
    """Return a zone's own form: they compare by identity, or by their offset alone."""
    if isinstance(zone, ZoneInfo):
        return "key", zone.key
    return zone and ("offset", zone.utcoffset(None), zone.tzname(None))


def there_and_back(value: Any) -> Any:
    """Return what a value is after it was stored and read."""
    return CODEC.decode(NAME, CODEC.encode(NAME, value))


@given(values)
@example([2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, -(2**64)])
@example([-0.0, float("nan"), float("inf"), Decimal("-0"), Decimal("1.10"), Decimal("sNaN")])
@example({(1, (2,)): {frozenset({3}): ()}, None: [[], {}, set(), ((),)]})
@example([datetime(2020, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)])
@example(time(1, 2, tzinfo=timezone(timedelta(0), "GMT")))
@example([time(1, 2), time(1, 2, fold=1)])
@example([[b"\xc7\x00"], b"\xc7\x00\x01", "\udcc7"])
def test_values_come_back_as_they_were(value):
    """Type, value, order, sign, fold and zone survive any nesting."""
    assert form(there_and_back(value)) == form(value)


# Far enough from the ends of the calendar to be moved to another zone.
mild = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1))  # noqa: DTZ001 - without a zone yet


@given(st.builds(datetime.replace, mild, tzinfo=zones.filter(bool)))
def test_moments_stay_the_same_moment(moment):
    """An aware datetime comes back equal, at the same offset."""
    found = there_and_back(moment)
    assert found.utcoffset() == moment.utcoffset()
    assert found.astimezone(UTC) == moment.astimezone(UTC)


@pytest.mark.parametrize(
    "value",
    [
        object(),
        bytearray(b"x"),
        memoryview(b"x"),
        type("Rows", (OrderedDict,), {})(a=1),
        defaultdict(int),
        namedtuple("Point", "x")(1),  # noqa: PYI024 - what callers have
        msgpack.ExtType(1, b""),
        msgpack.Timestamp(1),
        range(3),
        1j,
        type("Text", (str,), {})("x"),
        type("Number", (int,), {})(1),
        type("Moment", (datetime,), {})(2020, 1, 1),
        test_values_come_back_as_they_were,
        Exception,
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_types_are_refused_by_name(value):
    """Anywhere in a value, with an error that names ways out."""
    places = [value, [value], (1, [value]), {"a": {"b": value}}, [[{1: (value,)}]]]
    if type(value).__hash__ is not None and not isinstance(value, memoryview):
        places += [{value: 1}, {value}, frozenset({(value,)})]
    for place in places:
        with pytest.raises(EncodeError, match=rf"{type(value).__qualname__}.*secret"):
            CODEC.encode(NAME, place)


class Local(tzinfo):
    """A zone that only this test knows."""


@pytest.mark.parametrize(
    "zone",
    [Local(), type("Mine", (ZoneInfo,), {}).no_cache("Europe/Paris")],
    ids=["tzinfo", "subclass"],
)
def test_unknown_zones_are_refused(zone):
    """The error says which zones can come back."""
    with pytest.raises(EncodeError, match="ZoneInfo with a key"):
        CODEC.encode(NAME, [datetime(2020, 1, 1, tzinfo=zone)])


def nested(depth: int, wrap: Any) -> Any:
    """Return 0 wrapped `depth` times."""
    value: Any = 0
    for _ in range(depth):
        value = wrap(value)
    return value


WRAPS = pytest.mark.parametrize(
    "wrap", [lambda v: [v], lambda v: (v,), lambda v: {1: v}], ids=["list", "tuple", "dict"]
)


@pytest.mark.parametrize("depth", [100_000, 2000, 1100])
@WRAPS
def test_deep_nesting_is_an_encode_error(depth, wrap):
    """It never overflows a stack."""
    with pytest.raises(EncodeError, match="deep"):
        CODEC.encode(NAME, nested(depth, wrap))


def test_a_value_within_itself_is_an_encode_error():
    """A cycle has no end."""
    value: list[Any] = []
    value.append(value)
    with pytest.raises(EncodeError, match="deep"):
        CODEC.encode(NAME, value)


@WRAPS
def test_a_value_that_can_be_encoded_can_be_decoded(wrap):
    """At any depth, also on a thread's small stack."""
    failures: list[str] = []

    def probe() -> None:
        for depth in (*range(1, 200, 40), *range(480, 530, 7), 700, 900):
            try:
                data = CODEC.encode(NAME, nested(depth, wrap))
            except EncodeError:
                continue
            if CODEC.encode(NAME, CODEC.decode(NAME, data)) != data:
                failures.append(f"depth {depth}")

    size = threading.stack_size(512 * 1024)
    try:
        thread = threading.Thread(target=probe)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(size)
    assert failures == []


@given(st.binary())
@example(b"\x91" * 100_000)
@example(b"\x92\xc7\x00\x01" * 100_000)
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xdf\xff\xff\xff\xff\xc0")
@example(b"\xc6\xff\xff\xff\xff")
@example(b"\xc0\xc0")
@example(b"")
def test_garbage_is_a_decode_error(data):
    """Any bytes decode to a value or raise a `DecodeError` that does not hold them."""
    fault = None
    try:
        CODEC.decode(NAME, data)
    except DecodeError as error:
        fault = error
    assert fault is None or fault.__context__ is None


@given(values, st.data())
def test_damaged_values_are_decode_errors(value, data):
    """Cut short, or changed in a byte."""
    stored = bytearray(CODEC.encode(NAME, value))
    place = data.draw(st.integers(0, len(stored) - 1))
    stored[place] = data.draw(st.integers(0, 255))
    for damaged in (bytes(stored), bytes(stored[:place]), bytes(stored) + b"\xc0"):
        try:
            CODEC.decode(NAME, damaged)
        except DecodeError:
            continue


@given(values)
def test_bytes_too_few_or_too_many_are_refused(value):
    """Exactly the written bytes are a value."""
    stored = CODEC.encode(NAME, value)
    for damaged in (stored[:-1], stored + b"\xc0"):
        with pytest.raises(DecodeError):
            CODEC.decode(NAME, damaged)


MARK = b"\xc7\x00\x01"  # of tuples


@pytest.mark.parametrize(
    "data",
    [
        MARK,  # alone
        b"\x92\x01" + MARK,  # not in front
        b"\x93" + MARK + b"\x01" + MARK,  # a second one
        b"\x81" + MARK + b"\x01",  # a key
        b"\x82" + (MARK + b"\x01") * 2,  # the same key twice
        b"\x91\xc7\x00\x63",  # of no type
        b"\xc8\x00\x00\x01",  # in no form that a packer writes
        b"\x91\xd4\x01\x00",  # with contents
        b"\x92" + MARK + b"\xd4\x01\x00",
        b"\x92\x92" + MARK + b"\x01\x92\xd4\x01\x00\x01",
        b"\x92\xc7\x00\x05\xa1x",  # a Decimal that is none
        b"\x92\xc7\x00\x06\xa1x",  # a datetime that is none
        b"\x92\xc7\x00\x0a\xc4\x01x",  # a UUID too short
        b"\x91\xc7\x00\x04",  # an int without bytes
        b"\x92\xc7\x00\x02\x90",  # a set of a list
        b"\x94\xc7\x00\x06\xa4" + b"2020" + b"\x00\xa7../../x",  # a zone outside
    ],
)
def test_marks_out_of_place_are_refused(data):
    """No crafted value lets a mark of the codec out, or becomes a senseless value."""
    with pytest.raises(DecodeError):
        CODEC.decode(NAME, data)


@pytest.mark.parametrize("data", [b"\xd6\xff" + bytes(4), b"\x91\xd7\xff" + bytes(8)])
def test_foreign_timestamps_are_datetimes(data):
    """The codec never writes those of msgpack itself; to the caller they are no class of msgpack."""
    found = CODEC.decode(NAME, data)
    moment = found[0] if isinstance(found, list) else found
    assert moment == datetime(1970, 1, 1, tzinfo=UTC)


STORED = {
    "c40178": b"x",
    "93c700010102": (1, 2),
    "92c7000201": {1},
    "92c7000301": frozenset({1}),
    "92c70004c409010000000000000000": 2**64,
    "92c70005a4312e3130": Decimal("1.10"),
    "c0": None,
    "92c70007aa323032302d30312d3032": date(2020, 1, 2),
    "94c70009010203": timedelta(1, 2, 3),
    "92c7000ac41000000000000000000000000000000005": uuid.UUID(int=5),
}


@pytest.mark.parametrize(("stored", "value"), STORED.items())
def test_the_format_never_changes(stored, value):
    """Values of an older release are still read, and written the same."""
    assert form(CODEC.decode(NAME, bytes.fromhex(stored))) == form(value)
    assert CODEC.encode(NAME, value).hex() == stored


def test_moments_are_text_fold_and_zone():
    """The parts of a moment are themselves plain msgpack."""
    moment = datetime(2020, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=1)))
    packed = msgpack.packb(
        [msgpack.ExtType(6, b""), "2020-01-02T03:04:05", 0, [0, 3600, 0, "UTC+01:00"]]
    )
    assert CODEC.encode(NAME, moment) == packed
    assert there_and_back(moment) == moment


def test_threads_share_a_codec():
    """A packer is used by one thread at a time, even when a value fails in the middle."""
    wrong: list[Any] = []

    def work(number: int) -> None:
        for _ in range(300):
            value = [(number, {str(number)}), list(range(number))]
            if there_and_back(value) != value:
                wrong.append(value)
            with pytest.raises(EncodeError):
                CODEC.encode(NAME, [number, (1, object())])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []


def test_decimals_do_not_depend_on_the_context():
    """A caller's low precision or traps change nothing that is stored."""
    value = Decimal("1.234567890123456789012345678901234567890")
    with decimal.localcontext() as context:
        context.prec = 3
        context.traps[decimal.Inexact] = True
        assert there_and_back(value) == value


def test_an_unknown_zone_is_a_decode_error():
    """Machines may have different zone data."""
    data = CODEC.encode(NAME, datetime(2020, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")))
    with pytest.raises(DecodeError, match="ZoneInfoNotFoundError"):
        CODEC.decode(NAME, data.replace(b"Berlin", b"Atlant"))


MODULUS = 2**61 - 1  # of the hash of numbers


def alike(kind, count):
    """Return a number of different values of one hash."""
    numbers = [1 + (1 + place) * MODULUS for place in range(1 << 10, (1 << 10) + count)]
    made = {
        "int": lambda number: number,
        "decimal": Decimal,
        "uuid": lambda number: uuid.UUID(int=number),
        "tuple": lambda number: (number, "x"),
        "frozenset": lambda number: frozenset({number}),
    }[kind]
    return [made(number) for number in numbers]


def crafted(members, code):
    """Return the form of a set, or of a dict for no code, that no `Msgpack` would write."""
    forms = [CODEC.encode(NAME, member) for member in members]
    if code is None:
        head = b"\xdf" + len(forms).to_bytes(4, "big")
        return head + b"".join(one + b"\xc0" for one in forms)
    head = b"\xdd" + (len(forms) + 1).to_bytes(4, "big") + b"\xc7\x00" + bytes([code])
    return head + b"".join(forms)


@pytest.mark.slow
@pytest.mark.parametrize("code", [2, 3, None], ids=["set", "frozenset", "dict"])
@pytest.mark.parametrize("kind", ["int", "decimal", "uuid", "tuple", "frozenset"])
def test_many_members_of_one_hash_are_not_read(kind, code):
    """To tell n of them apart takes n² comparisons, so at most 64 may share a hash."""
    assert len({hash(member) for member in alike(kind, 65)}) == 1
    assert len(CODEC.decode(NAME, crafted(alike(kind, 64), code))) == 64
    for count in (65, 10_000):
        data = crafted(alike(kind, count), code)
        for held in (data, b"\x92\xc0" + data, b"\x81\xa1k" + data):
            with pytest.raises(DecodeError):
                CODEC.decode(NAME, held)


def test_many_members_of_one_hash_are_not_written():
    """The set is refused before it is stored."""
    for value in (
        set(alike("int", 65)),
        frozenset(alike("uuid", 65)),
        dict.fromkeys(alike("tuple", 65)),
    ):
        with pytest.raises(EncodeError, match="same hash"):
            CODEC.encode(NAME, [value])
    assert there_and_back(set(alike("int", 64))) == set(alike("int", 64))


def test_a_few_members_of_one_hash_are_read():
    """-1 and -2 share one: a grid of points has many such pairs, and is no attack."""
    points = {(x, y) for x in range(-40, 40) for y in range(-40, 40)}
    assert there_and_back(points) == points
    assert there_and_back(dict.fromkeys(points, 1)) == dict.fromkeys(points, 1)
    keys = {number: Decimal(number) for number in range(1000)}
    assert there_and_back(keys) == keys


def test_decimals_have_bounded_exponents():
    """`int()` of a stored decimal has no more digits than `decimal` computes with."""
    for text_ in ("1E+999999", "-9.9E+999999", "1E-999999", "NaN", "-Infinity", "0E+999999"):
        assert repr(there_and_back(Decimal(text_))) == repr(Decimal(text_))
    for text_ in ("1E+1000000", "1E-1000000", "1E+999999999999999999", "0E-1000000"):
        with pytest.raises(EncodeError, match="exponent"):
            CODEC.encode(NAME, [Decimal(text_)])
        data = msgpack.packb([msgpack.ExtType(5, b""), text_])
        with pytest.raises(DecodeError):
            CODEC.decode(NAME, data)
