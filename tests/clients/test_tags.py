"""`tags` as functions of the arguments and the result, in both clients."""

from __future__ import annotations

import threading
import time

import pytest

from clients.sources import as_called
from shardcache import Client, ConfigurationError, KeyBuildError
from shardcache.testing.driving import MODES, make_client


@pytest.fixture(params=MODES)
def client(request):
    """Return a client of each kind."""
    client = make_client(request.param, "memory://a,b,c")
    yield client
    client.close()


def items_of(_, result):
    """Return a tag for each item of a list."""
    return [f"item:{item}" for item in result]


def test_a_list_is_tagged_by_its_items(source):
    """On nodes of each kind: an item invalidates the lists that have it, and no others."""
    f = source.cached(tags=["lists", "list:{number}", items_of])
    source.result = [1, 2]
    assert [f(1), f(2), f(1)] == [[1, 2]] * 3
    source.result = [2, 3]
    assert source.client.invalidate_tag("item:3") is True
    assert [f(1), f(2)] == [[1, 2]] * 2
    assert source.client.invalidate_tag("item:1") is True
    assert [f.get(1), f(1), f.get(1)] == [None, [2, 3], [2, 3]]
    assert source.client.invalidate_tag("list:1") is True
    assert (f.get(1), f.get(2)) == (None, None)  # the second list had item 1 too
    source.result = []
    assert [f(1), f(1)] == [[], []]
    assert source.client.invalidate_tag("lists") is True
    assert f.get(1) is None
    assert source.calls == [1, 2, 1, 1]


def test_every_way_to_store_tags_the_value(source):
    """`set`, `refresh` and `get_or_set`."""
    f = source.cached(tags=items_of)
    f.set([7], 1)
    source.result = [8]
    f.refresh(2)
    assert source.client.get_or_set("k", lambda: [9], ttl=60, tags=["k", lambda r: [*map(str, r)]])
    for function, tag in ((lambda: f.get(1), "item:7"), (lambda: f.get(2), "item:8")):
        assert function() is not None
        assert source.client.invalidate_tag(tag) is True
        assert function() is None
    made = iter(range(9))
    for tag in ("9", "k"):
        found = [
            source.client.get_or_set("m", lambda: next(made), ttl=60, tags=["k", lambda _: "9"])
            for _ in range(2)
        ]
        assert found[0] == found[1]
        assert source.client.invalidate_tag(tag) is True
    assert next(made) == 2


def test_a_function_of_the_arguments_costs_no_second_read(client):
    """It is called before the value is read; its tags may be of any number."""
    calls = []

    def load(numbers):
        calls.append(numbers)
        return sum(numbers)

    f = as_called(client, load, ttl=60, tags=lambda call: [f"n:{n}" for n in call["numbers"]])
    assert [f([1, 2]), f([3]), f([1, 2])] == [3, 3, 3]
    client.invalidate_tag("n:2")
    assert [f([3]), f([1, 2])] == [3, 3]
    assert calls == [[1, 2], [3], [1, 2]]


def test_an_invalidation_during_the_recompute(all_urls):
    """The value is returned to its caller, and a miss afterwards, also for another client."""
    versions, began, go_on = [1], threading.Event(), threading.Event()
    with Client(all_urls, timeout=5.0) as one, Client(all_urls, timeout=5.0) as other:
        clients = [one, one if all_urls == "memory://a,b,c" else other]

        @one.cached(ttl=60, namespace="f", tags=lambda _, result: f"v:{result > 0}")
        def f():
            version = versions[-1]
            if version == 1:
                began.set()
                go_on.wait(30)
            return version

        results = []
        thread = threading.Thread(target=lambda: results.append(f()))
        thread.start()
        began.wait(30)
        versions.append(2)
        assert clients[1].invalidate_tag("v:True") is True
        late = threading.Thread(target=lambda: results.append(f()))
        late.start()
        time.sleep(0.2)
        go_on.set()
        thread.join()
        late.join()
        assert sorted(results) == [1, 2]
        assert f() == 2


@pytest.mark.parametrize(
    ("tags", "fault"),
    [
        (7, "tags must be templates or functions, not 7"),
        (b"t", "tags must be templates or functions, not bytes"),
        (["t", 7], "tags must be templates or functions, not 7"),
        (iter(["t"]), "tags must be a sequence, not an iterator"),
        (lambda: "t", "a function of tags must take one argument, .* does not"),
        (lambda a, b, c: (a, b, c), "a function of tags must take one argument, .* does not"),
    ],
)
def test_bad_tags_are_refused_at_decoration(client, tags, fault):
    """The error says what is wrong."""
    with pytest.raises(ConfigurationError, match=f"^cached: {fault}"):
        client.cached(ttl=60, tags=tags)


def test_an_async_function_of_tags_is_refused(client):
    """It could not be awaited where it is called."""

    async def named(arguments):
        return arguments

    with pytest.raises(
        ConfigurationError, match=r"must be plain functions, not the async def .*named"
    ):
        client.cached(ttl=60, tags=["t", named])


async def tag_of(result):
    """Return a tag, too late."""
    return result


@pytest.mark.parametrize(
    ("tags", "fault"),
    [
        (None, "tags must be names or functions, not None"),
        (7, "tags must be names or functions, not 7"),
        (tag_of, "tags must be plain functions, not the async def .*tag_of"),
        (["t", tag_of], "tags must be plain functions, not the async def .*tag_of"),
    ],
)
def test_bad_tags_of_get_or_set_are_refused_before_the_factory_runs(client, tags, fault):
    """The error says what is wrong."""
    calls = []
    with pytest.raises(ConfigurationError, match=f"^get_or_set: {fault}"):
        client.get_or_set("k", lambda: calls.append(1), ttl=60, tags=tags)
    assert calls == []


@pytest.mark.parametrize("names", [None, 7, [7], {"t": 1, 2: 3}])
@pytest.mark.parametrize("by_result", [False, True])
def test_what_is_no_name_is_an_error(client, names, by_result):
    """Of the arguments before the call, of the result after it."""
    calls = []
    function = (lambda _, __: names) if by_result else (lambda _: names)
    f = as_called(client, lambda: calls.append(1), ttl=60, tags=function)
    with pytest.raises(KeyBuildError, match=r"a function of tags returned .*, not names"):
        f()
    assert len(calls) == by_result
    with pytest.raises(KeyBuildError, match="get_or_set: a function of tags returned"):
        client.get_or_set("k", lambda: 1, ttl=60, tags=lambda _: names)


def test_too_many_tags_of_the_arguments(client):
    """An envelope holds 255."""
    f = as_called(client, lambda: 1, ttl=60, tags=lambda _: map(str, range(256)))
    with pytest.raises(KeyBuildError, match="256 tags; the limit is 255"):
        f()


def test_names_may_be_bytes_and_equal(client):
    """As keys; a tag that is named twice is one."""
    f = as_called(client, lambda: 1, ttl=60, tags=lambda _, __: ("t", b"t", "ü"))
    assert [f(), f()] == [1, 1]
    for tag in (b"t", "ü".encode()):
        client.invalidate_tag(tag)
        assert f() == 1
