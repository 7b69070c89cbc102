"""What a type checker tells a user of cached methods; checked by mypy and pyright, never run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol, Self, TypeVar, assert_type

from shardcache import AsyncClient, CachedFunction, Client, cached

T = TypeVar("T")

client = Client("memory://a")
async_client = AsyncClient("memory://a")


class Report:
    """Methods of every kind, with `cached` outside, as the guide has it."""

    @client.cached(ttl=60)
    def page(self, number: int, *, size: str = "A4") -> str:
        """Be an ordinary one."""
        return f"{number} {size}"

    @client.cached(ttl=60)
    @classmethod
    def title(cls, number: int) -> str:
        """Be one of the class."""
        return f"{cls.__name__} {number}"

    @client.cached(ttl=60)
    @staticmethod
    def of(number: int, text: str = "") -> str:
        """Be one without an instance."""
        return f"{number} {text}"

    @client.cached(ttl=60)
    @staticmethod
    def named(name: str) -> bytes:
        """Be another."""
        return name.encode()

    @client.cached(ttl=60)
    @staticmethod
    def empty() -> int:
        """Be one without any argument."""
        return 0

    @async_client.cached(ttl=60)
    async def awaited_page(self, number: int) -> str:
        """Be one that is awaited."""
        return str(number)

    @cached(ttl=60)
    @classmethod
    async def awaited_title(cls, number: int) -> str:
        """Be one of the class that is awaited."""
        return f"{cls.__name__} {number}"

    @async_client.cached(ttl=60)
    @staticmethod
    async def awaited_of(number: int) -> str:
        """Be one without an instance that is awaited."""
        return str(number)

    @property
    @client.cached(ttl=60)
    def size(self) -> int:
        """Be read as an attribute."""
        return 1

    @client.cached(ttl=60)
    def first(self, items: Sequence[T]) -> T:
        """Be a generic one."""
        return items[0]

    @client.cached(ttl=60)
    def copy(self, number: int) -> Self:
        """Return one of its own class."""
        return self if number else type(self)()


class Yearly(Report):
    """A class that inherits them."""


def methods() -> None:
    """Each is called with its own arguments, on the class or on an instance."""
    assert_type(Report().page(1, size="A5"), str)
    assert_type(Yearly().page.get(1), str | None)
    assert_type(Report.page(Report(), 1), str)
    for of_class in (Report.title, Report().title, Yearly.title, Yearly().title):
        assert_type(of_class(1), str)
        assert_type(of_class.get(number=1), str | None)
    assert_type(Report.of(1, "a"), str)
    assert_type(Report().of(1, text="a"), str)
    assert_type(Report().of.invalidate(1), bool)
    assert_type(Report().named("a"), bytes)
    assert_type(Yearly.named.refresh("a"), bytes)
    assert_type(Report().empty(), int)
    assert_type(Report.empty.get(), int | None)
    assert_type(Report().size, int)
    assert_type(Report().first([1]), int)
    bound: CachedFunction[[int], str] = Report.title
    assert_type(bound(1), str)
    Report.title("one")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Report().title("one")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Report.of("one")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Report().of("one")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def awaited_methods() -> None:
    """Await the same."""
    assert_type(await Report().awaited_page(1), str)
    assert_type(await Yearly.awaited_title(1), str)
    assert_type(await Yearly().awaited_title.get(1), str | None)
    assert_type(await Report.awaited_of(1), str)
    assert_type(await Report().awaited_of.refresh(1), str)


def its_own_class() -> None:
    """Pyright knows what `Self` is; mypy loses it on the way through any decorator that is an object."""
    assert_type(Report().copy(1), Report)  # type: ignore[assert-type, call-arg, type-var]
    assert_type(Yearly().copy(1), Yearly)  # type: ignore[assert-type, call-arg, type-var]


def what_functions_have() -> None:
    """Read the attributes that every function has."""
    for function in (Report.page, Report().page, Report.title):
        assert_type(function.__name__, str)
        assert_type(function.__qualname__, str)
        assert_type(function.__module__, str)
        assert_type(function.__doc__, str | None)


@client.cached(ttl=60)
def first(items: Sequence[T]) -> T:
    """Stand for any generic function."""
    return items[0]


assert_type(first([1]), int)
assert_type(first.get(["a"]), str | None)


class Source(Protocol):
    """What is wanted of a source of pages."""

    def page(self, number: int) -> str:
        """Return a page."""
        ...


class Base(ABC):
    """What a source is made from."""

    @abstractmethod
    def page(self, number: int) -> str:
        """Return a page."""


class Cached(Base):
    """A method that overrides one: to pyright no object is a method, whatever it can do."""

    @client.cached(ttl=60)
    def page(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, number: int
    ) -> str:
        """Return a page."""
        return str(number)


class Plain(Base):
    """The same without a remark: the method calls a cached one."""

    def page(self, number: int) -> str:
        """Return a page."""
        return self._page(number)

    @client.cached(ttl=60)
    def _page(self, number: int) -> str:
        return str(number)


source: Source = Plain()
of_cached: Source = Cached()  # pyright: ignore[reportAssignmentType]
