"""Types of many libraries, and of programs, whose objects a cached function may be called with."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import typing
from collections import namedtuple
from decimal import Decimal
from functools import cached_property

import attrs
import django
import msgspec
import pydantic
import sqlalchemy.orm
from django.conf import settings
from django.db import models

if not settings.configured:  # once for all tests of one run
    settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="x")
    django.setup()


class Colour(enum.Enum):
    """An enum with an alias."""

    RED = 1
    BLUE = 2
    CRIMSON = 1  # noqa: PIE796 - as meant


class Level(enum.IntEnum):
    """Numbers with names."""

    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    """Texts with names."""

    YES = "yes"


class Access(enum.Flag):
    """Members that are combined."""

    READ = 1
    WRITE = 2


class Plan(models.TextChoices):
    """Django's choices."""

    FREE = "free", "Free"
    PAID = "paid", "Paid"


class Money(Decimal):
    """A number with a currency."""

    currency = "EUR"


class Name(str):
    """A text with more to it."""

    __slots__ = ("language",)


class Tagged(dict):
    """A dict with more to it."""

    tenant = None


class Numbers(list):
    """A list with more to it."""


class Point(typing.NamedTuple):
    """A named tuple."""

    x: int
    y: int


Pixel = namedtuple("Pixel", "x y")  # noqa: PYI024 - as older code has it


class Weighted(Pixel):
    """A named tuple that can hold more."""


@dataclasses.dataclass(frozen=True)
class Filter:
    """A frozen dataclass."""

    name: str
    limits: tuple = ()


@dataclasses.dataclass
class Query:
    """A dataclass that may change, and remembers what it has computed."""

    words: list
    page: int = 1

    @cached_property
    def text(self):
        """Return all words as one text."""
        return " ".join(self.words)


@dataclasses.dataclass(slots=True)
class Slotted:
    """A dataclass with slots."""

    x: int


@dataclasses.dataclass
class Prepared:
    """A dataclass that keeps what is no field."""

    x: int
    start: dataclasses.InitVar = 0

    def __post_init__(self, start):
        """Keep where it starts."""
        self.begins = start


@dataclasses.dataclass
class Headed(dict):
    """A dataclass over a dict."""

    head: str = ""


class Tenanted:
    """A base whose objects hold something."""

    __slots__ = ("tenant",)


@dataclasses.dataclass
class Hiding(Tenanted):
    """A dataclass that inherits a slot, which is no field."""

    x: int


class Derived(Filter):
    """A class that inherits from a dataclass, and is none."""


@attrs.frozen
class Range:
    """An attrs class."""

    low: int
    high: int = 10


class Body(pydantic.BaseModel):
    """A request's body."""

    name: str
    age: int | None = None


class Struct(msgspec.Struct):
    """A msgspec struct."""

    x: int


class Row(sqlalchemy.orm.DeclarativeBase):
    """The base of mapped classes."""


class Account(Row):
    """A mapped class."""

    __tablename__ = "account"
    id: sqlalchemy.orm.Mapped[int] = sqlalchemy.orm.mapped_column(primary_key=True)


class MappedRow(sqlalchemy.orm.MappedAsDataclass, sqlalchemy.orm.DeclarativeBase):
    """The base of mapped dataclasses."""


class Order(MappedRow):
    """A mapped dataclass."""

    __tablename__ = "order"
    id: sqlalchemy.orm.Mapped[int] = sqlalchemy.orm.mapped_column(primary_key=True)


class Article(models.Model):
    """A model of Django, whose text is its title."""

    title = models.CharField(max_length=9)

    class Meta:
        """No application has it."""

        app_label = "shop"

    def __str__(self):
        """Return what a page shows."""
        return self.title


class Keyed:
    """A class that says what its objects are known by."""

    def __init__(self, number):
        self.number = number

    def __cache_key__(self):
        """Return the number."""
        return self.number


class KeyedToo(Keyed):
    """Another class with the same numbers."""


class KeyedDict(dict):
    """A dict that says what it is known by."""

    def __cache_key__(self):
        """Return one of its items."""
        return self["id"]


class KeyedByProperty:
    """A class with an attribute for it."""

    __slots__ = ("__cache_key__",)

    def __init__(self, key):
        self.__cache_key__ = key


class Zone(dt.tzinfo):
    """A zone of some library."""

    def utcoffset(self, when):
        """Return what another zone may have, too."""
        del when
        return dt.timedelta(hours=1)


class Loose:
    """A class that says nothing."""


def loose(**attributes):
    """Return an object with attributes, `__cache_key__` among them."""
    made = Loose()
    vars(made).update(attributes)
    return made


def changed(value, **attributes):
    """Return a value with further attributes."""
    for name, each in attributes.items():
        setattr(value, name, each)
    return value


def asked(query):
    """Return a query that has computed its text."""
    assert query.text
    return query


def other_enum(**members):
    """Return an enum as a request might make one: of one name, with members of its own."""
    return enum.Enum("Role", members, module=__name__)
