"""What a Redis server refuses has its error, which shows no secret."""

from __future__ import annotations

import pytest

from backends.redis.wires import NODE, TEXT, answered, make_wire
from shardcache.core.commands import DeleteMany, Get, Incr, SetMany
from shardcache.errors import (
    ConfigurationError,
    NodeProtocolError,
    NodeRefusedError,
    NodeUnavailableError,
    NotACounterError,
    TooManyConnectionsError,
)


class Plain:
    """Credentials as they stand in a URL."""

    def get_credentials(self):
        """Return the user and the password."""
        return ("app", "hunter2")


def test_a_full_server_makes_the_node_unavailable():
    """Redis says so to one client too many, and hangs up."""
    with pytest.raises(TooManyConnectionsError, match="max number of clients"):
        make_wire().feed(b"-ERR max number of clients reached\r\n")


def test_the_greeting_of_a_full_server_is_no_reply():
    """The connection is lost, with the command that was sent meanwhile."""
    wire = make_wire()
    wire.encode(Get(b"k"))
    with pytest.raises(TooManyConnectionsError, match="max number of clients"):
        wire.feed(b"-ERR max number of clients reached\r\n")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("LOADING Redis is loading the dataset in memory", NodeUnavailableError),
        ("MASTERDOWN Link with MASTER is down", NodeUnavailableError),
        ("BUSY Redis is busy running a script.", NodeUnavailableError),
        ("CLUSTERDOWN Hash slot not served", NodeUnavailableError),
        ("READONLY You can't write against a read only replica.", NodeUnavailableError),
        ("NOREPLICAS Not enough good replicas to write.", NodeUnavailableError),
        ("MISCONF Redis is configured to save RDB snapshots", NodeUnavailableError),
        ("NOAUTH Authentication required.", NodeRefusedError),
        ("WRONGPASS invalid username-password pair or user is disabled.", NodeRefusedError),
        ("NOPERM User app has no permissions to run the 'set' command", NodeRefusedError),
        ("OOM command not allowed when used memory > 'maxmemory'.", NodeRefusedError),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", NodeRefusedError),
        ("ERR syntax error", NodeRefusedError),
        ("MOVED 3999 10.0.0.2:6381", ConfigurationError),
        ("ASK 3999 10.0.0.2:6381", ConfigurationError),
        ("CROSSSLOT Keys in request don't hash to the same slot", ConfigurationError),
    ],
)
def test_each_state_of_the_server_has_its_error(text, kind):
    """The connection stays good, and the error says what the node said."""
    reply = answered(Get(b"k"), b"-%b\r\n" % text.encode())
    assert type(reply) is kind
    assert NODE in str(reply)
    assert text.split()[0].removeprefix("ERR") in str(reply)


def test_a_user_named_like_an_error_changes_no_meaning():
    """The kind of a refusal does not depend on the name of the user."""

    class Common:
        def get_credentials(self):
            """Return words of the server's own texts."""
            return ("value", "integer")

    wire = make_wire(credentials=Common())
    wire.hello()
    wire.feed(b"+OK\r\n")
    wire.encode(Incr(b"k", 1))
    (reply,) = wire.feed(b"-ERR value is not an integer or out of range\r\n")
    assert type(reply) is NotACounterError


def test_a_member_of_a_cluster_fails_the_whole_batch():
    """One redirected key of many is a fault of configuration, not of that key."""
    moved = b"-MOVED 1 10.0.0.2:6379\r\n"
    assert isinstance(answered(DeleteMany([b"a", b"b"]), b":1\r\n" + moved), ConfigurationError)


def test_errors_show_no_user_and_no_arguments():
    """The server may repeat a login or a command; messages do not."""
    denied = answered(Get(b"k"), b"-NOPERM User hunter has no permissions\r\n")
    unknown = answered(
        Get(b"k"), b"-ERR unknown command 'EVAL', with args beginning with: 'secret'\r\n"
    )
    assert "hunter" not in str(denied)
    assert "secret" not in str(unknown)
    assert "EVAL" in str(unknown)


def test_a_protocol_error_closes_the_connection():
    """Redis hangs up after it, so nothing may be read from it."""
    wire = make_wire()
    wire.encode(Get(b"k"))
    with pytest.raises(NodeProtocolError, match="invalid bulk length"):
        wire.feed(b"-ERR Protocol error: invalid bulk length\r\n")


def test_a_refused_key_of_a_batch_is_refused_alone():
    """The other keys have their answers."""
    reply = answered(SetMany([(b"a", TEXT), (b"b", TEXT)]), b"-OOM no\r\n+O", b"K\r\n")
    assert isinstance(reply[0], NodeRefusedError)
    assert reply[1] is True


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"ERR value is not an integer or out of range", NotACounterError),
        (b"ERR increment or decrement would overflow", NotACounterError),
        (b"WRONGTYPE Operation against a key holding the wrong kind of value", NotACounterError),
        (b"OOM command not allowed", NodeRefusedError),
        (b"READONLY no", NodeUnavailableError),
    ],
)
def test_a_refusal_to_count_is_not_a_wrong_value(text, kind):
    """A node that refuses to count says nothing about the value."""
    assert type(answered(Incr(b"k", 1), b"-%b\r\n" % text)) is kind


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"-WRONGPASS invalid username-password pair\r\n", NodeRefusedError),
        (b"-ERR AUTH <password> called without any password configured\r\n", NodeRefusedError),
        (b"-LOADING Redis is loading\r\n", NodeUnavailableError),
        (b"+PONG\r\n", NodeProtocolError),
        (b"HTTP/1.1 400 Bad Request\r\n", NodeProtocolError),
    ],
)
def test_a_refused_login_raises(answer, kind):
    """The connection is dropped; the error holds no password."""
    wire = make_wire(credentials=Plain())
    wire.hello()
    with pytest.raises(kind) as raised:
        wire.feed(answer)
    assert "hunter2" not in repr(raised.value)
    assert not wire.greeted
