"""Which functions, methods and objects can be cached, and how a cached one looks."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import pickle
from datetime import timedelta

import pytest

from shardcache import AsyncClient, Client, ConfigurationError, KeyBuildError, LockPolicy

embedded = Client("memory://a,b,c")


@embedded.cached(ttl=60)
def tripled(number):
    """Return what a worker of a pool may be asked for."""
    return 3 * number


class Shop:
    """A class with cached functions of each kind, all found by their names."""

    def __init__(self, number):
        self.number = number

    def __cache_key__(self):
        return self.number

    @embedded.cached(ttl=60)
    def address(self):
        """Return what differs between shops."""
        return f"{self.number} Main Street"

    @embedded.cached(ttl=60)
    @classmethod
    def kind(cls):
        """Return what differs between classes."""
        return cls.__name__

    @embedded.cached(ttl=60)
    @staticmethod
    def tax():
        """Return what is the same for all."""
        return 0.19


class Users:
    """A class that notes which of its functions were called."""

    calls = []  # noqa: RUF012 - of all of them

    @embedded.cached(ttl=60)
    @classmethod
    def of_class(cls, number):
        """Return the number."""
        cls.calls.append(cls.__name__)
        return number

    @embedded.cached(ttl=60)
    @staticmethod
    def static(number):
        """Return the number."""
        Users.calls.append("static")
        return number


class Admins(Users):
    """A class of its own, with values of its own."""


class TestFunctions:
    """What kinds of functions can be cached."""

    client = embedded

    def test_methods_need_a_key_for_self(self):
        """A `__cache_key__`, or to leave it out."""

        class Users:
            def __init__(self, number):
                self.number = number

            @self.client.cached(ttl=60, namespace="Users.keyless")
            def keyless(self):
                return self.number

            @self.client.cached(ttl=60, ignore="self", namespace="Users.shared")
            def shared(self):
                return self.number

        class Keyed(Users):
            def __cache_key__(self):
                return self.number

        with pytest.raises(KeyBuildError, match="argument 'self', a value of type"):
            Users(1).keyless()
        assert (Users(1).shared(), Users(2).shared()) == (1, 1)
        assert (Keyed(1).keyless(), Keyed(2).keyless(), Keyed(1).keyless()) == (1, 2, 1)
        assert Keyed(2).keyless.get() == 2
        assert Keyed(2).keyless.invalidate() is True
        assert Users.shared.cache_info().hits == 1

    def test_class_methods_and_static_methods(self):
        """`cached` goes outside; a class has values of its own."""
        Users.calls.clear()
        assert [Users.of_class(1), Users().of_class(1), Admins.of_class(1)] == [1, 1, 1]
        assert [Users.static(1), Users().static(1)] == [1, 1]
        assert Users.calls == ["Users", "Admins", "static"]

    def test_a_cached_function_shows_what_it_wraps(self):
        """Name, doc and module are the function's; its repr says that it is cached."""

        @self.client.cached(ttl=60, namespace="documented")
        def documented(a: int) -> int:
            """Say something."""
            return a

        assert documented.__name__ == "documented"
        assert documented.__doc__ == "Say something."
        assert str(inspect.signature(documented)) == "(a: 'int') -> 'int'"
        assert documented.__wrapped__(3) == 3
        assert repr(documented).startswith("<CachedFunction ")

    def test_what_cannot_be_cached_is_refused_at_decoration(self):
        """Generators, objects that are no functions, and functions of the other world."""

        async def asynchronous():
            return 1

        def generator():
            yield 1

        async def asynchronous_generator():
            yield 1

        decorator = self.client.cached(ttl=60)
        for function, message in [
            (asynchronous, "needs an AsyncClient"),
            (generator, "generator"),
            (asynchronous_generator, "generator"),
            (42, "is not a function"),
        ]:
            with pytest.raises(ConfigurationError, match=message):
                decorator(function)
        with pytest.raises(ConfigurationError, match="needs a blocking Client"):
            AsyncClient("memory://a").cached(ttl=60)(lambda: 1)

    def test_it_is_pickled_and_copied_as_functions_are(self):
        """By name; a bound one with its instance, as for a pool of processes."""
        for function in (tripled, Shop.address, Shop.tax):
            assert pickle.loads(pickle.dumps(function)) is function
            assert copy.copy(function) is function
            assert copy.deepcopy(function) is function
        assert pickle.loads(pickle.dumps(Shop(7).address))() == "7 Main Street"
        assert pickle.loads(pickle.dumps(Shop.kind))() == "Shop"

        @embedded.cached(ttl=60, namespace="local")
        def local():
            return 1

        with pytest.raises((pickle.PicklingError, AttributeError), match="local"):
            pickle.dumps(local)

    def test_a_function_may_be_cached_twice(self):
        """As in front of a remote cache, with a wrapper between."""
        near, far = Client("memory://near"), Client("memory://far")
        between = []

        @far.cached(ttl=300, namespace="far")
        def source():
            return "made"

        @near.cached(ttl=5, namespace="near")
        @functools.wraps(source)
        def noted():
            between.append(1)
            return source()

        assert (noted(), noted()) == ("made", "made")
        assert (noted.policy.ttl, source.policy.ttl, between) == (5, 300, [1])
        assert (noted.cache_info().hits, source.cache_info().misses) == (1, 1)
        assert near.get(noted.key_for()) == far.get(source.key_for()) == "made"
        twice = near.cached(ttl=7, namespace="twice")(source)
        assert (twice(), twice.policy.ttl, twice.cache_info().misses) == ("made", 7, 1)

    def test_a_bound_method_takes_no_self(self):
        """Its signature is that of the call."""
        assert str(inspect.signature(Shop(1).address)) == "()"
        assert Shop(1).address.__wrapped__() == "1 Main Street"
        assert str(inspect.signature(Shop.kind)) == "()"

    def test_no_two_functions_share_their_values_unnoticed(self):
        """Not the methods of two objects, and not two lambdas."""
        decorator = Client("memory://a").cached(ttl=60, namespace="n")
        with pytest.raises(ConfigurationError, match="bound to one object"):
            decorator(Shop(1).address.__wrapped__)
        one, other = (lambda: 1), (lambda: 2)
        assert decorator(one)() == 1
        with pytest.raises(ConfigurationError, match="with other code"):
            decorator(other)

    @pytest.mark.parametrize(
        ("terms", "fault"),
        [
            ({"key": 5}, "key must be a template or a function"),
            ({"key": b"x"}, "key must be a template or a function"),
            ({"tags": None}, "tags must be templates"),
            ({"ignore": [1]}, "ignore must be strings"),
            ({"cache_errors": 5}, "cache_errors must be types"),
            ({"cache_errors": None}, "cache_errors must be types"),
        ],
    )
    def test_an_option_of_the_wrong_type_is_named(self, terms, fault):
        """At decoration, not at the first call."""
        with pytest.raises(ConfigurationError, match=fault):
            self.client.cached(ttl=60, **terms)(lambda: 1)

    @pytest.mark.parametrize(
        ("function", "fault"),
        [
            (max, "no signature"),
            (functools.partialmethod(max), "partialmethod is not a function"),
            (functools.cached_property(max), "cached_property is not a function"),
            ("text", r"'text' is not a function; write @client.cached\(ttl=…\) above one"),
        ],
    )
    def test_a_decorated_object_that_is_no_function_is_named(self, function, fault):
        """The error does not ask for parentheses that are there."""
        with pytest.raises(ConfigurationError, match=fault):
            self.client.cached(ttl=60)(function)

    def test_lengths_of_time_may_be_timedeltas(self):
        """In the lock's policy too."""
        policy = LockPolicy(ttl=timedelta(seconds=3), max_hold=timedelta(minutes=1))
        assert (policy.ttl, policy.max_hold) == (3.0, 60.0)
        assert self.client.cached(ttl=60, lock=policy, namespace="t")(lambda: 1)() == 1

    def test_bad_options_are_refused_all_at_once(self):
        """The error names each, with the known ones."""
        with pytest.raises(ConfigurationError) as raised:
            self.client.cached(
                ttl=-1, lock="everything", jitter=1.5, on_timeout="explode", cache_errors=[int]
            )
        assert len(raised.value.faults) == 5
        with pytest.raises(TypeError, match="lokc"):
            self.client.cached(ttl=60, lokc=True)

    def test_an_async_cached_function_is_a_coroutine_function(self):
        """Also as a method: frameworks look for it."""

        class Users:
            @AsyncClient("memory://a").cached(ttl=60, ignore="self", namespace="Users.fetch")
            async def fetch(self):
                return 1

        if hasattr(inspect, "markcoroutinefunction"):
            assert inspect.iscoroutinefunction(Users.fetch)
            assert inspect.iscoroutinefunction(Users().fetch)
        assert asyncio.run(Users().fetch()) == 1
