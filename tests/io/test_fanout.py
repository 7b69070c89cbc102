"""Many nodes asked at once, by a clock that stands still between two reads."""

from __future__ import annotations

import select
import socket
from types import SimpleNamespace

import pytest

from shardcache.backends.base import Wait
from shardcache.io import fanout


class Clock:
    """A clock that moves on as it is told."""

    def __init__(self) -> None:
        self.now = 0.0


class Reply:
    """An exchange over a socket pair; each read takes `seconds`, and `then` is called after it.

    It is over after as many `reads`, or never.
    """

    def __init__(self, clock, *, seconds=1.0, arrived=True, reads=None, then=lambda: None):
        self.near, self.far = socket.socketpair()
        self.wait = Wait(self.near.fileno(), select.POLLIN, None)
        self.finished = False
        self.read_at = []
        self._clock, self._seconds, self._reads, self._then = clock, seconds, reads, then
        self._reply = "late"
        if arrived:
            self.arrive()

    def arrive(self):
        """Make bytes arrive that are not read."""
        self.far.send(b"x")

    def advance(self):
        """Read, which takes its time."""
        self._clock.now += self._seconds
        self.read_at.append(self._clock.now)
        if len(self.read_at) == self._reads:
            self.finished, self._reply = True, "whole"
        self._then()

    def expire(self):
        """Stop waiting."""
        self.finished = True

    def result(self):
        """Return the reply."""
        return self._reply


@pytest.fixture
def clock(monkeypatch):
    """Return the clock of all fan-outs."""
    clock = Clock()
    monkeypatch.setattr(fanout, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def run(exchanges, deadline):
    """Run the exchanges under one deadline; return their replies."""
    asks = [(SimpleNamespace(begin=lambda *_, one=each: one), None) for each in exchanges]
    fan = fanout.FanOut(asks, deadline)
    try:
        fan.run()
        return [reply for reply, _ in fan.answers()]
    finally:
        for each in exchanges:
            each.near.close()
            each.far.close()


def test_a_steady_stream_is_read_until_the_deadline(clock):
    """The read in which the deadline passes is the last: each takes its time."""
    streams = [Reply(clock) for _ in range(4)]
    assert run(streams, 9.5) == ["late"] * 4
    assert max(stream.read_at[-1] for stream in streams) == 10.0


def test_what_arrived_while_others_were_read_is_read(clock):
    """A read that took longer than the deadline hides no other node's reply."""
    second = Reply(clock, seconds=0.0, arrived=False, reads=1)
    first = Reply(clock, seconds=20.0, then=second.arrive)
    assert run([first, second], 10.5) == ["late", "whole"]
    assert len(first.read_at) == 1
