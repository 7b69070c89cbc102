"""A view is another handle on the nodes, health and connections of a client."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import weakref

import pytest

from shardcache import (
    AsyncClient,
    Client,
    ClientClosedError,
    ClientCopyError,
    ConfigurationError,
    EncodeError,
    NodeError,
    NotACounterError,
)
from shardcache.clients.base import add_service
from shardcache.core.codecs import Json
from shardcache.testing.driving import make_client
from shardcache.testing.servers import free_port
from shardcache.testing.waiting import eventually


@pytest.fixture
def make(mode):
    """Return a function that makes clients, closed at the end."""
    clients = []

    def making(*args, **settings):
        clients.append(make_client(mode, *args, **settings))
        return clients[-1]

    yield making
    for client in clients:
        client.close()


@pytest.fixture
def dead_url():
    """Return the URL of a node that refuses connections."""
    return f"memcached://127.0.0.1:{free_port()}"


def own(client):
    """Return the client itself, of whatever kind."""
    return getattr(client, "twin", client)


def use_once(client):
    """Ask a node for a value, on whatever loop."""
    value = own(client).get("k")
    return asyncio.run(value) if asyncio.iscoroutine(value) else value


class TestSettings:
    """What a view has of its own, and what of its client."""

    def test_what_is_left_out_is_the_clients(self, make):
        """A view without arguments acts as its client."""
        client = make("memory://a,b,c", namespace="shop", default_ttl=60, on_error="raise")
        view = client.view()
        client.set("k", {"a": 1})
        assert view.get("k") == {"a": 1}
        assert view.fingerprint == client.fingerprint
        assert view.nodes == client.nodes
        assert view.node_for("k") is client.node_for("k")
        clusters = own(client)._cluster, own(view)._cluster
        for name in ("raises", "default_ttl", "timeout", "topology", "payloads"):
            assert len({id(getattr(cluster, name)) for cluster in clusters}) == 1, name

    def test_a_view_has_its_own_namespace(self, make):
        """It replaces the client's, as it would in a client of its own over the same server."""
        client = make("memory://a,b,c", namespace="shop")
        view, plain = client.view(namespace="sessions"), client.view(namespace="")
        client.set("k", 1)
        assert view.get("k") is None
        view.set("k", 2)
        assert (client.get("k"), view.get("k"), plain.get("k")) == (1, 2, None)
        assert view.view(namespace="shop").get("k") == 1

    def test_a_view_has_its_own_default_ttl(self, make):
        """`None` is no expiry, and not the client's default."""
        client = make("memory://a", default_ttl=0.05)
        client.set("gone", 1)
        client.view(default_ttl=60).set("minute", 1)
        client.view(default_ttl=None).set("forever", 1)
        kept = {"minute": 1, "forever": 1}
        eventually(lambda: client.get_many(["gone", *kept]) == kept, within=10)
        assert own(client.view(default_ttl=None))._cluster.default_ttl is None

    def test_a_view_has_its_own_on_error(self, make, dead_url):
        """One client of a page and one of a task see the same failure as they wish."""
        client = make(dead_url, timeout=0.5)
        view = client.view(on_error="raise")
        assert client.get("k") is None
        with pytest.raises(NodeError):
            view.get("k")
        assert view.view(on_error="miss").get("k") is None

    @pytest.mark.parametrize("codec", ["json", Json()], ids=["name", "object"])
    def test_a_view_has_its_own_codec(self, make, codec):
        """By name or as an object; the client's is as it was."""
        client = make("memory://a")
        view = client.view(codec=codec, namespace="json")
        with pytest.raises(EncodeError):
            view.set("k", {1, 2})
        assert client.set("k", {1, 2})
        assert view.set("k", [1, "two"])
        assert (client.get("k"), view.get("k")) == ({1, 2}, [1, "two"])

    def test_values_of_another_codec_are_misses(self, make):
        """As between two clients; nothing is read for what it is not."""
        client = make("memory://a")
        client.view(codec="json").set("k", [1])
        assert client.get("k") is None
        assert client.counters()["a"]["decode_failures"] == 1

    def test_a_view_signs_with_the_clients_secret(self, make):
        """Its codec is its own, and its trust is not."""
        client = make("memory://a", secret="0123456789abcdef")
        view = client.view(codec="json")
        view.set("k", [1])
        assert view.get("k") == [1]
        assert own(view)._cluster.payloads.signs

    def test_a_strategy_that_hashes_namespaces(self, make):
        """The view's keys are placed by its own namespace."""
        client = make("memory://a,b,c", strategy="ketama:profile=twemproxy", namespace="shop")
        view = client.view(namespace="sessions")
        twin = make("memory://a,b,c", strategy="ketama:profile=twemproxy", namespace="sessions")
        keys = [f"k{number}" for number in range(50)]
        assert [view.node_for(key) for key in keys] == [twin.node_for(key) for key in keys]


class TestFaults:
    """What cannot be a view is refused, in words."""

    @pytest.mark.parametrize(
        ("given", "fault"),
        [
            ({"on_error": "explode"}, "on_error"),
            ({"namespace": 5}, "namespace: must be text, not int"),
            ({"codec": 7}, "codec: must be text, not int"),
            ({"codec": "kettle"}, "no such codec"),
            ({"default_ttl": "soon"}, "default_ttl"),
            ({"default_ttl": -1}, "default_ttl"),
        ],
        ids=repr,
    )
    def test_bad_arguments(self, make, given, fault):
        """Each is named, with what it is."""
        client = make("memory://a")
        with pytest.raises(ConfigurationError) as raised:
            client.view(**given)
        assert fault in str(raised.value)

    def test_every_fault_at_once(self, make):
        """As for a client."""
        with pytest.raises(ConfigurationError) as raised:
            make("memory://a").view(on_error="explode", namespace=5)
        assert len(raised.value.faults) == 2

    def test_settings_that_belong_to_the_nodes(self, make):
        """There is one timeout and one pool, and a view has no other."""
        with pytest.raises(TypeError):
            make("memory://a").view(timeout=1)

    def test_no_other_codec_over_raw(self, make):
        """Its text has no type on Redis: another codec would read bytes."""
        client = make("memory://a", codec="raw")
        with pytest.raises(ConfigurationError, match="stores text and bytes on Redis"):
            client.view(codec="msgpack")
        assert client.view(codec="raw", namespace="other").set("k", b"x")
        assert make("memory://a").view(codec="raw").set("k", b"x")

    def test_no_copies(self, make):
        """As of its client."""
        view = make("memory://a").view()
        with pytest.raises(ClientCopyError):
            copy.copy(own(view))
        with pytest.raises(ClientCopyError):
            pickle.dumps(own(view))


class TestSharing:
    """One list of nodes, one health, one set of connections and counters."""

    def test_nodes_change_for_all(self, make):
        """Through the client or through any view."""
        client = make("memory://a,b")
        view = client.view(namespace="other")
        second = view.view(codec="json")
        client.add_node("memory://c")
        assert len(view.nodes) == len(second.nodes) == 3
        change = view.remove_node("a")
        assert [node.name for node in change.removed] == ["a"]
        assert {node.name for node in client.nodes} == {"b", "c"}
        for handle in (client, view, second):
            handle.set("k", [1])
            assert handle.get("k") == [1]

    def test_a_view_made_before_or_after_a_change(self, make):
        """Its nodes are the client's of now."""
        client = make("memory://a,b", lock_nodes="memory://x,y,z")
        client.add_node("memory://c")
        view = client.view(namespace="late")
        assert view.nodes == client.nodes
        assert {node.name for node in view.lock("l").nodes} == {"x", "y", "z"}

    def test_counters_are_one(self, make):
        """Those of nodes and those of recomputes: a metrics page needs no list of views."""
        client = make("memory://a")
        view = client.view(namespace="other")
        client.set("k", 1)
        view.get("k")
        view.get_or_set("v", lambda: 1, 60)
        counters = client.counters()
        assert counters == view.counters()
        assert counters["a"]["misses"] == 1
        assert counters.protection["recomputes"] == 1

    def test_connections_are_one(self, make, make_memcached):
        """A view dials nothing that its client has open."""
        server = make_memcached()
        client = make(server.url, timeout=5)
        client.get("k")
        before = int(
            client.stats()[server.url.removeprefix("memcached://")].server["total_connections"]
        )
        for number in range(5):
            client.view(namespace=f"n{number}").set("k", 1)
        after = int(
            client.stats()[server.url.removeprefix("memcached://")].server["total_connections"]
        )
        assert after == before

    def test_health_is_one(self, make, dead_url):
        """What one has found out, the other need not."""
        client = make(dead_url, timeout=0.5)
        view = client.view(on_error="raise")
        while not client.ejected:
            client.get("k")
        assert view.ejected == client.ejected
        with pytest.raises(NodeError, match="ejected"):
            view.get("k")

    def test_observers_hear_of_both(self, make):
        """They belong to the client."""
        heard = []

        class Watch:
            def keys_accessed(self, event):
                heard.append(event.keys)

        client = make("memory://a", observers=[Watch()])
        client.view(namespace="v").set("k", 1)
        assert len(heard) == 1

    def test_a_call_to_a_view_starts_services(self, make):
        """It is a call to a node like any other."""
        started = []

        class Service:
            def start(self):
                started.append("start")

            def stop(self):
                started.append("stop")

        client = make("memory://a")
        view = client.view(namespace="v")
        add_service(own(client), Service())
        later = client.view(namespace="w")
        later.get("k")
        view.get("k")
        client.get("k")
        assert started == ["start"]
        assert len({id(own(each)._cluster.io) for each in (client, view, later)}) == 1
        client.close()
        assert started == ["start", "stop"]


class TestCachedFunctions:
    """They and locks and tags live in the view's namespace."""

    def test_cached_functions(self):
        """Two views of one function keep two values."""
        client = Client("memory://a,b,c")
        calls = []

        def build(handle):
            @handle.cached(ttl=60, namespace="f", tags=("t",))
            def f(x):
                calls.append(x)
                return x

            return f

        plain, other = build(client), build(client.view(namespace="other"))
        assert (plain(1), other(1), plain(1), other(1)) == (1, 1, 1, 1)
        assert calls == [1, 1]
        client.view(namespace="other").invalidate_tag("t")
        assert (plain(1), other(1)) == (1, 1)
        assert calls == [1, 1, 1]
        other.invalidate_all()
        assert (plain(1), other(1)) == (1, 1)
        assert calls == [1, 1, 1, 1]
        assert other.cache_info().recomputes == 3
        client.close()

    def test_two_functions_of_one_name_are_refused_across_views(self):
        """Those of one namespace share their keys; those of two do not."""
        client = Client("memory://a")
        client.cached(ttl=60, namespace="f")(lambda x: x)
        with pytest.raises(ConfigurationError, match="namespace and version"):
            client.view(codec="json").cached(ttl=60, namespace="f")(lambda y: y)
        client.view(namespace="v").cached(ttl=60, namespace="f")(lambda y: y)
        client.close()

    def test_the_asyncio_twin(self):
        """The same for coroutine functions."""

        async def main():
            async with AsyncClient("memory://a") as client:
                view = client.view(namespace="other", default_ttl=60)
                calls = []

                async def f(x):
                    calls.append(x)
                    return x

                plain = client.cached(ttl=60, namespace="f")(f)
                other = view.cached(namespace="f")(f)
                assert [await plain(1), await other(1), await other(1)] == [1, 1, 1]
                assert calls == [1, 1]
                async with client.lock("l") as one, view.lock("l") as two:
                    assert one.valid
                    assert two.valid

        asyncio.run(main())

    def test_locks_of_two_namespaces_are_two(self):
        """And those of one are one."""
        client = Client("memory://a,b,c", lock_nodes="memory://x,y,z")
        view = client.view(namespace="other")
        with client.lock("l"), view.lock("l"):
            assert client.view(codec="json").lock("l").try_acquire() is None
        client.close()

    def test_clear_empties_one_namespace(self, make):
        """For clients with `clearable=True`; at once for the client and all views with that namespace."""
        client = make("memory://a,b", clearable=True, namespace="shop")
        twin, other = client.view(codec="json"), client.view(namespace="other")
        client.set("k", 1)
        other.set("k", 2)
        twin.set("n", 3)
        assert twin.clear()
        assert (client.get("k"), twin.get("n"), other.get("k")) == (None, None, 2)
        assert other.clear()
        assert other.get("k") is None


class TestLifetime:
    """The members are the client's."""

    def test_closing_a_view_closes_nothing(self, make):
        """Neither by `close` nor by the end of a block."""
        client = make("memory://a")
        view = client.view()
        view.close()
        assert view.set("k", 1)
        assert client.get("k") == 1

    def test_blocks(self):
        """A view may be used in a `with` as a client is."""
        client = Client("memory://a")
        with client.view() as view:
            view.set("k", 1)
        assert client.get("k") == view.get("k") == 1
        client.close()

    def test_a_closed_client_has_no_views(self, make):
        """Neither those it has nor new ones."""
        client = make("memory://a")
        view = client.view(namespace="v")
        client.close()
        for use in (lambda: use_once(view), lambda: view.nodes, client.view, view.view):
            with pytest.raises(ClientClosedError, match="is closed"):
                use()
        assert "[closed]" in repr(view)
        view.close()

    def test_a_view_keeps_the_members_alive(self, mode):
        """The client's own name may be forgotten."""
        client = {"blocking": Client, "asyncio": AsyncClient}[mode]("memory://a")
        dropped, view = weakref.ref(client), client.view(namespace="v")
        del client
        gc.collect()
        assert dropped() is None
        assert use_once(view) is None
        assert view.nodes

    def test_views_leave_nothing_behind(self):
        """One for each request is fine."""
        client = Client("memory://a")
        views = [client.view(namespace=f"n{number}") for number in range(20)]
        dead = [weakref.ref(view) for view in views]
        views.clear()
        gc.collect()
        assert not any(reference() for reference in dead)
        client.view()
        assert client._membership._handles.count_with_dead() == 2
        assert len(client._membership._namespaces) == 1
        client.close()

    def test_a_subclass_has_views_of_its_kind(self):
        """With whatever it has beside a client."""

        class Shop(Client):
            def __init__(self, *args, **settings):
                super().__init__(*args, **settings)
                self.name = "shop"

        client = Shop("memory://a")
        view = client.view(namespace="v")
        assert type(view) is Shop
        assert view.name == "shop"
        client.close()

    def test_representations(self, make):
        """A view says that it is one, and of what namespace."""
        view = own(make("memory://a,b", namespace="shop").view(namespace="v"))
        assert repr(view).endswith("Client view [2 nodes] rendezvous namespace='v'>")


def test_json_over_redis(make, make_redis):
    """A view with `json` compares and sets, counts, and reads what other programs wrote."""
    server = make_redis()
    client = make(server.url, timeout=5, on_error="raise")
    view = client.view(codec="json")
    view.set("k", {"a": 1})
    value, token = view.gets("k")
    assert value == {"a": 1}
    assert view.cas("k", {"a": 2}, token) is True
    assert view.cas("k", {"a": 3}, token) is False
    assert view.get("k") == {"a": 2}
    assert view.incr("n", initial=1) == 1
    assert client.get("n") == 1
    with pytest.raises(NotACounterError):
        view.incr("k")
    raw = client.view(codec="raw", namespace="raw")
    raw.set("k", b"bytes")
    value, token = raw.gets("k")
    assert (value, raw.cas("k", b"more", token), raw.get("k")) == (b"bytes", True, b"more")
