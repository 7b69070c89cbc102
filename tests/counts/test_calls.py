"""A guard without a clock: what one warm call costs, counted.

Times differ between machines, counts do not. `COUNTS` has how many functions of the
package one call runs, how many C functions they call, and how often it sends, polls and receives. A
call that costs more fails, and so does one that costs less: then lower its figures.

`python tests/counts/test_calls.py` prints the figures of the Python that runs it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

import shardcache
from shardcache import AsyncClient, Client
from shardcache.testing.servers import start_memcached, start_redis

PACKAGE = str(Path(shardcache.__file__).parent)
KEYS = [f"user:profile:{number:08d}" for number in range(40)]
VALUES = dict.fromkeys(KEYS, 1234567890)  # which no random version precedes on Redis
TURNS = 30  # of which one has met no timer of a loop, and no reply that came in parts


class Cost(NamedTuple):
    """What one call costs: functions of the package, C functions that they call, system calls."""

    python: int
    c: int
    sends: int
    polls: int
    receives: int


@contextmanager
def counting(names):
    """Count the calls of this thread by name: the package's own functions, and C functions it calls."""

    def note(frame, event, function):
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return
        if event == "call":
            names["python"] += 1
        elif event == "c_call":
            names["c"] += 1
            names[function.__qualname__] += 1

    gc.disable()
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)
        gc.enable()


def cost(names):
    """Return the counts as a `Cost`."""
    system = (names[name] for name in ("socket.send", "poll.poll", "socket.recv"))
    return Cost(names["python"], names["c"], *system)


def least_cost(call):
    """Return the least cost of some turns of a call."""
    turns = []
    for _ in range(TURNS):
        names = Counter()
        with counting(names):
            call()
        turns.append(cost(names))
    return min(turns)


def blocking_calls(client):
    """Return the calls of a blocking client by name."""

    @client.cached(ttl=60, lock=True, namespace="f")
    def function(number):
        return number

    return {
        "get": lambda: client.get(KEYS[0]),
        "get a miss": lambda: client.get("none"),
        "set": lambda: client.set(KEYS[0], b"x" * 100, 300),
        "delete": lambda: client.delete("none"),
        "incr": lambda: client.incr("n"),
        "get_many(40)": lambda: client.get_many(KEYS),
        "set_many(40)": lambda: client.set_many(VALUES, 300),
        "delete_many(40)": lambda: client.delete_many(KEYS),
        "hit": lambda: function(1),
    }


def cost_of_blocking(url):
    """Return the cost of each call of a blocking client."""
    costs = {}
    with Client(url, timeout=20) as client:
        for name, call in blocking_calls(client).items():
            client.set_many(VALUES, 300)
            client.set("n", 1)
            call()
            costs[name] = least_cost(call)
    return costs


def cost_of_asyncio(url):
    """Return the cost of each call of an asyncio client, with what the loop runs for it."""
    costs = {}

    async def measure():
        async with AsyncClient(url, timeout=20) as client:
            calls = {
                "await get": lambda: client.get(KEYS[0]),
                "await set": lambda: client.set(KEYS[0], b"x" * 100, 300),
                "await 40 gets": lambda: asyncio.gather(*map(client.get, KEYS)),
                "await get_many(40)": lambda: client.get_many(KEYS),
            }
            for name, call in calls.items():
                await client.set_many(VALUES, 300)
                await call()
                await client.get_many(KEYS)
                turns = []
                for _ in range(TURNS):
                    names = Counter()
                    with counting(names):
                        await call()
                    turns.append(cost(names))
                costs[name] = min(turns)

    asyncio.run(measure())
    return costs


def costs_of(url):
    """Return the cost of every call to a node."""
    return cost_of_blocking(url) | cost_of_asyncio(url)


@pytest.fixture(autouse=True)
def no_plugins(monkeypatch):
    """Leave installed plugins out: their observers cost calls."""
    monkeypatch.setenv("SHARDCACHE_PLUGINS", "none")


COUNTS = {
    "memcached": {
        "get": (17, 23, 1, 1, 1),
        "get a miss": (16, 22, 1, 1, 1),
        "set": (21, 26, 1, 1, 1),
        "delete": (19, 24, 1, 1, 1),
        "incr": (21, 27, 1, 1, 1),
        "get_many(40)": (157, 132, 1, 1, 1),
        "set_many(40)": (81, 101, 1, 1, 1),
        "delete_many(40)": (36, 52, 1, 1, 1),
        "hit": (32, 28, 1, 1, 1),
        "await get": (34, 33, 1, 0, 1),
        "await set": (45, 39, 1, 0, 1),
        "await 40 gets": (589, 685, 1, 0, 1),
        "await get_many(40)": (178, 139, 1, 0, 1),
    },
    "redis": {
        "get": (18, 26, 1, 1, 1),
        "get a miss": (14, 21, 1, 1, 1),
        "set": (32, 29, 1, 1, 1),
        "delete": (24, 26, 1, 1, 1),
        "incr": (31, 34, 1, 1, 1),
        "get_many(40)": (202, 254, 1, 1, 1),
        "set_many(40)": (88, 62, 1, 1, 1),
        "delete_many(40)": (36, 46, 1, 1, 1),
        "hit": (33, 31, 1, 1, 1),
        "await get": (38, 41, 1, 0, 1),
        "await set": (49, 36, 1, 0, 1),
        "await 40 gets": (634, 882, 1, 0, 1),
        "await get_many(40)": (222, 261, 1, 0, 1),
    },
}

# From 3.12 on a comprehension is not a call.
INLINED = {
    "memcached": {
        "get_many(40)": (153, 132, 1, 1, 1),
        "set_many(40)": (77, 101, 1, 1, 1),
        "delete_many(40)": (32, 52, 1, 1, 1),
        "await 40 gets": (587, 685, 1, 0, 1),
        "await get_many(40)": (174, 139, 1, 0, 1),
    },
    "redis": {
        "get_many(40)": (196, 254, 1, 1, 1),
        "set_many(40)": (80, 62, 1, 1, 1),
        "delete_many(40)": (31, 46, 1, 1, 1),
        "await 40 gets": (630, 882, 1, 0, 1),
        "await get_many(40)": (216, 261, 1, 0, 1),
    },
}


@pytest.mark.parametrize("kind", ["memcached", "redis"])
def test_a_call_costs_what_it_did(request, kind):
    """No more, or it has become slower; no less, or its figures are to be lowered.

    One node: how often a fan-out polls is a matter of time.
    """
    (server, *_) = request.getfixturevalue(f"{kind}_servers")
    costs = costs_of(server.url)
    expected = COUNTS[kind] | (INLINED[kind] if sys.version_info >= (3, 12) else {})
    assert costs == {name: Cost(*figures) for name, figures in expected.items()}


# Over eight nodes in this process, where no poll depends on time: what is paid for each node.
OF_NODES = {
    "get_many(40)": (290, 319, 0, 0, 0),
    "set_many(40)": (455, 540, 0, 0, 0),
    "delete_many(40)": (164, 161, 0, 0, 0),
}
OF_NODES_INLINED = {
    "get_many(40)": (276, 319, 0, 0, 0),
    "set_many(40)": (441, 540, 0, 0, 0),
    "delete_many(40)": (150, 161, 0, 0, 0),
}


def costs_of_nodes():
    """Return the cost of each call of many keys over eight memory nodes."""
    costs = {}
    with Client([f"memory://{name}" for name in "abcdefgh"]) as client:
        for name, call in blocking_calls(client).items():
            if "many" in name:
                client.set_many(VALUES, 300)
                call()
                costs[name] = least_cost(call)
    return costs


def test_a_node_of_a_call_costs_what_it_did():
    """No more and no less, as above."""
    expected = OF_NODES_INLINED if sys.version_info >= (3, 12) else OF_NODES
    assert costs_of_nodes() == {name: Cost(*figures) for name, figures in expected.items()}


GROWING = {
    "get_many": lambda client, keys: client.get_many(keys),
    "set_many": lambda client, keys: client.set_many(dict.fromkeys(keys, b"x"), 300),
    "delete_many": lambda client, keys: client.delete_many(keys),
}


@pytest.mark.parametrize("kind", ["memcached", "redis"])
@pytest.mark.parametrize("name", GROWING)
def test_ten_times_the_keys_cost_no_more_than_ten_times(request, kind, name):
    """However many keys there are, the next one costs the same."""
    (server, *_) = request.getfixturevalue(f"{kind}_servers")
    counts = []
    with Client(server.url, timeout=20) as client:
        for times in (1, 10):
            keys = [f"{number}" for number in range(10 * times)]  # few enough for one reply
            client.set_many(dict.fromkeys(keys, b"x"), 300)
            python, c, *_ = least_cost(lambda keys=keys: GROWING[name](client, keys))
            counts.append(python + c)
    assert counts[1] <= 10 * counts[0]


@pytest.mark.parametrize("kind", ["memcached", "redis"])
def test_a_thousand_calls_leave_nothing(request, kind):
    """No block of memory is left over."""
    (server, *_) = request.getfixturevalue(f"{kind}_servers")
    with Client(server.url, timeout=20) as client:
        calls = [call for name, call in blocking_calls(client).items() if "many" not in name]

        def run():
            for call in calls:
                for _ in range(1000):
                    call()

        run()
        before = sys.getallocatedblocks()
        run()
        assert sys.getallocatedblocks() - before < 100


def print_figures():
    """Print the figures of this Python, as `COUNTS` has them."""
    for kind, start in (("memcached", start_memcached), ("redis", start_redis)):
        server = start()
        try:
            costs = costs_of(server.url)
        finally:
            server.stop()
        print_costs(kind, costs)
    print_costs("nodes", costs_of_nodes())


def print_costs(title, costs):
    """Print the cost of each call under a title."""
    lines = [f'            "{name}": {tuple(each)},' for name, each in costs.items()]
    sys.stdout.write("\n".join((f'        "{title}": {{', *lines, "        },\n")))


if __name__ == "__main__":
    os.environ["SHARDCACHE_PLUGINS"] = "none"
    print_figures()
