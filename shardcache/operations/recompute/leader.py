"""The leader of a flight: it recomputes a missing value, or waits for the process that does."""

from __future__ import annotations

from enum import Enum

from shardcache.core.commands import Get, Payload, When
from shardcache.core.lock_providers import LockScope, Refusal
from shardcache.core.values.flags import is_abandoned, is_mark, is_stub, is_unlocked
from shardcache.core.values.freshness import Stored, serves_after_error
from shardcache.errors import LockUnavailable, NodeError, RecomputeTimeoutError
from shardcache.operations.locks.acquire import attempt_or_refusal
from shardcache.operations.locks.backoff import Backoff
from shardcache.operations.port import FlightEnd
from shardcache.operations.recompute.claims import BACKING_OFF, Claim, NoClaim
from shardcache.operations.recompute.outcomes import Outcome, failed, stored_outcome
from shardcache.operations.recompute.progress import FirstRead, Progress
from shardcache.operations.recompute.recompute import (
    begin,
    claim_refresh,
    land,
    recompute,
    recompute_over,
)
from shardcache.operations.recompute.request import Request


class MissState(Enum):
    """The state of a missing value, as a waiting leader reads it."""

    IN_PROGRESS = "in progress"  # another process recomputes it
    UNCLAIMED = "unclaimed"  # no process does any more


class Leader:
    """The one call of this process that acts for all callers that want a value now.

    It waits for another process for `wait` seconds, as the policy says. `last_resort` is an old value
    that is served only if its recompute fails, if at all. With `renews` it recomputes the value
    whatever is stored. `void` is the claim of a recompute in this process that began before an
    invalidation: it may be in the way. `first_read` is what its call has read, which decides what
    flight it `joins`.
    """

    __slots__ = (
        "_backoff",
        "_deadline",
        "_io",
        "_joined",
        "_joined_before",
        "_last_resort",
        "_reply",
        "_saw_stub",
        "_stub_before",
        "_waits",
        "first_read",
        "progress",
        "request",
        "void",
    )

    def __init__(
        self,
        request: Request,
        first_read: FirstRead,
        last_resort: Stored | None,
        *,
        renews: bool = False,
    ) -> None:
        self.request = request
        self.first_read = first_read
        self._reply = first_read.reply
        self._joined: Progress | None = None
        self._joined_before: tuple[Progress, ...] = ()
        self._io = request.io
        self._last_resort = last_resort
        began = request.io.now()
        self._deadline = began + request.policy.seconds("wait")
        self._backoff: Backoff | None = None
        self._waits = False
        self._saw_stub = False  # whether a stub has been seen in the value's place
        self._stub_before = False  # whether there was one before this process asked for the lock
        self.progress = Progress(began, renews=renews)
        self.void: Claim | None = None

    def joins(self, progress: Progress) -> bool:
        """Return whether the outcome of another caller's flight will do for this call."""
        if self.progress.renews and not progress.renews:
            return False
        if not self.first_read.may_join(progress):
            self.void = progress.claim
            return False
        if progress.claim is not None:
            if self._joined is not None:
                self._joined_before = (*self._joined_before, self._joined)
            self._joined = progress
        return True

    def lacks_outcome(self, ended: Outcome | FlightEnd) -> bool:
        """Return whether a flight ended without an outcome that this caller can use."""
        if isinstance(ended, FlightEnd):
            return ended is FlightEnd.CANCELLED
        if ended.late:
            return self.remaining > 0
        progress = ended.progress
        if progress is None or progress is self._joined or progress in self._joined_before:
            return False
        return progress.as_of < self.first_read.began

    async def land(self) -> Outcome:
        """Do the work of the flight; return its outcome for all callers, with its progress."""
        if self.progress.renews:
            return await land(self.progress, lambda: recompute_over(self.request, self.progress))
        return await land(self.progress, self._outcome)

    async def _outcome(self) -> Outcome:
        """Recompute the value or wait for it, depending on the policy and the node's reply."""
        request, reply = self.request, self._reply
        if isinstance(reply, NodeError):
            return await self._recompute(NoClaim())
        began = self._io.now()
        self._stub_before = isinstance(reply, tuple) and is_stub(reply)
        if self.void is not None:
            await self.void.release()
        try:
            if self._last_resort is not None:
                outcome = await self._by_refresh()
                if outcome is not None:
                    return outcome
            if is_abandoned(reply):
                return await self._recompute_regardless()
            if request.policy.quorum:
                # The void recompute has the lock.
                return await (self._by_lock() if self.void is None else self._by_lease())
            return await (
                self._by_lease() if request.policy.lock == "shard" else self._recompute_regardless()
            )
        finally:
            if self._waits:
                request.increment("wait_seconds", self._io.now() - began)

    @property
    def remaining(self) -> float:
        """The seconds that are left to wait for another caller's value."""
        return max(0.0, self._deadline - self._io.now())

    @property
    def takes_over(self) -> bool:
        """Whether a caller that timed out recomputes the value itself."""
        policy, last_resort = self.request.policy, self._last_resort
        if policy.on_timeout != "stale":
            return policy.on_timeout == "compute"
        return last_resort is None or not serves_after_error(last_resort, policy, self._io.wall())

    def time_out(self) -> Outcome:
        """Return the outcome for a follower that timed out."""
        return self._outcome_on_timeout() or failed(self._timeout_error())

    async def _by_lock(self) -> Outcome:
        """Recompute while holding the lock, or wait for the value of its holder."""
        request = self.request
        while True:
            try:
                lock = await attempt_or_refusal(
                    request.cluster, request.key, request.policy.locking, LockScope.RECOMPUTE
                )
            except LockUnavailable:
                request.increment("locks_unavailable")
                return await self._by_lease(unlocked=True)
            # Without a call, as in `attempt`.
            if lock is Refusal.LATE:
                # This process was stopped meanwhile, and no other has the lock: nothing to wait for.
                return await self._by_lease(unlocked=True)
            if lock is not Refusal.HELD:
                try:
                    return await self._recompute_holding()
                finally:
                    await self._io.shield(lock.release)
                    if lock.lost:
                        request.increment("locks_lost")
            outcome = await self._wait()
            if outcome is not None:
                return outcome
            if not self._saw_stub:
                # The lock is held, but there is no stub: its holder died between the two, or its
                # recompute is void. The key's own node lets one caller begin.
                return await self._by_lease(unlocked=True)

    async def _recompute_holding(self) -> Outcome:
        """Recompute; take over from a process that has left its stub, and held the lock before.

        A process whose stub says so has begun without the lock. So has one that left its stub only while
        this one asked for the lock.
        """
        self.progress.read(self._io.now())
        claim = await begin(self.request, takes_over=self._stub_before)
        if isinstance(claim, Outcome):
            return claim
        takes_over = self._stub_before and not is_unlocked(claim.at_start)
        if takes_over or claim.leads or claim.token is None:
            return await self._recompute(claim)
        return await self._by_lease()

    async def _by_lease(self, *, unlocked: bool = False) -> Outcome:
        """Recompute with a stub in place, or wait for the value of the stub's owner.

        A process that is `unlocked` tells those with a lock to wait for its value.
        """
        while True:
            self.progress.read(self._io.now())
            claim = await begin(self.request, unlocked=unlocked)
            if isinstance(claim, Outcome):
                return claim
            if claim.leads or claim.token is None:
                return await self._recompute(claim)
            outcome = await self._wait()
            if outcome is not None:
                return outcome

    async def _by_refresh(self) -> Outcome | None:
        """Refresh the old value, or wait for the process that does; `None` when the old value is gone."""
        while (last_resort := self._last_resort) is not None:
            claim = await claim_refresh(self.request, last_resort)
            if claim is not None:
                return await self._recompute(claim)
            seen = await self._look(0.0)
            if isinstance(seen, Outcome):
                return seen
            outcome = await self._wait() if self._last_resort is not None else None
            if outcome is not None:
                return outcome
        return None

    async def _recompute_regardless(self) -> Outcome:
        """Recompute, even if other processes do so too; the value that is stored first stays."""
        if self._last_resort is not None:
            outcome = await self._refresh_over(self._last_resort)
            if outcome is not None:
                return outcome
        self.progress.read(self._io.now())
        claim = await begin(self.request)
        if isinstance(claim, Outcome):
            return claim
        return await self._recompute(claim)

    async def _refresh_over(self, last_resort: Stored) -> Outcome | None:
        """Take over the refresh of a process that hangs; return `None` when the old value is gone."""
        request = self.request
        claim = await claim_refresh(request, last_resort, When.ALWAYS)
        if claim is not None:
            # The hung refresh may be of this process: let callers refresh the new value all the same.
            request.protection.refresh_gate.clear(request.name)
        else:
            seen = await self._look(0.0)
            if isinstance(seen, Outcome):
                return seen
            claim = NoClaim()
        return None if self._last_resort is None else await self._recompute(claim)

    async def _recompute(self, claim: Claim) -> Outcome:
        return await recompute(self.request, claim, self._last_resort, self.progress)

    async def _wait(self) -> Outcome | None:
        """Wait for the value; `None` when its recompute ended without a trace."""
        io, request = self._io, self.request
        if io.single_flight.nested():
            # The other process may be waiting for a value that this very caller recomputes.
            return await self._recompute_regardless()
        if not self._waits:
            self._waits = True
            request.increment("lock_waits")
        began = io.now()
        self._saw_stub = False
        while (remaining := self.remaining) > 0:
            if self._backoff is None:
                self._backoff = Backoff(io, request.policy.locking.backoff)
            await io.sleep(min(self._backoff.pause(), remaining))
            seen = await self._look(io.now() - began)
            if isinstance(seen, Outcome):
                request.notify_prevented("waited", io.now() - began)
                return seen
            if isinstance(seen, NodeError):
                return await self._recompute(NoClaim())
            if seen is None:
                return await self._recompute_regardless()
            if seen is MissState.UNCLAIMED:
                return None
        return self._outcome_on_timeout() or await self._recompute_regardless()

    async def _look(self, waited: float) -> Outcome | MissState | NodeError | None:
        """Return what the node has for the value; `None` when its recompute was abandoned.

        The process that won may not have left its stub yet: a missing stub counts only if one was
        seen before, or after a call's timeout.
        """
        request = self.request
        reply, versions = await request.read()
        self.progress.read(request.began)
        if isinstance(reply, NodeError):
            return reply
        if not isinstance(reply, tuple) or is_mark(reply):
            self._last_resort = None  # it was invalidated
        if is_abandoned(reply):
            return None
        outcome = request.outcome_of(reply, versions)
        if outcome is not None:
            return outcome
        if self._last_resort is None:
            has_stub = isinstance(reply, tuple) and is_stub(reply)
            self._saw_stub |= has_stub
            may_begin = not self._saw_stub and waited < request.cluster.timeout
            return MissState.IN_PROGRESS if has_stub or may_begin else MissState.UNCLAIMED
        mark = await request.ask(Get(request.refresh_key))
        if mark == BACKING_OFF:
            return self._outcome_while_backing_off()
        return MissState.UNCLAIMED if mark is None else MissState.IN_PROGRESS

    def _outcome_while_backing_off(self) -> Outcome | MissState:
        """Return the last resort while its refresh backs off; drop it if it is too old to be served."""
        old = self._servable_old()
        if old is None:
            self._last_resort = None
            return MissState.UNCLAIMED
        self.request.count_stale()
        return stored_outcome(old)

    def _servable_old(self) -> Payload | None:
        """Return the payload of the last resort, if it may still be served."""
        stored = self._last_resort
        if stored is None or not serves_after_error(stored, self.request.policy, self._io.wall()):
            return None
        return stored.payload

    def _outcome_on_timeout(self) -> Outcome | None:
        """Return the policy's outcome for a caller that timed out; `None` to recompute."""
        request = self.request
        request.increment("timeouts")
        if request.policy.on_timeout == "raise":
            return failed(self._timeout_error())._replace(late=True)
        old = self._servable_old()
        if request.policy.on_timeout == "stale" and old is not None:
            return stored_outcome(old)
        return None

    def _timeout_error(self) -> RecomputeTimeoutError:
        wait = self.request.policy.seconds("wait")
        return RecomputeTimeoutError(
            f"the value of {self.request.key!r} was not recomputed within {wait:g} s"
        )
