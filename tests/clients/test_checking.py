"""`check()`: each node executes one command of each kind, and all faults are reported at once."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest
import trustme

from shardcache import CheckFailedError, Client, NodeCheck
from shardcache.backends.memory import Bounds, Store
from shardcache.core.capabilities import EVERYTHING
from shardcache.core.commands import Acquire, Cas, Get, Ping, Renew, ServerStats, Set
from shardcache.errors import ClientClosedError, NodeRefusedError, NodeTimeoutError
from shardcache.testing.driving import MODES, make_client
from shardcache.testing.servers import Tls
from shardcache.testing.waiting import eventually

TIMEOUT = 20  # seconds; nothing here waits for it but where a node is stopped


@pytest.fixture(params=MODES)
def client_of(request):
    """Return what makes each of the two clients in turn; they are closed at the end."""
    made = []

    def make(*args, **settings):
        made.append(make_client(request.param, *args, **{"timeout": TIMEOUT, **settings}))
        return made[-1]

    yield make
    for client in made:
        client.close()


def faults_of(client):
    """Return what a check says is wrong, by node."""
    with pytest.raises(CheckFailedError) as caught:
        client.check()
    for name, each in caught.value.faults.items():
        for fault in each:
            assert f"- {name}: {fault}" in str(caught.value)
    return caught.value.faults


def name_of(server):
    """Return the name of a server's node."""
    return f"127.0.0.1:{server.port}"


def test_a_check_names_each_server_and_leaves_no_key(client_of, make_memcached, make_redis):
    """Server and version of each node are in the result."""
    memcached, redis = make_memcached(), make_redis()
    classic = f"pymemcache://localhost:{memcached.port}"
    client = client_of([memcached.url, redis.url, classic, "memory://a"], namespace="shop")
    found = client.check()
    assert set(found) == {name_of(memcached), name_of(redis), f"localhost:{memcached.port}", "a"}
    assert all(
        isinstance(each, NodeCheck) and 0 < each.seconds < TIMEOUT for each in found.values()
    )
    assert found[name_of(memcached)].server.startswith("memcached 1.")
    assert found[name_of(redis)].server.partition(" ")[0] in {"Redis", "Valkey"}
    assert found[name_of(memcached)].notes == ()
    stats = client.stats()
    assert stats[name_of(memcached)].server["curr_items"] == "0"
    assert "db0" not in stats[name_of(redis)].server
    assert stats["a"].server["entries"] == "0"


def test_a_check_counts_nothing(client_of, make_redis, caplog):
    """Counters, health and log stay as they were."""
    caplog.set_level(logging.INFO, "shardcache")
    server = make_redis("--requirepass", "hunter2")
    client = client_of([server.url, "memcached://127.0.0.1:1"])
    faults_of(client)
    assert client.ejected == ()
    assert not [record for record in caplog.records if "miss" in record.getMessage()]
    assert [stats.client["calls"] for stats in client.stats().values()] == [0, 0]


def test_a_check_restores_an_ejected_node_that_answers(client_of, make_memcached):
    """It asks ejected nodes too."""
    server = make_memcached()
    client = client_of(server.url, timeout=5)
    server.kill()
    client.get("k")
    assert client.ejected
    assert "Connection refused; is the server running" in faults_of(client)[name_of(server)][0]
    server.restart()
    client.check()
    assert client.ejected == ()


@pytest.mark.parametrize("on_error", ["miss", "raise"])
def test_a_missing_and_a_wrong_password_differ(client_of, make_redis, on_error):
    """Each is one fault, and no password is quoted."""
    server = make_redis("--requirepass", "hunter2")
    wrong = f"redis://:hunter3@localhost:{server.port}"
    (missing,), (known,) = faults_of(client_of([server.url, wrong], on_error=on_error)).values()
    assert "requires a password, and the node's URL has none" in missing
    assert "redis://user:password@host" in missing
    assert "does not know the user and password" in known
    assert "hunter" not in missing + known
    client_of(f"redis://:hunter2@127.0.0.1:{server.port}", on_error=on_error).check()


@pytest.mark.parametrize(
    ("scheme", "starter", "words"),
    [
        ("redis", "make_memcached", "for a memcached node use memcached://"),
        ("memcached", "make_redis", "for a Redis node use redis://"),
        ("pymemcache", "make_redis", "for a Redis node use redis://"),
    ],
)
def test_a_wrong_scheme_is_named(client_of, request, scheme, starter, words):
    """The fault says which scheme would be right."""
    server = request.getfixturevalue(starter)()
    client = client_of(f"{scheme}://127.0.0.1:{server.port}")
    (fault,) = faults_of(client)[name_of(server)]
    assert words in fault


def test_missing_rights_are_listed(client_of, make_redis):
    """One line says which rights and keys the user needs."""
    server = make_redis()
    server.ask(b"ACL SETUSER default -eval -mget -pexpire\r\n", b"+OK\r\n")
    (fault,) = faults_of(client_of(server.url, namespace="shop"))[name_of(server)]
    assert fault.startswith(
        "cannot touch, tell a ttl, compare and set, read many, count, cache functions, extend a lock, release a"
        " lock: the server's ACL does not let the user"
    )
    assert "+@scripting" in fault
    assert "~4:shop:* ~~sc:*" in fault


def test_forbidden_keys_are_listed(client_of, make_redis):
    """Locks and tags have names outside the namespace, which an ACL may forget."""
    server = make_redis()
    server.ask(b"ACL SETUSER default resetkeys ~4:shop:*\r\n", b"+OK\r\n")
    (fault,) = faults_of(client_of(server.url, namespace="shop"))[name_of(server)]
    assert "cannot write tags and generations, take a lock" in fault
    server.ask(b"ACL SETUSER default ~~sc:l:* ~~sc:v:* ~~sc:r:* ~~sc:t:*\r\n", b"+OK\r\n")
    (fault,) = faults_of(client_of(server.url, namespace="shop"))[name_of(server)]
    assert fault.startswith("cannot write tags and generations, delete many: ")


def test_the_advised_rights_suffice(client_of, make_redis):
    """A user with the rights of the fault and of the page passes the check."""
    server = make_redis()
    rule = b"~4:shop:* ~~sc:* +@read +@write +@scripting +@connection +info"
    server.ask(b"ACL SETUSER cache on >hunter2 %b\r\n" % rule, b"+OK\r\n")
    url = f"redis://cache:hunter2@127.0.0.1:{server.port}"
    client_of(url, namespace="shop").check()
    assert "cannot" in faults_of(client_of(url))[name_of(server)][0]


def test_a_read_only_replica_is_named(client_of, make_redis):
    """A replica is named as such."""
    server = make_redis()
    server.ask(b"REPLICAOF 127.0.0.1 1\r\n", b"+OK\r\n")
    (fault,) = faults_of(client_of(server.url))[name_of(server)]
    assert "name the server that it is a copy of" in fault


def test_a_full_redis_that_evicts_nothing_is_a_fault(client_of, make_redis):
    """The fault advises to let it evict."""
    server = make_redis()
    server.ask(b"CONFIG SET maxmemory 1\r\n", b"+OK\r\n")
    (fault,) = faults_of(client_of(server.url))[name_of(server)]
    assert "OOM" in fault
    assert "maxmemory-policy allkeys-lru" in fault
    server.ask(b"CONFIG SET maxmemory 0\r\n", b"+OK\r\n")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["memcached", "pymemcache"])
def test_a_full_memcached_that_evicts_nothing_is_a_fault(client_of, make_memcached, scheme):
    """With `-M` it refuses every write, those of a cached function too."""
    server = make_memcached("-m", "2", "-M")
    with Client(server.url, timeout=TIMEOUT) as filler:
        for size in (200_000, 5_000, 500, 100, 60, 30, 1):
            batches = range(0, 100_000, 500)
            items = ({f"{size}:{start + n}": b"x" * size for n in range(500)} for start in batches)
            assert any(filler.set_many(each) for each in items)
    (fault,) = faults_of(client_of(f"{scheme}://127.0.0.1:{server.port}"))[name_of(server)]
    assert "cannot write, cache functions, write tags and generations, take a lock" in fault
    assert "out of memory" in fault
    assert "no -M" in fault


@pytest.mark.parametrize("scheme", ["memcached", "pymemcache"])
def test_a_memcached_that_wants_a_login_is_a_fault(client_of, make_memcached, scheme, tmp_path):
    """The client has no login for memcached, and the fault says so."""
    logins = tmp_path / "logins"
    logins.write_text("app:hunter2\n")
    server = make_memcached("-Y", str(logins))
    (fault,) = faults_of(client_of(f"{scheme}://127.0.0.1:{server.port}"))[name_of(server)]
    assert "requires authentication" in fault


def test_a_stopped_node_costs_a_check_one_timeout(client_of, make_memcached, make_redis):
    """The other nodes are reported all the same."""
    silent, redis = make_memcached(), make_redis()
    silent.pause()
    client = client_of([silent.url, redis.url], timeout=1)
    with pytest.raises(CheckFailedError) as caught:
        client.check()
    silent.resume()
    assert "in time" in caught.value.faults[name_of(silent)][0]
    assert set(caught.value.passed) | set(caught.value.faults) == {name_of(silent), name_of(redis)}


def test_a_member_of_a_redis_cluster_is_one_fault(client_of, make_redis, make_memcached):
    """Its error ends every other call; a check leaves no key elsewhere."""
    member, memcached = make_redis("--cluster-enabled", "yes"), make_memcached()
    member.ask(b"CLUSTER ADDSLOTSRANGE 0 16383\r\n", b"+OK")
    client = client_of([member.url, memcached.url])

    def told():
        ((name, (fault,)),) = faults_of(client).items()
        assert (name, "a node of a Redis Cluster" in fault) == (name_of(member), True)
        return "CROSSSLOT" in fault

    eventually(told, within=30)  # until it knows its slots
    items = client_of(memcached.url).stats()[name_of(memcached)].server["curr_items"]
    assert items == "0"


def test_lock_nodes_are_checked_for_locks_alone(client_of, make_redis, make_memcached):
    """They need no other rights, and the cache nodes no rights to locks."""
    cache, locks = make_redis(), make_redis()
    cache.ask(
        b"ACL SETUSER default resetkeys ~4:shop:* ~~sc:r:* ~~sc:t:* ~~sc:g:* ~~sc:m:*\r\n",
        b"+OK\r\n",
    )
    locks.ask(b"ACL SETUSER default resetkeys ~~sc:l:*\r\n", b"+OK\r\n")
    nodes = [locks.url, make_memcached().url]
    faults = faults_of(client_of(cache.url, lock_nodes=nodes, namespace="shop"))
    assert set(faults) == {f"lock {name_of(locks)}"}
    locks.ask(b"ACL SETUSER default ~~sc:v:*\r\n", b"+OK\r\n")
    found = client_of(cache.url, lock_nodes=nodes, namespace="shop").check()
    assert len(found) == 3


def test_a_proxy_without_a_version_passes(client_of, make_memcached, make_nutcracker):
    """A proxy that does not tell a version serves none the less."""
    backend = make_memcached()
    proxy = make_nutcracker(
        {"servers": [f"127.0.0.1:{backend.port}:1"], "hash": "fnv1a_64", "distribution": "ketama"}
    )
    (found,) = client_of(proxy.url).check().values()
    assert any("version is not known" in note for note in found.notes)


@pytest.mark.parametrize("starter", ["make_memcached", "make_redis"])
@pytest.mark.parametrize(
    ("certified", "told", "advice"),
    [
        ({}, "certificate verify failed", "name its authority by ?ssl_ca_certs="),
        (
            {"names": ["elsewhere.test"]},
            "not valid for '127.0.0.1'",
            "name the host as its certificate does",
        ),
        ({"not_after": datetime(2020, 1, 1, tzinfo=UTC)}, "expired", "renew its certificate"),
    ],
)
def test_a_bad_certificate_is_explained(  # noqa: PLR0913, PLR0917 - of each kind, by each server
    client_of, request, tmp_path, starter, certified, told, advice
):
    """Naming the authority helps only with an unknown authority."""
    files = certificate(tmp_path, **certified)
    server = request.getfixturevalue(starter)(tls=files)
    known = f"?ssl_ca_certs={files.authority}" if certified else ""
    (fault,) = faults_of(client_of(f"{server.url}{known}"))[name_of(server)]
    assert told in fault
    assert fault.endswith(f"; {advice}")


def certificate(directory, names=("127.0.0.1",), **dates):
    """Return the files of a server's certificate."""
    files = Tls(directory / "server.pem", directory / "server.key", directory / "authority.pem")
    authority = trustme.CA()
    issued = authority.issue_cert(*names, **dates)
    files.certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    files.key.write_bytes(issued.private_key_pem.bytes())
    files.authority.write_bytes(authority.cert_pem.bytes())
    return files


class Pretender:
    """A node that answers some commands as a test says, and the rest as a memory node."""

    supports = EVERYTHING
    whole_seconds = False

    def __init__(self, figures=None, replies=None):
        self.store = Store(Bounds())
        self.figures = figures or {}
        self.replies = replies or {}

    def execute(self, command, _deadline):
        """Return the reply that was put in, or the store's."""
        if isinstance(command, ServerStats):
            return self.figures
        if type(command) in self.replies:
            return self.replies[type(command)]
        return self.store.execute(command)


def checked(url, **pretended):
    """Return what a check finds of a node that pretends to be the one of this URL."""
    client = Client(url, timeout=TIMEOUT)
    (member,) = client._cluster.members.values()
    member.backend = Pretender(**pretended)
    try:
        (found,) = client.check().values()
    except CheckFailedError as error:
        (found,) = error.faults.values()
    assert not member.backend.store._entries
    return found


@pytest.mark.parametrize(
    ("url", "figures", "told"),
    [
        ("redis://h", {"redis_version": "5.0.14"}, "Redis 5.0.14 is too old: Redis 6.2 or newer"),
        ("redis://h", {"redis_version": "6.0.20"}, "too old"),
        ("memcached://h", {"version": "1.5.22"}, "memcached 1.5.22 is too old: memcached 1.6"),
        ("redis://h", {"redis_version": "6.2.0"}, None),
        ("redis://h", {"redis_version": "10.0.0"}, None),
        ("redis://h", {"redis_version": "7.2.4", "valkey_version": "8.0.1"}, None),
        ("memcached://h", {"version": "1.6.0-beta1"}, None),
        ("pymemcache://h", {"version": "1.4.5"}, None),
        ("memcached://h", {"version": "unknown"}, None),
        ("memcached://h", {}, None),
    ],
)
def test_an_old_server_is_a_fault(url, figures, told):
    """The version decides where no answer would tell, and only where there is one."""
    found = checked(url, figures=figures)
    if told is None:
        assert isinstance(found, NodeCheck)
    else:
        assert told in found[0]


def test_a_version_has_no_control_characters():
    """The name of a server is one printable line, in a fault and in the result."""
    found = checked("redis://h", figures={"redis_version": "7.2\x1b[2J"})
    assert found.server == r"Redis 7.2\x1b[2J"
    (fault,) = checked("redis://h", figures={"redis_version": "5.0\x1b[2J"})
    assert fault.startswith(r"Redis 5.0\x1b[2J is too old")


def test_each_kind_of_server_is_named():
    """A server is called what it is."""
    assert checked("redis://h", figures={"redis_version": "7.2.4"}).server == "Redis 7.2.4"
    figures = {"redis_version": "7.2.4", "valkey_version": "8.0.1"}
    assert checked("redis://h", figures=figures).server == "Valkey 8.0.1"
    assert checked("memory://a").server == "memory"


@pytest.mark.parametrize(
    ("command", "reply", "told"),
    [
        (Get, None, "cannot read: a key just written is missing"),
        (Get, (256, b"other"), "holds something else"),
        (Cas, None, "cannot compare and set, cache functions: a key just written is missing"),
        (Renew, NodeRefusedError("ERR unknown command 'EVAL'", "h:6379"), "allow it"),
        (Acquire, False, "cannot take a lock"),
    ],
)
def test_impossible_answers_are_a_fault(command, reply, told):
    """A server that forgets, or several behind one address, are found out."""
    assert any(told in fault for fault in checked("redis://h", replies={command: reply}))


class Silent:
    """A node that never answers."""

    def __init__(self):
        self.asked = []

    def execute(self, command, _deadline):
        """Note what is asked; raise what the caller of a stopped node gets."""
        self.asked.append(type(command))
        raise NodeTimeoutError("no answer by the deadline", "h:6379")


def test_a_silent_node_is_asked_once():
    """Each further question would cost a timeout, and tell nothing."""
    client = Client("redis://h", timeout=TIMEOUT)
    (member,) = client._cluster.members.values()
    member.backend = Silent()
    (fault,) = faults_of(client)["h:6379"]
    assert member.backend.asked == [Ping]
    assert fault.startswith("no answer by the deadline; is it running")


class Closing(Pretender):
    """A node whose client is closed while it is asked to store a value."""

    def __init__(self, client):
        super().__init__()
        self.client = client

    def execute(self, command, deadline):
        """Close the client; raise what its backends raise from then on."""
        if isinstance(command, Set):
            self.client.close()
            raise ClientClosedError("this Client is closed")
        return super().execute(command, deadline)


def test_closing_during_a_check_is_no_fault_of_the_nodes():
    """The caller of the check is told that the client was closed."""
    client = Client("redis://h", timeout=TIMEOUT)
    (member,) = client._cluster.members.values()
    member.backend = Closing(client)
    member.backend.close = lambda: None
    with pytest.raises(ClientClosedError):
        client.check()


@pytest.mark.parametrize(
    ("url", "settings", "figures", "told"),
    [
        ("redis://h", {}, {"maxmemory_policy": "noeviction"}, "there is no default_ttl"),
        ("redis://h", {"default_ttl": 60}, {"maxmemory_policy": "noeviction"}, "evicts nothing"),
        ("redis://h", {}, {"maxmemory_policy": "allkeys-lru"}, None),
        ("redis://h", {}, {"role": "slave"}, "replica of another server"),
        ("redis://:hunter2@h", {}, {}, "sent unencrypted"),
        ("redis://h?password=hunter2", {}, {}, "sent unencrypted"),
        ("redis://:hunter2@127.0.0.1", {}, {}, None),
        ("redis://:hunter2@localhost", {}, {}, None),
        ("redis://:hunter2@[::1]", {}, {}, None),
        ("rediss://:hunter2@h", {}, {}, None),
        ("rediss://h?ssl_cert_reqs=none", {}, {}, "any server is accepted"),
        ("redis://h?max_connections=5", {}, {}, "max_connections in its URL: without effect"),
    ],
)
def test_notes_are_no_faults(url, settings, figures, told):
    """They never quote a password."""
    client = Client(url, timeout=TIMEOUT, **settings)
    (member,) = client._cluster.members.values()
    member.backend = Pretender(figures)
    ((found),) = client.check().values()
    assert [told in note for note in found.notes] == ([] if told is None else [True])
    assert "hunter2" not in str(found)
