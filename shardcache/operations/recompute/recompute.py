"""One recompute: get a claim, call the function, and store its result unless that is void by then."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from shardcache.core.cache_policy import lifetime_of
from shardcache.core.commands import (
    Cas,
    Delete,
    DeleteCas,
    GetOrStub,
    Gets,
    Payload,
    Reply,
    Set,
    StubReply,
    When,
)
from shardcache.core.values.flags import (
    BARE_STUB,
    MARK_FLAGS,
    UNLOCKED,
    is_abandoned,
    is_mark,
    is_stub,
    is_unlocked,
)
from shardcache.core.values.freshness import Stored, open_stored, serves_after_error
from shardcache.errors import EncodeError, NodeError, NodeRefusedError, UncacheableResultError
from shardcache.operations.invalidation import tag_log, tags
from shardcache.operations.port import CarriedError, Repetition, Work
from shardcache.operations.recompute.claims import BACKING_OFF, Claim, RefreshClaim, StubClaim
from shardcache.operations.recompute.outcomes import (
    NO_VALUE,
    AbsentError,
    Outcome,
    absent_outcome,
    failed,
    stored_outcome,
)
from shardcache.operations.recompute.progress import Progress, Tagged
from shardcache.operations.recompute.request import Request

T = TypeVar("T")

TAKEOVERS: Final = 3  # tries to replace a stub or value that is in the way by our own stub


async def capture(work: Work[T]) -> T | Outcome:
    """Return the result of `work`; an exception becomes an outcome, for all followers."""
    try:
        return await work()
    except Exception as error:  # noqa: BLE001 - it reaches every caller
        return failed(error)


async def land(progress: Progress, work: Work[Outcome]) -> Outcome:
    """Return the outcome of a flight for all its callers, with its progress."""
    outcome = await capture(work)
    return outcome._replace(progress=progress)


async def recompute_over(request: Request, progress: Progress) -> Outcome:
    """Recompute whatever is there."""
    return await recompute(request, await begin_over(request), progress=progress)


# Getting a claim.


async def begin(
    request: Request, *, takes_over: bool = False, unlocked: bool = False
) -> StubClaim | Outcome:
    """Leave a stub on the key's own node; return the claim, or the value that is there after all.

    A caller that `takes_over` replaces another's stub by its own, unless that one has begun without the
    lock. One that is `unlocked` says so in its stub.
    """
    mark = UNLOCKED * unlocked + request.io.token()
    claim = StubClaim(request.cluster, request.member, request.name, mark)
    for _ in range(TAKEOVERS):
        reply = await _leave_stub(request, claim, shows_mark=unlocked)
        if reply is None or reply.leads or is_abandoned(reply.payload):
            return claim
        if reply.payload is None:
            if not takes_over or is_unlocked(reply.stub):
                return claim
        else:
            versions = await request.current_versions(reply.payload)
            outcome = request.outcome_of(reply.payload, versions)
            if outcome is not None:
                return outcome
        # Another's stub, or a value that cannot be served: remove it unless it has just changed.
        await request.ask(DeleteCas(request.name, reply.token))
    return claim


async def begin_over(request: Request) -> Claim:
    """Claim the recompute of whatever is there, so that older recomputes are void.

    An old value stays meanwhile, unless another caller refreshes it just now.
    """
    claim = StubClaim(request.cluster, request.member, request.name, request.io.token())
    for _ in range(TAKEOVERS):
        reply = await _leave_stub(request, claim)
        if reply is None:  # the node has failed, and is to have no old value when it is back
            await request.ask(Delete(request.name))
            return claim
        if reply.leads or is_abandoned(reply.payload):
            return claim
        refresh = None if reply.payload is None else await _claim_any_refresh(request)
        if refresh is not None:
            return refresh
        await request.ask(DeleteCas(request.name, reply.token))
    return claim


async def _claim_any_refresh(request: Request) -> Claim | None:
    """Claim the refresh of a value of any age; `None` if another caller refreshes it."""
    claim = await claim_refresh(request, None)
    if claim is not None:
        return claim
    found = await request.ask(Gets(request.refresh_key))
    if not isinstance(found, tuple) or found[0] != BACKING_OFF:
        return None
    await request.ask(DeleteCas(request.refresh_key, found[1]))
    return await claim_refresh(request, None)


async def _leave_stub(
    request: Request, claim: StubClaim, *, shows_mark: bool = False
) -> StubReply | None:
    async def ask_for_claim() -> StubClaim:
        reply = await request.ask(GetOrStub(request.name, claim.mark, request.lease))
        replies.append(reply)
        if isinstance(reply, StubReply):
            claim.token, claim.leads = reply.token, reply.leads
            claim.at_start = reply.stub if reply.payload is None else request.open(reply.payload)
        if shows_mark and claim.leads and claim.at_start == BARE_STUB:
            await _show_mark(request, claim)
        return claim

    replies: list[Reply] = []
    await _claim(request, ask_for_claim)
    reply = replies[0]
    if not isinstance(reply, StubReply):
        request.count_trouble(reply)
        return None
    return reply._replace(payload=request.open(reply.payload))


async def _show_mark(request: Request, claim: StubClaim) -> None:
    """Store the mark of a claim, whose stub has none: it is memcached's own."""
    try:
        await claim.renew(request.lease)
    except BaseException:  # it may have been stored all the same
        await claim.find_again()
        await claim.release()
        raise


async def _claim(request: Request, ask_for_claim: Work[T]) -> T:
    """Return the claim that `ask_for_claim` gets; release it if the caller is stopped meanwhile."""
    claims: list[T] = []
    stopped = False

    async def work() -> T:
        claim = await ask_for_claim()
        claims.append(claim)
        if stopped:
            await _release(claim)
        return claim

    try:
        return await request.io.shield(work)
    except BaseException:
        stopped = True
        if claims:
            await request.io.shield(lambda: _release(claims[0]))
        raise


async def _release(claim: object) -> None:
    if isinstance(claim, (StubClaim, RefreshClaim)):
        await claim.release()


async def claim_refresh(
    request: Request, stored: Stored | None, when: When = When.ABSENT
) -> Claim | None:
    """Claim the refresh of an old value; `None` if another caller refreshes it, or just has.

    Without `stored`, the value that is there now counts as old. With `When.ALWAYS`, take the refresh
    over from the other caller.
    """
    return await _claim(request, lambda: _claim_refresh(request, stored, when))


async def _claim_refresh(
    request: Request, stored: Stored | None, when: When
) -> RefreshClaim | None:
    mark: Payload = (MARK_FLAGS, request.io.token())
    if await request.ask(Set(request.refresh_key, mark, request.lease, when)) is not True:
        return None
    reply = await request.ask(Gets(request.name))
    payload, token = reply if isinstance(reply, tuple) else (None, None)
    opened = request.open(payload)
    old = open_stored(opened) if isinstance(opened, tuple) and not is_mark(opened) else None
    leaves = math.inf if old is None else old.fresh_until + request.policy.served_after
    claim = RefreshClaim(
        request.cluster,
        request.member,
        request.name,
        request.refresh_key,
        mark,
        opened,
        token,
        leaves,
    )
    if stored is None:
        is_old = isinstance(opened, tuple) and not is_stub(opened)
    else:  # "not newer" also covers a planted age that is not a number
        is_old = old is not None and not old.fresh_until > stored.fresh_until
    if is_old:
        await claim.keep_old_value(request.lease)
        return claim
    await claim.release()
    return None


# Using the claim.


async def recompute(
    request: Request,
    claim: Claim,
    last_resort: Stored | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Call the function, and store its result.

    If it raises, the `last_resort` may be served: an old value. `progress` is the progress of the
    flight that this call leads.
    """
    io = request.io
    process = io.process()
    renewal: Repetition | None = None
    try:
        versions = await tags.get_or_create(request.cluster, request.tags)
        log = {} if request.result_tags is None else await tag_log.ends(request.cluster)
        renewal = _renew_in_background(request, claim)
        request.increment("recomputes")
        began = io.now()
        if progress is not None:
            progress.compute(began, claim, versions)
        try:
            result = await io.compute(request.factory)
        except Exception as raised:  # noqa: BLE001 - the function's own; its callers get it
            error = raised.error if isinstance(raised, CarriedError) else raised
            await _stop(renewal)
            return await _handle_error(request, error, claim, last_resort, io.now() - began)
        await _stop(renewal)
        seconds = io.now() - began
        return await _store_result(request, result, claim, versions, log, progress, seconds)
    except BaseException:

        async def undo() -> None:
            await _stop(renewal)
            await claim.release()

        if io.process() == process:  # else this is a forked child, and the claim is the parent's
            await io.shield(undo)
        raise


def _renew_in_background(request: Request, claim: Claim) -> Repetition | None:
    """Renew the claim in the background while the function runs."""
    policy, io = request.policy.locking, request.io
    if claim.token is None or not policy.renew:
        return None
    until = io.now() + policy.max_hold

    async def renew() -> bool:
        return io.now() < until and await claim.renew(request.lease)

    return io.repeat(policy.ttl / 3, renew, "recompute keeper")


async def _stop(renewal: Repetition | None) -> None:
    if renewal is not None:
        await renewal.stop()


async def _store_result(  # noqa: PLR0913, PLR0917 - all that a recompute has found
    request: Request,
    result: Any,  # the caller's own
    claim: Claim,
    versions: Sequence[bytes] | None,
    log: tag_log.Ends,
    progress: Progress | None,
    seconds: float,
) -> Outcome:
    """Store a result if the policy keeps it, and notify the observers."""
    try:
        lifetime = lifetime_of(request.policy, result, request.arguments)
        result_tags = request.tags_of(result)
    except Exception as error:
        await claim.abandon(0.0)
        request.notify_computed(seconds, error, stored=False)
        raise
    stored = False
    try:
        payload, result = request.dump(result, result_tags)
    except EncodeError as error:
        await _skip_storing(request, claim)
        request.notify_computed(seconds, None, stored=False)
        if lifetime != 0:
            _refuse_or_note(request, result, error)
        return Outcome(result)
    tagged = None
    if result_tags is not None:
        tagged = await _tag(request, result_tags, log)
        versions = _all_versions(versions, tagged)
        if progress is not None:
            progress.tagged = tagged
    if lifetime == 0:
        await _skip_storing(request, claim)
    elif tagged is not None and tagged.versions is None:  # invalidated meanwhile
        request.increment("rejected")
        await claim.release()
    elif versions is None:  # the node of a tag has failed
        await claim.abandon(0.0)
        request.increment("cache_errors")
    elif claim.token is not None:
        aged, expiry = request.seal(payload, lifetime, seconds, versions, result_tags)
        stored = await _commit(request, claim, aged, expiry)
    request.notify_computed(seconds, None, stored=stored)
    return Outcome(result, payload)


def _refuse_or_note(request: Request, result: Any, error: EncodeError) -> None:  # as above
    """Raise for a result that cannot be stored, or report it, as the policy says."""
    if request.policy.on_uncacheable == "return":
        request.protection.notes.result_not_stored(request.function, error)
        return
    way_out = "; cache_none=False returns it without storing it" if result is None else ""
    raise UncacheableResultError(
        f"the value of {request.key!r} cannot be stored: {error}{way_out}"
    ) from error


async def _tag(request: Request, result_tags: Sequence[bytes], log: tag_log.Ends) -> Tagged | None:
    """Return the versions of a result's tags; `None` if a node failed.

    The versions are read first: whatever is logged after that removes them.
    """
    cluster = request.cluster
    versions = await tags.get_or_create(cluster, result_tags)
    logged = await tag_log.has_logged(cluster, tags.places(cluster, result_tags), log)
    if logged:
        return Tagged(result_tags, None)
    return None if versions is None or logged is None else Tagged(result_tags, versions)


def _all_versions(
    versions: Sequence[bytes] | None, tagged: Tagged | None
) -> Sequence[bytes] | None:
    """Return the versions of all tags; `None` if one is not known."""
    if versions is None or tagged is None or tagged.versions is None:
        return None
    return [*versions, *tagged.versions]


async def _skip_storing(request: Request, claim: Claim) -> None:
    request.increment("uncached")
    await claim.abandon(0.0)


async def _commit(request: Request, claim: Claim, payload: Payload, seconds: float | None) -> bool:
    """Store a payload unless something newer, or an invalidation, has come first."""
    while True:
        reply = await request.ask(Cas(request.name, payload, claim.token, seconds))
        if reply is not False or not await claim.find_again():
            break
    if reply is True:
        await claim.on_stored()
        return True
    if isinstance(reply, NodeError):
        await claim.abandon(0.0)
        if isinstance(reply, NodeRefusedError):  # the value that it was to replace is outdated
            await request.ask(DeleteCas(request.name, claim.token))
        request.count_trouble(reply)
        return False
    request.increment("rejected")
    await claim.release()
    return False


async def _handle_error(
    request: Request, error: Exception, claim: Claim, last_resort: Stored | None, seconds: float
) -> Outcome:
    """Serve an old value in place of an error if there is one; store the error if the policy says so."""
    if isinstance(error, AbsentError):
        await _skip_storing(request, claim)
        request.notify_computed(seconds, None, stored=False)
        return absent_outcome()
    request.increment("errors")
    backoff = request.policy.seconds("error_backoff")
    if last_resort is not None and _serves_after_error(request, last_resort):
        await claim.abandon(backoff)
        request.increment("swallowed")
        request.protection.notes.refresh_failed(request.function, error)
        request.notify_computed(seconds, error, stored=False)
        return stored_outcome(last_resort.payload)
    stored = await _store_error(request, error, claim)
    if not stored:
        await claim.abandon(backoff)
    request.notify_computed(seconds, error, stored=stored)
    return failed(error)


async def _store_error(request: Request, error: Exception, claim: Claim) -> bool:
    """Store an error in the value's place if the policy keeps its type; return whether it is stored."""
    if claim.token is None or not isinstance(error, request.policy.error_kinds):
        return False
    payload = request.dump_error(error)
    if payload is None:
        request.protection.notes.error_not_kept(request.function, type(error))
        return False
    seconds = request.policy.seconds("error_ttl")
    return await _commit(request, claim, request.seal_error(payload, seconds), seconds)


def _serves_after_error(request: Request, stored: Stored) -> bool:
    """Return whether an old value may be served in place of an error: not too old, and readable."""
    return (
        serves_after_error(stored, request.policy, request.io.wall())
        and request.decode(stored.payload) is not NO_VALUE
    )
