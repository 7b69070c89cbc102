"""Templates of keys are as strict as the automatic key, and their fields never run into each other."""

from __future__ import annotations

import datetime as dt
import enum
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.core.key_building.arguments import UnkeyableError
from shardcache.core.key_building.templates import Template

NOON = dt.datetime(2024, 1, 1, 12)  # noqa: DTZ001 - what becomes of such is asked here
HOUR = dt.timedelta(hours=1)


class Colour(enum.Enum):
    """An enum."""

    RED = 1


class Word(enum.StrEnum):
    """Texts with names."""

    YES = "yes"


class User:
    """An object with an attribute, and no text of its own."""

    def __init__(self, number):
        self.id = number
        self.names = {"first": "Ada"}

    @property
    def broken(self):
        """Fail as a lazy attribute of a model may."""
        raise RuntimeError("no such row")


class Titled(User):
    """An object whose text is for readers."""

    def __str__(self):
        """Return the same for many."""
        return "News"


class Spelled(User):
    """An object that can be written in several forms."""

    def __format__(self, form):
        """Return the number in a form."""
        return f"{self.id:{form}}"


class Text(str):
    """A text with more to it."""

    __slots__ = ("language",)


def key(template, **arguments):
    """Return a template's key."""
    return Template(template).key(arguments)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        ("", ""),
        ("é b", "é b"),
        (7, "7"),
        (-1.5, "-1.5"),
        (True, "True"),
        (None, "None"),
        (Decimal("1.50"), "1.50"),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (NOON.date(), "2024-01-01"),
        (NOON, "2024-01-01 12:00:00"),
        (NOON.time(), "12:00:00"),
        (NOON.replace(tzinfo=dt.UTC), "2024-01-01 12:00:00+00:00"),
        (NOON.replace(tzinfo=ZoneInfo("Africa/Lagos")), "2024-01-01 12:00:00+01:00[Africa/Lagos]"),
        (NOON.replace(tzinfo=dt.timezone(HOUR)), "2024-01-01 12:00:00+01:00"),
        (NOON.replace(tzinfo=dt.timezone(HOUR, "CET")), "2024-01-01 12:00:00+01:00[=CET]"),
        (NOON.time().replace(tzinfo=dt.timezone(HOUR, "WAT")), "12:00:00+01:00[=WAT]"),
        (NOON.replace(fold=1), "2024-01-01 12:00:00/1"),
        (dt.timedelta(hours=1), "1:00:00"),
        (Colour.RED, "Colour.RED"),
        (Word.YES, "yes"),
        (np.int64(7), "7"),
    ],
)
def test_plain_values_stay_readable(value, text):
    """Other programs find the value under the key as written."""
    assert key("user:{it}", it=value) == f"user:{text}"
    assert Template("user:{it}").tag({"it": value}) == f"user:{text}"


def test_attributes_items_and_formats_are_used_as_written():
    """The author of a template says what tells two values apart."""
    user = User(7)
    assert key("{user.id}/{user.names[first]}", user=user) == "7/Ada"
    assert key("{day:%Y-%m}", day=NOON) == "2024-01"
    assert key("{number:04}", number=7) == "0007"
    assert key("{number:{width}}", number=7, width="03") == "007"
    assert key("{user!s}", user=Titled(7)) == "News"
    assert key("{user:03}", user=Spelled(7)) == "007"
    assert key("{{{it}}}", it=1) == "{1}"
    assert Template("{user.id}:{number:{width}}").names == {"user", "number", "width"}


@pytest.mark.parametrize(
    "value",
    [
        User(7),
        Titled(7),
        Spelled(7),
        Text("a"),
        b"a",
        [1],
        (1,),
        {"a": 1},
        {1},
        np.array([1]),
        np.longdouble(1),
        1j,
        len,
        User,
        NOON.replace(tzinfo=type("Zone", (dt.tzinfo,), {"utcoffset": lambda *_: None})()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_without_its_own_text_is_refused(value):
    """An address, a title or a list's text would make two values one; in a tag too."""
    template = Template("{it}")
    for made in (template.key, template.tag):
        with pytest.raises(
            UnkeyableError, match=r"the field \{it\} of the template '\{it\}': "
        ) as told:
            made({"it": value})
        assert "{user.id}" in str(told.value)


@pytest.mark.parametrize("template", ["{it!s}", "{it!r}", "{it!a}", "{it!s:>60}", "{it:>60}"])
@pytest.mark.parametrize("value", [User(7), [User(7)]], ids=["object", "list of objects"])
def test_no_conversion_makes_a_key_of_an_address(template, value):
    """Another object may be at that address in the next call."""
    with pytest.raises(UnkeyableError):
        key(template, it=value)


def test_a_format_of_its_own_may_not_show_an_address():
    """Such a text is of this object alone; a text of the caller's own may hold anything."""

    class Shown(User):
        def __format__(self, form):
            return object.__repr__(self)

    with pytest.raises(UnkeyableError, match="whose text holds an address in memory"):
        key("{it:x}", it=Shown(7))
    text = "<User object at 0x7f1122334455>"
    assert key("{it}{it!s}{it:}", it=text) == key("{it}{it}{it}", it=text)
    assert key("{it:>40}", it=text) == f"{text:>40}"


@pytest.mark.parametrize(
    "template", ["{user.name}", "{user.broken}", "{user.names[last]}", "{user[0]}", "{number:%Y}"]
)
def test_a_failing_field_is_named(template):
    """Python's error is the cause."""
    with pytest.raises(UnkeyableError, match=r"the field .* failed: \w+Error") as raised:
        key(template, user=User(7), number=7)
    assert raised.value.__cause__ is not None


@pytest.mark.parametrize("template", ["{", "}", "{a!x}", "{a!}"])
def test_a_malformed_template_is_refused(template):
    """When it is written, or by the first call."""
    with pytest.raises((ValueError, UnkeyableError)):
        key(template, a=1)


def test_an_ambiguous_field_has_its_length():
    """The rest is as written."""
    assert key("{a}:{b}", a="x:y", b="z") == "%3%x:y:z"
    assert key("{a}:{b}", a="x", b="y:z") == "x:y:z"
    assert key("{a}-{b}", a=1, b=-1) == "1--1"
    assert key("{a}{b}", a=1, b=23) == "%1%123"
    assert key("{a}", a="%1%x") == "%4%%1%x"
    assert key("{a}", a="None") == "%=4%None"
    assert key("{a}{b}", a="True", b=True) == "%=4%TrueTrue"
    assert key("{a}{b}", a=True, b="True") == "%4%True%=4%True"
    assert Template("{a}:{b}").tag({"a": "x:y", "b": "z"}) == "x:y:z"


literals = st.sampled_from(["", ":", "%", "1", "-", "a", "::", "%1%", "x:"])
texts = st.text(alphabet="%:-1ax", max_size=5)
arguments = st.one_of(texts, st.sampled_from(["None", "True", None, True, False]))


@given(st.lists(literals, min_size=4, max_size=4), st.data())
def test_two_calls_never_have_one_key(between, data):
    """Whatever is between the fields, and whatever they hold."""
    first, second, third, last = between
    template = Template(f"{first}{{a}}{second}{{b}}{third}{{c}}{last}")
    one, other = (data.draw(st.tuples(arguments, arguments, arguments)) for _ in range(2))
    keys = [template.key(dict(zip("abc", each, strict=True))) for each in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


@given(st.sampled_from([":", "", "%", "1"]), texts, st.data())
def test_a_shift_between_two_fields_is_another_key(between, joined, data):
    """Each way to split a text is a call of its own."""
    template = Template(f"{{a}}{between}{{b}}")
    cuts = range(len(joined) + 1)
    one, other = (data.draw(st.sampled_from(cuts)) for _ in range(2))
    keys = [template.key({"a": joined[:cut], "b": joined[cut:]}) for cut in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)
