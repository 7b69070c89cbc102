"""CAS numbers begin anew with a server: a token is good over a connection that was there before it."""

from __future__ import annotations

import pytest

from shardcache import Client
from shardcache.backends.memcached.wire import MemcachedWire
from shardcache.core.commands import Begin, Begun, Cas, DeleteUnchanged, Gets, Renew
from shardcache.operations.port import step

NEWER = (0, b"newer")
OLDER = (0, b"older")


class Clock:
    """A clock that is set."""

    now = 100.0

    def __call__(self):
        """Give the time."""
        return self.now


def spoken(wire, command, reply):
    """Have a wire ask something and hear a reply; give the line and the reply."""
    line = b"".join(wire.encode(command)).split(b"\r\n")[0]
    token = next(word for word in line.split() if word[:1] == b"O")
    return line, wire.feed(reply % token)[0]


def token_of(wire):
    """Give a token as a wire reads one."""
    return spoken(wire, Gets(b"k"), b"VA 1 f0 c17 %s\r\nx\r\n")[1][1]


@pytest.mark.parametrize("make", [Cas, DeleteUnchanged, Renew], ids=lambda make: make.__name__)
def test_a_younger_connection_honours_no_token(make):
    """It asks for number 0, which no item has."""
    clock = Clock()
    old = MemcachedWire(monotonic_clock=clock)
    token = token_of(old)
    clock.now += 1.0
    young = MemcachedWire(monotonic_clock=clock)
    commands = {
        Cas: Cas(b"k", OLDER, token, 60),
        DeleteUnchanged: DeleteUnchanged(b"k", token),
        Renew: Renew(b"k", b"m", token, 60),
    }
    for wire, number in [(old, b"C17"), (young, b"C0")]:
        assert number in b"".join(wire.encode(commands[make])).split()


def test_tokens_of_other_backends_are_none_here():
    """They never match, whatever they are."""
    wire = MemcachedWire()
    for token in (7, "7", b"7", -1, 2**64, None, ("a", "b")):
        assert b"C0" in b"".join(wire.encode(Cas(b"k", OLDER, token, 60))).split()


def test_a_restarted_server_s_numbers_are_not_ours(make_memcached):
    """A late leader of the run before does not store over another's stub, nor remove it."""
    server = make_memcached()
    with Client(server.url, timeout=5.0) as client:
        (link,) = client._cluster.links.values()

        def ask(command):
            return step(client._cluster.ask(link, command))

        late = ask(Begin(b"k", b"late", 60))
        server.kill()
        server.restart()
        while not isinstance(other := ask(Begin(b"k", b"next", 60)), Begun):
            client.ping()
        assert other.token.number == late.token.number  # as bad as it can be
        assert ask(Cas(b"k", OLDER, late.token, 60)) is False
        assert ask(DeleteUnchanged(b"k", late.token)) is False
        assert ask(Renew(b"k", b"late", late.token, 60)) is None
        assert ask(Cas(b"k", NEWER, other.token, 60)) is True
        assert ask(Gets(b"k"))[0] == NEWER
