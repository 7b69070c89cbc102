"""A cached function passes for the function it wraps, to frameworks and to the standard library."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import doctest
import functools
import inspect
import pickle
import pydoc
import sys
import typing
import weakref
from unittest import mock

import pytest

import shardcache
from shardcache import (
    AsyncCachedFunction,
    AsyncClient,
    CachedFunction,
    Client,
    ConfigurationError,
    UncacheableResultError,
)

blocking = Client("memory://a,b,c")
awaiting = AsyncClient("memory://a,b,c")


@blocking.cached(ttl=60)
def item(number: int, size: str = "M") -> dict[str, int | str]:
    """Return an item.

    >>> item(7)
    {'number': 7, 'size': 'M'}
    """
    return {"number": number, "size": size}


@awaiting.cached(ttl=60)
async def awaited_item(number: int, size: str = "M") -> dict[str, int | str]:
    """Return an item, when awaited."""
    return {"number": number, "size": size}


class Shop:
    """A class with cached functions of each kind."""

    def __init__(self, number: int = 1) -> None:
        self.number = number

    def __cache_key__(self) -> int:
        return self.number

    @blocking.cached(ttl=60)
    def item(self, number: int) -> dict[str, int]:
        """Return what differs between shops."""
        return {"shop": self.number, "number": number}

    @awaiting.cached(ttl=60)
    async def awaited_item(self, number: int) -> dict[str, int]:
        """Return the same when awaited."""
        return {"shop": self.number, "number": number}

    @blocking.cached(ttl=60)
    @classmethod
    def of_class(cls, number: int) -> str:
        """Return what differs between classes."""
        return f"{cls.__name__} {number}"

    @blocking.cached(ttl=60)
    @staticmethod
    def static(number: int) -> int:
        """Return what is the same for all."""
        return number

    @property
    @blocking.cached(ttl=60)
    def size(self) -> int:
        """Return a cached property."""
        return 10 * self.number


class Kiosk(Shop):
    """A class that extends a cached method."""

    def item(self, number: int) -> dict[str, int]:
        """Return what the shop has, and a mark."""
        return {**super().item(number), "kiosk": 1}


class Controls:
    """A class without cached functions, to compare with."""

    def method(self, number: int) -> dict[str, int]:
        """Do what the cached one does."""
        return {"number": number}


def of_item(number: int, size: str = "M") -> dict[str, int | str]:
    """Return an item."""
    return {"number": number, "size": size}


FUNCTIONS = {"blocking": item, "asyncio": awaited_item}
METHODS = {"blocking": Shop(3).item, "asyncio": Shop(3).awaited_item}


@pytest.mark.parametrize("world", FUNCTIONS)
class TestInspect:
    """What `inspect` and `typing` say is what they say of the function."""

    def test_of_a_function(self, world):
        """It is a function, with code, annotations and signature of its own."""
        f = FUNCTIONS[world]
        assert inspect.isfunction(f)
        assert inspect.isroutine(f)
        assert callable(f)
        assert not inspect.ismethod(f)
        assert not inspect.ismethod(f.__call__)
        assert inspect.iscoroutinefunction(f) is (world == "asyncio")
        assert inspect.signature(f) == inspect.signature(of_item)
        assert inspect.signature(f, follow_wrapped=False) == inspect.signature(of_item)
        assert inspect.getfullargspec(f).args == ["number", "size"]
        assert typing.get_type_hints(f) == typing.get_type_hints(of_item)
        assert f.__code__ is f.__wrapped__.__code__
        assert f.__globals__ is globals()
        assert inspect.getsourcefile(f) == __file__
        assert (f.__module__, f.__doc__) == (f.__wrapped__.__module__, f.__wrapped__.__doc__)
        assert isinstance(f, (CachedFunction, AsyncCachedFunction))

    def test_of_a_method(self, world):
        """It is a method, bound to its instance, and equal to itself when it is bound again."""
        shop = Shop(5)
        name = "item" if world == "blocking" else "awaited_item"
        m = getattr(shop, name)
        assert inspect.ismethod(m)
        assert inspect.isroutine(m)
        assert not inspect.isfunction(m)
        assert inspect.iscoroutinefunction(m) is (world == "asyncio")
        assert inspect.signature(m) == inspect.signature(Controls().method)
        assert typing.get_type_hints(m) == typing.get_type_hints(Controls.method)
        assert m.__self__ is shop
        assert m.__func__ is vars(Shop)[name] is getattr(Shop, name)
        assert (m.__name__, m.__qualname__) == (name, f"Shop.{name}")
        assert (m.__module__, m.__doc__) == (__name__, vars(Shop)[name].__doc__)
        assert m == getattr(shop, name)
        assert hash(m) == hash(getattr(shop, name))
        assert m != getattr(Shop(5), name)
        assert inspect.isfunction(getattr(Shop, name))
        assert isinstance(m, (CachedFunction, AsyncCachedFunction))

    def test_it_is_referred_to_weakly(self, world):
        """A function as any object; a method for as long as its instance lives."""
        assert weakref.ref(FUNCTIONS[world])() is FUNCTIONS[world]
        shop = Shop(5)
        m = shop.item if world == "blocking" else shop.awaited_item
        weak = weakref.WeakMethod(m)
        assert weak() == m
        assert weak().key_for.__self__ == m
        del m, shop
        assert weak() is None


def test_class_and_static_methods_are_such():
    """In the class and out of it."""
    assert isinstance(vars(Shop)["of_class"], classmethod)
    assert isinstance(vars(Shop)["static"], staticmethod)
    assert inspect.ismethod(Shop.of_class)
    assert Shop.of_class.__self__ is Shop
    assert Kiosk().of_class.__self__ is Kiosk
    assert inspect.isfunction(Shop.static)
    assert inspect.isfunction(Shop().static)
    assert str(inspect.signature(Shop().of_class)) == "(number: 'int') -> 'str'"
    assert str(inspect.signature(Shop().static)) == "(number: 'int') -> 'int'"
    kinds = {each.name: each.kind for each in inspect.classify_class_attrs(Shop)}
    assert (kinds["of_class"], kinds["static"], kinds["item"]) == (
        "class method",
        "static method",
        "method",
    )


def test_each_kind_of_method_knows_what_it_is_bound_to():
    """The extras take what a call takes."""
    assert (Shop(2).item(7), Kiosk(2).item(7)["kiosk"]) == ({"shop": 2, "number": 7}, 1)
    assert Shop(2).item.get(7) == {"shop": 2, "number": 7}
    assert Shop.item(Shop(2), 7) == Shop.item.get(Shop(2), 7) == {"shop": 2, "number": 7}
    assert (Shop.of_class(1), Kiosk().of_class(1), Kiosk.of_class.get(1)) == (
        "Shop 1",
        "Kiosk 1",
        "Kiosk 1",
    )
    assert (Shop.static(4), Shop().static.get(4)) == (4, 4)
    assert Shop(4).size == 40
    assert Shop.static.cache_info().misses == 1
    assert Shop(2).item.invalidate(7) is True
    assert Shop(2).item.bypass(7) == Shop(2).item.__wrapped__(7) == {"shop": 2, "number": 7}


def test_a_mock_takes_what_the_function_takes():
    """`create_autospec` refuses a call that the function would refuse, and is awaited if that is."""
    double = mock.create_autospec(item, return_value=1)
    assert double(7, size="L") == 1
    awaited = mock.create_autospec(awaited_item, return_value=1)
    assert asyncio.run(awaited(7, size="L")) == 1
    for each in (double, awaited):
        with pytest.raises(TypeError, match="too many"):
            asyncio.run(each(7, "L", "too much"))


def test_a_mock_of_a_class_takes_what_its_methods_take():
    """Of each kind, and without their instance."""
    double = mock.create_autospec(Shop, instance=True)
    for method in (double.item, double.of_class, double.static):
        method(7)
        with pytest.raises(TypeError):
            method()
        with pytest.raises(TypeError):
            method(7, 8)
    of_class = mock.create_autospec(Shop)
    of_class.static(7)
    of_class.of_class(7)
    with pytest.raises(TypeError):
        of_class.static(7, 8)


def test_it_can_be_patched():
    """As an attribute of a module or class, and in its own methods; afterwards it is as before."""
    before = vars(Shop)["item"]
    with mock.patch.object(Shop, "item", autospec=True, return_value="patched") as patched:
        shop = Shop()
        assert shop.item(7) == "patched"
        patched.assert_called_once_with(shop, 7)
    assert vars(Shop)["item"] is before
    with mock.patch.object(item, "invalidate", return_value="patched"):
        assert item.invalidate(7) == "patched"
    assert item.invalidate(123) is False
    with mock.patch(f"{__name__}.item", autospec=True, return_value="patched") as patched:
        assert item(7) == "patched"
        with pytest.raises(TypeError):
            patched(7, "L", "too much")


def test_help_and_doctest_know_it():
    """The examples of its docstring run, and its help has its signature."""
    assert "item(number: 'int', size: 'str' = 'M')" in pydoc.plain(pydoc.render_doc(item))
    text = pydoc.plain(pydoc.render_doc(Shop))
    assert "of_class(number: 'int') -> 'str'" in text
    assert "Return what differs between shops." in text
    found = doctest.DocTestFinder().find(sys.modules[__name__])
    examples = [each for each in found if each.examples]
    assert [each.name for each in examples] == [f"{__name__}.item"]
    assert doctest.DocTestRunner(verbose=False).run(examples[0]).failed == 0


@pytest.mark.parametrize("f", [item, awaited_item, Shop.static, Shop.item])
def test_it_is_pickled_and_copied_by_its_name(f):
    """As functions are."""
    assert pickle.loads(pickle.dumps(f)) is f
    assert copy.copy(f) is copy.deepcopy(f) is f


def test_a_method_is_pickled_with_its_instance():
    """As methods are."""
    again = pickle.loads(pickle.dumps(Shop(9).item))
    assert (again.__self__.number, again(1)) == (9, {"shop": 9, "number": 1})
    assert pickle.loads(pickle.dumps(Kiosk.of_class)) == Kiosk.of_class
    assert copy.copy(Shop(9).item).__self__.number == 9


def test_it_goes_where_functions_go():
    """Into wrappers, single dispatch, data classes and partial calls."""
    generic = functools.singledispatch(repr)
    generic.register(int)(blocking.cached(ttl=60, namespace="int")(lambda given: given + 1))

    @generic.register
    @blocking.cached(ttl=60, namespace="text")
    def of_text(given: str) -> str:
        return f"text {given}"

    assert (generic(1), generic("1"), generic(None)) == (2, "text 1", "None")

    @functools.wraps(item)
    def around(*args, **kwargs):
        return item(*args, **kwargs)

    assert inspect.signature(around) == inspect.signature(of_item)
    assert functools.partial(item, size="S")(number=1) == {"number": 1, "size": "S"}

    @dataclasses.dataclass(frozen=True)
    class Point:
        x: int

        def __cache_key__(self):
            return self.x

        @blocking.cached(ttl=60, namespace="twice")
        def twice(self):
            return 2 * self.x

    assert Point(3).twice() == 6
    assert [field.name for field in dataclasses.fields(Point)] == ["x"]


def test_attributes_of_the_function_hide_no_method():
    """What a function was given is there, but for the names of the extras."""

    def f(number):
        return number

    f.methods, f.get, f.refresh = ["GET"], "mine", "mine"
    cached = blocking.cached(ttl=60, namespace="attributes")(f)
    assert cached.methods == ["GET"]
    assert (cached(1), cached.get(1), cached.refresh(1)) == (1, 1, 1)


class Loader:
    """An object that is called."""

    def __call__(self, number: int) -> int:
        """Stand for what it does."""
        return 2 * number


class AwaitedLoader:
    """An object whose call is awaited."""

    async def __call__(self, number: int) -> int:
        """Stand for what it does."""
        return 2 * number


def doubled(factor: int, number: int) -> int:
    """Stand for a function that is called in part."""
    return factor * number


async def awaited_doubled(factor: int, number: int) -> int:
    """Stand for the same when it is awaited."""
    return factor * number


NAMELESS = {
    "partial": functools.partial(doubled, 2),
    "wrapped partial": functools.update_wrapper(functools.partial(doubled, 2), doubled),
    "object": Loader(),
    "awaited partial": functools.partial(awaited_doubled, 2),
    "awaited object": AwaitedLoader(),
}


@pytest.mark.parametrize("name", NAMELESS)
def test_a_callable_without_its_own_name_needs_a_namespace(name):
    """Then it is cached like a function, under that name."""
    given, is_awaited = NAMELESS[name], name.startswith("awaited")
    decorators = [shardcache.cached, (awaiting if is_awaited else blocking).cached]
    for cached in decorators:
        with pytest.raises(ConfigurationError, match="has no module and name") as raised:
            cached(ttl=60)(given)
        assert "give namespace=…" in str(raised.value)
        assert "parentheses" not in str(raised.value)
    f = decorators[1](ttl=60, namespace=f"nameless {name}")(given)
    results = [asyncio.run(f(4)), asyncio.run(f(4))] if is_awaited else [f(4), f(4)]
    assert results == [8, 8]
    assert f.cache_info().recomputes == 1
    for follow_wrapped in (True, False):
        found = inspect.signature(f, follow_wrapped=follow_wrapped)
        assert list(found.parameters) == ["number"]
    with pytest.raises(ConfigurationError, match=r"needs an AsyncClient|needs a blocking Client"):
        (blocking if is_awaited else awaiting).cached(ttl=60, namespace="other")(given)


def test_a_method_that_is_built_in_needs_a_namespace():
    """`str.upper` has no module, and so no name that is its own."""
    with pytest.raises(ConfigurationError, match=r"str\.upper\(\) has no module and name"):
        blocking.cached(ttl=60)(str.upper)
    assert blocking.cached(ttl=60, namespace="upper")(str.upper)("a") == "A"


@pytest.mark.parametrize(
    "given",
    [
        Shop(1).item,
        Shop.of_class,
        Controls().method,
        "text".upper,
        dict.fromkeys,
        functools.partial(Controls().method, 1),
        functools.partial(Shop(1).item, 1),
    ],
)
def test_what_is_bound_to_one_object_is_refused(given):
    """Keys could not tell it from another's, in a partial call as well."""
    with pytest.raises(ConfigurationError, match="bound to one object"):
        blocking.cached(ttl=60, namespace="bound")(given)


@pytest.mark.parametrize(
    "given", [7, "text", None, Shop, property(of_item), functools.cached_property(of_item)]
)
@pytest.mark.parametrize("cached", [shardcache.cached, blocking.cached, awaiting.cached])
def test_what_is_no_function_is_not_told_of_parentheses(cached, given):
    """They are there; for a property the error says where `cached` goes."""
    with pytest.raises(ConfigurationError, match="is not a function") as raised:
        cached(ttl=60)(given)
    assert "parentheses" not in str(raised.value)
    is_property = isinstance(given, (property, functools.cached_property))
    assert ("below it" in str(raised.value)) is is_property


def test_an_async_def_behind_a_plain_wrapper_is_named_in_the_error():
    """At the call, for a wrapper may await what it calls; nothing is left unawaited."""

    async def hidden(number):
        return number

    @functools.wraps(hidden)
    def wrapper(number):
        return hidden(number)

    for cached in (shardcache.cached, blocking.cached):
        f = cached(ttl=60, namespace="hidden")(wrapper)
        with pytest.raises(
            UncacheableResultError, match=r"hidden is an async def, and a plain def"
        ):
            f(1)
    with pytest.raises(UncacheableResultError, match=r"hidden is an async def"):
        blocking.get_or_set("hidden", lambda: hidden(1), ttl=60)
    with pytest.raises(ConfigurationError, match="wraps an async def"):
        awaiting.cached(ttl=60)(wrapper)
