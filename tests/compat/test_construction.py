"""Everything that pymemcache's constructor takes is obeyed, has no meaning here, or is refused with the way out."""

from __future__ import annotations

import contextlib
import copy
import pickle
import ssl
import subprocess
import sys
import threading
import types

import pytest
from pymemcache.client.base import KeepaliveOpts
from pymemcache.client.rendezvous import RendezvousHash

from shardcache import ClientClosedError, ClientCopyError, ConfigurationError, UnsupportedError
from shardcache.backends.memcached.replies import CasToken
from shardcache.compat.pymemcache import HashClient
from shardcache.compat.pymemcache.options import digits_of, token_of, ttl_of


@pytest.mark.parametrize(
    "server",
    [
        "redis://app:hunter2@10.0.0.1",
        "10.0.0.1:port",
        ["10.0.0.1", 11211],
        ("10.0.0.1",),
        ("10.0.0.1", "x"),
        (7, 11211),
        ("redis://10.0.0.1", 6379),
        "two words",
        "10.0.0.1:0",
        None,
    ],
    ids=str,
)
def test_what_is_no_server_is_refused(server):
    """The error shows how to write one, and quotes nothing that may be a secret."""
    with pytest.raises(ConfigurationError, match=r"a server is \(host, port\)") as raised:
        HashClient([server])
    assert "hunter2" not in str(raised.value)


def test_one_text_is_no_list_of_servers():
    """Its letters would be taken for servers."""
    with pytest.raises(ConfigurationError, match="a list of servers"):
        HashClient("10.0.0.1")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hasher": object}, "hasher: only pymemcache's default.*shardcache.Client"),
        ({"socket_module": types.ModuleType("own")}, "socket_module: .*monkey.patch_all"),
        ({"key_prefix": 7}, "key_prefix must be bytes or ASCII text"),
        ({"key_prefix": "ключ"}, "key_prefix must be bytes or ASCII text"),
        ({"encoding": "kettle"}, "encoding: Python has none"),
        ({"timeout": 0}, "^timeout: must be above zero"),
        ({"connect_timeout": "x"}, "^connect_timeout: must be seconds as a number"),
        ({"max_pool_size": 0}, "pool_size"),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)
def test_a_setting_that_cannot_work_is_refused(settings, words):
    """The error names the setting, and the way out."""
    with pytest.raises(ConfigurationError, match=words):
        HashClient(["10.0.0.1"], **settings)


def test_settings_without_a_meaning_here_are_taken(make):
    """A program changes its import, and nothing else."""
    client = make(
        "ours",
        hasher=RendezvousHash,
        no_delay=True,
        socket_keepalive=KeepaliveOpts(),
        lock_generator=threading.Lock,
        use_pooling=True,
        max_pool_size=2,
        pool_idle_timeout=10,
        retry_attempts=0,
        retry_timeout=0.1,
        dead_timeout=0,
        connect_timeout=1,
    )
    assert client.set("k", "v") is True


@pytest.mark.parametrize("patched", [True, False])
def test_the_sockets_of_gevent(patched):
    """They are taken once gevent has patched the process; before, they would block its hub."""
    program = f"""
from gevent import monkey
{patched} and monkey.patch_all()
import gevent.socket
from shardcache.compat.pymemcache import HashClient
HashClient(["10.0.0.1"], socket_module=gevent.socket)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode == 0) == patched
    assert ("call gevent.monkey.patch_all()" in done.stderr) != patched


def test_times_reach_the_client():
    """`timeout` bounds a call and `connect_timeout` a dial; without one a call still ends."""
    timeouts = HashClient(["10.0.0.1"], timeout=2, connect_timeout=0.1)._client._settings.timeout
    assert (timeouts.call, timeouts.connect) == (2.0, 0.1)
    assert HashClient(["10.0.0.1"])._client._settings.timeout.call == 0.5


def test_a_unix_socket(make_memcached, tmp_path, make):
    """The path of a socket is a server."""
    path = tmp_path / "a socket"
    make_memcached(unix=path)
    for server in (str(path), f"unix:{path}"):
        client = make("ours", [server])
        assert client.set("k", "v") is True
        assert list(client.version()) == [str(path)]


def test_tls(make_memcached, tls):
    """A `tls_context` is used for every server."""
    server = make_memcached(tls=tls)
    context = ssl.create_default_context(cafile=tls.authority)
    client = HashClient([(server.host, server.port)], tls_context=context, timeout=10)
    assert client.set("k", "v", noreply=False) is True
    assert client.get("k") == b"v"
    client.close()


def test_servers_may_be_added_one_by_one(make, hosts):
    """As text, as a pair, and as two parameters; the last one may go as well."""
    client = make("ours", [])
    client.add_server(*hosts[0])
    client.add_server(hosts[1])
    client.add_server("{}:{}".format(*hosts[2]))
    assert repr(client) == f"<HashClient {[f'{host}:{port}' for host, port in hosts]}>"
    assert client.set("k", "v") is True
    for host in hosts:
        client.remove_server(host)
    assert repr(client) == "<HashClient []>"
    with pytest.raises(ValueError, match=r"no server 127\.0\.0\.1:\d+ to remove"):
        client.remove_server(*hosts[0])
    with pytest.raises(TypeError, match="text when a port is passed"):
        client.add_server(hosts[0], 11211)


def test_a_closed_client_opens_again(make):
    """Threads that are in a call when another closes the client do not notice."""
    client, failures = make("ours"), []
    client.set("k", "v")
    stop = threading.Event()

    def read():
        try:
            while not stop.is_set():
                assert client.get("k") == b"v"
        except Exception as error:  # noqa: BLE001 - it is shown below
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(20):
        client.close()
        assert client.get("k") == b"v"
    stop.set()
    for reader in readers:
        reader.join()
    assert failures == []


def test_a_call_that_meets_a_closed_client_takes_the_new_one(make):
    """The thread that closes puts another client in its place first; nothing was sent over the old one."""
    client = make("ours")
    client.set("k", "v")
    successor = client._client

    class Closed:
        def get(self, *_):
            client._client = successor
            raise ClientClosedError("this SerdeClient is closed")

    client._client = Closed()
    assert client.get("k") == b"v"


def test_a_copy_is_refused():
    """Two objects would share connections."""
    client = HashClient(["10.0.0.1"])
    for copy_it in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(ClientCopyError, match="HashClient cannot be copied or pickled"):
            copy_it(client)


def test_what_one_server_alone_does_is_refused_or_by_server(make, hosts):
    """Figures and versions are by server; a delayed flush is not to be had."""
    client = make("ours")
    names = ["{}:{}".format(*host) for host in hosts]
    assert list(client.stats()) == list(client.version()) == list(client.counters()) == names
    assert all(int(figures["pid"]) for figures in client.stats().values())
    with pytest.raises(UnsupportedError, match="there is no delay"):
        client.flush_all(delay=5)


@pytest.mark.parametrize(
    ("expire", "ttl"),
    [
        (0, None),
        (-1, 0.0),
        (1, 1.0),
        (30 * 24 * 3600, 30 * 24 * 3600.0),
        (30 * 24 * 3600 + 1, 0.0),  # a date long past, as memcached has it
        (1_800_000_060, 60.0),
        (1_800_000_000, 0.0),
        (2**31 - 1, None),  # more than ten years off
        (10**400, None),
        (-(10**400), 0.0),
        (True, 1.0),
    ],
    ids=lambda number: repr(number)[:20],
)
def test_an_expiry_is_read_as_memcached_reads_it(expire, ttl):
    """Zero never ends, a negative one is past, and a large one is a date."""
    assert ttl_of(expire, now=1_800_000_000.0) == ttl


def test_a_token_is_a_number_as_bytes():
    """It knows after which loss of a connection it was read, and plain while there was none."""
    assert digits_of(CasToken(7, 0)) == b"7"
    for token in (CasToken(7, 0), CasToken(2**64 - 1, 0), CasToken(7, 3)):
        digits = digits_of(token)
        assert [token_of(form) for form in (digits, digits.decode(), int(digits))] == [token] * 3


@pytest.mark.parametrize("call", ["get_many", "gets_many", "delete_many"])
def test_text_is_no_list_of_keys(call):
    """The real one would ask for its letters."""
    with (
        contextlib.closing(HashClient(["127.0.0.1:1"])) as client,
        pytest.raises(TypeError, match=f"{call}: keys must be a list, not str"),
    ):
        getattr(client, call)("user:7")


def test_pairs_are_no_mapping():
    """The error names the call."""
    with (
        contextlib.closing(HashClient(["127.0.0.1:1"])) as client,
        pytest.raises(TypeError, match="set_many: must be a mapping from key to value, not list"),
    ):
        client.set_many([("user:7", b"Ada")])


@pytest.mark.parametrize("observers", [7, None, "me"])
def test_observers_are_a_list(observers):
    """As of every client."""
    with pytest.raises(ConfigurationError, match="observers: must be a list of observers, not "):
        HashClient(["127.0.0.1:1"], observers=observers)
