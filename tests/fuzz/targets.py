"""What reads bytes of strangers, each as a function of bytes that raises `AssertionError` when it fails.

A target makes its own choices from the first bytes, so that an input is one file of the corpus and
means the same in each run: which commands are owed, how the rest is cut into fragments.
"""

from __future__ import annotations

import ast
import contextlib
import time

from backends.fakes import token_of
from shardcache import Client, ConfigurationError, DecodeError, KeyBuildError, Node, NodeError
from shardcache.backends.base import BackendOptions
from shardcache.backends.memcached.wire import MemcachedWire
from shardcache.backends.pymemcache.backend import PymemcacheBackend
from shardcache.backends.pymemcache.refusals import translate
from shardcache.backends.redis.header import from_redis
from shardcache.backends.redis.options import RedisOptions
from shardcache.backends.redis.wire import RedisWire
from shardcache.core.commands import (
    Acquire,
    Cas,
    CasKeep,
    CasUntil,
    CommandList,
    CompareAndDelete,
    CompareAndExpire,
    Delete,
    DeleteCas,
    DeleteMany,
    FlushAll,
    Get,
    GetAged,
    GetExpiry,
    GetMany,
    GetOrStub,
    Gets,
    Incr,
    IncrSigned,
    Peek,
    Ping,
    Renew,
    ServerStats,
    Set,
    SetMany,
    Touch,
    Until,
    When,
)
from shardcache.core.values.flags import RAW_FLAGS
from shardcache.settings import Settings, parse_nodes
from shardcache.settings.sources import _toml

NODE = Node("pymemcache://n")
LARGEST = 1 << 20  # bytes of a value
CPU = 2.0  # seconds that one input may cost, on a machine that does other things
PAYLOAD = (RAW_FLAGS, b"value")
KEYS = [b"k%d" % number for number in range(5)]
COMMANDS = [
    Get(b"k0"),
    GetMany(KEYS),
    Gets(b"k0"),
    Set(b"k0", PAYLOAD),
    Set(b"k0", PAYLOAD, 5.0, When.ABSENT),
    SetMany([(key, PAYLOAD) for key in KEYS]),
    Cas(b"k0", PAYLOAD, b"token"),
    Delete(b"k0"),
    DeleteMany(KEYS),
    Touch(b"k0", 5.0),
    Incr(b"k0", 1),
    Incr(b"k0", -1),
    GetOrStub(b"k0", b"mark", 5.0),
    Renew(b"k0", b"mark", b"token", 5.0),
    Acquire(b"k0", PAYLOAD, 5.0),
    DeleteCas(b"k0", b"token"),
    Ping(),
    ServerStats(),
    FlushAll(),
]
AGES = [GetAged(b"k0"), Peek(b"k0")]
LISTS = [CommandList([Get(b"k0"), Cas(b"k1", PAYLOAD, b"token"), Delete(b"k0")])]
WITH_DATES = [*LISTS, *AGES, GetExpiry(b"k0"), CasUntil(b"k0", PAYLOAD, b"token", Until(0))]
KEEPING = [*LISTS, *AGES, CasKeep(b"k0", PAYLOAD, b"token"), IncrSigned(b"k0", -1)]
WITH_VALUES = [CompareAndDelete(b"k0", PAYLOAD), CompareAndExpire(b"k0", PAYLOAD, 5.0)]
SIZES = [1, 2, 7, 33, 4096, 1 << 20]


@contextlib.contextmanager
def bounded():
    """See that what is done inside costs no more than it may."""
    began = time.process_time()
    yield
    taken = time.process_time() - began
    assert taken < CPU, f"{taken:.1f} s"


class Plain:
    """A login."""

    def get_credentials(self):
        """Return the user and the password."""
        return "app", "hunter2secret"


def cut(data, number):
    """Return the data in fragments of a size that a number chooses."""
    size = SIZES[number % len(SIZES)]
    return [data[place : place + size] for place in range(0, len(data), size)]


def chosen(data, commands):
    """Return the one to three commands that the first bytes choose, how to cut, and the rest."""
    head, rest = data[:5].ljust(5, b"\0"), data[5:]
    owed = [commands[number % len(commands)] for number in head[1 : 2 + head[0] % 3]]
    return owed, head[4], rest


def spoken(wire, fragments, owed):
    """Feed a wire; see that it gives no more replies than are owed, and raises nothing unknown."""
    given = 0
    with bounded(), discreet():
        for fragment in fragments:
            given += len(wire.feed(fragment))
            assert given <= owed
            assert given == owed or not wire.idle


@contextlib.contextmanager
def discreet():
    """Take an error that a node may come to; see that it shows no login and no control character."""
    told = None
    try:
        yield
    except (NodeError, ConfigurationError) as error:
        told = error
    if told is not None:
        assert str(told).isprintable()
        assert "hunter2secret" not in f"{told} {told.__cause__!r} {told.__context__!r}"


def memcached(data):
    """Speak memcached's meta protocol; `%0` to `%9` in the server's bytes are the tokens of the commands."""
    owed, number, rest = chosen(data, [*COMMANDS, *WITH_DATES])
    wire = MemcachedWire()
    tokens = []
    for command in owed:
        requests = b"".join(wire.encode(command)).split(b"\r\n")
        tokens += [token_of(line) for line in requests if b" O" in line]
    for place, token in enumerate(tokens[:10]):
        rest = rest.replace(b"%%%d" % place, token)
    spoken(wire, cut(rest, number), len(owed))


def redis(data):
    """Speak Redis' protocol, from the greeting on if the first byte says so."""
    owed, number, rest = chosen(data, [*COMMANDS, *WITH_VALUES, *KEEPING])
    login = Plain() if data[:1] > b"\x7f" else None
    wire = RedisWire(RedisOptions(credentials=login, db=1 if login else 0), "n")
    wire.hello()
    for command in owed:
        wire.encode(command)
    spoken(wire, cut(rest, number), len(owed))


class Scripted:
    """A connection on which fragments come in, and behind the last its end."""

    def __init__(self, fragments):
        self._fragments = iter(fragments)

    def try_send(self, data):
        """Take all."""
        return len(data)

    def poll(self, _):
        """Tell that something has come."""
        return True

    def recv(self, _):
        """Return the next fragment."""
        return next(self._fragments, b"")

    def close(self):
        """Do nothing."""


def pymemcache(data):
    """Speak the classic protocol, through pymemcache."""
    owed, number, rest = chosen(data, [*COMMANDS, *WITH_VALUES])
    session = PymemcacheBackend(NODE, BackendOptions(), LARGEST)._target.make_wire()
    connection = Scripted(cut(rest, number))
    with bounded():
        for command in owed:
            ours = None
            try:
                session.ask(connection, command, time.monotonic() + 60)
            except Exception as error:  # noqa: BLE001 - pymemcache trips over nonsense in many ways
                ours = translate(error, command, "n")
            if ours is not None:
                assert isinstance(ours, NodeError), repr(ours)
                assert str(ours).isprintable()
                return
            assert session.idle


SECRET = "sixteen-secret-bytes"
CODECS = {"msgpack": {}, "json": {}, "raw": {}, "pickle": {"secret": SECRET}}


def _caches():
    for codec, more in CODECS.items():
        client = Client("memory://a", codec=codec, on_error="raise", **more)
        aged = client.cached(ttl=60, stale=60, cache_errors=(ValueError,), namespace="fuzz")
        yield client, aged(lambda: 1)


CACHES = list(_caches())
FLAGS = [0, 1, 2, 4, 8, 9, 16, 24, *(256 + kind for kind in range(40)), *range(32, 2048, 32)]


def payloads(data):
    """Read a stored value, and a cached function's, with each codec; the first two bytes choose the flags."""
    head, rest = data[:2].ljust(2, b"\0"), data[2:]
    number = int.from_bytes(head, "big")
    payload = from_redis(rest) if number >= 0x8000 else (FLAGS[number % len(FLAGS)], rest)
    for client, function in CACHES:
        backend = next(iter(client._cluster.members.values())).backend
        for key in (b"k", function.key_for().encode()):
            backend.execute(Set(key, payload), time.monotonic() + 60)
        with bounded():
            with contextlib.suppress(DecodeError):
                client.get("k")
            with contextlib.suppress(DecodeError, ValueError):
                function()


def settings(data):
    """Read a URL, a variable, a file's table and a choice."""
    text = data.decode("utf-8", "surrogateescape")
    with bounded():
        for read in (
            Node,
            parse_nodes,
            Settings.from_url,
            lambda given: Settings.from_env({"SHARDCACHE_URL": given}),
            lambda given: Settings.from_env(
                {"SHARDCACHE_URL": "memory://", "SHARDCACHE_TIMEOUT": given}
            ),
            lambda given: Settings.from_dict({"nodes": "memory://", "strategy": given}),
            lambda given: Settings.from_dict({"nodes": [given, {"url": given, "weight": given}]}),
            _from_toml,
            _options,
        ):
            with contextlib.suppress(ConfigurationError):
                read(text)


class File:
    """A file of some text."""

    def __init__(self, text):
        self._text = text

    def read_text(self, encoding):
        """Return the text, as a file that holds it would."""
        return self._text.encode(encoding, "surrogateescape").decode(encoding)


def _from_toml(text):
    Settings.from_dict(_toml(File(text)))


def _options(text):
    if not text.lower().startswith(("rediss", "memcacheds")):  # to load authorities takes long
        with Client(text):
            pass


def arguments(data):
    """Build the key of a call from a Python literal; the same call has the same key."""
    try:
        with bounded():
            given = ast.literal_eval(data.decode("utf-8", "replace"))
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return
    function = CACHES[0][0].cached(ttl=60, namespace="arguments")(lambda *_: None)
    with bounded(), contextlib.suppress(KeyBuildError):
        assert function.key_for(given) == function.key_for(given)
        assert function.key_for(given, 1) != function.key_for(given)


TARGETS = {
    target.__name__: target
    for target in (memcached, redis, pymemcache, payloads, settings, arguments)
}
