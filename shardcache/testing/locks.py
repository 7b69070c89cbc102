"""The contract of a lock provider: the same calls give the same results, whatever the service.

Subclass it where pytest collects, and say how a client of the service is made::

    class TestMyLocks(LockProviderContract):
        @pytest.fixture
        def settings(self):
            with running_service() as address:
                yield {"locks": f"mine://{address}"}

Every test fails too if the provider raises what its protocol does not know, although the client lets no caller
see that.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from shardcache.clients.asyncio import AsyncClient
from shardcache.clients.base import cluster_of
from shardcache.core.events import LockProviderFailed
from shardcache.core.lock_providers import LockScope, TellsHolders
from shardcache.errors import LockLost, LockTimeout, LockUnavailable, UnsupportedError
from shardcache.operations.locks import acquire
from shardcache.testing.driving import MODES, DrivenClient, Mode, make_client
from shardcache.testing.lock_calls import (
    check_fences,
    extend,
    held,
    operate,
    pause,
    release,
    take,
    try_take,
)
from shardcache.testing.waiting import eventually

# Clients of either kind are called alike, and their results are of any type, hence `Any`.
MakeClient = Callable[..., Any]

DEFAULTS: Mapping[str, Any] = {"nodes": "memory://a,b,c", "timeout": 5}

STOPPED = 2.0  # seconds that a call may take in tests that stop the service
PATIENCE = 20.0  # seconds within which such a call has surely ended

CONTENDERS = 4
ROUNDS = 10

NAMES = ("report", "a/b", "a", "b", "/a", "a/", ".", "..", "two words", "snow ☃", "%2F", "x" * 300)


class Failures:
    """An observer that keeps what the provider raised although its protocol does not know it."""

    def __init__(self) -> None:
        self.events: list[LockProviderFailed] = []

    def lock_provider_failed(self, event: LockProviderFailed) -> None:
        """Keep it."""
        self.events.append(event)

    def check(self) -> None:
        """Raise `AssertionError` if there is any."""
        for event in self.events:
            raise AssertionError(
                f"the provider raised in {event.call}, which its protocol does not know: {event.error!r}"
            ) from event.error


class LockProviderContract:
    """What every lock provider does alike, through the blocking and the asyncio client.

    The fixture `settings` returns the arguments of a client besides those of `DEFAULTS`.
    """

    @pytest.fixture
    def ttl(self) -> float:
        """Return the ttl of the locks in seconds: short, and no less than the service takes."""
        return 1.5

    @pytest.fixture
    def shared_nodes(self) -> Any:
        """Return cache nodes that clients share, for a test of cached functions."""
        pytest.skip("no cache nodes that clients share")

    @pytest.fixture
    def unreachable(self) -> Mapping[str, Any]:
        """Return the settings for a service of this kind that does not run."""
        pytest.skip("no settings for a service that does not run")

    @pytest.fixture
    def stop(self) -> Callable[[], object]:
        """Return a function that has the service of `settings`, which is this test's own, stop or hang."""
        pytest.skip("no function that stops the service")

    @pytest.fixture(autouse=True)
    def failures(self) -> Iterator[Failures]:
        """Fail the test if the provider raises what its protocol does not know."""
        failures = Failures()
        yield failures
        failures.check()

    @pytest.fixture(params=MODES)
    def mode(self, request: pytest.FixtureRequest) -> Mode:
        """Return each of the two kinds of client in turn."""
        mode: Mode = request.param
        return mode

    @pytest.fixture
    def make(
        self, mode: Mode, settings: Mapping[str, Any], failures: Failures
    ) -> Iterator[MakeClient]:
        """Return a function that makes a client of the service; all are closed at the end."""
        with contextlib.ExitStack() as stack:

            def make(**options: Any) -> Any:
                observers = [failures, *options.pop("observers", ())]
                arguments = {**DEFAULTS, **settings, **options, "observers": observers}
                client = make_client(mode, **arguments)
                stack.callback(client.close)
                return client

            yield make

    # One holder.

    def test_one_client_holds_a_lock(self, make: MakeClient, ttl: float) -> None:
        """Another one gets it when it is released, and not before."""
        one, other = make(), make()
        lease = take(one, "report", ttl)
        assert try_take(other, "report", ttl) is None
        assert try_take(one, "report", ttl) is None
        assert held(other, "report") is True
        assert release(one, lease) is True
        assert held(other, "report") is False
        lease = take(other, "report", ttl)
        assert release(other, lease) is True

    def test_each_name_is_a_lock_of_its_own(self, make: MakeClient, ttl: float) -> None:
        """Whatever characters it holds."""
        client = make()
        leases = [take(client, name, 10 * ttl) for name in NAMES]
        assert [try_take(client, name, ttl) for name in NAMES] == [None] * len(NAMES)
        assert all(release(client, lease) for lease in leases)

    def test_each_namespace_has_locks_of_its_own(self, make: MakeClient, ttl: float) -> None:
        """Also when namespace and name run together."""
        clients = [make(namespace=name) for name in ("", "a", "a:b")]
        names = ("a:b:c", "b:c", "c")
        for client, name in zip(clients, names, strict=True):
            take(client, name, 10 * ttl)
        for client, name in zip(clients, names, strict=True):
            assert try_take(client, name, ttl) is None

    def test_contenders_hold_it_one_after_another(self, make: MakeClient, ttl: float) -> None:
        """Each takes it some times: never two at once, and the fence grows with every holder."""
        holding = threading.Lock()
        fences: list[int | None] = []

        def contend(client: Any) -> None:
            for _ in range(ROUNDS):
                lease = take(client, "contended", 10 * ttl, wait=60)
                assert holding.acquire(blocking=False), "two hold it at once"
                fences.append(lease.fence)
                time.sleep(0.001)
                holding.release()
                release(client, lease)

        with ThreadPoolExecutor(CONTENDERS) as pool:
            list(pool.map(contend, [make() for _ in range(CONTENDERS)]))
        assert len(fences) == CONTENDERS * ROUNDS
        check_fences(fences)

    def test_a_waiter_that_is_too_late_is_reported(self, make: MakeClient, ttl: float) -> None:
        """`LockTimeout` says that another client holds it."""
        one, other = make(), make()
        take(one, "report", 10 * ttl)
        with pytest.raises(LockTimeout, match="held by another client"):
            take(other, "report", ttl, wait=0.05)

    # Its end.

    def test_a_lease_counts_down(self, make: MakeClient, ttl: float) -> None:
        """It never lasts longer than its ttl."""
        client = make()
        lease = take(client, "report", ttl)
        first = lease.remaining()
        assert 0 < first <= ttl
        time.sleep(ttl / 10)
        assert 0 < lease.remaining() <= ttl - ttl / 10
        assert (lease.valid, lease.lost) == (True, False)
        assert len(lease.token) > 0
        release(client, lease)
        assert (lease.remaining(), lease.valid, lease.lost) == (0, False, False)

    def test_a_lease_that_is_not_extended_ends(self, make: MakeClient, ttl: float) -> None:
        """Its holder knows, the next client gets the lock, and a late release leaves that alone."""
        one, other = make(), make()
        late = take(one, "report", ttl)
        lease = take(other, "report", 10 * ttl, wait=10 * ttl)
        assert (late.valid, late.lost) == (False, True)
        check_fences([late.fence, lease.fence])
        with pytest.raises(LockLost):
            extend(one, late, ttl)
        assert release(one, late) is False
        assert lease.valid
        assert try_take(one, "report", ttl) is None
        assert release(other, lease) is True

    def test_an_extended_lease_lasts(self, make: MakeClient, ttl: float) -> None:
        """For as long as the holder extends it, without a new fence."""
        one, other = make(), make()
        lease = take(one, "report", ttl)
        fence = lease.fence
        for _ in range(12):
            pause(one, ttl / 8)
            assert 0 < extend(one, lease, ttl) <= ttl
        assert try_take(other, "report", ttl) is None
        assert extend(one, lease, 10 * ttl) > 0
        assert lease.fence == fence
        assert release(one, lease) is True
        with pytest.raises(LockLost):
            extend(one, lease, ttl)

    def test_a_renewed_lease_lasts(self, make: MakeClient, ttl: float) -> None:
        """In the background, while other calls go on."""
        one, other = make(), make()
        lease = take(one, "report", ttl, renew=True)
        until = time.monotonic() + 2 * ttl
        while time.monotonic() < until:
            pause(one, ttl / 10)
            assert lease.valid
        assert try_take(other, "report", ttl) is None
        assert release(one, lease) is True
        assert try_take(other, "report", ttl) is not None

    def test_a_lease_is_released_once(self, make: MakeClient, ttl: float) -> None:
        """A second release does nothing, also when another client holds the lock by then."""
        one, other = make(), make()
        lease = take(one, "report", ttl)
        assert release(one, lease) is True
        again = take(other, "report", 10 * ttl)
        assert release(one, lease) is False
        assert (again.valid, lease.lost) == (True, False)

    def test_a_loss_is_reported_once(self, make: MakeClient, ttl: float) -> None:
        """The observers of the holder's client get one event for a lease that is lost."""
        lost: list[Any] = []

        class Listener:
            def lease_lost(self, event: Any) -> None:
                lost.append(event)

        client = make(observers=[Listener()])
        lease = take(client, "report", ttl)
        eventually(lambda: lease.lost, within=10 * ttl)
        for _ in range(2):
            assert release(client, lease) is False
        assert [event.name for event in lost] == [b"report"]

    def test_a_closed_client_blocks_no_other(self, make: MakeClient, ttl: float) -> None:
        """What it held is released, or runs out; other clients of the process go on."""
        one, other = make(), make()
        take(one, "report", ttl)
        kept = take(other, "kept", 20 * ttl)
        one.close()
        lease = take(other, "report", 10 * ttl, wait=10 * ttl)
        assert (lease.valid, kept.valid) == (True, True)
        assert release(other, kept) is True

    def test_a_cancelled_attempt_keeps_no_lock(
        self, settings: Mapping[str, Any], failures: Failures, ttl: float
    ) -> None:
        """Cancelled at any moment: soon another client can have it."""
        client = make_client("asyncio", **{**DEFAULTS, **settings}, observers=[failures])
        for steps in range(12):
            client.loop.run_until_complete(_attempt_and_cancel(client.twin, steps, 20 * ttl))
            lease = take(client, "report", ttl, wait=10 * ttl)
            release(client, lease)
        client.close()

    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_a_forked_child_has_no_part_in_a_lock(
        self, settings: Mapping[str, Any], failures: Failures, ttl: float
    ) -> None:
        """It cannot use its parent's lease, can take other locks, and the parent's lease lasts."""
        client = make_client("blocking", **{**DEFAULTS, **settings}, observers=[failures])
        lease = take(client, "report", 20 * ttl)

        def act() -> bool:
            unusable = not lease.valid and not lease.lost and not lease.release()
            own = take(client, "another", ttl)
            ours = try_take(client, "report", ttl) is None and own.release()
            return unusable and ours and not failures.events

        assert _in_child(act)
        assert lease.valid
        assert release(client, lease) is True
        client.close()

    # Cached functions.

    def test_one_client_recomputes_a_value(
        self, make: MakeClient, shared_nodes: Any, ttl: float
    ) -> None:
        """The others wait for the value, and a hit takes no lock."""
        calls = itertools.count()

        def recompute() -> int:
            time.sleep(ttl / 5)
            return next(calls)

        def call(client: Any) -> object:
            return client.get_or_set("value", recompute, ttl=60, lock=True)

        clients = [make(nodes=shared_nodes) for _ in range(CONTENDERS)]
        with ThreadPoolExecutor(CONTENDERS) as pool:
            assert list(pool.map(call, clients)) == [0] * CONTENDERS
        assert next(calls) == 1
        assert call(clients[0]) == 0

    def test_a_recompute_has_a_lock_of_its_own(self, make: MakeClient, ttl: float) -> None:
        """A lock of the same name does not keep a value from being recomputed."""
        client = make()
        take(client, "value", 10 * ttl)
        began = time.monotonic()
        assert client.get_or_set("value", lambda: 1, ttl=60, lock=True) == 1
        assert time.monotonic() - began < 5 * ttl

    # A service that does not run.

    def test_a_service_that_does_not_run_is_an_error(
        self, mode: Mode, unreachable: Mapping[str, Any], failures: Failures, ttl: float
    ) -> None:
        """Within the time of the calls; a cached function is called all the same, at once."""
        settings = {**DEFAULTS, "timeout": 0.5, **unreachable}
        client = make_client(mode, **settings, observers=[failures])
        began = time.monotonic()
        with pytest.raises(LockUnavailable):
            take(client, "report", ttl)
        with pytest.raises(LockUnavailable):
            held(client, "report")
        assert client.get_or_set("value", lambda: 1, ttl=60, lock=True) == 1
        assert time.monotonic() - began < 10
        client.close()

    def test_a_service_that_stops_fails_no_release(
        self, make: MakeClient, stop: Callable[[], object], ttl: float
    ) -> None:
        """It raises nothing, within the time of a call: a block may end with an error too."""
        client = make(timeout=STOPPED)
        lease = take(client, "report", 10 * ttl)
        stop()
        began = time.monotonic()
        release(client, lease)
        assert time.monotonic() - began < PATIENCE
        assert (lease.valid, lease.remaining()) == (False, 0)

    def test_a_service_that_stops_extends_no_lock(
        self, make: MakeClient, stop: Callable[[], object], ttl: float
    ) -> None:
        """That is an error within the time of a call, and the lease ends by the clock of the holder."""
        client = make(timeout=STOPPED)
        lease = take(client, "report", ttl)
        stop()
        began = time.monotonic()
        with pytest.raises((LockUnavailable, LockLost)):
            extend(client, lease, 10 * ttl)
        with pytest.raises(LockUnavailable):
            held(client, "report")
        assert time.monotonic() - began < PATIENCE
        eventually(lambda: lease.lost, within=PATIENCE)
        assert (lease.valid, lease.remaining()) == (False, 0)

    # Who holds it.

    def test_a_provider_tells_who_holds_a_lock(self, make: MakeClient, ttl: float) -> None:
        """By name, and in its list if it has one."""
        one, other = make(), make()
        if not _tells_holders(one):
            pytest.skip("the provider does not tell who holds a lock")
        assert operate(other, acquire.find_holder, "report") is None
        lease = take(one, "report", 10 * ttl)
        holder = operate(other, acquire.find_holder, "report")
        assert (holder.name, holder.scope, holder.fence) == (
            b"report",
            LockScope.CALLER,
            lease.fence,
        )
        assert holder.remaining is None or 0 < holder.remaining <= 10 * ttl
        with contextlib.suppress(UnsupportedError):
            assert b"report" in [each.name for each in operate(other, acquire.list_holders)]
        assert operate(other, acquire.find_holder, "report", LockScope.RECOMPUTE) is None

    def test_a_lock_is_taken_away(self, make: MakeClient, ttl: float) -> None:
        """The next client has it at once, and its holder loses it."""
        one, other = make(), make()
        if not _tells_holders(one):
            pytest.skip("the provider takes no lock away")
        assert operate(other, acquire.break_lock, "report") is False
        lost = take(one, "report", 10 * ttl)
        assert operate(other, acquire.break_lock, "report") is True
        lease = take(other, "report", 10 * ttl)
        check_fences([lost.fence, lease.fence])
        with pytest.raises(LockLost):
            extend(one, lost, 10 * ttl)
        assert release(one, lost) is False
        assert lease.valid


def _tells_holders(client: Any) -> bool:
    cluster = cluster_of(client.twin if isinstance(client, DrivenClient) else client)
    return isinstance(cluster.lock_provider, TellsHolders)


async def _attempt_and_cancel(client: AsyncClient, steps: int, ttl: float) -> None:
    """Cancel an attempt after some turns of the loop; release the lock if that was too late."""
    task = asyncio.ensure_future(client.lock("report", ttl=ttl).try_acquire())
    for _ in range(steps):
        await asyncio.sleep(0.0005)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        lease = await task
        if lease is not None:
            await lease.release()


def _in_child(act: Callable[[], bool]) -> bool:
    """Return what a forked child finds; `False` if it waits for ever."""
    if (child := os.fork()) == 0:
        status = 1
        try:
            status = 0 if act() else 1
        finally:
            os._exit(status)
    until = time.monotonic() + 20.0
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.01)
    return ended[1] == 0
