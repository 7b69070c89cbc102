"""A value that is computed when it is missing: read, made by one for all, stored, made anew in time.

The order of a call: get → fresh: serve it → stale: serve it, and one caller makes it anew → missing:
join those who make it in this process → lock → begin on the key's own node → compute → commit →
release. A hit is one command.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any, Final

from shardcache.core.caching import lifetime_of
from shardcache.core.commands import Command, Delete, Gets, Set
from shardcache.core.freshness import Freshness, Stored, open_stored
from shardcache.core.payloads import BARE_STUB, ERROR_FLAGS, is_mark
from shardcache.errors import NodeError, NodeRefusedError
from shardcache.operations.cluster.members import Member
from shardcache.operations.invalidation import tags
from shardcache.operations.port import FlightEnd, raisable
from shardcache.operations.recompute.leader import Leader
from shardcache.operations.recompute.outcomes import NOT_MADE, Outcome, reraised
from shardcache.operations.recompute.progress import Progress, Sight
from shardcache.operations.recompute.recompute import begun_over, computed, elected, guarded
from shardcache.operations.recompute.request import SERVED, Request

RESERVES: Final = frozenset({Freshness.LAST_RESORT, Freshness.EXPIRED})

# Values are the caller's own, hence `Any`.


async def get(request: Request) -> Any:
    """Give the value: the stored one, or one made now by one caller for all."""
    reply, versions = await request.read()
    if type(reply) is tuple and not is_mark(reply):
        stored = open_stored(reply)
        if stored is not None:
            state = request.state(stored, versions)
            if state in SERVED:
                given = request.decoded(stored.payload)
                if given is not NOT_MADE:
                    request.increment("stale" if state is Freshness.STALE else "hits")
                    if state is Freshness.FRESH:
                        return given
                    return await _served(request, given, stored)
            elif state in RESERVES:
                return await _missed(request, Sight(request.began, reply, versions), stored)
    elif type(reply) is tuple and reply[0] == ERROR_FLAGS:
        error = request.stored_error(reply)
        if error is not None:
            request.increment("hits")
            raise raisable(error)
    return await _missed(request, Sight(request.began, reply, versions), None)


async def peek(request: Request) -> Any:
    """Give the stored value, fresh or stale, or `NOT_MADE`; compute nothing."""
    reply, versions = await request.read()
    if not isinstance(reply, tuple) or is_mark(reply):
        return NOT_MADE
    stored = open_stored(reply)
    if stored is None or request.state(stored, versions) not in SERVED:
        return NOT_MADE
    return request.decoded(stored.payload)


async def put(request: Request, given: Any) -> bool:
    """Store a value as if it had just been computed; say whether it was stored."""
    lifetime = lifetime_of(request.policy, given)
    versions = await tags.versions(request.cluster, request.tags)
    if lifetime == 0 or versions is None:
        return False
    payload = request.cluster.payloads.dump(request.name, given)
    stored, seconds = request.aged(payload, lifetime, 0.0, versions)
    reply = await request.ask(Set(request.name, stored, seconds))
    if isinstance(reply, NodeRefusedError):  # as for every store: the old value is gone
        await request.ask(Delete(request.name))
    return request.cluster.unwrap(reply, default=False) is True


async def refresh(request: Request) -> Any:
    """Compute the value whatever is stored, store it, and give it."""
    progress = Progress(request.io.now())

    async def anew() -> Outcome:
        outcome = await guarded(lambda: _anew(request, progress))
        return outcome._replace(progress=progress)

    request.io.single_flight.forget(request.name)
    landed, _ = await request.io.single_flight.do(
        request.name, anew, 0.0, takes_over=True, progress=progress
    )
    return await _own(request, await anew() if isinstance(landed, FlightEnd) else landed)


async def invalidate(request: Request) -> bool:
    """Remove the value, and void what is being made now; say whether anything was there."""
    cluster, member = request.cluster, request.member
    request.io.single_flight.forget(request.name)
    cluster.protection.refresh_gate.clear(request.name)
    asks: list[tuple[Member, Command]] = [(member, Delete(request.name))]
    if request.policy.ages:  # who makes it anew, or rests from that, has nothing to do any more
        asks.append((member, Delete(request.refresh_key)))
    reply, *_ = await cluster.ask_many(asks)
    return cluster.unwrap(reply, default=False) is True


# What a hit does beyond serving the value.


async def _served(request: Request, given: Any, stored: Stored) -> Any:
    """Have a value refreshed that is stale, or will be soon; return what is served meanwhile."""
    refresh_gate = request.cluster.protection.refresh_gate
    if not refresh_gate.try_enter(request.name, request.io.now(), request.lease):
        return given
    if _inline(request):
        outcome = await _refreshed(request, stored)
        return given if outcome is None else await _own(request, outcome)

    async def beside() -> None:
        outcome = await guarded(lambda: _refreshed(request, stored))
        if outcome is not None and outcome.error is not None:
            request.cluster.protection.notes.refresh_failed(request.function, outcome.error)

    if not request.io.try_spawn(beside, "refresh"):
        refresh_gate.clear(request.name)
    return given


def _inline(request: Request) -> bool:
    refreshes = request.policy.refresh
    return refreshes == "inline" or (refreshes == "auto" and not request.io.refreshes_in_background)


async def _refreshed(request: Request, stored: Stored) -> Outcome | None:
    """Make the value anew if no other process does; `None` if one does, or it cannot be known."""
    refresh_gate = request.cluster.protection.refresh_gate
    claim = await elected(request, stored)
    if claim is None:
        if refresh_gate.back_off(request.name, request.io.now(), request.patience):
            await request.ask(Delete(request.refresh_key))
            refresh_gate.clear(request.name)
        return None
    if request.io.wall() < stored.fresh_until:
        request.increment("early")
    try:
        return await guarded(lambda: computed(request, claim, stored))
    finally:
        refresh_gate.clear(request.name)


async def _anew(request: Request, progress: Progress) -> Outcome:
    return await computed(request, await begun_over(request), progress=progress)


# What a miss does: one caller of this process makes the value, or waits for another process.


async def _missed(request: Request, sight: Sight, last_resort: Stored | None) -> Any:
    io, policy = request.io, request.policy
    request.increment("misses")
    if isinstance(sight.reply, NodeError):
        request.count_trouble(sight.reply)
    began = io.now()
    leader = Leader(request, last_resort, began + policy.seconds("wait"))
    if not policy.coalesce:
        return await _own(request, await _led(leader, sight))
    landed, own = await _flown(request, leader, await _closer(request, sight))
    if landed is FlightEnd.REENTRANT:
        return await _alone(request)
    if isinstance(landed, FlightEnd):
        return await _own(request, leader.late())
    if own:
        return await _own(request, landed)
    if not landed.shareable:
        return await _alone(request)
    request.increment("coalesced")
    request.notify_prevented("joined", io.now() - began)
    return await _shared(request, landed)


async def _led(leader: Leader, sight: Sight) -> Outcome:
    outcome = await guarded(lambda: leader.outcome(sight.reply))
    return outcome._replace(progress=leader.progress)


async def _flown(
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

    landed: Outcome | FlightEnd = FlightEnd.CANCELLED
    own = False
    while not own and _is_no_answer(landed, leader, sight, joined):
        landed, own = await request.io.single_flight.do(
            request.name,
            lambda: _led(leader, sight),
            leader.left,
            takes_over=leader.takes_over,
            progress=leader.progress,
            joins=joins,
        )
    return landed, own


def _is_no_answer(
    landed: Outcome | FlightEnd, leader: Leader, sight: Sight, joined: Container[Progress]
) -> bool:
    """Return whether another's work came to nothing, to nothing new, or waited too long."""
    if isinstance(landed, FlightEnd):
        return landed is FlightEnd.CANCELLED
    if landed.late:
        return leader.left > 0
    progress = landed.progress
    return not (progress is None or progress in joined or progress.as_of >= sight.began)


async def _closer(request: Request, sight: Sight) -> Sight:
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


async def _own(request: Request, outcome: Outcome) -> Any:
    if outcome.error is not None:
        raise raisable(outcome.error)
    return await _shared(request, outcome) if outcome.value is NOT_MADE else outcome.value


async def _shared(request: Request, outcome: Outcome) -> Any:
    """Return a copy of a value that others get as well, or raise the error with its own trace."""
    if outcome.error is not None:
        raise raisable(reraised(outcome.error))
    value = request.copy(outcome.payload) if outcome.payload is not None else NOT_MADE
    return await _alone(request) if value is NOT_MADE else value


async def _alone(request: Request) -> Any:
    """Recompute the value for this caller alone, and store nothing."""
    request.increment("recomputes")
    return await request.io.compute(request.factory)
