"""A cached value: read it; if it is missing, one caller recomputes it for all; refresh it in time.

The order of a call: get → fresh: serve it → stale: serve it, and one caller refreshes it → missing:
join the flight of this process → lock → leave a stub on the key's own node → recompute → store →
release. A hit is one command.
"""

from __future__ import annotations

from collections.abc import Container, Coroutine
from typing import Any, Final

from shardcache.core.cache_policy import lifetime_of
from shardcache.core.commands import Command, Delete, Gets, Set
from shardcache.core.values.flags import BARE_STUB, ERROR_FLAGS, is_mark
from shardcache.core.values.freshness import Freshness, Stored, open_stored
from shardcache.errors import NodeError, NodeRefusedError
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.observing import report
from shardcache.operations.invalidation import tags
from shardcache.operations.port import FlightEnd, raisable
from shardcache.operations.recompute.exceptions import copy_to_raise
from shardcache.operations.recompute.leader import Leader
from shardcache.operations.recompute.outcomes import NO_VALUE, Outcome
from shardcache.operations.recompute.progress import FirstRead, Progress
from shardcache.operations.recompute.recompute import begin_over, capture, claim_refresh, recompute
from shardcache.operations.recompute.request import SERVED, Request

RESERVES: Final = frozenset({Freshness.LAST_RESORT, Freshness.EXPIRED})

# Values are the caller's own, hence `Any`.


def get(request: Request) -> Coroutine[Any, Any, Any]:
    """Return the value: the stored one, or the result of one caller's recompute for all."""
    cluster = request.cluster
    if cluster.observes_operations:
        return report(cluster, "cached", 1, lambda: _get(request), lambda _: not request.missed)
    return _get(request)


async def _get(request: Request) -> Any:
    reply, versions = await request.read()
    if type(reply) is tuple and not is_mark(reply):
        stored = open_stored(reply)
        if stored is not None:
            state = request.freshness_of(stored, versions)
            if state in SERVED:
                value = request.decode(stored.payload)
                if value is not NO_VALUE:
                    request.increment("stale" if state is Freshness.STALE else "hits")
                    if state is Freshness.FRESH:
                        return value
                    return await _serve_stale(request, value, stored)
            elif state in RESERVES:
                return await _miss(request, FirstRead(request.began, reply, versions), stored)
    elif type(reply) is tuple and reply[0] == ERROR_FLAGS:
        error = request.restore_error(reply)
        if error is not None:
            request.increment("hits")
            raise raisable(error)
    return await _miss(request, FirstRead(request.began, reply, versions), None)


async def peek(request: Request) -> Any:
    """Return the stored value, fresh or stale, or `NO_VALUE`; never recompute."""
    reply, versions = await request.read()
    if not isinstance(reply, tuple) or is_mark(reply):
        return NO_VALUE
    stored = open_stored(reply)
    if stored is None or request.freshness_of(stored, versions) not in SERVED:
        return NO_VALUE
    return request.decode(stored.payload)


async def put(request: Request, value: Any) -> bool:
    """Store a value as if it had just been recomputed; return whether it was stored."""
    lifetime = lifetime_of(request.policy, value)
    versions = await tags.get_or_create(request.cluster, request.tags)
    if lifetime == 0 or versions is None:
        return False
    payload, _ = request.payloads.dump_result(request.name, value)
    stored, seconds = request.seal(payload, lifetime, 0.0, versions)
    request.cluster.invalidated(request.name)
    reply = await request.ask(Set(request.name, stored, seconds))
    if isinstance(reply, NodeRefusedError):  # as for every store: the old value is gone
        await request.ask(Delete(request.name))
    return request.cluster.unwrap(reply, default=False) is True


async def refresh(request: Request) -> Any:
    """Recompute the value, whatever is stored; store and return it."""
    progress = Progress(request.io.now())

    async def recompute_over() -> Outcome:
        outcome = await capture(lambda: _recompute_over(request, progress))
        return outcome._replace(progress=progress)

    request.cluster.invalidated(request.name)
    ended, _ = await request.io.single_flight.do(
        request.name, recompute_over, 0.0, takes_over=True, progress=progress
    )
    return await _deliver_own(
        request, await recompute_over() if isinstance(ended, FlightEnd) else ended
    )


async def invalidate(request: Request) -> bool:
    """Remove the value, and void recomputes in progress; return whether anything was there."""
    cluster, member = request.cluster, request.member
    cluster.invalidated(request.name)
    request.protection.refresh_gate.clear(request.name)
    asks: list[tuple[Member, Command]] = [(member, Delete(request.name))]
    if request.policy.ages:  # a refresh in progress, or backing off, has nothing left to do
        asks.append((member, Delete(request.refresh_key)))
    reply, *_ = await cluster.ask_many(asks)
    return cluster.unwrap(reply, default=False) is True


# Refreshes, after a hit.


async def _serve_stale(request: Request, value: Any, stored: Stored) -> Any:
    """Refresh a value that is stale, or will be soon; return the value to be served meanwhile."""
    refresh_gate = request.protection.refresh_gate
    if not refresh_gate.try_enter(request.name, request.io.now(), request.lease):
        return value
    if _inline(request):
        outcome = await _refresh(request, stored)
        return value if outcome is None else await _deliver_own(request, outcome)

    async def refresh_in_background() -> None:
        outcome = await capture(lambda: _refresh(request, stored))
        if outcome is not None and outcome.error is not None:
            request.protection.notes.refresh_failed(request.function, outcome.error)

    if not request.io.try_spawn(refresh_in_background, "refresh"):
        refresh_gate.clear(request.name)
    return value


def _inline(request: Request) -> bool:
    refreshes = request.policy.refresh
    return refreshes == "inline" or (refreshes == "auto" and not request.io.refreshes_in_background)


async def _refresh(request: Request, stored: Stored) -> Outcome | None:
    """Refresh the value; `None` if another process does, or that cannot be known."""
    refresh_gate = request.protection.refresh_gate
    claim = await claim_refresh(request, stored)
    if claim is None:
        if refresh_gate.back_off(request.name, request.io.now(), request.patience):
            await request.ask(Delete(request.refresh_key))
            refresh_gate.clear(request.name)
        return None
    if request.io.wall() < stored.fresh_until:
        request.increment("early")
    try:
        return await capture(lambda: recompute(request, claim, stored))
    finally:
        refresh_gate.clear(request.name)


async def _recompute_over(request: Request, progress: Progress) -> Outcome:
    return await recompute(request, await begin_over(request), progress=progress)


# A miss: one caller of this process recomputes the value, or waits for another process.


async def _miss(request: Request, first_read: FirstRead, last_resort: Stored | None) -> Any:
    io, policy = request.io, request.policy
    request.missed = True
    request.increment("misses")
    if isinstance(first_read.reply, NodeError):
        request.count_trouble(first_read.reply)
    began = io.now()
    leader = Leader(request, last_resort, began + policy.seconds("wait"))
    if not policy.coalesce:
        return await _deliver_own(request, await _lead(leader, first_read))
    ended, own = await _join_or_lead(request, leader, await _identify_stub(request, first_read))
    if ended is FlightEnd.REENTRANT:
        return await _recompute_alone(request)
    if isinstance(ended, FlightEnd):
        return await _deliver_own(request, leader.time_out())
    if own:
        return await _deliver_own(request, ended)
    if not ended.shareable:
        return await _recompute_alone(request)
    request.increment("coalesced")
    request.notify_prevented("joined", io.now() - began)
    return await _deliver_copy(request, ended)


async def _lead(leader: Leader, first_read: FirstRead) -> Outcome:
    outcome = await capture(lambda: leader.outcome(first_read.reply))
    return outcome._replace(progress=leader.progress)


async def _join_or_lead(
    request: Request, leader: Leader, first_read: FirstRead
) -> tuple[Outcome | FlightEnd, bool]:
    """Return the outcome of the flight for all callers, and whether the work was this caller's own.

    An outcome that is older than this call does not count, nor does another caller's timeout.
    """
    joined: set[Progress] = set()

    def joins(progress: Progress) -> bool:
        if not first_read.may_join(progress):
            leader.void = progress.claim
            return False
        if progress.claim is not None:
            joined.add(progress)
        return True

    ended: Outcome | FlightEnd = FlightEnd.CANCELLED
    own = False
    while not own and _lacks_outcome(ended, leader, first_read, joined):
        ended, own = await request.io.single_flight.do(
            request.name,
            lambda: _lead(leader, first_read),
            leader.remaining,
            takes_over=leader.takes_over,
            progress=leader.progress,
            joins=joins,
        )
    return ended, own


def _lacks_outcome(
    ended: Outcome | FlightEnd, leader: Leader, first_read: FirstRead, joined: Container[Progress]
) -> bool:
    """Return whether the flight ended without an outcome that this caller can use."""
    if isinstance(ended, FlightEnd):
        return ended is FlightEnd.CANCELLED
    if ended.late:
        return leader.remaining > 0
    progress = ended.progress
    return not (progress is None or progress in joined or progress.as_of >= first_read.began)


async def _identify_stub(request: Request, first_read: FirstRead) -> FirstRead:
    """Return `first_read`, with the stub's CAS token if joining a flight depends on whose stub it is."""
    if first_read.reply != BARE_STUB:
        return first_read
    progress = request.io.single_flight.progress(request.name)
    if progress is None or progress.claim is None or progress.as_of >= first_read.began:
        return first_read
    name = request.name
    found = await request.io.coalesce((name, Gets), lambda: request.ask(Gets(name)))
    if not isinstance(found, tuple):
        return first_read._replace(reply=found)
    return first_read._replace(reply=found[0], token=found[1])


# From an outcome to the caller's result.


async def _deliver_own(request: Request, outcome: Outcome) -> Any:
    if outcome.error is not None:
        raise raisable(outcome.error)
    return await _deliver_copy(request, outcome) if outcome.value is NO_VALUE else outcome.value


async def _deliver_copy(request: Request, outcome: Outcome) -> Any:
    """Return a copy of a shared value, or raise a copy of a shared error with the same traceback."""
    if outcome.error is not None:
        raise raisable(copy_to_raise(outcome.error))
    value = request.copy(outcome.payload) if outcome.payload is not None else NO_VALUE
    return await _recompute_alone(request) if value is NO_VALUE else value


async def _recompute_alone(request: Request) -> Any:
    """Recompute the value for this caller alone, and store nothing."""
    request.increment("recomputes")
    return await request.io.compute(request.factory)
