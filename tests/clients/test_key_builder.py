"""Two calls never share a key: by templates, functions and arguments."""

from __future__ import annotations

import functools
import itertools

import pytest

from shardcache import ConfigurationError, KeyBuildError
from shardcache.clients.key_builder import KeyBuilder, KeySpec, prefix_of


class Shop:
    """A class of shops."""

    def __init__(self, number):
        self.number = number

    def price(self, article, currency="EUR"):
        """Return what differs between shops."""
        return self.number, article, currency


def price(article, currency="EUR"):
    """Stand for any function."""
    return article, currency


def test_a_template_names_every_parameter():
    """`self` and later parameters too; or `ignore` names them."""
    with pytest.raises(ConfigurationError) as raised:
        KeyBuilder(Shop.price, KeySpec(key="price:{article}", tags=("{article}",)))
    assert [fault.partition(": ")[2] for fault in raised.value.faults] == [
        f"the template 'price:{{article}}' leaves out the parameter {name!r}: name it, or ignore it by"
        f" ignore=({name!r},)"
        for name in ("self", "currency")
    ]
    KeyBuilder(Shop.price, KeySpec(key="{self.number}:{article}", ignore="currency"))
    KeyBuilder(Shop.price, KeySpec(key="{article}:{currency}", ignore=("self",)))
    with pytest.raises(ConfigurationError, match="leaves out the parameter 'rest'"):
        KeyBuilder(lambda first, *rest: (first, rest), KeySpec(key="{first}", namespace="n"))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        KeyBuilder(price, KeySpec(key="{article"))


def keys(function, **key_spec):
    """Return a way to ask for the key of a call."""
    made = KeyBuilder(function, KeySpec(**key_spec))
    return lambda *args, **kwargs: made.key(args, kwargs, "")


def test_a_key_function_gets_all_arguments():
    """One call has one key however it is written: the defaults are applied."""
    made = keys(price, namespace="p", key=lambda article, currency: f"{article}/{currency}")
    assert {made(7), made(7, "EUR"), made(article=7), made(7, currency="EUR")} == {"p:0:7/EUR"}

    def named(*args, rate=1, **rest):
        return args, rate, rest

    made = keys(named, namespace="n", key=lambda *args, **rest: f"{args}{sorted(rest.items())}")
    assert made(1, 2) == made(1, 2, rate=1) == "n:0:(1, 2)[('rate', 1)]"
    made = keys(Shop.price, namespace="s", key=lambda shop, *rest: f"{shop.number}{rest}")
    assert made(Shop(3), 7) == "s:0:3(7, 'EUR')"


def test_fields_that_have_no_text_are_key_errors():
    """In keys and in tags; Python's own error is the cause."""
    with pytest.raises(
        KeyBuildError, match=r"price: the field \{article\} of .* a value of type"
    ) as raised:
        keys(price, key="{article}:{currency}")(Shop(1))
    assert f"{__name__}.Shop" in str(raised.value)
    with pytest.raises(KeyBuildError, match=r"\{article\.id\} .* failed: AttributeError") as raised:
        keys(price, key="{article.id}:{currency}")(7)
    assert isinstance(raised.value.__cause__, AttributeError)
    with pytest.raises(KeyBuildError, match=r"of the template 'article:{article}'"):
        KeyBuilder(price, KeySpec(tags="article:{article}")).tags((Shop(1),), {})


def with_session(function):
    """Put an argument of its own in front, as a decorator for sessions does."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function("session", *args, **kwargs)

    return wrapper


def traced(function):
    """Pass on what is given."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def method_traced(function):
    """Pass on what is given to a method."""

    @functools.wraps(function)
    def wrapper(self, *args, **kwargs):
        return function(self, *args, **kwargs)

    return wrapper


def rules(session, account, limit=1, offset=2):
    """Stand for a function that a decorator gives a session."""
    return session, account, limit, offset


def test_a_wrapper_cannot_ignore_parameters_of_its_function():
    """It may pass another argument for it."""
    with pytest.raises(ConfigurationError, match="put cached below the wrapper"):
        KeyBuilder(with_session(rules), KeySpec(ignore="session"))
    with pytest.raises(ConfigurationError, match="put cached below the wrapper"):
        KeyBuilder(method_traced(Shop.price), KeySpec(ignore="article"))
    made = keys(method_traced(Shop.price), ignore="self")
    assert made(Shop(1), 7) == made(Shop(2), article=7) != made(Shop(1), 8)
    assert made(Shop(1)) == made(Shop(2))  # it lacks an argument, which is for the function to say


def test_calls_of_a_wrapper_are_known_apart():
    """Two calls have one key only if they have the same arguments."""
    function = with_session(rules)
    made = keys(function)
    calls = [
        (args, dict(named))
        for count in range(1, 4)
        for args in itertools.product((1, 2), repeat=count)
        for named in ((), (("limit", 1),), (("offset", 2),), (("offset", 1),))
    ]
    results = {}
    for args, named in calls:
        try:
            result = function(*args, **named)
        except TypeError:
            continue
        results.setdefault(made(*args, **named), set()).add(result)
    assert len(results) > 20
    assert all(len(each) == 1 for each in results.values())


def test_arguments_of_a_wrapper_are_known_by_their_names():
    """An invalidation reaches the value of the same call in another spelling."""
    made = keys(traced(price))
    assert made(7) == made(article=7) != made(8)
    assert made(7, "EUR") == made(7, currency="EUR")
    made = keys(traced(price), key="{article}:{currency}", namespace="p")
    assert made(7) == made(article=7, currency="EUR") == "p:0:7:EUR"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("user", 0, "", "admin:0:7"), ("user:0:admin", 0, "", "7")),
        (("user", "a:b", "", "c"), ("user", "a", "", "b:c")),
        (("user", "x", "", "0:7"), ("user:x", 0, "", "7")),
        (("user", 0, "", "0123456789abcdef:7"), ("user", 0, "0123456789abcdef", "7")),
        (("user", "0@0123456789abcdef", "", "7"), ("user", 0, "0123456789abcdef", "7")),
        (("a:%0", 0, "", "k"), ("a:0", 0, "", "k")),
        (("a:=b", 0, "", "k"), ("a", "b:0", "", "k")),
        (("a:-1", 0, "", "k"), ("a", -1, "", "0:k")),
        (("a", "=b", "", "k"), ("a", "b", "", "k")),
        (("a", "", "", "k"), ("a", "=", "", "k")),
        (("a:", 1, "", "k"), ("a", ":1", "", "k")),
    ],
)
def test_no_namespace_runs_into_another(one, other):
    """Whatever its parts, version, generation and key hold."""
    made = []
    for namespace, version, generation, last in (one, other):
        named = KeyBuilder(
            price, KeySpec(namespace=namespace, version=version, key=lambda *_: last)
        )
        made.append(named.key((last,), {}, generation))
    assert made[0] != made[1]


def test_prefixes_are_as_written():
    """Only what could be taken for a version is marked."""
    assert prefix_of("shop", 0) == "shop:0"
    assert prefix_of("shop:prices", "2024-06") == "shop:prices:2024-06"
    assert prefix_of("user:0:admin", 0) == "user:%0:admin:0"
    assert prefix_of("shop", "beta") == "shop:=beta"
    assert keys(price)(7).startswith(f"{__name__}:price:0:")
