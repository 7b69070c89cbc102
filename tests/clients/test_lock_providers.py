"""A client whose locks another service keeps: chosen by URL, used by both kinds of lock, closed with it."""

from __future__ import annotations

import sqlite3
import ssl
import threading

import pytest

from lock_service import LockService, TellingService, running
from operations.harness import EventLog
from shardcache import Client, LockLost, LockProviderFailed, LockUnavailable
from shardcache.errors import ClientClosedError, ConfigurationError
from shardcache.settings import Settings
from shardcache.testing.driving import DrivenClient, make_client
from shardcache.testing.lock_calls import extend, release, take, try_take
from shardcache.testing.locks import LockProviderContract
from shardcache.testing.servers import free_port

TTL = 5.0


@pytest.fixture
def service():
    """Return a service that runs."""
    return TellingService()


@pytest.fixture
def locks(service):
    """Return its URL while it runs."""
    with running(service) as url:
        yield url


@pytest.fixture
def client(mode, locks):
    """Return a client of each kind whose locks it keeps."""
    client = make_client(mode, "memory://a,b,c", locks=locks, timeout=5)
    yield client
    client.close()


def _free_ports():
    return [free_port() for _ in range(3)]


class TestServiceOfThisTest(LockProviderContract):
    """The service that stands for others in these tests."""

    @pytest.fixture
    def settings(self, locks):
        """Return the URL of a service."""
        return {"locks": locks}

    @pytest.fixture
    def unreachable(self):
        """Return the URL of a service that cannot be reached."""
        service = LockService()
        service.reachable = False
        with running(service) as url:
            yield {"locks": url}

    @pytest.fixture
    def stop(self, service):
        """Return what makes the service unreachable."""
        return lambda: setattr(service, "reachable", False)

    @pytest.fixture
    def shared_nodes(self, memcached_servers):
        """Return three memcached nodes."""
        return [server.url for server in memcached_servers]


def servers_of(request, kind):
    """Return three servers: those that all tests share, or ones that this test may stop."""
    name = "cluster" if "stop" in request.fixturenames else "servers"
    return request.getfixturevalue(f"{kind}_{name}")


class TestMemcached(LockProviderContract):
    """The built-in provider, over memcached nodes."""

    @pytest.fixture
    def ttl(self):
        """Return a ttl of which memcached's whole seconds leave enough."""
        return 3.0

    @pytest.fixture
    def servers(self, request):
        """Return three servers."""
        return servers_of(request, "memcached")

    @pytest.fixture
    def settings(self, servers):
        """Return three nodes."""
        return {"nodes": servers.urls}

    @pytest.fixture
    def stop(self, servers):
        """Return what kills them."""
        return lambda: [server.kill() for server in servers]

    @pytest.fixture
    def shared_nodes(self, settings):
        """Return the same nodes."""
        return settings["nodes"]

    @pytest.fixture
    def unreachable(self):
        """Return nodes that do not run."""
        return {"nodes": [f"memcached://127.0.0.1:{port}" for port in _free_ports()]}


class TestRedis(LockProviderContract):
    """The built-in provider, over Redis nodes for locks alone."""

    @pytest.fixture
    def servers(self, request):
        """Return three servers."""
        return servers_of(request, "redis")

    @pytest.fixture
    def settings(self, servers):
        """Return three nodes for locks."""
        return {"locks": "redlock", "lock_nodes": servers.urls}

    @pytest.fixture
    def stop(self, servers):
        """Return what has them hang."""
        return lambda: [server.pause() for server in servers]

    @pytest.fixture
    def shared_nodes(self, memcached_servers):
        """Return three cache nodes."""
        return [server.url for server in memcached_servers]

    @pytest.fixture
    def unreachable(self):
        """Return nodes that do not run."""
        return {"lock_nodes": [f"redis://127.0.0.1:{port}" for port in _free_ports()]}


class TestChoice:
    """`locks` names a provider, in every place that has settings."""

    def test_the_default_is_the_lock_over_nodes(self):
        """Its leases have no fence."""
        with Client("memory://a,b,c") as client:
            lease = client.lock("report").acquire()
            assert (lease.fence, len(lease.nodes)) == (None, 3)
            assert len(lease.token) == 32
            lease.release()

    def test_a_service_has_no_nodes_of_the_client(self, client, caplog):
        """And no warning says that there are too few of them."""
        lock = client.lock("report")
        lease = take(client, "report", TTL)
        assert (lock.nodes, lease.nodes, lease.fence) == ((), (), 1)
        release(client, lease)
        assert caplog.records == []

    def test_one_node_is_enough_for_the_cache(self, locks, caplog):
        """The locks of a service do not depend on the number of nodes."""
        with Client("memory://a", locks=locks) as client:
            client.lock("report")
            client.cached(ttl=60, lock=True)
        assert caplog.records == []

    def test_settings_name_it_everywhere(self, tmp_path, locks):
        """A file, the environment, and a mapping."""
        path = tmp_path / "shardcache.toml"
        path.write_text(f'nodes = "memory://a"\nlocks = "{locks}"\n', encoding="utf-8")
        environment = {"SHARDCACHE_URL": "memory://a", "SHARDCACHE_LOCKS": locks}
        for settings in (
            Settings.load(path),
            Settings.from_env(environment),
            Settings.of(nodes="memory://a", locks=locks),
        ):
            assert settings.locks == locks
            with Client.from_settings(settings) as client, client.lock("report") as lease:
                assert lease.fence is not None

    def test_an_unknown_scheme_names_the_known_ones(self):
        """And how to install one; the URL is not quoted, for it may hold a password."""
        with pytest.raises(ConfigurationError) as raised:
            Client("memory://a", locks="zoo://app:hunter2@h1,h2/shop")
        text = str(raised.value)
        assert "locks: no such lock provider (known: " in text
        assert "redlock" in text
        assert "plugins/shardcache-zookeeper" in text
        assert "hunter2" not in text

    @pytest.mark.parametrize(
        ("settings", "fault"),
        [
            ({"locks": 3}, "locks: must be text"),
            ({"locks": "h1:2181"}, "locks: must be 'redlock', or the URL of a service"),
            ({"locks": "zookeeper://h 1"}, "locks: a URL holds no blanks"),
            ({"locks": "redlock://h1"}, "locks: redlock has no URL"),
            (
                {"locks": "zookeeper://h", "lock_nodes": "memory://x"},
                "lock_nodes: lock_nodes are for",
            ),
        ],
    )
    def test_bad_settings_are_refused(self, settings, fault):
        """With the name of the setting."""
        with pytest.raises(ConfigurationError, match="^" + fault.replace("(", r"\(")):
            Client("memory://a", **settings)

    def test_a_name_is_read_in_any_case(self):
        """As the scheme of a URL is."""
        assert Settings.of(nodes="memory://a", locks="Redlock").locks == "redlock"

    def test_a_password_is_not_shown(self):
        """Neither that of the user nor what the query may hold."""
        settings = Settings.of(
            nodes="memory://a", locks="zookeeper://app:hunter2@h1,h2/shop?p=hunter3"
        )
        assert "locks='zookeeper://h1,h2/shop'" in repr(settings)
        assert "hunter" not in repr(settings)

    def test_a_provider_gets_the_options_of_the_client(self, locks, service):
        """Of time and TLS: a context may be for the service alone."""
        with Client("memory://a", locks=locks, timeout=2):
            assert service.options[-1] == (2.0, 2.0, None)
        context = ssl.create_default_context()
        with Client("memory://a", locks=locks, ssl_context=context):
            assert service.options[-1].ssl_context is context


class TestUse:
    """What users see of such locks."""

    def test_a_view_has_locks_of_its_namespace(self, client, service):
        """In the same service, which closes with the client alone."""
        view = client.view(namespace="shop")
        mine, its = take(client, "report", TTL), take(view, "report", TTL)
        assert {name for _, name in service.held} == {b"report", b"4:shop:report"}
        release(client, mine)
        release(view, its)
        view.close()
        assert service.closed == 0
        client.close()
        assert service.closed == 1

    def test_a_loss_that_the_service_tells_is_an_error_of_the_block(self, client, service):
        """As for a lock over nodes."""
        lease = take(client, "report", TTL)
        service.expire()
        assert (lease.lost, lease.valid, lease.remaining()) == (True, False, 0)
        with pytest.raises(LockLost, match="its session expired"):
            lease.check()
        with pytest.raises(LockLost):
            extend(client, lease, TTL)

    def test_an_extension_that_reaches_no_service_is_an_error(self, client, service):
        """The lease counts down, and can be extended when the service is back."""
        lease = take(client, "report", TTL)
        service.reachable = False
        with pytest.raises(LockUnavailable):
            extend(client, lease, TTL)
        service.reachable = True
        assert extend(client, lease, 2 * TTL) > TTL
        release(client, lease)

    def test_a_ttl_that_the_service_refuses_is_an_error(self, client):
        """Not a lock that cannot be had: it would never be free."""
        with pytest.raises(ConfigurationError, match="less than"):
            try_take(client, "report", 0.01)

    def test_an_extension_that_the_service_refuses_is_an_error(self, client):
        """The lock is not lost, and goes on counting down."""
        lease = take(client, "report", TTL)
        with pytest.raises(ConfigurationError, match="less than"):
            extend(client, lease, 0.01)
        assert lease.valid
        assert release(client, lease) is True

    def test_a_cached_function_takes_its_lock_there(self, client, service):
        """One attempt for a miss, none for a hit; nothing is left."""
        for _ in range(3):
            assert client.get_or_set("value", lambda: 1, ttl=60, lock=True) == 1
        assert service.calls == ["attempt", "release"]
        assert service.held == {}

    def test_without_the_service_a_cached_function_is_called(self, client, service):
        """At once, and that is counted."""
        service.reachable = False
        assert client.get_or_set("value", lambda: 1, ttl=60, lock=True) == 1
        assert client.stats().protection["locks_unavailable"] == 1

    def test_a_lock_that_is_lost_during_a_recompute_is_counted(self, client, service):
        """Its value is returned and stored all the same."""

        def recompute():
            service.expire()
            return 1

        assert client.get_or_set("value", recompute, ttl=60, lock=True) == 1
        assert client.stats().protection["locks_lost"] == 1
        assert client.get("value") == 1

    def test_a_closed_client_takes_no_lock(self, client):
        """From any provider."""
        client.close()
        with pytest.raises(ClientClosedError):
            client.lock("report")


class Failed(Exception):  # noqa: N818 - it is not an error here
    """What the body of a block raises."""


def fail_while_holding(client, way):
    """Raise `Failed` in a block that holds the lock: by `with lock`, or by its method `hold`."""
    if not isinstance(client, DrivenClient):
        lock = client.lock("report", ttl=TTL)
        with lock if way == "with" else lock.hold():
            raise Failed

    async def fail():
        lock = client.twin.lock("report", ttl=TTL)
        async with lock if way == "with" else lock.hold():
            raise Failed

    client.loop.run_until_complete(fail())


class TestFailures:
    """A provider that raises what its protocol does not know."""

    @pytest.mark.parametrize("way", ["with", "hold"])
    @pytest.mark.parametrize("call", ["remaining", "end", "release"])
    def test_the_exception_of_the_body_survives(self, client, service, call, way):
        """And the failure can be seen in the counters."""
        service.failing = {call}
        with pytest.raises(Failed):
            fail_while_holding(client, way)
        assert client.lock_provider_errors == 1

    def test_a_release_that_fails_is_told(self, mode, locks, service, caplog):
        """By a counter, an event and one line of the log with where it failed; its caller goes on."""
        log = EventLog(LockProviderFailed)
        client = make_client(mode, "memory://a", locks=locks, timeout=5, observers=[log])
        service.failing = {"release"}
        for _ in range(2):
            assert release(client, take(client, "report", TTL)) is True
            service.held.clear()
        assert [(each.name, each.call) for each in log.events] == [(b"report", "release")] * 2
        assert isinstance(log.events[0].error, OSError)
        assert client.lock_provider_errors == 2
        (record,) = caplog.records
        assert record.getMessage() == (
            "lock provider failed in release: OSError('no space left for release')"
        )
        assert record.exc_info is not None
        client.close()

    @pytest.mark.parametrize("call", ["attempt", "watch", "remaining", "end", "release"])
    def test_a_cached_function_is_called_all_the_same(self, client, service, call):
        """Once, and its value is kept."""
        service.failing = {call}
        for _ in range(2):
            assert client.get_or_set("value", lambda: 1, ttl=60, lock=True) == 1
        assert client.lock_provider_errors == 1

    def test_an_error_of_a_cached_function_survives(self, client, service):
        """Its caller gets it, and not that of the lock's release."""
        service.failing = {"end", "release"}

        def fail():
            raise Failed

        with pytest.raises(Failed):
            client.get_or_set("value", fail, ttl=60, lock=True)

    def test_a_close_that_fails_closes_the_nodes(self, client, service):
        """A block of the client ends with the exception of its body."""
        service.failing = {"close"}
        client.close()
        assert client.lock_provider_errors == 1
        with pytest.raises(ClientClosedError):
            client.lock("report")


class TestFencing:
    """A number that grows, and a database that looks at it: a late write changes nothing."""

    def test_a_paused_holder_s_late_write_is_refused(self, locks, service):
        """The holder that came after it has a larger fence, and the row keeps that."""
        database = sqlite3.connect(":memory:", check_same_thread=False)
        database.execute("CREATE TABLE report (name TEXT PRIMARY KEY, body TEXT, fence INTEGER)")
        database.execute("INSERT INTO report VALUES ('nightly', '', 0)")

        def write(body, fence):
            changed = database.execute(
                "UPDATE report SET body = ?, fence = ? WHERE name = 'nightly' AND fence < ?",
                (body, fence, fence),
            )
            return changed.rowcount == 1

        paused, goes_on = threading.Event(), threading.Event()
        outcomes = []

        def work():
            with Client("memory://a", locks=locks) as client:
                lease = client.lock("nightly", ttl=TTL, on_lost="ignore").acquire()
                paused.set()
                goes_on.wait(10)  # for longer than its session lasts
                outcomes.append((write("late", lease.fence), lease.lost))

        thread = threading.Thread(target=work)
        thread.start()
        assert paused.wait(10)
        service.expire()
        with Client("memory://a", locks=locks) as client:
            lease = client.lock("nightly", ttl=TTL).acquire()
            assert write("new", lease.fence) is True
        goes_on.set()
        thread.join(10)
        assert outcomes == [(False, True)]
        assert database.execute("SELECT body, fence FROM report").fetchall() == [
            ("new", lease.fence)
        ]
        database.close()
