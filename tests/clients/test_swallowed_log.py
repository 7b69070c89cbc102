"""A fault of a node's configuration is logged, although its errors are read as misses."""

from __future__ import annotations

import logging

import pytest

from operations.harness import EventLog
from shardcache.clients.swallowed_log import MAX_KINDS, SwallowedErrorLog
from shardcache.core.events import NodeFailed
from shardcache.core.placement.nodes import Node
from shardcache.errors import (
    NodeRefusedError,
    NodeTimeoutError,
    NodeUnavailableError,
    NotACounterError,
)
from shardcache.operations.cluster.members import Member
from shardcache.testing.driving import make_client
from shardcache.testing.waiting import eventually


@pytest.fixture
def lines(caplog):
    """Return a function that gives what was logged at WARNING or above."""
    caplog.set_level(logging.INFO, logger="shardcache")

    def found(level=logging.WARNING):
        return [record.getMessage() for record in caplog.records if record.levelno >= level]

    return found


class TestSwallowedErrors:
    """The log alone, on a clock of the test."""

    def test_the_first_error_is_logged_and_then_one_a_minute(self, lines):
        """With the number of errors since, for each node and kind."""
        now = [100.0]
        errors = SwallowedErrorLog(clock=lambda: now[0])
        refused, late = NodeRefusedError("no", "a"), NodeTimeoutError("late", "a")
        for _ in range(50):
            errors.note(refused)
        errors.note(late)
        errors.note(NodeRefusedError("no", "b"))
        assert lines() == [
            "node error read as a miss: a: no",
            "node error read as a miss: a: late",
            "node error read as a miss: b: no",
        ]
        now[0] += 61.0
        errors.note(refused)
        errors.note(refused)
        assert lines()[3:] == ["node error read as a miss 50 times in 61 s: a: no"]
        now[0] += 60.0
        errors.note(refused)
        assert lines()[4:] == ["node error read as a miss 2 times in 60 s: a: no"]

    def test_an_ejection_has_its_own_line(self, lines):
        """The error that ejects a node at once is not logged twice."""
        SwallowedErrorLog().note(NodeUnavailableError("refused", "a"))
        assert lines() == []

    def test_a_node_that_stays_ejected_is_logged_once_a_minute(self, lines):
        """From a minute after its ejection, with the calls refused since the last line."""
        now, member = [100.0], Member(Node("redis://a"), None)
        errors = SwallowedErrorLog(clock=lambda: now[0])
        cause = NodeUnavailableError("WRONGPASS", "a")

        def refuse(calls):
            for _ in range(calls):
                member.refused += 1
                errors.note_refused(member, cause)

        member.health.since = 7.0
        refuse(50)
        now[0] += 59.0
        refuse(1)
        assert lines() == []
        now[0] += 2.0
        refuse(9)
        assert lines() == ["node a still ejected: WRONGPASS; 52 calls refused in 61 s"]
        now[0] += 60.0
        refuse(1)
        assert lines()[1:] == ["node a still ejected: WRONGPASS; 9 calls refused in 60 s"]
        now[0] += 500.0
        member.health.since = 8.0  # it was well meanwhile, and the new ejection has its own line
        refuse(1)
        assert len(lines()) == 2

    def test_ever_new_texts_do_not_fill_the_memory(self, lines):
        """Beyond a thousand kinds, all others of a node count as one."""
        errors = SwallowedErrorLog()
        for number in range(MAX_KINDS + 50):
            errors.note(NodeRefusedError(f"no {number}", "a"))
        assert len(lines()) == MAX_KINDS + 1


def test_a_missing_password_is_logged_once(make_redis, lines, mode):
    """Hundreds of calls miss, and one line says why."""
    server = make_redis("--requirepass", "hunter2")
    client = make_client(mode, server.url, timeout=5)
    for number in range(100):
        assert client.set(f"k{number}", 1) is False
        assert client.get_many([f"k{number}", "l"]) == {}
    (line,) = lines()
    assert "requires a password, and the node's URL has none" in line
    client.close()


def test_a_wrong_password_is_logged_again(make_redis, lines, mode, monkeypatch):
    """It ejects the node, and only the log says that it is still wrong."""
    monkeypatch.setattr("shardcache.clients.swallowed_log.LINE_EVERY", 0.3)
    server = make_redis("--requirepass", "hunter2")
    url = f"redis://:hunter3@127.0.0.1:{server.port}"
    client = make_client(mode, url, timeout=5)

    def told():
        assert client.set("k", 1) is False
        return any(" still ejected: " in line for line in lines())

    eventually(told, within=15)
    line = next(line for line in lines() if "still ejected" in line)
    assert "does not know the user and password" in line
    assert "hunter" not in line
    client.close()


def test_lost_rights_are_logged(make_redis, lines, mode):
    """A user who may only read has every write dropped: one line says so."""
    server = make_redis()
    client = make_client(mode, server.url, timeout=5)
    assert client.set("k", 1)
    server.ask(b"ACL SETUSER default -set -del\r\n", b"+OK\r\n")
    for _ in range(20):
        assert client.set("k", 2) is False
    assert len([line for line in lines() if "does not let the user" in line]) == 1
    client.close()


def test_under_raise_nothing_is_logged(make_redis, lines, mode):
    """The error reaches the caller."""
    server = make_redis("--requirepass", "hunter2")
    client = make_client(mode, server.url, timeout=5, on_error="raise")
    with pytest.raises(NodeRefusedError):
        client.set("k", 1)
    assert lines() == []
    client.close()


@pytest.mark.parametrize("kind", ["memcached", "redis", "memory"])
def test_what_the_caller_gets_is_not_swallowed(make_memcached, make_redis, lines, mode, kind):
    """A value that is no counter raises under `on_error="miss"` too: no line says that it was a miss."""
    servers = {"memcached": make_memcached, "redis": make_redis}
    url = servers[kind]().url if kind in servers else "memory://a"
    log = EventLog(NodeFailed)
    client = make_client(mode, url, timeout=5, observers=[log])
    assert client.set("k", "text")
    with pytest.raises(NotACounterError):
        client.incr("k")
    assert lines() == []
    assert [event.swallowed for event in log.events] == [False]
    (counted,) = client.counters().values()
    assert (counted["errors"], counted["swallowed_errors"]) == (1, 0)
    client.close()


def test_a_return_is_logged(make_memcached, lines, mode):
    """At INFO, with the seconds that the node was out."""
    server = make_memcached()
    client = make_client(mode, server.url, timeout=5)
    client.set("k", 1)
    server.kill()
    client.get("k")
    server.restart()
    eventually(lambda: client.set("k", 1), within=15)
    (line,) = [line for line in lines(logging.INFO) if "restored after" in line]
    assert line.startswith(f"node 127.0.0.1:{server.port} restored after ")
    client.close()
