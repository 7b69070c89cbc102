"""A node behind pymemcache, asked by threads that block and by the tasks of event loops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import select
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final, cast

from shardcache.backends.base import BackendOptions
from shardcache.backends.dialing import AddressInfo, Answer, Expired, Target, Wait, dial
from shardcache.backends.pool import Connection, Pool
from shardcache.backends.pymemcache.refusals import translated
from shardcache.backends.pymemcache.session import Session
from shardcache.backends.threads import Workers
from shardcache.core.commands import Cas, Command, DeleteMany, GetMany, Reply, Set, SetMany
from shardcache.core.nodes import Node
from shardcache.errors import NodeError, NodeRefusedError, NodeTimeoutError, ValueTooLargeError

# pymemcache sends a command whole before it reads: what comes back meanwhile must fit into the
# buffers between.
KEYS_AT_ONCE: Final = 200

Many = GetMany | SetMany | DeleteMany


class PymemcacheBackend:
    """One node over a pool of connections, each in the hands of a pymemcache client.

    Several nodes are asked at once from threads, because pymemcache can only block.
    """

    def __init__(self, node: Node, options: BackendOptions, max_value_bytes: int) -> None:
        self._node = node.name
        self._options = options
        self._max_value_bytes = max_value_bytes
        # Of a wire, dialing and pool want what a session has: no greeting, and whether it is idle.
        make_session: Any = partial(Session, node.name)
        self._target = Target(node, make_wire=make_session)
        self.pool = Pool(node.name, options.pool_size)
        self._workers = Workers(f"pymemcache {node.name}", options.pool_size)

    def execute(self, command: Command, deadline: float) -> Reply:
        """Send `command` and give its reply; raise a `NodeError` when there is none by `deadline`."""
        if isinstance(command, (GetMany, SetMany, DeleteMany)):
            return self._many(command, deadline)
        return self._one(command, deadline)

    def begin(self, command: Command, deadline: float) -> ThreadExchange:
        """Start `command` in a thread, so that many nodes are asked at once."""
        exchange = ThreadExchange(self._node, deadline)
        self.start(command, deadline, exchange)
        return exchange

    def start(self, command: Command, deadline: float, outcome: Outcome) -> None:
        """Have a thread ask for `outcome`; one that is not wanted any more is not asked for."""

        def work() -> None:
            reply: Reply | Exception = None
            try:
                if outcome.wanted:
                    reply = self.execute(command, deadline)
            except Exception as error:  # noqa: BLE001 - raised where it is waited for
                reply = error
            outcome.arrive(reply)

        try:
            self._workers.submit(work)
        except BaseException:
            outcome.arrive(None)
            raise

    def close(self) -> None:
        """Drop idle connections, and each busy one as it comes back."""
        self.pool.close()

    def _many(self, command: Many, deadline: float) -> Reply:
        """Ask for some keys after others; from the first failure on, it is the reply."""
        replies: list[Any] = []  # payloads, bools and errors
        for part in _parts(command):
            try:
                replies += self._part(part, deadline)
            except NodeError as error:
                return replies + [error] * (_size(command) - len(replies))
        return replies

    def _part(self, part: Many, deadline: float) -> list[Any]:  # as above
        try:
            return cast("list[Any]", self._one(part, deadline))
        except NodeRefusedError:
            if not isinstance(part, SetMany):
                raise
        # pymemcache does not say whose refusal it was, so each item is asked for by itself.
        return [self._alone(Set(*item, part.ttl), deadline) for item in part.items]

    def _alone(self, command: Set, deadline: float) -> Reply:
        try:
            return self._one(command, deadline)
        except NodeRefusedError as error:
            return error

    def _one(self, command: Command, deadline: float) -> Reply:
        self._check_size(command)
        connection = self._lent(deadline)
        session = cast("Session", connection.wire)
        try:
            reply = session.ask(connection, command, deadline)
        except Exception as error:
            raise translated(error, self._node) from error
        finally:
            self.pool.give(connection)  # which closes it unless it is idle
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _check_size(self, command: Command) -> None:
        for size in _value_sizes(command):
            if size > self._max_value_bytes:
                raise ValueTooLargeError(
                    f"a value of {size} bytes (at most {self._max_value_bytes})", self._node
                )

    def _lent(self, deadline: float) -> Connection:
        while True:
            connection = self.pool.reserve(deadline)
            if connection is None:
                return self._dialed(deadline)
            # pymemcache forgets what it received too much, and would take the rest for an answer.
            if not connection.stale:
                return connection
            self.pool.lose(connection)

    def _dialed(self, deadline: float) -> Connection:
        """Give a new connection, in the place reserved for it."""
        until = min(deadline, time.monotonic() + self._options.connect_timeout)
        try:
            steps = dial(self._target, self._addresses(until), until)
            wait = next(steps)
            while True:
                wait = next(steps) if _ready(wait, until) else steps.throw(Expired())
        except StopIteration as done:
            connection = Connection(*done.value)
        except BaseException:
            self.pool.release()
            raise
        self.pool.adopt(connection)
        return connection

    def _addresses(self, until: float) -> Sequence[AddressInfo]:
        known = self._target.known_addresses()
        if known is not None:
            return known
        answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._target.look_up(answers.put)
        try:
            answer = answers.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            answer = TimeoutError("the name service did not answer in time")
        return self._target.learned(answer)


