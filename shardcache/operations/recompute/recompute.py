"""The making of a value: the function is called, and what it gives is stored if it still may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from shardcache.core.cache_policy import lifetime_of
from shardcache.core.commands import (
    Cas,
    DeleteCas,
    Get,
    GetOrStub,
    Gets,
    Payload,
    Reply,
    Set,
    StubReply,
    When,
)
from shardcache.core.values.flags import MARK_FLAGS, is_abandoned, is_mark
from shardcache.core.values.freshness import Stored, open_stored, serves_after_error
from shardcache.errors import EncodeError, NodeError, NodeRefusedError, UncacheableResultError
from shardcache.operations.invalidation import tags
from shardcache.operations.port import CarriedError, Repetition, Work
from shardcache.operations.recompute.claims import BACKING_OFF, Claim, RefreshClaim, StubClaim
from shardcache.operations.recompute.outcomes import NOT_MADE, Outcome, failed, read
from shardcache.operations.recompute.progress import Progress
from shardcache.operations.recompute.request import Request

T = TypeVar("T")

TAKEOVERS: Final = 3  # tries to put a stub of our own in the place of something that is in the way


async def capture(work: Work[T]) -> T | Outcome:
    """Give what comes of a making; what it raises is an outcome too, for all who wait."""
    try:
        return await work()
    except Exception as error:  # noqa: BLE001 - it reaches every caller
        return failed(error)


# How the right to store is got.


async def begin(request: Request, *, takes_over: bool = False) -> StubClaim | Outcome:
    """Begin on the key's own node; give the claim, or the value that is there after all.

    One who `takes_over` puts a stub of its own in the place of another's.
    """
    claim = StubClaim(request.cluster, request.member, request.name, request.io.token())
    for _ in range(TAKEOVERS):
        met = await _leave_stub(request, claim)
        if met is None or met.leads or is_abandoned(met.payload):
            return claim
        if met.payload is None:
            if not takes_over:
                return claim
        else:
            versions = (await request.read())[1] if request.tags else ()
            outcome = request.outcome_of(met.payload, versions)
            if outcome is not None:
                return outcome
        # Another's stub, or what cannot be served: away with it, unless it has just changed.
        await request.ask(DeleteCas(request.name, met.token))
    return claim


async def begin_over(request: Request) -> StubClaim:
    """Begin on the key's own node, over whatever is there, so that nothing begun before is stored.

    An old value stays meanwhile, unless somebody makes it anew just now.
    """
    claim = StubClaim(request.cluster, request.member, request.name, request.io.token())
    for _ in range(TAKEOVERS):
        met = await _leave_stub(request, claim)
        if met is None or met.leads or is_abandoned(met.payload):
            return claim
        if met.payload is not None and not await _is_refreshed(request):
            return claim
        await request.ask(DeleteCas(request.name, met.token))
    return claim


async def _is_refreshed(request: Request) -> bool:
    """Say whether somebody makes the value anew while the old one stays."""
    beside = await request.ask(Get(request.refresh_key)) if request.policy.ages else None
    return isinstance(beside, tuple) and beside != BACKING_OFF


async def _leave_stub(request: Request, claim: StubClaim) -> StubReply | None:
    async def ask_for_claim() -> StubClaim:
        met = await request.ask(GetOrStub(request.name, claim.mark, request.lease))
        replies.append(met)
        if isinstance(met, StubReply):
            claim.token, claim.leads = met.token, met.leads
            claim.met = met.stub if met.payload is None else request.open(met.payload)
        return claim

    replies: list[Reply] = []
    await _claim(request, ask_for_claim)
    met = replies[0]
    if not isinstance(met, StubReply):
        request.count_trouble(met)
        return None
    return met._replace(payload=request.open(met.payload))


async def _claim(request: Request, ask_for_claim: Work[T]) -> T:
    """Give the claim that `ask_for_claim` gets; let go of it if the caller is stopped before it has it."""
    got: list[T] = []
    stopped = False

    async def work() -> T:
        claim = await ask_for_claim()
        got.append(claim)
        if stopped:
            await _release(claim)
        return claim

    try:
        return await request.io.shield(work)
    except BaseException:
        stopped = True
        if got:
            await request.io.shield(lambda: _release(got[0]))
        raise


async def _release(claim: object) -> None:
    if isinstance(claim, (StubClaim, RefreshClaim)):
        await claim.release()


async def claim_refresh(request: Request, stored: Stored, when: When = When.ABSENT) -> Claim | None:
    """Be the one who makes a value anew, if nobody else is or just was; the old value stays.

    With `When.ALWAYS` take that over from whoever is.
    """
    return await _claim(request, lambda: _claim_refresh(request, stored, when))


async def _claim_refresh(request: Request, stored: Stored, when: When) -> RefreshClaim | None:
    mark: Payload = (MARK_FLAGS, request.io.token())
    if await request.ask(Set(request.refresh_key, mark, request.lease, when)) is not True:
        return None
    met = await request.ask(Gets(request.name))
    payload, token = met if isinstance(met, tuple) else (None, None)
    held = request.open(payload)
    there = open_stored(held) if isinstance(held, tuple) and not is_mark(held) else None
    leaves = math.inf if there is None else there.fresh_until + request.policy.served_after
    claim = RefreshClaim(
        request.cluster,
        request.member,
        request.name,
        request.refresh_key,
        mark,
        held,
        token,
        leaves,
    )
    # Not newer, as a planted age that is no number is not, either.
    if there is not None and not there.fresh_until > stored.fresh_until:
        await claim.stay(request.lease)
        return claim
    await claim.release()
    return None


# What is done with it.


async def recompute(
    request: Request,
    claim: Claim,
    last_resort: Stored | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Call the function, and store what it makes.

    When it raises, an old value may be served as the `last_resort`. `progress` is that of the flight
    that this is part of.
    """
    io = request.io
    process = io.process()
    keeping: Repetition | None = None
    try:
        versions = await tags.versions(request.cluster, request.tags)
        keeping = _renew_in_background(request, claim)
        request.increment("recomputes")
        began = io.now()
        if progress is not None:
            progress.compute(began, claim, versions)
        try:
            result = await io.compute(request.factory)
        except Exception as raised:  # noqa: BLE001 - the function's own, which its callers get
            error = raised.error if isinstance(raised, CarriedError) else raised
            await _stop(keeping)
            return await _handle_error(request, error, claim, last_resort, io.now() - began)
        await _stop(keeping)
        return await _store_result(request, result, claim, versions, io.now() - began)
    except BaseException:

        async def undo() -> None:
            await _stop(keeping)
            await claim.release()

        if io.process() == process:  # else this is a child, and the claim is its parent's
            await io.shield(undo)
        raise


def _renew_in_background(request: Request, claim: Claim) -> Repetition | None:
    """Have the claim renewed while the value is being made."""
    policy, io = request.policy.locking, request.io
    if claim.token is None or not policy.renew:
        return None
    until = io.now() + policy.max_hold

    async def renew() -> bool:
        return io.now() < until and await claim.renew(request.lease)

    return io.repeat(policy.ttl / 3, renew, "recompute keeper")


async def _stop(keeping: Repetition | None) -> None:
    if keeping is not None:
        await keeping.stop()


async def _store_result(
    request: Request, result: Any, claim: Claim, versions: Sequence[bytes] | None, seconds: float
) -> Outcome:
    """Store a result if it is to be kept, and tell of it."""
    try:
        lifetime = lifetime_of(request.policy, result)
    except Exception as error:
        await claim.abandon(0.0)
        request.notify_computed(seconds, error, stored=False)
        raise
    stored = False
    try:
        payload = request.cluster.payloads.dump(request.name, result)
    except EncodeError as error:
        await _skip_storing(request, claim)
        request.notify_computed(seconds, None, stored=False)
        if lifetime == 0:
            return Outcome(result)
        way_out = "; cache_none=False returns it without storing it" if result is None else ""
        raise UncacheableResultError(
            f"the value of {request.key!r} cannot be stored: {error}{way_out}"
        ) from error
    if lifetime == 0:
        await _skip_storing(request, claim)
    elif versions is None:  # the node of a tag has failed
        await claim.abandon(0.0)
        request.increment("cache_errors")
    elif claim.token is not None:
        aged, expiry = request.seal(payload, lifetime, seconds, versions)
        stored = await _commit(request, claim, aged, expiry)
    request.notify_computed(seconds, None, stored=stored)
    return Outcome(result, payload)


async def _skip_storing(request: Request, claim: Claim) -> None:
    request.increment("uncached")
    await claim.abandon(0.0)


async def _commit(request: Request, claim: Claim, payload: Payload, seconds: float | None) -> bool:
    """Store it unless something newer, or an invalidation, stands in the way."""
    while True:
        reply = await request.ask(Cas(request.name, payload, claim.token, seconds))
        if reply is not False or not await claim.find_again():
            break
    if reply is True:
        await claim.on_stored()
        return True
    if isinstance(reply, NodeError):
        await claim.abandon(0.0)
        if isinstance(reply, NodeRefusedError):  # what it was to replace is out of date
            await request.ask(DeleteCas(request.name, claim.token))
        request.count_trouble(reply)
        return False
    request.increment("rejected")
    await claim.release()
    return False


async def _handle_error(
    request: Request, error: Exception, claim: Claim, last_resort: Stored | None, seconds: float
) -> Outcome:
    """Serve an old value in place of an error if there is one, and keep the error if asked to."""
    request.increment("errors")
    backoff = request.policy.seconds("error_backoff")
    if last_resort is not None and _serves_after_error(request, last_resort):
        await claim.abandon(backoff)
        request.increment("swallowed")
        request.protection.notes.refresh_failed(request.function, error)
        request.notify_computed(seconds, error, stored=False)
        return read(last_resort.payload)
    stored = await _store_error(request, error, claim)
    if not stored:
        await claim.abandon(backoff)
    request.notify_computed(seconds, error, stored=stored)
    return failed(error)


async def _store_error(request: Request, error: Exception, claim: Claim) -> bool:
    """Keep an error in the value's place if it is of a type that is kept; say whether it is."""
    if claim.token is None or not isinstance(error, request.policy.error_kinds):
        return False
    payload = request.dump_error(error)
    if payload is None:
        request.protection.notes.error_not_kept(request.function, type(error))
        return False
    seconds = request.policy.seconds("error_ttl")
    return await _commit(request, claim, request.seal_error(payload, seconds), seconds)


def _serves_after_error(request: Request, stored: Stored) -> bool:
    """Say whether an old value may stand in for an error: not too old, and not unreadable."""
    return (
        serves_after_error(stored, request.policy, request.io.wall())
        and request.decode(stored.payload) is not NOT_MADE
    )
