"""Two functions never share a name, and a program never the values of another."""

from __future__ import annotations

import enum
import functools
import gc
import re
import subprocess
import sys

import pytest

import shardcache
from shardcache import AsyncClient, Client, ConfigurationError
from shardcache.clients.key_builder import KeyBuilder, KeySpec
from shardcache.decorators import Defaults

FAR = "memcached://127.0.0.1:9"  # no node is there: nothing is called


class Blocking:
    """Functions of a program that blocks, with its decorator."""

    def __init__(self, cached):
        self.cached = cached

    @staticmethod
    def written(text, **variables):
        """Return the function `f` of a module `shop` with this text."""
        return executed(text, variables)


class Asynchronous(Blocking):
    """The same functions as coroutine functions."""

    @staticmethod
    def written(text, **variables):
        """Return the function `f` of a module `shop` with this text."""
        return executed(re.sub(r"\bdef f\b", "async def f", text), variables)


def executed(text, variables):
    """Return what a module called `shop` defines as `f`."""
    module = {"__name__": "shop", "functools": functools, **variables}
    exec(compile(text, "shop.py", "exec"), module)
    return module["f"]


@pytest.fixture(autouse=True, scope="module")
def _small_heap():
    """Let the collector look at the objects of these tests alone: each collection is quick then."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(params=["Client", "AsyncClient", "default client", "default asyncio client"])
def world(request, monkeypatch):
    """Return a decorator of each kind, and functions for it."""
    monkeypatch.setattr("shardcache.decorators._defaults", Defaults())
    if request.param == "Client":
        return Blocking(Client("memory://a").cached)
    if request.param == "AsyncClient":
        return Asynchronous(AsyncClient("memory://a").cached)
    kind = Blocking if request.param == "default client" else Asynchronous
    return kind(shardcache.cached)


FIRST = "def f(number):\n    return (lambda: number)()\n"
INSIDE = "def make(it):\n    def f(number):\n        return it\n    return f\nf = make(it)\n"


def test_a_function_that_is_defined_again_is_the_same(world):
    """As `importlib.reload` does, also with a line more above it; the first may be collected."""
    for text in (FIRST, FIRST, f"# A line more.\n\n{FIRST}"):
        world.cached(ttl=60)(world.written(text))
        gc.collect()


def test_other_code_under_one_name_is_refused(world):
    """It would be served the values of the first function; a new version separates them."""
    world.cached(ttl=60)(world.written(FIRST))
    gc.collect()
    other = world.written(FIRST.replace("lambda: number", "lambda: 2 * number"))
    with pytest.raises(ConfigurationError, match=r"shop:f: the namespace and version.*other code"):
        world.cached(ttl=60)(other)
    world.cached(ttl=60, version=1)(other)


def test_another_function_under_one_name_is_refused(world):
    """The error names the other function."""
    world.cached(ttl=60, namespace="users")(world.written(FIRST))
    other = world.written(FIRST.replace("f(", "g(", 1).replace("def g", "def f", 1))
    other.__qualname__ = "g"
    with pytest.raises(ConfigurationError, match=r"shop:g: .* 'users:0' are those of shop:f"):
        world.cached(ttl=60, namespace="users")(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("alice", "bob"),
        (1, True),
        (1, 1.0),
        ((1, "a"), (1, "b")),
        (b"a", "a"),
        (frozenset({1}), frozenset({2})),
        (len, max),
        ([], []),
        ({}, {}),
        (object(), object()),
        (
            enum.Enum("Role", {"A": 1}, module=__name__).A,
            enum.Enum("Role", {"A": 2}, module=__name__).A,
        ),
        (type("Model", (), {}), type("Model", (), {})),
        (functools.partial(len, "a"), functools.partial(len, "b")),
        ([1].append, [1].append),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_closure_over_another_value_is_refused(world, one, other):
    """Also when the first is collected; mutable values are compared by identity."""
    decorator = world.cached(ttl=60, namespace="inner")
    decorator(world.written(INSIDE, it=one))
    gc.collect()
    decorator(world.written(INSIDE, it=one))
    with pytest.raises(ConfigurationError, match="closes over other values"):
        decorator(world.written(INSIDE, it=other))


@pytest.mark.parametrize("value", ["alice", None, 1.5, (1, ("a",)), frozenset({1, 2}), enum.Enum])
def test_a_closure_over_an_equal_value_passes(world, value):
    """A function made again for each request may be cached, if it is the same each time."""
    for _ in range(2):
        world.cached(ttl=60, namespace="inner")(world.written(INSIDE, it=value))
        gc.collect()


def test_a_closure_over_a_function_with_another_default_is_refused(world):
    """A default may carry a value too."""
    text = (
        "def make(it):\n    def inner(it=it, *, other=None):\n        return it\n"
        "    def f(number):\n        return inner()\n    return f\nf = make(it)\n"
    )
    for place, source in enumerate((text, text.replace("it=it, *, other=None", "*, it=it"))):
        decorator = world.cached(ttl=60, namespace=str(place))
        for _ in range(2):
            decorator(world.written(source, it=["alice"]))
        with pytest.raises(ConfigurationError, match="closes over other values"):
            decorator(world.written(source, it=["bob"]))


def test_a_collected_object_is_not_taken_for_another(world):
    """Another user's may be at the same address."""

    class Session:
        """What a request has."""

    world.cached(ttl=60, namespace="inner")(world.written(INSIDE, it=Session()))
    gc.collect()
    for _ in range(5):
        with pytest.raises(ConfigurationError, match="closes over other values"):
            world.cached(ttl=60, namespace="inner")(world.written(INSIDE, it=Session()))


def test_a_function_made_inside_another_needs_a_name(world):
    """Its closure is no part of its keys, and other processes close over something else."""
    function = world.written(INSIDE, it="alice")
    with pytest.raises(ConfigurationError, match=r"give namespace=… or key=…"):
        world.cached(ttl=60)(function)
    with pytest.raises(ConfigurationError, match=r"give namespace=… or key=…"):
        world.cached(ttl=60, tags="t", version=2)(function)
    world.cached(ttl=60, namespace="alice")(function)
    world.cached(ttl=60, key="alice:{number}")(function)


@pytest.mark.parametrize(
    "text",
    [
        "def make(it):\n    global f\n    def f(number):\n        return it\nmake(it)\n",
        f"{INSIDE}f.__qualname__ = 'f'\n",
    ],
)
def test_a_function_with_a_closure_needs_a_name_in_any_form(world, text):
    """Declared global, or renamed."""
    with pytest.raises(ConfigurationError, match="defined inside another function"):
        world.cached(ttl=60)(world.written(text, it="alice"))


class Base:
    """A class whose methods use variables that Python makes."""

    def number(self):
        """Return a number."""
        return 1


class Child(Base):
    """A class that calls its base."""

    def number(self):
        """Return what the base gives."""
        return super().number()


def test_a_method_that_calls_its_base_needs_no_name():
    """It closes over nothing but its class."""
    assert KeyBuilder(Child.number, KeySpec(ignore="self")).prefix == f"{__name__}:Child.number:0"


WRAPPED = """
def logged(function):
    {wraps}
    def f(*args):
        return function(*args)
    return f
@logged
def {name}(number):
    return number
f = {name}
"""


def test_wrappers_without_wraps_need_names_of_their_own(world):
    """All wrappers of one decorator have its name; in one namespace they are two functions."""
    price, stock = (
        world.written(WRAPPED.format(wraps="", name=name)) for name in ("price", "stock")
    )
    with pytest.raises(ConfigurationError, match="defined inside another function"):
        world.cached(ttl=60)(price)
    world.cached(ttl=60, namespace="shop")(price)
    with pytest.raises(ConfigurationError, match="closes over other values"):
        world.cached(ttl=60, namespace="shop")(stock)


def test_wrappers_have_the_name_of_what_they_wrap(world):
    """With `functools.wraps` they pass, also when defined again."""
    wraps = "@functools.wraps(function)"
    for name in ("price", "stock", "price"):
        world.cached(ttl=60)(world.written(WRAPPED.format(wraps=wraps, name=name)))
    with pytest.raises(ConfigurationError, match="closes over other values"):
        world.cached(ttl=60)(
            world.written(
                WRAPPED.format(wraps=wraps, name="price").replace("return number", "return 2")
            )
        )


def test_a_recursive_function_is_one_function(world):
    """It closes over itself."""
    text = "def make():\n    def f(n):\n        return n and f(n - 1)\n    return f\nf = make()\n"
    for _ in range(2):
        world.cached(ttl=60, namespace="deep")(world.written(text))


def test_a_lambda_needs_a_namespace():
    """Two in one namespace are one only if their code is."""
    cached = Client("memory://a").cached
    with pytest.raises(ConfigurationError, match="a lambda has no name"):
        cached(ttl=60)(lambda: 1)
    for function in (lambda: 1, lambda: 1):
        cached(ttl=60, namespace="n")(function)
    with pytest.raises(ConfigurationError, match="with other code"):
        cached(ttl=60, namespace="n")(lambda: 2)


MAIN = "def f(number):\n    return number\n"


def main_function(asynchronous):
    """Return a function of the main program."""
    module = {"__name__": "__main__"}
    exec(f"async {MAIN.replace(' f', ' g')}" if asynchronous else MAIN, module)
    return module["g" if asynchronous else "f"]


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_main_program_needs_a_namespace_on_nodes_that_others_use(kind):
    """Each script's module has one name; a `key` says nothing of the program."""
    function = main_function(kind is AsyncClient)
    far = kind(["memory://a", FAR])
    for key_spec in ({}, {"key": "{number}"}, {"version": 2}):
        with pytest.raises(ConfigurationError, match=r"__main__:.: .*give it a namespace"):
            far.cached(ttl=60, **key_spec)(function)
    far.cached(ttl=60, namespace="shop")(function)
    kind("memory://a,b").cached(ttl=60)(function)


async def test_the_default_clients_refuse_it_at_the_first_call(monkeypatch):
    """Their nodes are not known before."""
    defaults = Defaults()
    monkeypatch.setattr("shardcache.decorators._defaults", defaults)
    blocking, asynchronous = (shardcache.cached(ttl=60)(main_function(each)) for each in (0, 1))
    shardcache.configure("memory://a")
    assert (blocking(1), await asynchronous(1)) == (1, 1)
    shardcache.configure(FAR)
    for call in (blocking, blocking.key_for, blocking.get, blocking.invalidate):
        with pytest.raises(ConfigurationError, match="give it a namespace"):
            call(1)
    for call in (asynchronous, asynchronous.key_for, asynchronous.get, asynchronous.invalidate):
        with pytest.raises(ConfigurationError, match="give it a namespace"):
            await call(1)


SCRIPT = """
import sys
from shardcache import Client
client = Client(sys.argv[1], timeout=10)
@client.cached(ttl=60{key_spec})
def load(number):
    return "{name}"
print(load.key_for(7), load(7))
"""


def run(arguments, folder, url):
    """Return what a program prints, or the end of its error."""
    done = subprocess.run(
        [sys.executable, *arguments, url],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.split() or done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_two_programs_never_read_each_others_values(memcached_servers, tmp_path):
    """Two scripts have a function of one name, on one node; as modules they have names."""
    url = memcached_servers[0].url
    for name, key_spec in (("admin", ""), ("web", ""), ("named", ", namespace='named'")):
        text = SCRIPT.format(name=name, key_spec=key_spec)
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    assert "namespace" in run(["admin.py"], tmp_path, url)
    assert [run(["-m", name], tmp_path, url)[1] for name in ("admin", "web")] == ["admin", "web"]
    key, value = run(["named.py"], tmp_path, url)
    assert (key.startswith("named:0:"), value) == (True, "named")


def price(article, currency="EUR"):
    """Stand for any function."""
    return article, currency
