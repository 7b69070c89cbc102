"""No error of a node shows a login or a value, whatever a server says."""

from __future__ import annotations

import ast
import contextlib
import inspect
import logging
import select
import time
from pathlib import Path

import pytest

import shardcache
from backends.fakes import fake_node
from hostile.showing import all_shown, chain_of
from shardcache import Node, NodeError, Observer, PartialFailureError, errors
from shardcache.backends.base import BackendOptions
from shardcache.backends.redis import Redis
from shardcache.backends.transport.dial import dial
from shardcache.testing.driving import make_client
from shardcache.testing.servers import free_port

USER = "QXZJappQXZJ"
PASSWORD = "hunter2secret"
VALUE = "QXZJvalueQXZJ"
LOGIN = f"{USER}:{PASSWORD}@"

# What servers and proxies were seen to answer to a login, and what one that means harm may say.
ANSWERS_TO_A_LOGIN = [
    "-ERR unknown command 'AUTH', with args beginning with: '{user}' '{password}' ",
    "-ERR unknown command `AUTH`, with args beginning with: `{user}`, `{password}`, ",
    "-ERR unknown command 'auth' '{password}'",
    "-ERR unsupported command AUTH {user} {password}",
    "-ERR AUTH <password> called without any password configured for the default user",
    "-ERR Client sent AUTH, but no password is set",
    "-ERR invalid password {password}",
    "-ERR wrong number of arguments for 'auth' command {password}",
    "-WRONGPASS invalid username-password pair of {user}: {password}",
    "-NOPERM User {user} has no permissions, least of all with {password}",
    "-NOAUTH {password}",
    "-DENIED {password}",
    "-LOADING {password}",
    "-READONLY {password}",
    "-MOVED 1 {password}:1",
    "-ERR max number of clients reached {password}",
    "-ERR Protocol error: {password}",
    "-{password}",
    "-{password} {user}",
    "-\x1b[2J{password}",
    "+{password}",
    "${length}\r\n{password}",
    ":1",
    "*2\r\n$5\r\n{password}",
    "{password}",
    "SERVER_ERROR {password}",
    "+OK\r\n-ERR {user} {password}",
    "+OK\r\n+{password}",
    "+OK\r\n{password}",
    "",
]
ANSWERS_TO_A_COMMAND = [
    "-ERR unknown command 'SET', with args beginning with: 'k' '{value}' ",
    "-ERR unknown command `{password}`, with args beginning with: `{value}`, ",
    "-ERR unknown command '{value}'",
    "-ERR you said AUTH {user} {password}",
    "-LOADING {user} {password}",
    "-OOM {password}",
    "-WRONGTYPE {password}",
    "-NOPERM User {user} may not",
    "-NOAUTH {password}",
    "-MISCONF {password}",
    "-ERR Protocol error: {password}",
]


def filled(answer):
    """Return the bytes of an answer."""
    given = {"user": USER, "password": PASSWORD, "value": VALUE, "length": len(PASSWORD)}
    return answer.format(**given).encode() + b"\r\n"


CALLS = {
    "get": lambda client: client.get("k"),
    "get_many": lambda client: client.get_many(["k", "l"]),
    "set": lambda client: client.set("k", VALUE),
    "set_many": lambda client: client.set_many({"k": VALUE, "l": VALUE}),
    "add": lambda client: client.add("k", VALUE),
    "delete": lambda client: client.delete("k"),
    "incr": lambda client: client.incr("k"),
    "touch": lambda client: client.touch("k", 5),
    "flush_all": lambda client: client.flush_all(),
    "check": lambda client: client.check(),
    "lock": lambda client: driven(client, client.lock("k").acquire, wait=0.1),
}


def driven(client, call, **arguments):
    """Call what is a coroutine function in one of the two modes."""
    done = call(**arguments)
    return client.loop.run_until_complete(done) if inspect.isawaitable(done) else done


def errors_of(client):
    """Return what each kind of call raises, and the errors that `ping` and `stats` return."""
    found = []
    for call in CALLS.values():
        try:
            call(client)
        except (shardcache.ShardCacheError, OSError) as error:
            found.append(error)
    found += [figures.server for figures in client.stats().values()]
    found += client.ping().values()
    return [error for error in found if isinstance(error, BaseException)]


def assert_discreet(found, *secrets):
    """See that there are errors, and that they show no secret and no control character."""
    assert found
    for error in found:
        shown = all_shown(error)
        for secret in secrets:
            assert secret not in shown, shown
        for link in chain_of(error):
            if isinstance(link, (NodeError, PartialFailureError)):
                assert str(link).isprintable(), repr(str(link))
            if type(link).__module__.startswith(("hiredis", "pymemcache")):
                assert str(link).isprintable(), repr(str(link))


def refused_by(make_redis, mode, *arguments, login=LOGIN, scheme="redis"):
    """Return the errors of a client with a login on a Redis that is started with `arguments`."""
    server = make_redis(*arguments)
    url = f"{scheme}://{login}127.0.0.1:{server.port}"
    client = make_client(mode, url, on_error="raise", timeout=5)
    found = errors_of(client)
    client.close()
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("--rename-command", "AUTH", "X"), id="AUTH renamed"),
        pytest.param(("--rename-command", "AUTH", '""'), id="AUTH disabled"),
        pytest.param(("--requirepass", "another"), id="wrong password"),
        pytest.param((), id="no such user"),
        pytest.param(("--user", USER, "on", f">{PASSWORD}", "~*", "+ping"), id="few rights"),
        pytest.param(("--user", USER, "on", f">{PASSWORD}", "~x*", "+@all"), id="other keys"),
    ],
)
def test_a_real_redis_that_refuses_shows_no_login(mode, make_redis, arguments):
    """The URL's user and password are in no error, and in no cause of one."""
    assert_discreet(refused_by(make_redis, mode, *arguments), USER, PASSWORD)


def test_a_password_without_a_user_is_not_shown(mode, make_redis):
    """Nor on a server that wants none."""
    assert_discreet(
        refused_by(make_redis, mode, "--rename-command", "AUTH", "X", login=f":{PASSWORD}@"),
        PASSWORD,
    )


@pytest.mark.parametrize("command", ["EVAL", "SET", "GET", "MGET", "DEL", "PEXPIRE"])
def test_a_real_redis_without_a_command_shows_no_value(mode, make_redis, command):
    """Arguments that the server repeats are left out; the missing command is named."""
    found = refused_by(make_redis, mode, "--rename-command", command, "X", login="")
    assert any(f"unknown command '{command}'" in str(error) for error in found)
    for error in found:
        for link in chain_of(error):
            assert VALUE not in f"{link} {link!r} {vars(link)}"


def answering(greeting, rest=b"$-1\r\n"):
    """Return the behaviour of a node that answers a login, and whatever comes after it."""

    def behave(connection, _):
        said = greeting
        while request := connection.recv(65536):
            commands = request.count(b"\r\n*") + 1 if request.startswith(b"*") else 1
            connection.sendall(said * commands)
            said = rest

    return behave


@pytest.mark.parametrize("answer", ANSWERS_TO_A_LOGIN)
def test_no_answer_to_a_login_is_shown(mode, answer):
    """Neither user nor password gets into an error, whatever a server or proxy answers."""
    with fake_node(answering(filled(answer))) as address:
        client = make_client(mode, f"redis://{LOGIN}{address}", on_error="raise", timeout=0.3)
        found = []
        for call in ("get", "set", "check"):
            with contextlib.suppress(OSError):
                try:
                    CALLS[call](client)
                except shardcache.ShardCacheError as error:
                    found.append(error)
        client.close()
        assert_discreet(found, USER, PASSWORD)


@pytest.mark.parametrize("answer", ANSWERS_TO_A_COMMAND)
def test_no_later_answer_shows_a_login(mode, answer):
    """A server that repeats the login or a value long after it is not quoted."""
    with fake_node(answering(b"+OK\r\n", filled(answer))) as address:
        client = make_client(mode, f"redis://{LOGIN}{address}", on_error="raise", timeout=0.3)
        found = errors_of(client)
        client.close()
    assert found
    for error in found:
        for link in chain_of(error):
            shown = f"{link} {link!r} {vars(link)}"
            for secret in (USER, PASSWORD, VALUE):
                assert secret not in shown


@pytest.mark.parametrize(
    "url",
    [
        f"redis://{LOGIN}127.0.0.1:{{port}}",
        f"rediss://{LOGIN}127.0.0.1:{{port}}",
        f"redis://{LOGIN}no-such-host.invalid",
        f"redis://{LOGIN}{'a' * 70}.invalid",
        f"redis+unix://{LOGIN}/nowhere/s",
    ],
)
def test_a_node_that_is_not_reached_shows_no_login(mode, url):
    """Refused, unknown by name or without a socket, it is named without its login."""
    url = url.format(port=free_port())
    client = make_client(mode, url, on_error="raise", timeout=2)
    assert_discreet(errors_of(client), USER, PASSWORD)
    client.close()


def test_a_failed_verification_shows_no_login(mode, make_redis, tls):
    """Nor does a server whose certificate is not trusted."""
    server = make_redis(tls=tls)
    url = f"rediss://{LOGIN}127.0.0.1:{server.port}"
    client = make_client(mode, url, on_error="raise", timeout=5)
    assert_discreet(errors_of(client), USER, PASSWORD)
    client.close()


@pytest.mark.parametrize("silent", ["before the greeting", "after it"])
def test_a_timeout_shows_no_login(mode, silent):
    """Nor a node that is silent."""

    def behave(connection, _):
        connection.recv(65536)
        if silent == "after it":
            connection.sendall(b"+OK\r\n")
        while connection.recv(65536):
            pass

    with fake_node(behave) as address:
        client = make_client(mode, f"redis://{LOGIN}{address}", on_error="raise", timeout=0.2)
        assert_discreet(errors_of(client), USER, PASSWORD)
        client.close()


class Heard(Observer):
    """Keep all events of nodes and calls."""

    def __init__(self):
        self.told = []

    def node_failed(self, event):
        """Keep it."""
        self.told.append(event)

    def node_ejected(self, event):
        """Keep it."""
        self.told.append(event)

    def call_finished(self, event):
        """Keep it."""
        self.told.append(event)


@pytest.mark.parametrize("answer", [answer for answer in ANSWERS_TO_A_LOGIN if "{" in answer][:16])
def test_no_log_and_no_event_shows_a_login(mode, answer, caplog):
    """Where errors are read as misses."""
    heard = Heard()
    with fake_node(answering(filled(answer))) as address, caplog.at_level(logging.DEBUG):
        client = make_client(mode, f"redis://{LOGIN}{address}", timeout=0.3, observers=[heard])
        for call in ("get", "set", "get_many"):
            with contextlib.suppress(shardcache.ShardCacheError):
                CALLS[call](client)
        client.close()
    shown = caplog.text + "".join(map(repr, heard.told))
    assert USER not in shown
    assert PASSWORD not in shown


class Locked:
    """Credentials that cannot be had, whose provider tells too much in its own frame."""

    def get_credentials(self):
        """Return what is no login."""
        return (USER, PASSWORD, object())


def dialed(target):
    """Dial a node, and wait for it."""
    steps = dial(target, time.monotonic() + 5)
    wait = next(steps)
    while True:
        readable = [wait.descriptor] if wait.mask & select.POLLIN else []
        writable = [wait.descriptor] if wait.mask & select.POLLOUT else []
        select.select(readable, writable, [], 5)
        wait = next(steps)


def test_unusable_credentials_are_not_shown():
    """They are in no frame of the package when they cannot be sent."""
    with fake_node(answering(b"+OK\r\n")) as address:
        target = Redis(credentials=Locked())._target(Node(f"redis://{address}"), BackendOptions())
        with pytest.raises(Exception, match="must be str") as caught:
            dialed(target)
    assert USER not in all_shown(caught.value)
    assert PASSWORD not in all_shown(caught.value)


TEXTS = ["one\nERROR forged", "\x1b[2J\x1b]0;x\x07", "a\u202eb", "\x9b31m", "\x00", "too late"]


@pytest.mark.slow
@pytest.mark.parametrize("text", TEXTS, ids=ascii)
@pytest.mark.parametrize(
    "kind", ["SERVER_ERROR", "CLIENT_ERROR", "ERROR", "-ERR", "-LOADING", "-OOM"]
)
@pytest.mark.parametrize("scheme", ["memcached", "pymemcache", "redis"])
def test_no_servers_text_forges_a_line(mode, scheme, kind, text):
    """A message is one printable line, whatever the server has sent; so are its causes."""
    said = f"{kind} {text}\r\n".encode()
    with fake_node(answering(said, said)) as address:
        client = make_client(mode, f"{scheme}://{address}", on_error="raise", timeout=0.3)
        found = []
        for call in ("get", "set"):
            with contextlib.suppress(OSError):
                try:
                    CALLS[call](client)
                except shardcache.ShardCacheError as error:
                    found.append(error)
        client.close()
        assert_discreet(found)


# Every place of the package that makes an error of a node whose text is not written there, and what
# the text quotes. "the server" must be met by the tests of this file.
PLACES = {
    "backends/transport/channel.py:Channel._settle_late": "a constant",
    "backends/transport/asyncio.py:MultiplexedBackend._no_room_error": "a constant",
    "backends/transport/blocking.py:SocketBackend.translate": "the system",
    "backends/transport/dial.py:Target.accept": "the system",
    "backends/transport/dial.py:_addresses": "the system",
    "backends/transport/dial.py:_receive_greeting": "the server",
    "backends/transport/dial.py:dial": "the system",
    "backends/memcached/wire.py:MemcachedWire._check_size": "a size",
    "backends/memcached/reader.py:ReplyReader._refusal": "the server",
    "backends/memcached/reader.py:ReplyReader._too_large_error": "a size",
    "backends/memory.py:Store._write": "a size",
    "backends/transport/pool.py:Pool._next_wait": "a size",
    "backends/transport/pool.py:Pool._make_wakeup": "the system",
    "backends/pymemcache/backend.py:PymemcacheBackend._check_size": "a size",
    "backends/pymemcache/backend.py:_local_failure": "the system",
    "backends/pymemcache/refusals.py:_refusal": "the server",
    "backends/pymemcache/refusals.py:translate": "a command",
    "backends/pymemcache/session.py:StrictClient._extract_value": "a size",
    "backends/redis/refusals.py:_refusal": "the server",
    "backends/redis/refusals.py:greeting_refusal": "the server",
    "backends/redis/receiver.py:Receiver._protocol_error": "the server",
    "backends/redis/wire.py:RedisWire._oversize_error": "a size",
    "backends/redis/receiver.py:Receiver._too_large_error": "a size",
    "backends/redis/wire.py:RedisWire._translate_count_error": "a constant",
    "compat/pymemcache/operations.py:extend": "a constant",
    "operations/cluster/members.py:refusal": "an error of a node",
    "operations/cluster/prober.py:_unreachable": "an error of a plugin",
    "operations/cluster/replay.py:Replayer._ask": "an error of a plugin",
}
KINDS = {
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, NodeError)
}


def places():
    """Return every function that makes an error of a node with another text than a constant."""
    package = Path(shardcache.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        name = path.relative_to(package).as_posix()
        if not name.startswith(("testing/", "errors.py")):
            found |= {f"{name}:{place}" for place in _places(ast.parse(path.read_text()), [])}
    return found


def _places(tree, scope):
    for node in ast.iter_child_nodes(tree):
        named = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        yield from _places(node, [*scope, node.name] if named else scope)
        made = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if (
            made
            and node.func.id in KINDS
            and node.args
            and not isinstance(node.args[0], ast.Constant)
        ):
            yield ".".join(scope)


def test_every_error_of_a_node_is_known_here():
    """A new place that raises one must declare what it quotes; a removed one is struck off."""
    assert places() == set(PLACES)
