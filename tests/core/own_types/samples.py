"""Values of own types, each with the type that a function would declare for it."""

from __future__ import annotations

import enum
import ipaddress
import math
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from http import HTTPMethod, HTTPStatus
from pathlib import PurePosixPath
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    TypedDict,
    TypeVar,
)
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import msgspec
import pydantic
from django.utils.safestring import SafeString
from markupsafe import Markup

T = TypeVar("T")
UserId = NewType("UserId", int)

NOON = datetime(2024, 5, 6, 12, 30, 15, 123456, tzinfo=UTC)
BERLIN = datetime(2024, 5, 6, 12, tzinfo=ZoneInfo("Europe/Berlin"))
ONE = UUID(int=1)


class Colour(enum.Enum):
    """An enum of text."""

    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    """An enum whose members are numbers."""

    LOW = 1
    HIGH = 2


class Kind(enum.StrEnum):
    """An enum whose members are text."""

    OPEN = "open"
    SHUT = "shut"


class Rights(enum.Flag):
    """An enum of bits."""

    READ = 1
    WRITE = 2


class Mixed(enum.Enum):
    """An enum that msgspec does not take."""

    TEXT = "text"
    PAIR = 2


@dataclass
class Point:
    """A plain dataclass."""

    x: int
    y: float = 0.0


@dataclass(frozen=True)
class Frozen:
    """A dataclass that cannot be changed."""

    name: str
    kind: Kind = Kind.OPEN


@dataclass(slots=True)
class Slotted:
    """A dataclass without a dict."""

    at: datetime
    tags: set[str] = field(default_factory=set)


@dataclass
class Nested:
    """A dataclass of all the others, and of what msgpack keeps."""

    points: list[Point]
    frozen: Frozen | None
    slotted: dict[str, Slotted]
    colour: Colour
    pair: tuple[int, str]
    identity: UUID
    price: Decimal
    day: date
    hour: time
    lasts: timedelta
    members: frozenset[int]
    parent: Nested | None = None


@dataclass
class WithBytes:
    """A dataclass of bytes."""

    data: bytes


@dataclass(eq=False)
class WithoutEquality:
    """A dataclass whose instances are equal to nothing."""

    ratio: float


@dataclass
class Anything:
    """A dataclass that does not say what it holds."""

    value: Any


@dataclass
class Page(Generic[T]):
    """A generic dataclass."""

    items: list[T]


@dataclass
class WithPath:
    """A dataclass of what msgspec does not take, and Pydantic does."""

    path: PurePosixPath
    address: ipaddress.IPv4Address
    mixed: Mixed = Mixed.PAIR


@dataclass
class Dog(Point):
    """A subclass, which a declared `Point` would lose."""

    name: str = "Rex"


class Pair(NamedTuple):
    """A named tuple."""

    left: int
    right: str = "r"


class Row(TypedDict):
    """A typed dict."""

    identity: int
    at: NotRequired[datetime]


@attrs.frozen
class Attrs:
    """An attrs class."""

    x: int
    at: datetime
    others: list[Attrs] = attrs.field(factory=list)


@attrs.define
class AttrsWithPrivate:
    """An attrs class with a field that msgspec leaves out."""

    x: int
    _hidden: int = 0


class Struct(msgspec.Struct, frozen=True):
    """A Struct of msgspec's."""

    x: int
    kind: Kind
    others: tuple[Struct, ...] = ()


class Cat(msgspec.Struct, tag=True):
    """One of a tagged union."""

    lives: int


class Cow(msgspec.Struct, tag=True):
    """The other of a tagged union."""

    litres: float


class Inner(pydantic.BaseModel):
    """A model within a model."""

    at: datetime
    colour: Colour = Colour.RED
    path: PurePosixPath = PurePosixPath("/")
    other_name: int = pydantic.Field(1, alias="otherName")


class Model(pydantic.BaseModel):
    """A model of Pydantic's."""

    model_config = pydantic.ConfigDict(strict=True)

    identity: UUID
    inner: Inner
    many: list[Inner] = []
    by_number: dict[int, Kind] = {}
    price: Decimal = Decimal("1.10")
    pair: tuple[int, str] = (1, "one")
    members: set[int] = set()
    point: Point | None = None

    @pydantic.computed_field
    @property
    def computed(self) -> int:
        """Follow from the fields."""
        return 2 * self.pair[0]


class Box(pydantic.BaseModel, Generic[T]):
    """A generic model."""

    content: T


class Numbers(pydantic.RootModel[list[int]]):
    """A model without fields."""


class Open(pydantic.BaseModel, extra="allow"):
    """A model that keeps what it does not know."""

    x: int


class Closed(pydantic.BaseModel, extra="forbid"):
    """A model that refuses what it does not know, and dumps more than its fields."""

    x: int

    @pydantic.computed_field
    @property
    def computed(self) -> int:
        """Follow from the field."""
        return 2 * self.x


class Hiding(pydantic.BaseModel):
    """A model with state beside its fields."""

    x: int
    _private: int = pydantic.PrivateAttr(0)


class Bytes(pydantic.BaseModel):
    """A model of bytes."""

    data: bytes


class Stamped(Bytes):
    """A model of bytes and a time, whose zone is Pydantic's own."""

    at: datetime


class Ambiguous(pydantic.BaseModel):
    """A model of a value that is like another in JSON."""

    identity: UUID | str


class Secretive(pydantic.BaseModel):
    """A model that does not dump what it holds."""

    word: pydantic.SecretStr


class Wider(Inner):
    """A subclass, which a declared `Inner` would lose."""

    more: int = 0


@pydantic.dataclasses.dataclass
class Validated:
    """A dataclass of Pydantic's."""

    x: int


@dataclass
class Holder:
    """A plain dataclass that holds a model."""

    inner: Inner


class Shout(str):
    """A subclass of `str` that nobody knows."""

    __slots__ = ()


def hiding(private):
    """Return a model with another private attribute."""
    model = Hiding(x=1)
    model._private = private
    return model


NESTED = Nested(
    points=[Point(1), Point(2, 2.5)],
    frozen=Frozen("f", Kind.SHUT),
    slotted={"s": Slotted(NOON, {"a"})},
    colour=Colour.BLUE,
    pair=(1, "one"),
    identity=ONE,
    price=Decimal("9.90"),
    day=date(2024, 5, 6),
    hour=time(1, 2, 3),
    lasts=timedelta(days=1, microseconds=2),
    members=frozenset({1, 2}),
)
INNER = Inner(at=NOON, otherName=7)
MODEL = Model(
    identity=ONE,
    inner=INNER,
    many=[INNER],
    by_number={1: Kind.SHUT},
    members={1, 2},
    point=Point(1),
)

# Each comes back equal and of the same types, by every codec that stores more than bytes.
RESTORED: list[tuple[Any, Any]] = [
    (Point, Point(1, 2.5)),
    (list[Point], [Point(1), Point(2)]),
    (dict[str, Point], {"a": Point(1)}),
    (dict[int, Point], {1: Point(1)}),
    (Optional[Point], None),  # noqa: UP045 - another object than `Point | None`
    (Point | None, Point(1)),
    (Frozen, Frozen("f", Kind.SHUT)),
    (Slotted, Slotted(NOON, {"a", "b"})),
    (Nested, NESTED),
    (list[Nested], [Nested(**{**vars(NESTED), "parent": NESTED})]),
    (WithBytes, WithBytes(b"\xff\x00")),
    (WithoutEquality, WithoutEquality(1.5)),
    (Anything, Anything({"a": [1, None, "x"]})),
    (Page[Point], Page([Point(1)])),
    (WithPath, WithPath(PurePosixPath("/x"), ipaddress.IPv4Address("10.0.0.1"), Mixed.PAIR)),
    (Pair, Pair(1)),
    (tuple[Pair, ...], (Pair(1), Pair(2, "x"))),
    (Row, {"identity": 1, "at": NOON}),
    (list[Row], [{"identity": 1}]),
    (Attrs, Attrs(1, NOON, [Attrs(2, NOON)])),
    (Struct, Struct(1, Kind.OPEN, (Struct(2, Kind.SHUT),))),
    (list[Cat | Cow], [Cat(9), Cow(2.5)]),
    (Colour, Colour.RED),
    (Level, Level.HIGH),
    (Kind, Kind.SHUT),
    (Rights, Rights.READ | Rights.WRITE),
    (Mixed, Mixed.PAIR),
    (set[Kind], {Kind.OPEN, Kind.SHUT}),
    (dict[Kind, Level], {Kind.OPEN: Level.LOW}),
    (Point | Frozen, Frozen("f")),
    (list[Point | Frozen], [Point(1), Frozen("f")]),
    (int | str | None, "text"),
    (list[int | str], [1, "1"]),
    (Literal["a", 1], "a"),
    (UserId, UserId(7)),
    (Annotated[list[Point], "noted"], [Point(1)]),
    (Annotated[int, msgspec.Meta(gt=0)], 7),
    (Annotated[list[Point], pydantic.Field(max_length=3)], [Point(1)]),
    (Sequence[Point], [Point(1)]),
    (Mapping[str, Point], {"a": Point(1)}),
    (datetime, NOON),
    (datetime, NOON.replace(tzinfo=None)),
    (datetime, NOON.astimezone(timezone(timedelta(hours=2)))),
    (date, date(2024, 5, 6)),
    (timedelta, timedelta(1, 2, 3)),
    (UUID, ONE),
    (Decimal, Decimal("1.10")),
    (list[Decimal], [Decimal("1.10"), Decimal("-3E+5")]),
    (bytes, b"\xff"),
    (float, 1.5),
    (Markup, Markup("<b>")),
    (list[Markup], [Markup("<b>")]),
    (SafeString | None, SafeString("<b>")),
    (HTTPStatus, HTTPStatus.NOT_FOUND),
    (HTTPMethod, HTTPMethod.PUT),
    (Model, MODEL),
    (list[Model], [MODEL, MODEL]),
    (Model | None, None),
    (dict[str, Inner], {"a": INNER}),
    (Box[Inner], Box[Inner](content=INNER)),
    (Box[int], Box[int](content=1)),
    (Numbers, Numbers([1, 2])),
    (Open, Open(x=1, more="kept")),
    (Closed, Closed(x=1)),
    (Hiding, hiding(0)),
    (Inner, Inner.model_validate_json('{"at": "2024-05-06T12:30:00+02:00"}')),
    (Validated, Validated(1)),
    (Holder, Holder(INNER)),
    (list[Holder | None], [Holder(INNER), None]),
]

# The same, but JSON has no such numbers and bytes, and nothing says what a text was.
BEYOND_JSON: list[tuple[Any, Any]] = [
    (WithoutEquality, WithoutEquality(math.nan)),
    (float, math.inf),
    (datetime, BERLIN),
    (list[Slotted], [Slotted(BERLIN)]),
    (Inner, Inner(at=BERLIN, otherName=1)),
    (Anything, Anything(NOON)),
    (Anything, Anything({"a": [ONE, Decimal(1)]})),
    (Anything, Anything((1, 2))),
    (Anything, Anything({1: 2})),
    (Bytes, Bytes(data=b"\xff")),
    (Ambiguous, Ambiguous(identity=ONE)),
    (Stamped, Stamped(data=b"\xff", at="2024-05-06T12:30:00+02:00")),
    (Stamped, Stamped(data=b"\xff", at="2024-05-06T12:30:00")),
    (Stamped, Stamped(data=b"\xff", at=BERLIN)),
]

# Each is refused when it is to be stored, by every codec: it would come back as something else.
REFUSED: list[tuple[Any, Any]] = [
    (Point, Dog(1)),
    (list[Point], [Point(1), Dog(2)]),
    (list[Point], (Point(1),)),
    (Point, {"x": 1, "y": 2.0}),
    (Point, Point("text")),
    (Point, None),
    (Pair, (1, "r")),
    (Row, {"identity": 1, "unknown": 2}),
    (AttrsWithPrivate, AttrsWithPrivate(1, hidden=2)),
    (Anything, Anything(Point(1))),
    (Anything, Anything(Kind.OPEN)),
    (Anything, Anything({Kind.OPEN: 1})),
    (Anything, Anything(Markup("<b>"))),
    (Any, Point(1)),
    (str, Shout("x")),
    (str, Kind.OPEN),
    (Inner, Wider(at=NOON)),
    (list[Inner], [Wider(at=NOON)]),
    (Inner, {"at": NOON}),
    (Hiding, hiding(1)),
    (Secretive, Secretive(word="hunter2")),
    (Model, Model.model_construct(identity="text")),
]

# Subclasses of built-in types that the default codec keeps without a declared type.
SUBCLASSES: list[Any] = [
    Markup("<b>&amp;</b>"),
    Markup(""),
    SafeString("<b>"),
    HTTPStatus.NOT_FOUND,
    HTTPMethod.PUT,
    OrderedDict(b=1, a=(2, 3)),
    OrderedDict({(1, 2): Markup("x")}),
    Counter("abracadabra"),
    Counter(),
    {Markup("key"): [SafeString("value"), OrderedDict()]},
]
