"""A fan-out looks for the replies that have arrived before it polls for the others."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from shardcache.backends.base import Wait
from shardcache.core.commands import Ping
from shardcache.io.fanout import FanOut

POLLIN = 1


class Interrupt(BaseException):
    """Raised in the middle of a call."""


class Node:
    """A backend whose exchange is finished by so many looks or events."""

    def __init__(self, log, name, looks, *, eager=True):
        self.log = log
        self.name = name
        self.looks = looks
        self.eager = eager
        self.here, self.there = socket.socketpair()
        self.event = threading.Timer(0.1, self.there.send, (b"!",))
        self.event.start()
        if eager:  # so that a poll reports it at once
            self.there.send(b"!")
        self.wait = Wait(self.here.fileno(), POLLIN)

    def begin(self, *_):
        """Begin the exchange, which is this object."""
        self.log.append(f"begin {self.name}")
        return self

    @property
    def finished(self):
        """Return whether it has been looked at often enough."""
        return self.looks == 0

    def advance(self):
        """Look."""
        self.log.append(f"look {self.name}")
        if not self.eager:
            assert self.here.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b"!"
        if self.looks < 0:
            raise Interrupt
        self.looks -= 1

    def result(self):
        """Return the reply."""
        return self.name

    def abandon(self):
        """Stop."""
        self.log.append(f"abandon {self.name}")

    def expire(self):
        """Fail: no deadline passes here."""
        raise AssertionError


@pytest.fixture
def ask():
    """Return a function that asks nodes, each with its number of looks; it returns the log."""
    nodes = []

    def ask(*looks, eager=True):
        log = []
        asked = [Node(log, place, each, eager=eager) for place, each in enumerate(looks)]
        nodes.extend(asked)
        fan_out = FanOut([(node, Ping()) for node in asked], time.monotonic() + 30)
        try:
            fan_out.run()
        except Interrupt:
            fan_out.abandon()
        else:
            assert [reply for reply, _ in fan_out.answers()] == list(range(len(looks)))
        return log

    yield ask
    for node in nodes:
        node.event.join()
        node.here.close()
        node.there.close()


def test_every_node_is_asked_before_any_is_looked_at(ask):
    """And each once, if all have answered."""
    assert ask(1, 1) == ["begin 0", "begin 1", "look 0", "look 1"]


def test_the_first_look_that_finds_nothing_is_the_last(ask):
    """The rest is polled for: on a network, no reply is there yet."""
    assert ask(1, 2, 1)[3:] == ["look 0", "look 1", "look 1", "look 2"]


def test_an_exchange_that_is_not_eager_is_polled_for(ask):
    """A connection that is being dialed is not looked at before its event."""
    assert sorted(ask(1, 1, eager=False)[2:]) == ["look 0", "look 1"]


def test_an_interrupt_while_looking_abandons_every_exchange(ask):
    """Those that are not looked at yet as well."""
    assert ask(-1, 1)[2:] == ["look 0", "abandon 0", "abandon 1"]
