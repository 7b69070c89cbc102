"""Rules of the client that can be switched off, to show that a row misses without them.

Each is planted in the process under test before its client is made.
"""

from __future__ import annotations

import atexit
import math
import sys
import time
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any, Final

from shardcache import AsyncClient, Client, NodeError, NodeTimeoutError
from shardcache.backends.memcached import reader as memcached_reader
from shardcache.backends.memcached import wire
from shardcache.backends.redis import reader, replies
from shardcache.backends.transport import asyncio as aio
from shardcache.backends.transport import blocking, channel, dial, pool
from shardcache.clients import asyncio as asyncio_client
from shardcache.clients import base
from shardcache.clients import blocking as blocking_client
from shardcache.core import health, secrecy
from shardcache.core.commands import Acquired
from shardcache.core.values import signing
from shardcache.io import fanout, threads
from shardcache.io.asyncio import AsyncIO
from shardcache.io.blocking import BlockingIO
from shardcache.operations.cluster import cluster, failover, prober, replay, warming
from shardcache.operations.keys import single
from shardcache.operations.locks import quorum, redlock

# What is replaced is of any type, hence `Any`.


def _go_the_general_way() -> None:
    """Send every call through `Cluster.ask`, its port and `execute`, which the straight way passes by."""
    BlockingIO.straight = AsyncIO.straight = False


def _without_ejection() -> None:
    health.Health.record_failure = lambda *_: False


def _without_return() -> None:
    prober.Prober.restore = lambda *_: None


def _without_excuses() -> None:
    """Blame the node for a late timer of our own, before reading what has arrived."""
    _go_the_general_way()
    NodeTimeoutError.excused = property(lambda _: False, lambda *_: None)
    channel.Channel._grant_grace = lambda *_: False
    readable = channel.Channel.readable

    def blame_first(self: channel.Channel) -> None:
        for call in self._sent:
            if call.deadline <= time.monotonic():
                self._settle_late(call)
        readable(self)

    execute = blocking.SocketBackend.execute

    def execute_in_time(self: blocking.SocketBackend, command: Any, deadline: float) -> Any:
        reply = execute(self, command, deadline)
        if time.monotonic() > deadline:
            raise NodeTimeoutError("did not answer in time", self._node)
        return reply

    channel.Channel.readable = blame_first
    blocking.SocketBackend.execute = execute_in_time


def _without_flap_rule() -> None:
    steady = health.DEFAULT_EJECTION._replace(flap_factor=1.0, flap_limit=0.25)
    made = health.Health.__init__
    health.Health.__init__ = lambda self, policy=steady: made(self, policy)


def _without_refusal() -> None:
    """Send one call a second to each ejected node: the caller is the probe."""
    _go_the_general_way()
    ask = cluster.Cluster.ask
    allowed: dict[Any, float] = {}

    async def ask_anyway(
        self: cluster.Cluster, link: Any, command: Any, deadline: float | None = None
    ) -> Any:
        now = time.monotonic()
        if not link.health.ejected or now < allowed.get(link, 0.0):
            return await ask(self, link, command, deadline)
        allowed[link] = now + 1.0
        link.health.ejected = False
        try:
            return await ask(self, link, command, deadline)
        finally:
            link.health.ejected = link.health.circuit is not health.Circuit.CLOSED

    cluster.Cluster.ask = ask_anyway


def _without_deadlines() -> None:
    _go_the_general_way()
    deadline, ask = cluster.Cluster.deadline, cluster.Cluster.ask

    async def ask_patiently(
        self: cluster.Cluster, link: Any, command: Any, until: float | None = None
    ) -> Any:
        return await ask(self, link, command, (until or deadline(self)) + 0.3)

    cluster.Cluster.ask = ask_patiently


def _without_limits() -> None:
    """Take a refused dial for a fault of the node, whatever else works."""
    pool.Pool.record_refused = lambda _: False


def _without_matching() -> None:
    """Answer one read in fifty with the value of the one before."""
    numbers, last = count(), [None]

    def confuse(value: Any) -> Any:
        given, last[0] = (value if next(numbers) % 50 else last[0]), value
        return given

    get, async_get = Client.get, AsyncClient.get

    def get_confused(self: Client, key: Any, default: Any = None) -> Any:
        return confuse(get(self, key, default))

    async def async_get_confused(self: AsyncClient, key: Any, default: Any = None) -> Any:
        return confuse(await async_get(self, key, default))

    Client.get = get_confused
    AsyncClient.get = async_get_confused


def _without_boundaries() -> None:
    """Reuse a connection whose reply is late."""

    def keep(self: blocking.SocketBackend, connection: pool.Connection, _deadline: float) -> Any:
        self.pool.idle.append(connection)
        return connection.wire.partial_reply()

    blocking.SocketBackend.close_late = keep


def _without_aborts() -> None:
    """Reuse a connection whose call was broken off."""
    discard = pool.Pool.discard

    def keep(self: pool.Pool, connection: pool.Connection) -> None:
        error = sys.exception()
        if error is None or isinstance(error, Exception):
            discard(self, connection)
        else:
            self.idle.append(connection)

    def fail_and_keep(self: channel.Channel) -> None:
        for call in (*self._queued, *self._sent):
            call.settle(channel.cut_off_error(self._backend.node))
        self._queued.clear()
        self._sent.clear()

    pool.Pool.discard = keep
    channel.Channel._abort = fail_and_keep


def _without_fork_hooks() -> None:
    pool.Pool.reset_after_fork = lambda _: None
    aio.MultiplexedBackend.abandon_all = lambda _: None


def _without_release() -> None:
    """Keep everything that was read."""
    kept: list[Any] = []
    get, async_get = Client.get, AsyncClient.get

    def get_kept(self: Client, key: Any, default: Any = None) -> Any:
        kept.append(bytearray(4096))
        return get(self, key, default)

    async def async_get_kept(self: AsyncClient, key: Any, default: Any = None) -> Any:
        kept.append(bytearray(4096))
        return await async_get(self, key, default)

    Client.get = get_kept
    AsyncClient.get = async_get_kept


def _without_closed_loops() -> None:
    """Keep using the connection of an event loop that has ended."""
    opened = aio.MultiplexedBackend._open

    def open_once(self: aio.MultiplexedBackend, loop: Any) -> Any:
        return next(iter(self._channels.values()), None) or opened(self, loop)

    aio.MultiplexedBackend._open = open_once


def _without_discards() -> None:
    """Forget a cancelled call: the next call gets its reply."""
    readable = channel.Channel.readable

    def read_for_others(self: channel.Channel) -> None:
        waiting = [call for call in self._sent if not call.future.cancelled()]
        self._sent.clear()
        self._sent.extend(waiting)
        readable(self)

    channel.Channel.readable = read_for_others


def _without_replay() -> None:
    replay.Replayer.note = lambda *_: None


def _without_follow_up() -> None:
    """Delete only on nodes that were ejected."""
    replay.Replayer.follow_up = lambda *_: None


def _without_quarantine() -> None:
    """Delete as soon as a node answers."""

    def begin_no_quarantine(self: health.Health, now: float) -> None:
        self.due = now
        self._quarantined = True

    health.Health.begin_quarantine = begin_no_quarantine


def _without_clock() -> None:
    """Read for as long as there is anything to read."""
    fanout.FanOut._limit = lambda _: time.monotonic() + 60.0


def _without_arrivals() -> None:
    """Drop the values of an array that is late, whole as they are."""
    reader.ReplyReader.arriving = property(lambda _: [])


def _without_last_address() -> None:
    """Wait for the name service as long as a dial may take."""
    dial._resolve_until = lambda _, until: until


def _without_drops() -> None:
    """Leave the old value when a node refuses the new one."""

    async def keep(whole: Any, _member: Any, _name: bytes, reply: Any, _deadline: float) -> bool:
        return bool(whole.unwrap(reply, default=False))

    single.end_store = keep


def _without_restraint() -> None:
    """Try a failed call again until its time is over."""
    _go_the_general_way()
    BlockingIO.call = _insisting(BlockingIO.call)
    AsyncIO.call = _insisting(AsyncIO.call)


def _insisting(call: Callable[..., Any]) -> Callable[..., Any]:
    async def insist(self: Any, backend: Any, command: Any, deadline: float) -> Any:
        while True:
            try:
                return await call(self, backend, command, deadline)
            except NodeError:
                if time.monotonic() >= deadline:
                    raise

    return insist


def _without_failover() -> None:
    base.build_failover = lambda *_: None


def _without_ttl_cap() -> None:
    failover.with_ttl_cap = lambda command, _: command


def _without_warming() -> None:
    blocking_client.warm_seconds = asyncio_client.warm_seconds = lambda _: 0.0


def _without_announcement() -> None:
    warming.AnnouncedCluster.ask_timed = cluster.Cluster.ask_timed


def _without_votes() -> None:
    """Take a node that keeps another holder's token for one that agrees."""

    def agree_too(reply: Any) -> bool:
        return isinstance(reply, (bool, Acquired))

    redlock.agrees = quorum.agrees = agree_too


def _without_majority() -> None:
    """Demand that all nodes of a lock agree."""
    redlock.quorum = quorum.quorum = lambda nodes: nodes


def _without_signatures() -> None:
    """Believe every signature."""
    signing.Signer.verify = lambda _self, _scope, signed, _now: signing.signed_data(signed)


def _without_line_limit() -> None:
    """Wait for the end of a line for as long as a call may take."""
    memcached_reader.MAX_LINE = 1 << 40


def _without_open_exit() -> None:
    """Close each client as soon as the program begins to end."""
    start = Client.__init__

    def start_and_register(self: Client, *arguments: Any, **options: Any) -> None:
        start(self, *arguments, **options)
        atexit.register(self.close)

    Client.__init__ = start_and_register


def _without_short_exit() -> None:
    """Wait at the exit until everything is cleaned up."""
    threads.LAST_WAIT = 60.0
    threads.Cleaners.idle = property(lambda self: not (self._added or self._busy))


def _without_secrecy() -> None:
    """Leave all variables in the frames of an error."""
    secrecy.clear_frames = lambda _: None


def _without_writable_probe() -> None:
    """Restore a node that answers a ping, whether it takes writes or not."""
    _without_replay()  # whose deletes a read-only node refuses too
    refuse = replies.PingReply.refuse

    def forgive(self: replies.PingReply, error: Any) -> Any:
        return refuse(self, error) if self._answer is replies.MORE else self._answer

    replies.PingReply.refuse = forgive


def _without_key_forms() -> None:
    """Send every key as it is."""
    wire.encode_key = lambda key: (key, b"")


def _without_dates() -> None:
    """Send every life as seconds from now."""
    wire.memcached_exptime = lambda ttl, _now: 0 if ttl is None else math.ceil(ttl)


def _without_size_limit() -> None:
    """Send values of any size."""
    wire.MemcachedWire._check_size = lambda _, payload: payload


RULES: Final[dict[str, Callable[[], None]]] = {
    "ejection": _without_ejection,
    "return": _without_return,
    "excuses": _without_excuses,
    "flap-rule": _without_flap_rule,
    "refusal": _without_refusal,
    "deadlines": _without_deadlines,
    "limits": _without_limits,
    "replay": _without_replay,
    "follow-up": _without_follow_up,
    "quarantine": _without_quarantine,
    "matching": _without_matching,
    "boundaries": _without_boundaries,
    "aborts": _without_aborts,
    "fork-hooks": _without_fork_hooks,
    "closed-loops": _without_closed_loops,
    "discards": _without_discards,
    "release": _without_release,
    "failover": _without_failover,
    "ttl-cap": _without_ttl_cap,
    "warming": _without_warming,
    "announcement": _without_announcement,
    "restraint": _without_restraint,
    "clock": _without_clock,
    "arrivals": _without_arrivals,
    "last-address": _without_last_address,
    "drops": _without_drops,
    "votes": _without_votes,
    "majority": _without_majority,
    "key-forms": _without_key_forms,
    "dates": _without_dates,
    "size-limit": _without_size_limit,
    "signatures": _without_signatures,
    "line-limit": _without_line_limit,
    "writable-probe": _without_writable_probe,
    "secrecy": _without_secrecy,
    "open-exit": _without_open_exit,
    "short-exit": _without_short_exit,
}


def cripple(rules: Iterable[str]) -> None:
    """Switch rules off in this process."""
    for rule in rules:
        RULES[rule]()
