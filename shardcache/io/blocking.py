"""The port of the blocking client: its coroutines block, and never suspend."""

from __future__ import annotations

import random
import select
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from shardcache.backends.base import Backend, Exchange
from shardcache.core.commands import Command, Reply
from shardcache.errors import NodeError
from shardcache.operations.port import step


class BlockingIO:
    """Asks nodes from a thread, many of them at once by split-phase exchanges."""

    __slots__ = ()

    now = staticmethod(time.monotonic)
    random = staticmethod(random.random)

    async def call(self, backend: Backend, command: Command, deadline: float) -> Reply:
        """Ask one node; raise the `NodeError` that stands in the way of a reply."""
        return backend.execute(command, deadline)

    async def call_all(
        self, asks: Sequence[tuple[Backend, Command]], deadline: float
    ) -> list[tuple[Reply, float]]:
        """Send to every node, then read from every node; give replies or errors, and when."""
        if len(asks) == 1:
            return [self._call_one(*asks[0], deadline)]
        fan_out = FanOut(asks, deadline)
        try:
            fan_out.run()
        except BaseException:
            fan_out.abandon()
            raise
        return fan_out.answers()

    async def sleep(self, seconds: float) -> None:
        """Block for so long."""
        time.sleep(seconds)  # noqa: ASYNC251 - it never runs on an event loop

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Run an operation in a daemon thread."""
        name = f"shardcache {name}"
        threading.Thread(target=lambda: step(work()), name=name, daemon=True).start()

    def _call_one(self, backend: Backend, command: Command, deadline: float) -> tuple[Reply, float]:
        try:
            reply = backend.execute(command, deadline)
        except NodeError as error:
            reply = error
        return reply, time.monotonic()


class FanOut:
    """Commands on their way to many nodes, driven by one poll loop under one deadline."""

    __slots__ = ("_answers", "_asks", "_deadline", "_dialing", "_open", "_poll")

    def __init__(self, asks: Sequence[tuple[Backend, Command]], deadline: float) -> None:
        self._asks = asks
        self._deadline = deadline
        self._dialing = False  # whether any exchange has had a deadline of its own
        self._poll = select.poll()
        self._open: dict[int, tuple[int, Exchange, int]] = {}  # by descriptor: place, mask
        self._answers: list[tuple[Reply, float]] = [(None, 0.0)] * len(asks)

    def run(self) -> None:
        """Drive all exchanges until each is finished, or the deadline has passed."""
        for place in self._order():
            self._begin(place, *self._asks[place])
        while self._open:
            ready = self._poll.poll(max(0.0, self._limit() - time.monotonic()) * 1000)
            if not ready:
                self._expire()
            for descriptor, _ in ready:
                self._advance(descriptor)

    def _limit(self) -> float:
        """Give when waiting ends for the first of those in hand."""
        if not self._dialing:
            return self._deadline
        return min(exchange.deadline for _, exchange, _ in self._open.values())

    def answers(self) -> list[tuple[Reply, float]]:
        """Give each command's reply, or its error as a value, and when it came."""
        return self._answers

    def abandon(self) -> None:
        """Stop all that is unfinished; their connections are closed."""
        for _, exchange, _ in self._open.values():
            exchange.abandon()
        self._open.clear()

    def _order(self) -> list[int]:
        """Give the places in an order all threads share, so that full pools cannot deadlock."""
        return sorted(range(len(self._asks)), key=lambda place: id(self._asks[place][0]))

    def _begin(self, place: int, backend: Backend, command: Command) -> None:
        try:
            exchange = backend.begin(command, self._deadline)
        except NodeError as error:
            self._answers[place] = (error, time.monotonic())
        else:
            self._watch(place, exchange)

    def _advance(self, descriptor: int) -> None:
        place, exchange, mask = self._open[descriptor]
        exchange.advance()
        if exchange.finished or (exchange.fileno(), exchange.events()) != (descriptor, mask):
            self._forget(descriptor)
            self._watch(place, exchange)

    def _watch(self, place: int, exchange: Exchange) -> None:
        """Wait for what the exchange asks for now, or take its result."""
        if exchange.finished:
            self._answers[place] = (_outcome(exchange), time.monotonic())
            return
        if exchange.deadline != self._deadline:
            self._dialing = True
        descriptor, mask = exchange.fileno(), exchange.events()
        self._poll.register(descriptor, mask)
        self._open[descriptor] = (place, exchange, mask)

    def _forget(self, descriptor: int) -> None:
        # The descriptor may be closed by now; poll knows it by its number alone.
        self._poll.unregister(descriptor)
        del self._open[descriptor]

    def _expire(self) -> None:
        """End the waiting of those whose time has come."""
        now = time.monotonic()
        for descriptor, (place, exchange, _) in list(self._open.items()):
            if exchange.deadline <= now:
                self._forget(descriptor)
                exchange.expire()
                self._watch(place, exchange)


def _outcome(exchange: Exchange) -> Reply:
    try:
        return exchange.result()
    except NodeError as error:
        return error
