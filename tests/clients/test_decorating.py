"""`cached` written wrongly is refused where it is written: without parentheses, ttl or function."""

from __future__ import annotations

import dataclasses
import functools
import re
import time
from datetime import timedelta

import pytest

import shardcache
from shardcache import DEFAULT, AsyncClient, CachePolicy, Client, ConfigurationError, Settings
from shardcache.decorators import Defaults


def one_argument(result):
    """Stand for a function that could be a ttl, too."""
    return result


def no_argument():
    """Stand for a function without arguments."""


async def coroutine_function(number):
    """Stand for a coroutine function."""
    return number


class Methods:
    """Methods of every kind, not bound to anything."""

    def plain(self):
        """Take the instance alone."""

    @classmethod
    def of_class(cls):
        """Take the class."""

    @staticmethod
    def static():
        """Take nothing."""


FUNCTIONS = {
    "one_argument()": one_argument,
    "no_argument()": no_argument,
    "coroutine_function()": coroutine_function,
    "Methods.plain()": Methods.plain,
    "Methods.of_class()": vars(Methods)["of_class"],
    "Methods.static()": vars(Methods)["static"],
    "class Methods": Methods,
    "<lambda>()": lambda: 1,
    "property": property(one_argument),
}


@pytest.fixture(params=["Client", "AsyncClient", "default client"])
def decorate(request):
    """Return `cached` of each client in turn, and how it is written."""
    if request.param == "default client":
        return shardcache.cached, "@cached(ttl=…)"
    kind = Client if request.param == "Client" else AsyncClient
    return kind("memory://a").cached, "@client.cached(ttl=…)"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_decorator_without_parentheses_is_refused(decorate, name):
    """The error names the function and shows how to write the decorator."""
    cached, written = decorate
    with pytest.raises(ConfigurationError, match=f"write {re.escape(written)}") as raised:
        cached(FUNCTIONS[name])
    assert f"cached: {name} was given in place of a ttl" in str(raised.value)


@pytest.mark.parametrize(
    ("ttl", "fault"),
    [
        (coroutine_function, "not the async def coroutine_function()"),
        (no_argument, "no_argument() does not"),
        (lambda value, arguments, more: value or arguments or more, "<lambda>() does not"),
        (lambda value, *, arguments: value or arguments, "<lambda>() does not"),
    ],
)
def test_a_ttl_function_takes_the_result(decorate, ttl, fault):
    """One that takes anything else is refused."""
    cached, _ = decorate
    with pytest.raises(ConfigurationError, match="cached: ttl must") as raised:
        cached(ttl=ttl)
    assert fault in str(raised.value)


@pytest.mark.parametrize(
    "ttl",
    [
        one_argument,
        lambda value, more=1: value + more,
        lambda value, arguments: value + arguments["more"],
        float,
        abs,
    ],
)
def test_a_function_of_the_result_may_be_the_ttl(decorate, ttl):
    """Passed by name; built-in functions work too, and one that takes the arguments."""
    cached, _ = decorate
    assert cached(ttl=ttl)


def test_a_wrapped_ttl_function_is_judged_by_its_wrapper():
    """The wrapper is called with the result; the function inside may take more."""

    def inner(setting, result):
        return setting + result

    @functools.wraps(inner)
    def outer(result):
        return inner(1, result)

    assert CachePolicy(ttl=outer, condition=outer).ttl is outer
    with pytest.raises(ConfigurationError, match="one argument"):
        CachePolicy(ttl=functools.wraps(outer)(no_argument))


def test_a_condition_that_cannot_be_called_with_a_result_is_refused():
    """A coroutine would count as true for every result."""
    for condition, fault in ((coroutine_function, "async def"), (no_argument, "one argument")):
        with pytest.raises(ConfigurationError, match=fault):
            CachePolicy(ttl=1, condition=condition)


def test_a_decorated_object_must_be_a_function(decorate):
    """The error names what was decorated, and is no `TypeError` of Python's."""
    cached, _ = decorate
    with pytest.raises(ConfigurationError, match="there is no function to cache"):
        cached(ttl=60)()
    for given, name in ((7, "7"), (None, "None"), ([], "list"), (Methods, "class Methods")):
        with pytest.raises(ConfigurationError, match=f"cached: {name} is not a function"):
            cached(ttl=60)(given)


def test_seconds_may_be_given_by_position(decorate):
    """A number or timedelta can only be the ttl; two of them are refused."""
    cached, _ = decorate
    assert cached(60)
    assert cached(timedelta(minutes=1))
    assert cached(None)
    with pytest.raises(ConfigurationError, match="ttl is given twice, 60 and 5"):
        cached(60, ttl=5)


POLICY = CachePolicy(ttl=90, stale=30, lock="shard")


def test_a_policy_may_be_passed_whole(decorate):
    """It serves many functions, and key options may stand beside it."""
    cached, _ = decorate
    for namespace in ("f", "g"):
        decorator = cached(policy=POLICY, namespace=namespace, tags="t")
        assert decorator._policy == POLICY


@pytest.mark.parametrize(
    ("positional", "options", "named"),
    [((60,), {}, "ttl"), ((), {"ttl": None}, "ttl"), ((), {"ttl": 1, "stale": 5}, "ttl and stale")],
)
def test_a_policy_and_single_options_are_refused(decorate, positional, options, named):
    """The error names them, and the way out."""
    cached, _ = decorate
    with pytest.raises(ConfigurationError, match=rf"^cached: {named} cannot .* dataclasses\.repl"):
        cached(*positional, policy=POLICY, **options)


def test_a_policy_is_a_cache_policy(decorate):
    """Not a mapping of options, nor a lock policy."""
    cached, _ = decorate
    with pytest.raises(ConfigurationError, match="policy must be a CachePolicy, not dict"):
        cached(policy={"ttl": 60})


def test_a_policy_of_another_has_its_defaults():
    """`stale_if_error` follows the new `stale`."""
    other = dataclasses.replace(POLICY, stale=600)
    assert (other.ttl, other.served_after_error, other.lock) == (90, 600, "shard")
    assert dataclasses.replace(other, stale_if_error=5).served_after_error == 5


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_policy_may_leave_the_ttl_to_the_client(kind):
    """As without a ttl."""
    policy = CachePolicy(ttl=DEFAULT, stale=30)
    assert kind("memory://a", default_ttl=30).cached(policy=policy)._policy.ttl == 30
    with pytest.raises(ConfigurationError, match="there is no ttl"):
        kind("memory://a").cached(policy=policy)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_without_a_ttl_the_default_of_the_client_applies(kind):
    """A client without a default refuses the decorator."""

    async def asynchronous():
        return 1

    def blocking():
        return 1

    function = blocking if kind is Client else asynchronous
    cached = kind("memory://a", default_ttl=30).cached(namespace="f")(function)
    assert cached.policy.ttl == 30
    for words in ({}, {"ttl": DEFAULT}):
        with pytest.raises(
            ConfigurationError, match="there is no ttl, and the client has no default"
        ):
            kind("memory://a").cached(**words)
    assert kind("memory://a").cached(ttl=None, namespace="f")(function).policy.ttl is None


@pytest.fixture
def defaults(monkeypatch):
    """Return default clients that no other test shares."""
    own = Defaults()
    monkeypatch.setattr("shardcache.decorators._defaults", own)
    return own


def test_the_default_ttl_is_read_at_the_first_call(defaults):
    """The default client may be configured after the functions are written, and again."""

    @shardcache.cached(namespace="function")
    def function(number):
        return number

    assert function.policy.ttl is DEFAULT
    defaults.configure(Settings.of(nodes="memory://a"))
    with pytest.raises(ConfigurationError, match=r"function: there is no ttl.*no default_ttl"):
        function(1)
    recomputes = []
    for seconds in (0.01, 60):
        defaults.configure(Settings.of(nodes="memory://a", default_ttl=seconds))
        function(1)
        time.sleep(0.02)
        function(1)
        recomputes.append(function.cache_info().recomputes)
    assert recomputes == [2, 3]


async def test_the_default_asyncio_client_does_the_same(defaults):
    """A coroutine function without a ttl gets the client's."""

    @shardcache.cached(namespace="function")
    async def function(number):
        return number

    defaults.configure(Settings.of(nodes="memory://a"))
    with pytest.raises(ConfigurationError, match="there is no ttl"):
        await function(1)
    defaults.configure(Settings.of(nodes="memory://a", default_ttl=40))
    assert await function(1) == 1
    assert await function.get(1) == 1
