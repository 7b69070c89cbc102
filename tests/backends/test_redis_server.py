"""The Redis wire against a real server, over the plainest of sockets."""

from __future__ import annotations

import contextlib
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardcache.backends.redis import scripts
from shardcache.backends.redis.options import read_options
from shardcache.backends.redis.wire import RedisWire
from shardcache.core.commands import (
    Cas,
    Delete,
    DeleteMany,
    FlushAll,
    Get,
    GetMany,
    Gets,
    Incr,
    Ping,
    Renew,
    ServerStats,
    Set,
    SetMany,
    Touch,
    When,
)
from shardcache.core.placement.nodes import Node
from shardcache.core.values.flags import INTEGER_FLAGS, RAW_FLAGS, TEXT_FLAGS, UNKNOWN_FLAGS
from shardcache.errors import (
    NodeRefusedError,
    NodeUnavailableError,
    NotACounterError,
    TooManyConnectionsError,
)

TEXT = (TEXT_FLAGS, b"text")
OTHER = (RAW_FLAGS, b"\x00other\r\n")


class Line:
    """One connection, driven by the wire; `say` speaks to the server behind the wire's back."""

    def __init__(self, url):
        self.node = Node(url)
        self.wire = RedisWire(read_options(self.node), self.node.name)
        address = self.node.address
        unix = address.scheme == "redis+unix"
        self.socket = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        self.socket.settimeout(10)
        self.socket.connect(address.path if unix else (address.host, address.port))

    def greet(self):
        """Log in as the URL says."""
        if hello := self.wire.hello():
            self.socket.sendall(hello)
        while not self.wire.greeted:
            self.wire.feed(self.socket.recv(65536))

    def ask(self, command):
        """Give the reply to a command."""
        self.socket.sendall(b"".join(self.wire.encode(command)))
        replies = []
        while not replies:
            data = self.socket.recv(65536)
            assert data, "the server hung up"
            replies = self.wire.feed(data)
        (reply,) = replies
        assert self.wire.idle
        return reply

    def say(self, *words):
        """Give what the server answers to plain words."""
        request = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in map(_bytes, words))
        self.socket.sendall(b"*%d\r\n%b" % (len(words), request))
        return self.socket.recv(65536)


def _bytes(word):
    return word if isinstance(word, bytes) else str(word).encode()


@contextlib.contextmanager
def calling(url):
    """Give a line on which the hello has been said."""
    line = Line(url)
    with contextlib.closing(line.socket):
        line.greet()
        yield line


@pytest.fixture
def line(redis_servers):
    """Give a line to an empty server."""
    with calling(redis_servers[0].url) as line:
        yield line


def test_stores_reads_and_removes(line):
    """The commands over one key say what they did."""
    assert line.ask(Get(b"k")) is None
    assert line.ask(Set(b"k", TEXT, when=When.PRESENT)) is False
    assert line.ask(Set(b"k", TEXT, when=When.ABSENT)) is True
    assert line.ask(Set(b"k", OTHER, when=When.ABSENT)) is False
    assert line.ask(Get(b"k")) == TEXT
    assert line.ask(Set(b"k", OTHER, 60, When.PRESENT)) is True
    assert line.ask(Get(b"k")) == OTHER
    assert line.ask(Delete(b"k")) is True
    assert line.ask(Delete(b"k")) is False


def test_many_keys(line):
    """Batches larger than a piece come back whole and in order."""
    items = [(b"k%d" % number, (INTEGER_FLAGS, b"%d" % number)) for number in range(2500)]
    keys = [key for key, _ in items]
    assert line.ask(SetMany(items, 60)) == [True] * len(items)
    assert line.ask(GetMany([*keys, b"missing"])) == [*(payload for _, payload in items), None]
    assert line.ask(DeleteMany([b"missing", *keys])) == [False] + [True] * len(keys)


def test_expiry_is_given_kept_and_taken(line):
    """`touch` gives and takes an expiry, and says whether the key was there in each case."""
    assert line.ask(Touch(b"k", 60)) is False
    assert line.ask(Touch(b"k", None)) is False
    line.ask(Set(b"k", TEXT))
    assert line.ask(Touch(b"k", None)) is True
    assert line.say("PTTL", "k") == b":-1\r\n"
    assert line.ask(Touch(b"k", 60)) is True
    assert 59_000 < int(line.say("PTTL", "k")[1:]) <= 60_000
    assert line.ask(Touch(b"k", None)) is True
    assert line.say("PTTL", "k") == b":-1\r\n"


@pytest.mark.parametrize("delta", [3, -3], ids=repr)
def test_counting_keeps_the_expiry(line, delta):
    """A counter's life is its own, also when it stops at 0."""
    line.ask(Set(b"n", (INTEGER_FLAGS, b"2"), 60))
    assert line.ask(Incr(b"n", delta)) == max(0, 2 + delta)
    assert 59_000 < int(line.say("PTTL", "n")[1:]) <= 60_000


edges = st.one_of(
    st.integers(0, 2**63 - 1),
    st.sampled_from([0, 1, 2**53 - 1, 2**53, 2**53 + 1, 2**62 + 1, 2**63 - 2, 2**63 - 1]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(start=edges, size=edges, sign=st.sampled_from([1, -1]))
def test_counting_is_exact(line, start, size, sign):
    """Sums are those of whole numbers, up to the last digit; 0 is the least, 2**63 - 1 the most."""
    line.ask(Set(b"n", (INTEGER_FLAGS, b"%d" % start)))
    reply = line.ask(Incr(b"n", sign * size))
    if start + sign * size > 2**63 - 1:
        assert isinstance(reply, NotACounterError)
        expected = start
    else:
        expected = max(0, start + sign * size)
        assert reply == expected
    assert line.ask(Get(b"n")) == (INTEGER_FLAGS, b"%d" % expected)


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "007",
        "1.5",
        "-3",
        "-0",
        " 12",
        "12 ",
        "+1",
        "1e3",
        "text",
        "0x10",
        2**63,
        2**64,
        "1\u0660",
    ],
    ids=repr,
)
@pytest.mark.parametrize("delta", [1, -1, 0], ids=repr)
def test_what_is_no_counter_is_left_alone(line, stored, delta):
    """Only whole numbers from 0 to 2**63 - 1 count, written as numbers are."""
    line.say("SET", "n", stored)
    assert isinstance(line.ask(Incr(b"n", delta)), NotACounterError)
    assert line.say("GET", "n").split(b"\r\n")[1] == _bytes(stored)


def test_counting_makes_nothing(line):
    """A missing counter stays missing."""
    assert line.ask(Incr(b"n", 1)) is None
    assert line.ask(Get(b"n")) is None


def test_scripts_survive_being_forgotten(line):
    """`SCRIPT FLUSH` at any time changes nothing."""
    line.ask(Set(b"n", (INTEGER_FLAGS, b"1")))
    assert line.ask(Incr(b"n", 1)) == 2
    line.say("SCRIPT", "FLUSH")
    assert line.ask(Incr(b"n", 1)) == 3
    line.say("SCRIPT", "FLUSH")
    _, token = line.ask(Gets(b"n"))
    assert line.ask(Cas(b"n", TEXT, token)) is True


def test_compare_and_set(line):
    """Stored on the value that was read, refused on another, and never made anew."""
    assert line.ask(Gets(b"k")) is None
    line.ask(Set(b"k", OTHER))
    payload, token = line.ask(Gets(b"k"))
    assert payload == OTHER
    assert line.ask(Cas(b"k", TEXT, token, 60)) is True
    assert 59_000 < int(line.say("PTTL", "k")[1:]) <= 60_000
    assert line.ask(Cas(b"k", OTHER, token)) is False
    assert line.ask(Cas(b"k", OTHER, 12345)) is False
    assert line.ask(Get(b"k")) == TEXT
    line.ask(Delete(b"k"))
    assert line.ask(Cas(b"k", OTHER, token)) is None
    assert line.ask(Get(b"k")) is None


def test_what_others_left(line):
    """A list under our key is an error where it is asked for alone, and a miss among many."""
    line.say("SET", "text", "left by another")
    line.say("RPUSH", "list", "a")
    assert line.ask(Get(b"text")) == (UNKNOWN_FLAGS, b"left by another")
    clash = line.ask(Get(b"list"))
    assert type(clash) is NodeRefusedError
    assert "WRONGTYPE" in str(clash)
    assert line.ask(GetMany([b"list", b"text"]))[0] is None
    assert isinstance(line.ask(Incr(b"list", 1)), NotACounterError)
    assert line.ask(Cas(b"list", TEXT, b"token")) is False
    assert line.ask(Set(b"list", TEXT)) is True


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, unique=True))
def test_any_bytes_are_a_key(line, keys):
    """No key is another's, and none is a command."""
    items = [(key, (RAW_FLAGS, key[::-1])) for key in keys]
    assert line.ask(SetMany(items)) == [True] * len(items)
    assert line.ask(GetMany(keys)) == [payload for _, payload in items]
    assert line.ask(DeleteMany(keys)) == [True] * len(items)


def test_a_sign_of_life_figures_and_a_flush(line):
    """The node answers for itself; a ping leaves nothing behind."""
    assert line.ask(Ping()) is True
    assert line.say("DBSIZE") == b":0\r\n"
    figures = line.ask(ServerStats())
    assert figures["redis_mode"] == "standalone"
    line.ask(Set(b"k", TEXT))
    assert line.ask(FlushAll()) is True
    assert line.ask(Get(b"k")) is None


def test_databases_are_apart(redis_servers):
    """The URL's number chooses a database, and a flush empties no other."""
    url = redis_servers[0].url
    with calling(f"{url}/3") as three, calling(f"{url}?db=4") as four:
        three.ask(Set(b"k", TEXT))
        assert four.ask(Get(b"k")) is None
        four.ask(FlushAll())
        assert three.ask(Get(b"k")) == TEXT
    with pytest.raises(NodeRefusedError, match="DB index"), calling(f"{url}/99"):
        pass


@pytest.mark.parametrize("way", ["?password=pass%20word", "user"])
def test_a_password(make_redis, way):
    """The URL's password opens the server; without it or with another, the error says so."""
    server = make_redis("--requirepass", "pass word")
    host = server.url.partition("://")[2]
    with calling(
        f"redis://:pass%20word@{host}" if way == "user" else f"redis://{host}{way}"
    ) as line:
        assert line.ask(Ping()) is True
    with calling(server.url) as line:
        for command in (Get(b"k"), Ping(), Incr(b"n", 1)):
            reply = line.ask(command)
            assert type(reply) is NodeRefusedError
            assert "NOAUTH" in str(reply)
    with (
        pytest.raises(NodeRefusedError, match="WRONGPASS") as raised,
        calling(f"redis://:hunter2@{host}"),
    ):
        pass
    assert "hunter2" not in str(raised.value)


def test_a_user_with_few_rights(make_redis):
    """An ACL user does what it may; the rest is refused as configuration, and it is alive."""
    server = make_redis()
    with calling(server.url) as admin:
        admin.say("ACL", "SETUSER", "app", "on", ">secret", "~shop:*", "+@all", "-flushdb")
    host = server.url.partition("://")[2]
    with calling(f"redis://app:secret@{host}/2") as line:
        assert line.ask(Ping()) is True
        assert line.ask(Set(b"shop:n", (INTEGER_FLAGS, b"1"))) is True
        assert line.ask(Incr(b"shop:n", 1)) == 2
        for command in (Get(b"k"), Set(b"k", TEXT), FlushAll(), Incr(b"k", 1)):
            refused = line.ask(command)
            assert type(refused) is NodeRefusedError
            assert "NOPERM" in str(refused)
        assert type(line.ask(GetMany([b"k", b"l"]))[0]) is NodeRefusedError


def test_an_error_within_a_script_keeps_its_code(make_redis):
    """What a user may not do in a script is refused as what it may not do outside."""
    server = make_redis()
    with calling(server.url) as admin:
        rights = ("~*", "+@all", "-pexpire", "-persist", "-exists")
        admin.say("ACL", "SETUSER", "app", "on", ">secret", *rights)
        admin.ask(Set(b"k", TEXT))
        _, token = admin.ask(Gets(b"k"))
    with calling(f"redis://app:secret@{server.url.partition('://')[2]}") as line:
        for command in (Renew(b"k", b"m", token, 60), Touch(b"k", None)):
            refused = line.ask(command)
            assert type(refused) is NodeRefusedError
            assert "script:" not in str(refused)
    texts = [text for name, text in vars(scripts).items() if name.isupper()]
    assert len(texts) > 5
    assert not any(b"redis.call" in text for text in texts)


def test_a_full_server_refuses_and_stays_good(make_redis):
    """Out of memory is a refusal of what grows; reading and deleting go on."""
    server = make_redis()
    with calling(server.url) as line:
        line.ask(Set(b"k", OTHER))
        line.ask(Set(b"n", (INTEGER_FLAGS, b"1")))
        _, token = line.ask(Gets(b"k"))
        line.say("CONFIG", "SET", "maxmemory", "1")
        for command in (Set(b"k", TEXT), Incr(b"n", 1), Cas(b"k", TEXT, token)):
            refused = line.ask(command)
            assert type(refused) is NodeRefusedError
            assert "OOM" in str(refused)
        assert all(type(reply) is NodeRefusedError for reply in line.ask(SetMany([(b"k", TEXT)])))
        assert line.ask(Get(b"k")) == OTHER
        assert line.ask(Delete(b"k")) is True
        assert line.ask(Ping()) is True


def test_a_replica_is_not_alive(make_redis):
    """A node that takes no writes cannot serve, though it would answer a ping."""
    server = make_redis()
    with calling(server.url) as line:
        line.ask(Set(b"n", (INTEGER_FLAGS, b"1")))
        line.say("REPLICAOF", "127.0.0.1", "1")
        for command in (Ping(), Set(b"k", TEXT), Incr(b"n", 1), Touch(b"n", None), Delete(b"n")):
            assert type(line.ask(command)) is NodeUnavailableError
        line.say("REPLICAOF", "NO", "ONE")
        assert line.ask(Ping()) is True


def test_one_client_too_many(make_redis):
    """A server without a place for us is unavailable, not broken."""
    server = make_redis("--maxclients", "1")
    with calling(server.url) as line:
        assert line.ask(Ping()) is True
        with calling(server.url) as late, pytest.raises(TooManyConnectionsError):
            late.ask(Get(b"k"))


def test_a_unix_socket(make_redis, tmp_path):
    """The same words go through a socket's path, with a database as an option."""
    server = make_redis(unix=tmp_path / "redis.sock")
    with calling(f"{server.url}?db=2") as line:
        assert line.ask(Set(b"k", TEXT)) is True
        assert b"db=2" in line.say("CLIENT", "LIST")


def test_a_cluster_member_is_a_matter_of_configuration(make_redis):
    """It shards by itself; the error says so, or that the cluster is down."""
    server = make_redis("--cluster-enabled", "yes")
    with calling(server.url) as line:
        assert type(line.ask(Get(b"k"))) is NodeUnavailableError
        line.say("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        crossed = line.ask(GetMany([b"a", b"b", b"c"]))
        assert "Redis Cluster" in str(crossed)
