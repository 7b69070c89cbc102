"""Nodes come and go while calls are in flight, and no error reaches a caller."""

from __future__ import annotations

import asyncio
import threading

import pytest

from interrupting import interrupted
from shardcache import (
    AsyncClient,
    Client,
    Node,
    NodeUnavailableError,
    ShardCacheError,
    TopologyError,
)
from shardcache.testing.driving import make_client


@pytest.fixture
def urls(memcached_servers, redis_servers):
    """Return three memcached and three Redis nodes."""
    return [server.url for server in (*memcached_servers, *redis_servers)]


def test_threads_go_on_while_nodes_change(urls):
    """Eight threads read and write through 60 changes of nodes: 0 errors, 0 wrong."""
    client = Client(urls[:3], on_error="raise", timeout=20)
    wrong, done = [], threading.Event()

    def work(number):
        turn = 0
        while not done.is_set():
            turn += 1
            key = f"{number}:{turn % 50}"
            try:
                client.set(key, key)
                if client.get(key) not in (key, None):
                    wrong.append(key)
                client.get_many([f"{number}:{n}" for n in range(20)])
            except ShardCacheError as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for turn in range(20):
        client.add_node(urls[3 + turn % 3])
        client.remove_node(Node(urls[3 + turn % 3]).name)
        client.set_nodes(urls if turn % 2 else urls[:3])
        client.set_nodes(urls[:3])
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(client.nodes) == 3
    client.close()


def test_tasks_go_on_while_nodes_change(urls):
    """Sixty-four tasks read and write through changes of nodes: 0 errors, 0 wrong."""

    async def main():
        async with AsyncClient(urls[:3], on_error="raise", timeout=20) as client:
            done = False

            async def work(number):
                turn = 0
                while not done:
                    turn += 1
                    key = f"{number}:{turn % 50}"
                    await client.set(key, key)
                    assert await client.get(key) in (key, None)
                    await client.get_many([f"{number}:{n}" for n in range(20)])

            tasks = [asyncio.create_task(work(number)) for number in range(64)]
            for turn in range(10):
                await client.add_node(urls[3 + turn % 3])
                await client.remove_node(Node(urls[3 + turn % 3]).name)
                await client.set_nodes(urls)
                await client.set_nodes(urls[:3])
            done = True
            await asyncio.gather(*tasks)

    asyncio.run(main())


def test_a_change_says_what_it_did(mode):
    """It names the nodes that came and went, and the share of keys that moved."""
    client = make_client(mode, ["memory://a", "memory://b", "memory://c"])
    before = client.fingerprint
    change = client.add_node(Node("memory://d"))
    assert [node.name for node in change.added] == ["d"]
    assert change.removed == ()
    assert change.moved == pytest.approx(1 / 4, abs=0.02)
    assert client.fingerprint != before
    change = client.remove_node("d")
    assert [node.name for node in change.removed] == ["d"]
    assert client.fingerprint == before


def test_keys_of_nodes_that_stay_are_found(mode):
    """Only keys that moved are missed."""
    client = make_client(mode, ["memory://a", "memory://b", "memory://c"])
    items = {f"k{number}": number for number in range(1000)}
    client.set_many(items)
    owners = {key: client.node_for(key) for key in items}
    client.add_node("memory://d")
    stayed = {key for key in items if client.node_for(key) == owners[key]}
    assert client.get_many(items) == {key: items[key] for key in stayed}
    client.remove_node("d")
    assert client.get_many(items) == items


def test_a_new_weight_moves_keys_and_loses_no_connection(mode):
    """Re-weighting keeps a node's values where its keys stay."""
    client = make_client(mode, ["memory://a", "memory://b"])
    client.set_many({f"k{number}": number for number in range(500)})
    change = client.set_nodes([Node("memory://a", weight=3), Node("memory://b")])
    assert change.added == change.removed == ()
    assert change.moved == pytest.approx(1 / 4, abs=0.02)
    assert len(client.get_many(f"k{number}" for number in range(500))) > 300


def test_impossible_changes_are_refused(mode):
    """An unknown node, a duplicate name, the last node: an error, and nothing changes."""
    client = make_client(mode, ["memory://a"])
    for change in (
        lambda: client.remove_node("z"),
        lambda: client.add_node("memory://a"),
        lambda: client.remove_node("a"),
        lambda: client.set_nodes([]),
    ):
        with pytest.raises(TopologyError):
            change()
    assert [node.name for node in client.nodes] == ["a"]


def test_a_node_can_be_emptied_before_it_is_added(mode, make_memcached):
    """What it holds is from before it left; one that is there already is not touched."""
    first, back = make_memcached(), make_memcached()
    with Client(back.url) as former:
        former.set("k", "old")
    client = make_client(mode, first.url, timeout=2.0)
    for warm_for in (0, 60):
        client.add_node(back.url, empty=True, warm_for=warm_for)
        with Client(back.url) as former:
            assert former.get("k") is None
            former.set("k", "old")
        with pytest.raises(TopologyError):
            client.add_node(back.url, empty=True)
        with Client(back.url) as former:
            assert former.get("k") == "old"
        client.remove_node(client.nodes[1].name)
    client.close()


def test_a_node_that_cannot_be_emptied_is_not_added(mode, make_memcached):
    """Its error is raised, whatever `on_error` says: its old values would be read."""
    first, dead = make_memcached(), make_memcached()
    dead.kill()
    client = make_client(mode, first.url)
    with pytest.raises(NodeUnavailableError):
        client.add_node(dead.url, empty=True)
    assert len(client.nodes) == 1
    client.close()


def test_jump_refuses_a_change_that_moves_most_keys():
    """The error says that the strategy grows at its end only."""
    client = Client(["memory://a", "memory://b", "memory://c"], strategy="jump")
    with pytest.raises(TopologyError, match="jump"):
        client.remove_node("a")
    assert client.remove_node("c").moved == pytest.approx(1 / 3, abs=0.02)


def inside(code):
    """Return whether code is that of a change of members."""
    return code.co_filename.endswith("clients/membership.py")


def test_an_interrupted_change_is_made_for_all_or_for_none():
    """A client and its views never disagree on the nodes, whenever a signal raises."""
    client = Client("memory://a")
    view = client.view(namespace="v")

    def change():
        client.set_nodes("memory://a,b" if len(client.nodes) == 1 else "memory://a")

    moments = 0
    for _ in interrupted(change, inside):
        moments += 1
        assert client.nodes == view.nodes
        client.set("k", 1)
        assert view.get("k") is None
    assert moments > 10
    client.close()


def test_an_interrupted_close_closes_all_or_none():
    """A view is never open when its client is closed."""
    clients = []

    def close():
        client = Client("memory://a")
        clients.append((client, client.view()))
        client.close()

    for _ in interrupted(close, inside):
        if clients:
            client, view = clients[-1]
            assert ("[closed]" in repr(client)) is ("[closed]" in repr(view))
            clients.clear()
