"""Many nodes asked at once by one thread: send to all, then read from all, under one deadline."""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from typing import Final

from shardcache.backends.base import Backend, Exchange, Wait
from shardcache.core.commands import Command, Reply
from shardcache.errors import NodeError
from shardcache.operations.port import UNANSWERED, Enough

GRACE: Final = 0.01  # seconds
LEAST_GRACE: Final = 0.001


def grace(seconds: float) -> float:
    """Return how long to wait for the other nodes after enough have answered within `seconds`."""
    return min(GRACE, max(LEAST_GRACE, seconds))


class FanOut:
    """Commands to many nodes, driven by one poll loop under one deadline.

    What an exchange costs here is paid for each node of each call. So the usual one is told apart by
    its attributes, and is called twice: to read its reply, and for its result.
    """

    __slots__ = (
        "_answers",
        "_asks",
        "_began",
        "_begun",
        "_cut",
        "_deadline",
        "_dialing",
        "_enough",
        "_open",
        "_poll",
    )

    def __init__(
        self,
        asks: Sequence[tuple[Backend, Command]],
        deadline: float,
        enough: Enough | None = None,
    ) -> None:
        self._asks = asks
        self._deadline = deadline
        self._enough = enough
        self._began = time.monotonic()
        self._begun: list[tuple[int, Exchange]] = []  # and not watched yet
        self._cut: float | None = None  # when the rest is abandoned, once there is enough
        self._dialing = False  # whether any exchange has had another deadline
        self._poll = select.poll()
        self._open: dict[int, tuple[int, Exchange, Wait]] = {}  # by descriptor, with its place
        self._answers: list[tuple[Reply, float]] = [(UNANSWERED, 0.0)] * len(asks)

    @classmethod
    def going_on(
        cls, deadline: float, answers: list[tuple[Reply, float]], begun: list[tuple[int, Exchange]]
    ) -> FanOut:
        """Return a fan-out of exchanges that have begun, each with its place in `answers`."""
        fan_out = cls((), deadline)
        fan_out._answers, fan_out._begun = answers, begun
        return fan_out

    def run(self) -> None:
        """Drive all exchanges until each has finished, or the deadline has passed."""
        self._begin()
        self._look()
        exchanges, poll = self._open, self._poll
        ready: list[tuple[int, int]] = []
        while exchanges:
            if self._cut is None and self._enough is not None:
                self._has_enough(self._enough)
            limit, before = self._limit(), ready
            left = limit - time.monotonic()
            # A timer that fires late, as on a busy gevent hub, may hide data that has arrived.
            ready = poll.poll(max(0.0, left) * 1000) or poll.poll(0)
            for one in ready:
                # A steady stream of data must not outlast the deadline: it was read just now.
                if one in before and time.monotonic() >= limit:
                    continue
                descriptor, _ = one
                place, exchange, wait = exchanges[descriptor]
                exchange.advance()
                if exchange.finished or exchange.wait != wait:
                    # The descriptor may be closed by now; poll knows it by its number.
                    poll.unregister(descriptor)
                    del exchanges[descriptor]
                    self._watch(place, exchange)
            if not ready or left <= 0:
                self._expire()
            if self._enough is not None and self._has_enough(self._enough):
                self.abandon()

    def _begin(self) -> None:
        """Send to every node."""
        for place, (backend, command) in enumerate(self._asks):
            try:
                exchange = backend.begin(command, self._deadline)
            except NodeError as error:
                self._answers[place] = (error, time.monotonic())
                continue
            if exchange.finished:
                self._watch(place, exchange)
            else:
                self._begun.append((place, exchange))

    def _look(self) -> None:
        """Take the replies that have arrived, and poll for the others.

        The first nodes have often answered by the time that the last is asked. To look saves each a turn
        of the poll, in all a twentieth of a batch. The first look that finds nothing is the last.
        """
        looks = True
        for place, exchange in self._begun:
            if looks and not exchange.finished and getattr(exchange, "eager", False):
                exchange.advance()
                looks = exchange.finished
            self._watch(place, exchange)
        self._begun.clear()

    def _has_enough(self, enough: Enough) -> bool:
        """Return whether there are enough replies, and the time for the others is over."""
        now = time.monotonic()
        if self._cut is None and enough([reply for reply, _ in self._answers]):
            self._cut = now + grace(now - self._began)
        return self._cut is not None and now >= self._cut

    def _limit(self) -> float:
        """Return the earliest deadline of the open exchanges."""
        limit = self._deadline
        if self._dialing:
            waits = (exchange.wait for _, exchange, _ in self._open.values())
            limit = min(self._until(wait) for wait in waits)
        return limit if self._cut is None else min(limit, self._cut)

    def answers(self) -> list[tuple[Reply, float]]:
        """Return each command's reply, or its error as a value, and the time of its arrival."""
        return self._answers

    def abandon(self) -> None:
        """Abandon the unfinished exchanges; their connections are closed."""
        for _, exchange in self._begun:
            exchange.abandon()
        for _, exchange, _ in self._open.values():
            exchange.abandon()
        self._begun.clear()
        self._open.clear()

    def _watch(self, place: int, exchange: Exchange) -> None:
        """Poll for the events that the exchange needs now, or take its result."""
        if exchange.finished:
            reply: Reply
            try:
                reply = exchange.result()
            except NodeError as error:
                reply = error
            self._answers[place] = (reply, time.monotonic())
            return
        wait = exchange.wait
        descriptor, mask, until = wait
        if until is not None:
            self._dialing = True
        self._poll.register(descriptor, mask)
        self._open[descriptor] = (place, exchange, wait)

    def _until(self, wait: Wait) -> float:
        return self._deadline if wait.until is None else wait.until

    def _expire(self) -> None:
        """Expire the exchanges whose deadline has passed."""
        now = time.monotonic()
        for descriptor, (place, exchange, _) in list(self._open.items()):
            if self._until(exchange.wait) <= now:
                self._poll.unregister(descriptor)
                del self._open[descriptor]
                exchange.expire()
                self._watch(place, exchange)
