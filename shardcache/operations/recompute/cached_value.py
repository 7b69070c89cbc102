"""A value that is computed when it is missing: read, made by one for all, stored, made anew in time.

The order of a call: get → fresh: serve it → stale: serve it, and one caller makes it anew → missing:
join those who make it in this process → lock → begin on the key's own node → compute → commit →
release. A hit is one command.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any, Final

from shardcache.core.cache_policy import lifetime_of
from shardcache.core.commands import Command, Delete, Gets, Set
from shardcache.core.values.flags import BARE_STUB, ERROR_FLAGS, is_mark
from shardcache.core.values.freshness import Freshness, Stored, open_stored
from shardcache.errors import NodeError, NodeRefusedError
from shardcache.operations.cluster.members import Member
from shardcache.operations.invalidation import tags
from shardcache.operations.port import FlightEnd, raisable
from shardcache.operations.recompute.exceptions import copy_to_raise
from shardcache.operations.recompute.leader import Leader
from shardcache.operations.recompute.outcomes import NOT_MADE, Outcome
from shardcache.operations.recompute.progress import Progress, Sight
from shardcache.operations.recompute.recompute import begin_over, capture, claim_refresh, recompute
from shardcache.operations.recompute.request import SERVED, Request

RESERVES: Final = frozenset({Freshness.LAST_RESORT, Freshness.EXPIRED})

# Values are the caller's own, hence `Any`.


async def get(request: Request) -> Any:
    """Give the value: the stored one, or one made now by one caller for all."""
    reply, versions = await request.read()
    if type(reply) is tuple and not is_mark(reply):
        stored = open_stored(reply)
        if stored is not None:
            state = request.freshness_of(stored, versions)
            if state in SERVED:
                given = request.decode(stored.payload)
                if given is not NOT_MADE:
                    request.increment("stale" if state is Freshness.STALE else "hits")
                    if state is Freshness.FRESH:
                        return given
                    return await _serve_stale(request, given, stored)
            elif state in RESERVES:
                return await _miss(request, Sight(request.began, reply, versions), stored)
    elif type(reply) is tuple and reply[0] == ERROR_FLAGS:
        error = request.restore_error(reply)
        if error is not None:
            request.increment("hits")
            raise raisable(error)
    return await _miss(request, Sight(request.began, reply, versions), None)


async def peek(request: Request) -> Any:
    """Give the stored value, fresh or stale, or `NOT_MADE`; compute nothing."""
    reply, versions = await request.read()
    if not isinstance(reply, tuple) or is_mark(reply):
        return NOT_MADE
    stored = open_stored(reply)
    if stored is None or request.freshness_of(stored, versions) not in SERVED:
        return NOT_MADE
    return request.decode(stored.payload)


async def put(request: Request, given: Any) -> bool:
    """Store a value as if it had just been computed; say whether it was stored."""
    lifetime = lifetime_of(request.policy, given)
    versions = await tags.versions(request.cluster, request.tags)
    if lifetime == 0 or versions is None:
        return False
    payload = request.cluster.payloads.dump(request.name, given)
    stored, seconds = request.seal(payload, lifetime, 0.0, versions)
    reply = await request.ask(Set(request.name, stored, seconds))
    if isinstance(reply, NodeRefusedError):  # as for every store: the old value is gone
        await request.ask(Delete(request.name))
    return request.cluster.unwrap(reply, default=False) is True


async def refresh(request: Request) -> Any:
    """Compute the value whatever is stored, store it, and give it."""
    progress = Progress(request.io.now())

    async def recompute_over() -> Outcome:
        outcome = await capture(lambda: _recompute_over(request, progress))
        return outcome._replace(progress=progress)

    request.io.single_flight.forget(request.name)
    ended, _ = await request.io.single_flight.do(
        request.name, recompute_over, 0.0, takes_over=True, progress=progress
    )
    return await _deliver_own(
        request, await recompute_over() if isinstance(ended, FlightEnd) else ended
    )


async def invalidate(request: Request) -> bool:
    """Remove the value, and void what is being made now; say whether anything was there."""
    cluster, member = request.cluster, request.member
    request.io.single_flight.forget(request.name)
    request.protection.refresh_gate.clear(request.name)
    asks: list[tuple[Member, Command]] = [(member, Delete(request.name))]
    if request.policy.ages:  # who makes it anew, or rests from that, has nothing to do any more
        asks.append((member, Delete(request.refresh_key)))
    reply, *_ = await cluster.ask_many(asks)
    return cluster.unwrap(reply, default=False) is True


# What a hit does beyond serving the value.


async def _serve_stale(request: Request, given: Any, stored: Stored) -> Any:
    """Have a value refreshed that is stale, or will be soon; return what is served meanwhile."""
    refresh_gate = request.protection.refresh_gate
    if not refresh_gate.try_enter(request.name, request.io.now(), request.lease):
        return given
    if _inline(request):
        outcome = await _refresh(request, stored)
        return given if outcome is None else await _deliver_own(request, outcome)

    async def refresh_in_background() -> None:
        outcome = await capture(lambda: _refresh(request, stored))
        if outcome is not None and outcome.error is not None:
            request.protection.notes.refresh_failed(request.function, outcome.error)

    if not request.io.try_spawn(refresh_in_background, "refresh"):
        refresh_gate.clear(request.name)
    return given


def _inline(request: Request) -> bool:
    refreshes = request.policy.refresh
    return refreshes == "inline" or (refreshes == "auto" and not request.io.refreshes_in_background)


async def _refresh(request: Request, stored: Stored) -> Outcome | None:
    """Make the value anew if no other process does; `None` if one does, or it cannot be known."""
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


# What a miss does: one caller of this process makes the value, or waits for another process.


async def _miss(request: Request, sight: Sight, last_resort: Stored | None) -> Any:
    io, policy = request.io, request.policy
    request.increment("misses")
    if isinstance(sight.reply, NodeError):
        request.count_trouble(sight.reply)
    began = io.now()
    leader = Leader(request, last_resort, began + policy.seconds("wait"))
    if not policy.coalesce:
        return await _deliver_own(request, await _lead(leader, sight))
    ended, own = await _join_or_lead(request, leader, await _identify_stub(request, sight))
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


async def _lead(leader: Leader, sight: Sight) -> Outcome:
    outcome = await capture(lambda: leader.outcome(sight.reply))
    return outcome._replace(progress=leader.progress)


async def _join_or_lead(
    request: Request, leader: Leader, sight: Sight
) -> tuple[Outcome | FlightEnd, bool]:
    """Return what came of the work of one for all, and whether that was this caller's own.

    What is no newer than this call is nothing, and so is that another has waited too long.
    """
    joined: set[Progress] = set()

    def joins(progress: Progress) -> bool:
        if not sight.may_join(progress):
            leader.void = progress.claim
            return False
        if progress.claim is not None:
            joined.add(progress)
        return True

    ended: Outcome | FlightEnd = FlightEnd.CANCELLED
    own = False
    while not own and _is_no_answer(ended, leader, sight, joined):
        ended, own = await request.io.single_flight.do(
            request.name,
            lambda: _lead(leader, sight),
            leader.left,
            takes_over=leader.takes_over,
            progress=leader.progress,
            joins=joins,
        )
    return ended, own


def _is_no_answer(
    ended: Outcome | FlightEnd, leader: Leader, sight: Sight, joined: Container[Progress]
) -> bool:
    """Return whether another's work came to nothing, to nothing new, or waited too long."""
    if isinstance(ended, FlightEnd):
        return ended is FlightEnd.CANCELLED
    if ended.late:
        return leader.left > 0
    progress = ended.progress
    return not (progress is None or progress in joined or progress.as_of >= sight.began)


async def _identify_stub(request: Request, sight: Sight) -> Sight:
    """Return what was seen, with what tells whose stub it is if a flight depends on that."""
    if sight.reply != BARE_STUB:
        return sight
    progress = request.io.single_flight.progress(request.name)
    if progress is None or progress.claim is None or progress.as_of >= sight.began:
        return sight
    name = request.name
    there = await request.io.coalesce((name, Gets), lambda: request.ask(Gets(name)))
    if not isinstance(there, tuple):
        return sight._replace(reply=there)
    return sight._replace(reply=there[0], token=there[1])


# What a caller gets of an outcome.


async def _deliver_own(request: Request, outcome: Outcome) -> Any:
    if outcome.error is not None:
        raise raisable(outcome.error)
    return await _deliver_copy(request, outcome) if outcome.value is NOT_MADE else outcome.value


async def _deliver_copy(request: Request, outcome: Outcome) -> Any:
    """Return a copy of a value that others get as well, or raise the error with its own trace."""
    if outcome.error is not None:
        raise raisable(copy_to_raise(outcome.error))
    value = request.copy(outcome.payload) if outcome.payload is not None else NOT_MADE
    return await _recompute_alone(request) if value is NOT_MADE else value


async def _recompute_alone(request: Request) -> Any:
    """Recompute the value for this caller alone, and store nothing."""
    request.increment("recomputes")
    return await request.io.compute(request.factory)
