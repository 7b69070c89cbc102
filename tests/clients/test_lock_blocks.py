"""`with lock` and `with lock.hold()`, in threads and in tasks."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from shardcache import AsyncClient, Client, LockLost, LockTimeout
from shardcache.clients import locks


class TestBlocks:
    """`with lock` and `with lock.hold()`."""

    def test_a_block_releases_its_lock(self):
        """Whether it ends well or raises."""
        with Client("memory://a,b,c") as client:
            lock = client.lock("report")
            with lock as lease, pytest.raises(LockTimeout), lock.hold(wait=0):
                pass
            assert not lease.valid
            with pytest.raises(ZeroDivisionError), lock.hold() as lease:
                raise ZeroDivisionError
            assert not lease.valid
            with lock, client.lock("another") as other:
                assert other.valid
            assert lock.try_acquire() is not None

    def test_a_lost_lock_raises_at_the_end_of_the_block(self):
        """Only if the block itself went well, and unless it is to be ignored."""
        with Client("memory://a,b,c") as client:

            def lose(lock):
                with lock:
                    client.flush_all()
                    client.lock("report").acquire()

            with pytest.raises(LockLost, match="before its block ended"):
                lose(client.lock("report"))
            client.flush_all()
            lose(client.lock("report", on_lost="ignore"))
            client.flush_all()

            def fail(lock):
                with lock.hold():
                    client.flush_all()
                    raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                fail(client.lock("report"))

    def test_threads_share_a_lock_object(self):
        """Each block releases its own lease."""
        inside, most = [], []
        with Client("memory://a,b,c") as client:
            lock = client.lock("report")

            def work():
                for _ in range(20):
                    with lock:
                        inside.append(1)
                        most.append(len(inside))
                        time.sleep(0.0005)
                        inside.pop()

            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
        assert len(most) == 80
        assert max(most) == 1

    async def test_tasks_share_a_lock_object(self):
        """A lease may be released by another task."""
        async with AsyncClient("memory://a,b,c") as client:
            lock = client.lock("report")
            inside = []

            async def work():
                async with lock as lease:
                    inside.append(1)
                    assert len(inside) == 1
                    assert lease.valid
                    await asyncio.sleep(0.001)
                    inside.pop()

            await asyncio.gather(*(work() for _ in range(10)))
            lease = await lock.acquire()
            assert await asyncio.create_task(lease.release()) is True

            async def lose():
                async with lock.hold() as lease:
                    await client.flush_all()
                    await client.lock("report").acquire()
                    await lease.extend()

            with pytest.raises(LockLost):
                await lose()


class TestCancellation:
    """A task that is cancelled leaves no lock behind."""

    async def test_a_task_cancelled_while_acquiring(self, make_redis):
        """All granted nodes are released."""
        servers = [make_redis() for _ in range(3)]
        async with AsyncClient([server.url for server in servers], timeout=5.0) as client:
            for delay in [0.0, 0.0002, 0.0005, 0.001, 0.002] * 5:
                task = asyncio.create_task(client.lock("report").acquire())
                await asyncio.sleep(delay)
                task.cancel()
                (outcome,) = await asyncio.gather(task, return_exceptions=True)
                if not isinstance(outcome, asyncio.CancelledError):
                    await outcome.release()
                end = time.monotonic() + 5.0
                while (lease := await client.lock("report").try_acquire()) is None:
                    assert time.monotonic() < end
                    await asyncio.sleep(0.005)
                await lease.release()

    async def test_a_task_cancelled_in_the_block(self):
        """The lock is released all the same."""
        async with AsyncClient("memory://a,b,c") as client:
            lock = client.lock("report")

            async def work():
                async with lock.hold():
                    await asyncio.sleep(30)

            task = asyncio.create_task(work())
            await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await lock.try_acquire() is not None


def test_a_block_may_end_in_another_thread_or_context():
    """As fixtures and frameworks do: the lock is released."""
    with Client("memory://a,b,c") as client:
        lock = client.lock("report")
        stack = ExitStack()
        entering = threading.Thread(target=lambda: stack.enter_context(lock))
        entering.start()
        entering.join(30)
        assert lock.try_acquire() is None
        stack.close()
        assert lock.try_acquire() is not None


def test_a_thread_keeps_no_lease_of_a_block_that_ended_elsewhere():
    """It would keep each for as long as it lives, and with it the client."""
    lock = Client("memory://a,b,c").lock("x")
    with ThreadPoolExecutor(1) as entering, ThreadPoolExecutor(1) as leaving:
        for _ in range(10):
            entering.submit(lock.__enter__).result()
            leaving.submit(lock.__exit__, None, None, None).result()
        assert len(entering.submit(locks._entered.get).result()) <= 1
