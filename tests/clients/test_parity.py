"""The two clients are one: names, parameters, defaults, results and words."""

from __future__ import annotations

import inspect

import pytest

from shardcache import AsyncClient, AsyncLease, AsyncLock, Client, Lease, Lock

RENAMED = {"close": "aclose", "__enter__": "__aenter__", "__exit__": "__aexit__"}
NAMES = sorted(
    name
    for name in dir(Client)
    if (not name.startswith("_") or name in RENAMED) and callable(getattr(Client, name))
)


def signature(function):
    """Return a signature as text, without what tells a world from the other."""
    text = str(inspect.signature(function)).replace("Async", "")
    text = text.replace("Awaitable[Mapping[K, T]] | ", "")
    return text.replace("Awaitable[T] | T", "T")


@pytest.mark.parametrize("name", NAMES)
def test_signatures_and_docstrings_are_equal(name):
    """A call is written, and described, the same way in both worlds."""
    ours, twin = getattr(Client, name), getattr(AsyncClient, RENAMED.get(name, name))
    assert signature(ours) == signature(twin)
    assert inspect.getdoc(ours) == inspect.getdoc(twin)


def test_neither_has_what_the_other_lacks():
    """Each public name of one is a name of the other."""
    blocking = {RENAMED.get(name, name) for name in dir(Client) if not name.startswith("_")}
    assert blocking == {name for name in dir(AsyncClient) if not name.startswith("_")}


def test_calls_that_ask_a_node_are_awaited():
    """In the asyncio client a call is a coroutine function exactly when it asks a node."""
    local = {
        "cached",
        "cached_many",
        "counters",
        "follow_config",
        "lock",
        "from_env",
        "from_settings",
        "from_url",
        "hashed",
        "node_for",
        "nodes_for",
        "stand_in_for",
        "view",
    }
    for name in NAMES:
        awaited = inspect.iscoroutinefunction(getattr(AsyncClient, RENAMED.get(name, name)))
        assert awaited is (name not in local), name


@pytest.mark.parametrize(
    ("ours", "twin"),
    [
        pytest.param(getattr(ours, name), getattr(twin, name, None), id=f"{ours.__name__}.{name}")
        for ours, twin in ((Lock, AsyncLock), (Lease, AsyncLease))
        for name in dir(ours)
        if not name.startswith("_") and callable(getattr(ours, name))
    ],
)
def test_locks_are_described_alike(ours, twin):
    """A lock and a lease have the same calls in both worlds."""
    assert signature(ours) == signature(twin)
    assert inspect.getdoc(ours) == inspect.getdoc(twin).replace("async with", "with")
