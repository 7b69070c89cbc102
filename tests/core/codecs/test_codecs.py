"""The promises of all codecs, and the two small ones."""

from __future__ import annotations

import collections
import enum
import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shardcache.core.codecs import Json, Msgpack, Pickle, Raw
from shardcache.errors import ConfigurationError, DecodeError, EncodeError

NAME = b"4:shop:k"

MAKERS = pytest.mark.parametrize("make", [Msgpack, Json, Raw, Pickle])


@MAKERS
@given(data=st.binary())
@example(data=b"[" * 100_000)
@example(data=b"NaN")
@example(data=b"1" * 10_000)
@example(data=b'"\xff"')
@example(data=b"\xef\xbb\xbf1")
def test_any_bytes_give_a_value_or_a_decode_error(make, data):
    """A codec raises nothing else on reading, and its error does not hold the bytes."""
    fault = None
    try:
        make().decode(NAME, data)
    except DecodeError as error:
        fault = error
    assert fault is None or fault.__context__ is None


@MAKERS
def test_unknown_options_are_named(make):
    """A misspelt option is an error that names it, and every other fault."""
    with pytest.raises(ConfigurationError) as caught:
        make(levle="9", zip="yes")
    assert len(caught.value.faults) == 2
    assert "levle" in caught.value.faults[0]


@MAKERS
def test_reprs_are_short(make):
    """A codec is shown by its name alone."""
    assert repr(make()) == f"<codec {make().name}>"


def test_kinds_are_unique():
    """No codec is taken for another."""
    kinds = [codec.kind for codec in (Msgpack, Json, Pickle, Raw)]
    assert kinds == [32, 33, 34, 35]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(alphabet=st.characters(codec="utf-8")), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(json_values)
@example([-0.0, 1e300, 10**30, True, 1, 1.0])
def test_json_round_trips(value):
    """A value that JSON takes comes back with its types, and every JSON reader can read it."""
    data = Json().encode(NAME, value)
    assert repr(Json().decode(NAME, data)) == repr(value)
    assert repr(json.loads(data)) == repr(value)


@pytest.mark.parametrize(
    "value",
    [
        (1,),
        {1: 2},
        {None: 1},
        {True: 1},
        {1},
        b"x",
        math.nan,
        math.inf,
        -math.inf,
        "\ud800",
        {"\udfff": 1},
        10**5000,
        collections.OrderedDict(a=1),
        enum.IntEnum("Colour", "RED").RED,
        type("Text", (str,), {})("x"),
        object(),
    ],
    ids=lambda value: "huge" if type(value) is int else ascii(value)[:20],
)
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [1, v], lambda v: {"a": [v]}])
def test_json_refuses_values_that_would_change(value, wrap):
    """A value that would come back as another type is refused, with the ways out."""
    with pytest.raises(EncodeError, match="msgpack"):
        Json().encode(NAME, wrap(value))


def test_json_names_what_it_cannot_hold():
    """Text that is no Unicode, and numbers that are none."""
    with pytest.raises(EncodeError, match="UTF-8"):
        Json().encode(NAME, ["\ud800"])
    with pytest.raises(EncodeError, match="NaN"):
        Json().encode(NAME, [math.nan])


@pytest.mark.parametrize("data", [b"NaN", b"[Infinity]", b"-Infinity", b'{"a":NaN}'])
def test_json_reads_no_numbers_that_json_lacks(data):
    """Python's `json` takes NaN; the codec does not."""
    with pytest.raises(DecodeError):
        Json().decode(NAME, data)


def test_json_refuses_deep_nesting():
    """Neither a deep value nor a cycle overflows the stack."""
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    cycle: list[object] = []
    cycle.append(cycle)
    for value in (deep, cycle):
        with pytest.raises(EncodeError, match="deep"):
            Json().encode(NAME, value)


@pytest.mark.parametrize("value", [None, True, 1.5, [b"x"], (), {}, bytearray(b"x")], ids=repr)
def test_raw_takes_no_structure(value):
    """The codec for bytes says what to do with anything else."""
    with pytest.raises(EncodeError, match=rf"{type(value).__name__}.*bytes"):
        Raw().encode(NAME, value)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (lambda: 1, "function: pickling it raised PicklingError"),
        ((each for each in ()), "generator: pickling it raised TypeError"),
    ],
    ids=["lambda", "generator"],
)
def test_pickle_names_what_it_cannot_take(value, told):
    """By its type and by what pickle raised, which is the cause."""
    with pytest.raises(EncodeError, match=f"^codec 'pickle' cannot store {told}$") as caught:
        Pickle().encode(NAME, value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("data", "kind"), [(b"hunter2", "UnpicklingError"), (b"", "EOFError"), (b"cos\nx\n.", "Attr")]
)
def test_pickle_refuses_what_it_cannot_read(data, kind):
    """The error has the type of what it raised, and not the bytes."""
    with pytest.raises(DecodeError, match=rf"^a pickle cannot be read \({kind}") as caught:
        Pickle().decode(NAME, data)
    assert caught.value.__context__ is None


@given(json_values | st.sets(st.integers()) | st.complex_numbers(allow_nan=False))
def test_pickle_round_trips(value):
    """Any value that pickle takes comes back with its type."""
    found = Pickle().decode(NAME, Pickle().encode(NAME, value))
    assert (type(found), found) == (type(value), value)


class SafeText(str):
    """Stands for text of a template engine, such as a `SafeString` of Django or a `Markup`."""

    __slots__ = ()


class Colour(enum.StrEnum):
    """Stands for an enum whose members are text."""

    RED = "red"


class Rank(enum.IntEnum):
    """Stands for an enum whose members are numbers."""

    FIRST = 1


@pytest.mark.parametrize("codec", [Msgpack(), Json()])
@pytest.mark.parametrize(
    ("value", "way"),
    [
        (SafeText("x"), "store str(value)"),
        (Colour.RED, "store value.value"),
        (Rank.FIRST, "store value.value"),
        (collections.defaultdict(int), "store dict(value)"),
    ],
)
def test_the_error_for_a_subclass_names_its_base(codec, value, way):
    """A web framework's text is of a class of its own: its base can be stored."""
    for held in (value, [value]):
        with pytest.raises(EncodeError) as raised:
            codec.encode(b"k", held)
        assert str(raised.value).endswith(f"; or {way}")
