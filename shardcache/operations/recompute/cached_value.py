"""A cached value: read it; if it is missing, one caller recomputes it for all; refresh it in time.

The order of a call: get → fresh: serve it → stale: serve it, and one caller refreshes it → missing:
join the flight of this process → lock → leave a stub on the key's own node → recompute → store →
release. A hit is one command.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, Final

from shardcache.core.cache_policy import lifetime_of
from shardcache.core.commands import Command, Delete, Gets, Payload, Reply, Set
from shardcache.core.values.entries import CacheEntry, entry_of
from shardcache.core.values.flags import BARE_STUB, ENVELOPE_FLAGS, ERROR_FLAGS, is_mark
from shardcache.core.values.freshness import Freshness, Stored, open_stored
from shardcache.errors import NodeError, NodeRefusedError
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.observing import report
from shardcache.operations.invalidation import tags
from shardcache.operations.port import FlightEnd, raisable
from shardcache.operations.recompute.blocks import bypassed, entered, refreshing
from shardcache.operations.recompute.exceptions import copy_to_raise
from shardcache.operations.recompute.leader import Leader
from shardcache.operations.recompute.outcomes import NO_VALUE, Outcome
from shardcache.operations.recompute.progress import FirstRead, Progress, tags_agree
from shardcache.operations.recompute.recompute import (
    capture,
    claim_refresh,
    land,
    recompute,
    recompute_over,
)
from shardcache.operations.recompute.request import SERVED, Request

RESERVES: Final = frozenset({Freshness.LAST_RESORT, Freshness.EXPIRED})

# Values are the caller's own, hence `Any`.


def get(request: Request) -> Coroutine[Any, Any, Any]:
    """Return the value: the stored one, or the result of one caller's recompute for all."""
    cluster, work = request.cluster, _get
    if entered.get() or cluster.disabled:
        if cluster.disabled or bypassed():
            return _call(request)
        work = _get_in_block
    if cluster.observes_operations:
        return report(cluster, "cached", 1, lambda: work(request), lambda _: not request.missed)
    return work(request)


async def _call(request: Request) -> Any:
    """Call the function, and leave the cache alone."""
    return await request.io.compute(request.factory)


async def _get_in_block(request: Request) -> Any:
    """Recompute the value, unless the `refresh` block that the caller is in has done so already."""
    block, value = refreshing(), (request.protection, request.name)
    if block is None or not block.is_due(value):
        return await _get(request)
    result = await _renew(request)
    block.note(value)
    return result


async def _get(request: Request) -> Any:
    reply, versions = await request.read()
    if type(reply) is tuple:
        if is_mark(reply):
            error = request.restore_error(reply) if reply[0] == ERROR_FLAGS else None
            if error is not None:
                request.increment("hits")
                raise raisable(error)
        elif reply[0] == ENVELOPE_FLAGS or request.tags or request.result_tags is not None:
            return await _get_aged(request, reply, versions)
        else:  # without age and tags: fresh until its node drops it
            value = request.decode(reply)
            if value is not NO_VALUE:
                request.increment("hits")
                return value
            request.unreadable = reply
    return await _miss(request, _first_read(request, reply, versions), None)


async def _get_aged(request: Request, reply: Payload, versions: Sequence[bytes | None]) -> Any:
    """Return the value in a reply if its age and tags allow it; otherwise recompute it."""
    stored = open_stored(reply)
    if stored is not None:
        state = request.freshness_of(stored, versions)
        if state in SERVED:
            value = request.decode(stored.payload)
            if value is not NO_VALUE:
                if state is Freshness.STALE:
                    request.count_stale()
                else:
                    request.increment("hits")
                if state is Freshness.FRESH:
                    return value
                return await _serve_stale(request, value, stored)
            request.unreadable = stored.payload
        elif state in RESERVES:
            return await _miss(request, _first_read(request, reply, versions), stored)
    return await _miss(request, _first_read(request, reply, versions), None)


def _first_read(request: Request, reply: Reply, versions: Sequence[bytes | None]) -> FirstRead:
    """Return what was read, with the versions of the tags that are known without a value."""
    return FirstRead(request.began, reply, versions[: len(request.tags)])


async def peek(request: Request) -> Any:
    """Return the stored value, fresh or stale, or `NO_VALUE`; never recompute."""
    found = await _find(request)
    return NO_VALUE if found is None else found[0]


async def entry(request: Request) -> CacheEntry[Any] | None:
    """Return the stored value, fresh or stale, with its age; never recompute."""
    found = await _find(request)
    if found is None:
        return None
    value, stored, state = found
    now = request.io.wall()
    if stored.versions is None:  # without an envelope
        return CacheEntry(value, None, await request.seconds_left(), fresh=True)
    return entry_of(value, stored, now, stale=state is Freshness.STALE)


async def _find(request: Request) -> tuple[Any, Stored, Freshness] | None:
    """Return the stored value with its form and freshness, if it may be served."""
    reply, versions = await request.read()
    stored = None if not isinstance(reply, tuple) or is_mark(reply) else open_stored(reply)
    if stored is None:
        return None
    state = request.freshness_of(stored, versions)
    value = request.decode(stored.payload) if state in SERVED else NO_VALUE
    return None if value is NO_VALUE else (value, stored, state)


async def put(request: Request, value: Any) -> bool:
    """Store a value as if it had just been recomputed; return whether it was stored."""
    lifetime = lifetime_of(request.policy, value, request.arguments)
    if lifetime == 0:
        return False
    result_tags = request.tags_of(value)
    payload, _ = request.dump(value, result_tags)
    all_tags = [*request.tags, *(result_tags or ())]
    versions = await tags.get_or_create(request.cluster, all_tags)
    if versions is None:
        return False
    stored, seconds = request.seal(payload, lifetime, 0.0, versions, result_tags)
    request.cluster.invalidated(request.name)
    reply = await request.ask(Set(request.name, stored, seconds))
    if isinstance(reply, NodeRefusedError):  # as for every store: the old value is gone
        await request.ask(Delete(request.name))
    return request.cluster.unwrap(reply, default=False) is True


async def refresh(request: Request) -> Any:
    """Recompute the value, whatever is stored; store and return it."""
    progress = Progress(request.io.now(), renews=True)

    def work() -> Coroutine[Any, Any, Outcome]:
        return land(progress, lambda: recompute_over(request, progress))

    request.cluster.invalidated(request.name)
    ended, _ = await request.io.single_flight.do(
        request.name, work, 0.0, takes_over=True, progress=progress, outlives=request.outlives
    )
    return await _deliver_own(request, await work() if isinstance(ended, FlightEnd) else ended)


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


# A miss: one caller of this process recomputes the value, or waits for another process.


# Each caller of a miss waits in these frames, tens of thousands of them at once: so `_miss` has none,
# and what a caller needs while it waits is in its leader, not in closures.


def _miss(
    request: Request, first_read: FirstRead, last_resort: Stored | None
) -> Coroutine[Any, Any, Any]:
    """Count a miss; return what recomputes the value or waits for it."""
    request.missed = True
    request.increment("misses")
    if isinstance(first_read.reply, NodeError):
        request.count_trouble(first_read.reply)
    return _share(Leader(request, first_read, last_resort))


async def _renew(request: Request) -> Any:
    """Recompute the value, whatever is stored, for all callers of this process that want that now."""
    reply, versions = await request.read()
    request.missed = True
    return await _share(Leader(request, _first_read(request, reply, versions), None, renews=True))


async def _share(leader: Leader) -> Any:
    """Return the result of the recompute of one caller of this process, who shares it with the others.

    An outcome that is older than this call does not count, nor does another caller's timeout.
    """
    request = leader.request
    began = leader.progress.as_of
    if not request.policy.coalesce:
        return await _deliver_own(request, await leader.land())
    if leader.first_read.reply == BARE_STUB:
        leader.first_read = await _identify_stub(request, leader.first_read)
    ended: Outcome | FlightEnd = FlightEnd.CANCELLED
    own = False
    while not own and (
        leader.lacks_outcome(ended) or await _is_void(request, ended, leader.first_read)
    ):
        ended, own = await request.io.single_flight.do(
            request.name,
            leader.land,
            leader.remaining,
            takes_over=leader.takes_over,
            progress=leader.progress,
            joins=leader.joins,
            outlives=request.outlives,
        )
    return await _deliver(leader, ended, own=own, began=began)


async def _is_void(request: Request, ended: Outcome | FlightEnd, first_read: FirstRead) -> bool:
    """Return whether a tag of the result may have been invalidated before this call.

    Tags that depend on the result are known only now. If the function was called after this call had
    begun, its result is new enough in any case.
    """
    progress = ended.progress if isinstance(ended, Outcome) else None
    if progress is None or progress.tagged is None or progress.as_of >= first_read.began:
        return False
    names, versions = progress.tagged
    return versions is None or not tags_agree(await tags.current(request.cluster, names), versions)


async def _identify_stub(request: Request, first_read: FirstRead) -> FirstRead:
    """Return `first_read`, with the stub's CAS token if joining a flight depends on whose stub it is."""
    progress = request.io.single_flight.progress(request.name)
    if progress is None or progress.claim is None or progress.as_of >= first_read.began:
        return first_read
    name = request.name
    found = await request.io.coalesce((name, Gets), lambda: request.ask(Gets(name)))
    if not isinstance(found, tuple):
        return first_read._replace(reply=found)
    return first_read._replace(reply=found[0], token=found[1])


# From an outcome to the caller's result.


async def _deliver(leader: Leader, ended: Outcome | FlightEnd, *, own: bool, began: float) -> Any:
    """Return the caller's result of a flight that has ended; `own` is whether it did the work."""
    request = leader.request
    if ended is FlightEnd.REENTRANT:
        return await _recompute_alone(request)
    if isinstance(ended, FlightEnd):
        return await _deliver_own(request, leader.time_out())
    if own:
        return await _deliver_own(request, ended)
    if not ended.shareable:
        return await _recompute_alone(request)
    request.increment("coalesced")
    request.notify_prevented("joined", request.io.now() - began)
    return await _deliver_copy(request, ended)


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
