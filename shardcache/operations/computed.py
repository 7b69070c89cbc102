"""A value that is computed when it is missing: read, made by one for all, stored, made anew in time.

The order of a call: get → fresh: serve it → stale: serve it, and one caller makes it anew → missing:
join those who make it in this process → lock → begin on the key's own node → compute → commit →
release. A hit is one command.
"""

from __future__ import annotations

from typing import Any, Final

from shardcache.core.caching import lifetime_of
from shardcache.core.commands import Command, Delete, Reply, Set
from shardcache.core.freshness import Found, Freshness, found, salvages
from shardcache.core.payloads import ERROR_FLAGS, is_mark
from shardcache.errors import NodeError, NodeRefusedError
from shardcache.operations import tags
from shardcache.operations.call import SERVED, Call
from shardcache.operations.leading import Leading
from shardcache.operations.making import begun_over, computed, elected, guarded
from shardcache.operations.members import Link
from shardcache.operations.outcomes import NOT_MADE, Outcome, reraised
from shardcache.operations.port import Landing

RESERVES: Final = frozenset({Freshness.LAST_RESORT, Freshness.ENDED})

# Values are the caller's own, hence `Any`.


async def value(call: Call) -> Any:
    """Give the value: the stored one, or one made now by one caller for all."""
    reply, versions = await call.read()
    if type(reply) is tuple and not is_mark(reply):
        stored = found(reply)
        if stored is not None:
            state = call.state(stored, versions)
            if state in SERVED:
                given = call.decoded(stored.payload)
                if given is not NOT_MADE:
                    return await _served(call, given, stored, state)
            elif state in RESERVES:
                return await _missed(call, reply, stored)
    elif type(reply) is tuple and reply[0] == ERROR_FLAGS:
        error = call.stored_error(reply)
        if error is not None:
            call.count("hits")
            raise error
    return await _missed(call, reply, None)


async def peek(call: Call) -> Any:
    """Give the stored value, fresh or stale, or `NOT_MADE`; compute nothing."""
    reply, versions = await call.read()
    if not isinstance(reply, tuple) or is_mark(reply):
        return NOT_MADE
    stored = found(reply)
    if stored is None or call.state(stored, versions) not in SERVED:
        return NOT_MADE
    return call.decoded(stored.payload)


async def put(call: Call, given: Any) -> bool:
    """Store a value as if it had just been computed; say whether it was stored."""
    lifetime = lifetime_of(call.policy, given)
    versions = await tags.versions(call.cluster, call.tags)
    if lifetime == 0 or versions is None:
        return False
    payload = call.cluster.payloads.dump(call.name, given)
    stored, seconds = call.aged(payload, lifetime, 0.0, versions)
    reply = await call.ask(Set(call.name, stored, seconds))
    if isinstance(reply, NodeRefusedError):  # as for every store: the old value is gone
        await call.ask(Delete(call.name))
    return call.cluster.settled(reply, otherwise=False) is True


async def refresh(call: Call) -> Any:
    """Compute the value whatever is stored, store it, and give it."""

    async def anew() -> Outcome:
        return await guarded(lambda: _anew(call))

    call.io.flights.detach(call.name)
    landed, _ = await call.io.flights.fly(call.name, anew, 0.0, takes_over=True)
    return await _own(call, await anew() if isinstance(landed, Landing) else landed)


async def invalidate(call: Call) -> bool:
    """Remove the value, and void what is being made now; say whether anything was there."""
    cluster, link = call.cluster, call.link
    call.io.flights.detach(call.name)
    cluster.protection.elections.ended(call.name)
    asks: list[tuple[Link, Command]] = [(link, Delete(call.name))]
    if call.policy.ages:  # who makes it anew, or rests from that, has nothing to do any more
        asks.append((link, Delete(call.side)))
    reply, *_ = await cluster.ask_many(asks)
    return cluster.settled(reply, otherwise=False) is True


# What a hit does beyond serving the value.


async def _served(call: Call, given: Any, stored: Found, state: Freshness) -> Any:
    if state is Freshness.FRESH:
        call.count("hits")
        return given
    if state is Freshness.STALE:
        call.count("stale")
    else:
        call.count("hits")
    elections = call.cluster.protection.elections
    if not elections.stands(call.name, call.io.now(), call.lease):
        return given
    if _inline(call):
        outcome = await _refreshed(call, stored)
        return given if outcome is None else await _own(call, outcome)

    async def beside() -> None:
        await guarded(lambda: _refreshed(call, stored))

    if not call.io.offer(beside, "refresh"):
        elections.ended(call.name)
    return given


def _inline(call: Call) -> bool:
    refreshes = call.policy.refresh
    return refreshes == "inline" or (refreshes == "auto" and not call.io.refreshes_beside)


async def _refreshed(call: Call, stored: Found) -> Outcome | None:
    """Make the value anew if no other process does; `None` if one does, or it cannot be known."""
    elections = call.cluster.protection.elections
    claim = await elected(call, stored)
    if claim is None:
        elections.lost(call.name, call.io.now())
        return None
    if call.io.wall() < stored.fresh_until:
        call.count("early")
    try:
        return await guarded(lambda: computed(call, claim, stored))
    finally:
        elections.ended(call.name)


async def _anew(call: Call) -> Outcome:
    return await computed(call, await begun_over(call))


# What a miss does: one caller of this process makes the value, or waits for another process.


async def _missed(call: Call, reply: Reply, last_resort: Found | None) -> Any:
    io, policy = call.io, call.policy
    call.count("misses")
    if isinstance(reply, NodeError):
        call.count_trouble(reply)
    deadline = io.now() + policy.seconds("wait")
    leading = Leading(call, last_resort, deadline)

    async def lead() -> Outcome:
        return await guarded(lambda: leading.outcome(reply))

    if not policy.coalesce:
        return await _own(call, await lead())
    old = last_resort is not None and salvages(last_resort, policy, io.wall())
    gives_up = {"compute": False, "raise": True, "stale": old}
    takes_over = not gives_up[policy.on_timeout]
    landed: Outcome | Landing = Landing.ABANDONED
    own = False
    began = io.now()
    while _is_no_answer(landed, own=own) and (landed is Landing.ABANDONED or io.now() < deadline):
        left = max(0.0, deadline - io.now())
        landed, own = await io.flights.fly(call.name, lead, left, takes_over=takes_over)
    if landed is Landing.ALONE:
        return await _alone(call)
    if isinstance(landed, Landing):
        return await _own(call, leading.late())
    if own:
        return await _own(call, landed)
    call.count("coalesced")
    call.prevented("joined", io.now() - began)
    return await _shared(call, landed)


def _is_no_answer(landed: Outcome | Landing, *, own: bool) -> bool:
    """Say whether another's work has come to nothing, or waited too long for its own caller only."""
    if isinstance(landed, Outcome):
        return landed.late and not own
    return landed is Landing.ABANDONED


# What a caller gets of an outcome.


async def _own(call: Call, outcome: Outcome) -> Any:
    if outcome.error is not None:
        raise outcome.error
    return await _shared(call, outcome) if outcome.value is NOT_MADE else outcome.value


async def _shared(call: Call, outcome: Outcome) -> Any:
    """Return a copy of a value that others get as well, or raise the error with its own trace."""
    if outcome.error is not None:
        raise reraised(outcome.error)
    if outcome.payload is None:
        return outcome.value
    value = call.copy(outcome.payload)
    return await _alone(call) if value is NOT_MADE else value


async def _alone(call: Call) -> Any:
    """Recompute the value for this caller alone, and store nothing."""
    call.count("recomputes")
    return await call.io.compute(call.factory)
