"""Real arguments, of the libraries that calls get them from: equal, different, or refused.

A key that two calls share serves one of them the other's value. So each kind of argument is in one of
these tables, and what is in none of them must be refused.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import http
import ipaddress
import pathlib
from collections import ChainMap, Counter, OrderedDict, UserDict, defaultdict, deque, namedtuple
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType, SimpleNamespace
from unittest.mock import MagicMock, Mock
from uuid import UUID
from zoneinfo import ZoneInfo

import addict
import box
import freezegun.api
import markupsafe
import multidict
import munch
import numpy as np
import pandas as pd
import pytest
import starlette.datastructures
import werkzeug.datastructures
import werkzeug.local
from django.http import QueryDict
from django.utils.datastructures import MultiValueDict
from django.utils.functional import SimpleLazyObject, lazystr
from django.utils.safestring import mark_safe

from core.key_building.argument_kinds import (
    Access,
    Account,
    Article,
    Body,
    Colour,
    Derived,
    Filter,
    Headed,
    Hiding,
    Keyed,
    KeyedByProperty,
    KeyedDict,
    KeyedToo,
    Level,
    Money,
    Name,
    Numbers,
    Order,
    Pixel,
    Plan,
    Point,
    Prepared,
    Query,
    Range,
    Slotted,
    Struct,
    Tagged,
    Weighted,
    Word,
    Zone,
    asked,
    changed,
    loose,
    other_enum,
)
from shardcache.clients.key_builder import KeyBuilder, KeySpec
from shardcache.core.key_building.arguments import canonical
from shardcache.errors import KeyBuildError

BERLIN, LAGOS = ZoneInfo("Europe/Berlin"), ZoneInfo("Africa/Lagos")
NOON = dt.datetime(2024, 1, 1, 12)  # noqa: DTZ001 - what becomes of such is asked here
HOUR = dt.timezone(dt.timedelta(hours=1))
PAIRS = [("id", "1"), ("id", "2"), ("q", "x")]
werk = werkzeug.datastructures
star = starlette.datastructures

EQUAL = {
    "numbers": (1, 1.0),
    "truth": (1, True),
    "decimals": (Decimal("1.50"), Decimal("1.5")),
    "zero and minus zero": (0.0, -0.0),
    "NaN": (float("nan"), -float("nan")),
    "sets": ({1, 2}, frozenset({2, 1})),
    "dicts in another order": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "enum alias": (Colour.RED, Colour.CRIMSON),
    "flags": (Access.READ | Access.WRITE, Access.WRITE | Access.READ),
    "named tuples": (Point(1, 2), Point(1, 2)),
    "named tuples of an older kind": (Pixel(1, 2), Pixel(1, 2)),
    "a subclass of a named tuple": (Weighted(1, 2), Weighted(1, 2)),
    "frozen dataclasses": (Filter("a", (1,)), Filter("a", (1,))),
    "dataclasses": (Query(["a"]), Query(["a"], 1)),
    "what a dataclass has computed": (Query(["a"]), asked(Query(["a"]))),
    "dataclasses with slots": (Slotted(1), Slotted(1)),
    "attrs": (Range(1), Range(1, 10)),
    "zones": (NOON.replace(tzinfo=BERLIN), NOON.replace(tzinfo=ZoneInfo("Europe/Berlin"))),
    "np.int64": (np.int64(3), 3),
    "np.float32": (np.float32(0.5), 0.5),
    "np.float64": (np.float64(3), 3),
    "np.bool_": (np.bool_(True), True),  # noqa: FBT003
    "np.str_": (np.str_("a"), "a"),
    "MultiDict": (werk.MultiDict(PAIRS), werk.MultiDict(PAIRS)),
    "ImmutableMultiDict": (werk.ImmutableMultiDict(PAIRS), werk.ImmutableMultiDict(PAIRS)),
    "QueryDict": (QueryDict("id=1&id=2"), QueryDict("id=1&id=2")),
    "multidict": (multidict.MultiDict(PAIRS), multidict.MultiDict(PAIRS)),
    "QueryParams": (star.QueryParams("id=1&id=2"), star.QueryParams(PAIRS[:2])),
    "safe text": (mark_safe("a"), mark_safe("a")),
    "markup": (markupsafe.Markup("a"), markupsafe.Markup("a")),
    "frozen time": (freezegun.api.FakeDatetime(2024, 1, 1, 12), NOON),
    "frozen date": (freezegun.api.FakeDate(2024, 1, 1), dt.date(2024, 1, 1)),
    "__cache_key__": (Keyed(1), Keyed(1)),
    "__cache_key__ of a dict": (KeyedDict(id=1, at=2), KeyedDict(id=1, at=3)),
    "__cache_key__ of a slot": (KeyedByProperty(1), KeyedByProperty(1)),
}
DIFFERENT = {
    "number and text": (1, "1"),
    "text and bytes": ("1", b"1"),
    "list and tuple": ([1], (1,)),
    "nested": (("ab", ("c",)), ("a", ("bc",))),
    "None and its text": (None, "None"),
    "enum and its value": (Colour.RED, 1),
    "IntEnum and its number": (Level.LOW, 1),
    "StrEnum and its text": (Word.YES, "yes"),
    "members": (Level.LOW, Level.HIGH),
    "flags": (Access.READ, Access.READ | Access.WRITE),
    "choices": (Plan.FREE, Plan.PAID),
    "statuses": (http.HTTPStatus.OK, 200),
    "named tuple and tuple": (Point(1, 2), (1, 2)),
    "named tuples of two classes": (Point(1, 2), Pixel(1, 2)),
    "dataclasses": (Query(["a"]), Query(["a"], 2)),
    "dataclass and dict": (Slotted(1), {"x": 1}),
    "attrs": (Range(1), Range(1, 11)),
    "OrderedDict in another order": (OrderedDict(a=1, b=2), OrderedDict(b=2, a=1)),
    "OrderedDict and dict": (OrderedDict(a=1), {"a": 1}),
    "defaultdict and dict": (defaultdict(list, a=1), {"a": 1}),
    "two defaults": (defaultdict(list, a=1), defaultdict(int, a=1)),
    "Counter and dict": (Counter(a=1), {"a": 1}),
    "zones of one offset": (NOON.replace(tzinfo=BERLIN), NOON.replace(tzinfo=LAGOS)),
    "zone and offset": (NOON.replace(tzinfo=BERLIN), NOON.replace(tzinfo=HOUR)),
    "zone and none": (NOON.replace(tzinfo=BERLIN), NOON),
    "times in two zones": (dt.time(12, tzinfo=BERLIN), dt.time(12, tzinfo=LAGOS)),
    "time and none": (dt.time(12, tzinfo=BERLIN), dt.time(12)),
    "one instant": (NOON.replace(tzinfo=BERLIN), NOON.replace(hour=11, tzinfo=dt.UTC)),
    "folds": (NOON, NOON.replace(fold=1)),
    "date and datetime": (dt.date(2024, 1, 1), dt.datetime(2024, 1, 1)),  # noqa: DTZ001
    "zones themselves": (BERLIN, LAGOS),
    "offsets themselves": (HOUR, dt.UTC),
    "an offset and one with a name": (HOUR, dt.timezone(dt.timedelta(hours=1), "CET")),
    "UUID and its text": (UUID(int=7), str(UUID(int=7))),
    "MultiDict with fewer": (werk.MultiDict(PAIRS), werk.MultiDict(PAIRS[:1] + PAIRS[2:])),
    "MultiDict with fewer at first": (werk.MultiDict(PAIRS), werk.MultiDict(PAIRS[1:])),
    "MultiDict in another order": (werk.MultiDict(PAIRS), werk.MultiDict([PAIRS[1], PAIRS[0]])),
    "MultiDict and dict": (werk.MultiDict({"a": "1"}), {"a": "1"}),
    "ImmutableMultiDict": (werk.ImmutableMultiDict(PAIRS), werk.ImmutableMultiDict(PAIRS[:1])),
    "CombinedMultiDict": (
        werk.CombinedMultiDict([werk.MultiDict(PAIRS[:1]), werk.MultiDict(PAIRS[1:])]),
        werk.CombinedMultiDict([werk.MultiDict(PAIRS[:1]), werk.MultiDict(PAIRS[2:])]),
    ),
    "werkzeug's Headers": (werk.Headers(PAIRS), werk.Headers(PAIRS[1:])),
    "QueryDict": (QueryDict("id=1&id=2"), QueryDict("id=2")),
    "QueryDicts of two encodings": (QueryDict("a=1"), QueryDict("a=1", encoding="latin-1")),
    "MultiValueDict": (MultiValueDict({"a": [1, 2]}), MultiValueDict({"a": [2]})),
    "multidict": (multidict.MultiDict(PAIRS), multidict.MultiDict(PAIRS[1:])),
    "multidict of headers": (multidict.CIMultiDict(PAIRS), multidict.CIMultiDict(PAIRS[1:])),
    "multidict's proxy": (
        multidict.CIMultiDictProxy(multidict.CIMultiDict(PAIRS)),
        multidict.CIMultiDictProxy(multidict.CIMultiDict(PAIRS[1:])),
    ),
    "QueryParams": (star.QueryParams("id=1&id=2"), star.QueryParams("id=2")),
    "FormData": (star.FormData(PAIRS), star.FormData(PAIRS[1:])),
    "starlette's Headers": (
        star.Headers(raw=[(b"a", b"1"), (b"a", b"2")]),
        star.Headers(raw=[(b"a", b"1")]),
    ),
    "safe text and text": (mark_safe("<b>"), "<b>"),
    "markup and text": (markupsafe.Markup("<b>"), "<b>"),
    "classes": (Point, Pixel),
    "__cache_key__": (Keyed(1), Keyed(2)),
    "__cache_key__ of two classes": (Keyed(1), KeyedToo(1)),
    "__cache_key__ of a slot": (KeyedByProperty(1), KeyedByProperty(2)),
}
REFUSED = {
    "builtins.object": object(),
    "test_argument_types.Loose": loose(),
    # The sender of the JSON would choose the key.
    "munch.Munch": munch.munchify({"user": "bob", "__cache_key__": "x"}),
    "box.box.Box": box.Box({"user": "bob", "__cache_key__": "x"}),
    "addict.addict.Dict": addict.Dict({"user": "bob", "__cache_key__": "x"}),
    "types.SimpleNamespace": SimpleNamespace(user="bob", __cache_key__="x"),
    "Loose, with an attribute": loose(user="bob", __cache_key__="x"),
    "unittest.mock.Mock": Mock(__cache_key__="x"),
    "unittest.mock.MagicMock": MagicMock(),
    # Subclasses may hold more than their base shows.
    "test_argument_types.Money": Money(5),
    "test_argument_types.Name": Name("a"),
    "test_argument_types.Tagged": Tagged(a=1),
    "test_argument_types.Numbers": Numbers([1]),
    "multidict istr": multidict.istr("a"),
    "collections.UserDict": UserDict(a=1),
    "pandas Timestamp": pd.Timestamp(2024, 1, 1, 12, nanosecond=1),
    "pandas Timedelta": pd.Timedelta(1, "ns"),
    "pandas NaT": pd.NaT,
    # So may instances that were given attributes, and classes that declare other fields.
    "Weighted, with more": changed(Weighted(1, 2), weight=3),
    "Prepared": Prepared(1, start=2),
    "Headed": Headed("a"),
    "Derived": Derived("a"),
    "Query, with more": changed(Query(["a"]), tenant=1),
    "Hiding": Hiding(1),
    "OrderedDict, with more": changed(OrderedDict(a=1), tenant=1),
    "MultiDict, with more": changed(werk.MultiDict(PAIRS), tenant=1),
    "a field that is refused": Filter("a", ([object()],)),
    # Models and rows of databases, and what stands in for them.
    "Body": Body(name="a"),
    "Struct": Struct(1),
    "Account": Account(id=1),
    "Order": Order(id=1),
    "Article": Article(id=1, title="News"),
    "SimpleLazyObject": SimpleLazyObject(lambda: Keyed(1)),
    "lazystr": lazystr("a"),
    "LocalProxy": werkzeug.local.LocalProxy(lambda: "a"),
    "UploadFile": star.FormData([("f", star.UploadFile(file=None))]),
    # A view of all that a request has.
    "EnvironHeaders": werk.EnvironHeaders({"HTTP_COOKIE": "a", "REMOTE_USER": "bob"}),
    # Arrays, frames, and numbers that no number of Python's equals.
    "numpy.ndarray": np.array([1]),
    "numpy.longdouble": np.longdouble(1),
    "numpy.complex128": np.complex128(1),
    "numpy.datetime64": np.datetime64("2024-01-01"),
    "pandas DataFrame": pd.DataFrame({"a": [1]}),
    "pandas Series": pd.Series([1]),
    # Zones without a name.
    "dateutil's zones and such": NOON.replace(tzinfo=Zone()),
    "a time in such a zone": dt.time(12, tzinfo=Zone()),
    # Classes that another could be mistaken for.
    "a class made for one request": type("Filter", (), {}),
    "a local class": type("Local", (), {"tenant": 1}),
    "a member of such an enum": other_enum(ADMIN=1).ADMIN,
    "such a named tuple": namedtuple("Point", "x y")(1, 2),  # noqa: PYI024 - as above
    "such a dataclass": dataclasses.make_dataclass("Filter", ["name"])("a"),
    "a generic alias": list[int],
    # The rest.
    "complex": 1j,
    "bytearray": bytearray(b"a"),
    "memoryview": memoryview(b"a"),
    "range": range(3),
    "deque": deque([1]),
    "ChainMap": ChainMap({"a": 1}),
    "MappingProxyType": MappingProxyType({"a": 1}),
    "Fraction": Fraction(1, 2),
    "Path": pathlib.Path("a"),
    "IPv4Address": ipaddress.IPv4Address("10.0.0.1"),
    "a function": len,
    "a lambda": lambda: 1,
    "a generator": (each for each in ()),
    "a view": {"a": 1}.keys(),
    "Ellipsis": ...,
}


@pytest.mark.parametrize("name", EQUAL)
def test_equal_arguments_are_one_call(name):
    """They have one key, also within a container."""
    one, other = EQUAL[name]
    assert canonical(one) == canonical(other)
    assert canonical([{"k": one}]) == canonical([{"k": other}])


@pytest.mark.parametrize("name", DIFFERENT)
def test_different_arguments_are_two_calls(name):
    """They have two keys, whether types are compared or not."""
    one, other = DIFFERENT[name]
    assert canonical(one) != canonical(other)
    assert canonical(one, typed=True) != canonical(other, typed=True)
    assert canonical((1, one)) != canonical((1, other))


@pytest.mark.parametrize("name", REFUSED)
def test_other_arguments_are_refused(name):
    """The error names the argument, the type with its module, and the ways out."""
    keys = KeyBuilder(whatever, KeySpec())
    for value in (REFUSED[name], [REFUSED[name]], {"k": REFUSED[name]}):
        with pytest.raises(KeyBuildError, match="argument 'value'") as raised:
            keys.key((value,), {}, "")
        assert "key=… or ignore=('value',), or the type a __cache_key__" in str(raised.value)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (np.array([1]), "numpy.ndarray"),
        (munch.Munch(a=1), "munch.Munch, a subclass of dict that may hold more"),
        (Article(id=1), f"{Article.__module__}.Article"),
        (NOON.replace(tzinfo=Zone()), f"a zone of type {Zone.__module__}.Zone"),
        (type("Filter", (), {}), f"the class {__name__}.Filter, which is not found"),
    ],
)
def test_the_type_is_named_with_its_module(value, named):
    """Two libraries may have a type of one name."""
    with pytest.raises(KeyBuildError) as raised:
        KeyBuilder(whatever, KeySpec()).key((value,), {}, "")
    assert named in str(raised.value)


@pytest.mark.parametrize("value", [np.int64(1), np.bool_(True), np.float64(1), np.str_("a")])  # noqa: FBT003
def test_types_of_numbers_may_be_told_apart(value):
    """`typed` tells those of NumPy from Python's, too."""
    assert canonical(value) == canonical(value.item())
    assert canonical(value, typed=True) != canonical(value.item(), typed=True)


def test_a_cache_key_is_checked_as_strictly():
    """A list of objects is refused there as elsewhere, and so is an attr-dict."""
    for given in ([object()], munch.Munch(a=1)):
        with pytest.raises(KeyBuildError, match="argument 'value', a value of type"):
            KeyBuilder(whatever, KeySpec()).key((Keyed(given),), {}, "")


def whatever(value):
    """Stand for any function."""
    return value
