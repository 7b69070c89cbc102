"""CAS numbers start again with a server: a token is good for one run of it."""

from __future__ import annotations

import time

import pytest

from shardcache import Client
from shardcache.backends.memcached.wire import MemcachedWire
from shardcache.backends.transport.sockets import RESTED
from shardcache.backends.wire import Incarnation
from shardcache.core.commands import Cas, DeleteCas, GetOrStub, Gets, Renew, StubReply
from shardcache.operations.port import step

NEWER = (0, b"newer")
OLDER = (0, b"older")


def spoken(wire, command, reply):
    """Have a wire ask something and hear a reply; give the line and the reply."""
    line = b"".join(wire.encode(command)).split(b"\r\n")[0]
    token = next(word for word in line.split() if word[:1] == b"O")
    return line, wire.feed(reply % token)[0]


def token_of(wire):
    """Return a token as a wire reads one."""
    return spoken(wire, Gets(b"k"), b"VA 1 f0 c17 %s\r\nx\r\n")[1][1]


@pytest.mark.parametrize("make", [Cas, DeleteCas, Renew], ids=lambda make: make.__name__)
def test_a_token_is_good_for_one_run_of_the_server(make):
    """Over any connection; after a lost one the wire asks for number 0, which no item has."""
    incarnation = Incarnation()
    token = token_of(MemcachedWire(incarnation=incarnation))
    commands = {
        Cas: Cas(b"k", OLDER, token, 60),
        DeleteCas: DeleteCas(b"k", token),
        Renew: Renew(b"k", b"m", token, 60),
    }
    assert b"C17" in b"".join(MemcachedWire(incarnation=incarnation).encode(commands[make])).split()
    incarnation.end()
    assert b"C0" in b"".join(MemcachedWire(incarnation=incarnation).encode(commands[make])).split()
    assert token_of(MemcachedWire(incarnation=incarnation)) != token


@pytest.mark.parametrize("how", ["lost", "ejected", "rested"])
def test_a_lost_connection_may_mean_a_restart(make_memcached, how):
    """So may one that closed while idle, and an ejection."""
    server = make_memcached()
    with Client(server.url, timeout=0.2) as client:
        (member,) = client._cluster.members.values()
        value, token = client.gets("k")
        assert (value, token) == (None, None)
        client.set("k", "value")
        _, token = client.gets("k")
        assert client.cas("k", "value", token) is True
        _, token = client.gets("k")
        before = member.backend._target.incarnation.number
        if how == "lost":
            server.kill()
            client.get("k")
            server.restart()
        elif how == "ejected":
            member.backend.eject()
        else:
            server.kill()
            server.restart()
            time.sleep(2 * RESTED)
            client.get("k")
        while client.ejected:
            client.ping()
        assert member.backend._target.incarnation.number > before
        assert not client.cas("k", "other", token)


def test_tokens_of_other_backends_never_match():
    """They never match, whatever they are."""
    wire = MemcachedWire()
    for token in (7, "7", b"7", -1, 2**64, None, ("a", "b")):
        assert b"C0" in b"".join(wire.encode(Cas(b"k", OLDER, token, 60))).split()


def test_a_late_leader_removes_no_stub_after_a_restart(make_memcached):
    """Its token is from the run before: it neither stores over the new stub nor removes it."""
    server = make_memcached()
    with Client(server.url, timeout=5.0) as client:
        (member,) = client._cluster.members.values()

        def ask(command):
            return step(client._cluster.ask(member, command))

        late = ask(GetOrStub(b"k", b"late", 60))
        server.kill()
        server.restart()
        while not isinstance(other := ask(GetOrStub(b"k", b"next", 60)), StubReply):
            client.ping()
        assert other.token.number == late.token.number  # as bad as it can be
        assert ask(Cas(b"k", OLDER, late.token, 60)) is False
        assert ask(DeleteCas(b"k", late.token)) is False
        assert ask(Renew(b"k", b"late", late.token, 60)) is None
        assert ask(Cas(b"k", NEWER, other.token, 60)) is True
        assert ask(Gets(b"k"))[0] == NEWER
