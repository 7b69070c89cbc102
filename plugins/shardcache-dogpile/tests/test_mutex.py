"""The mutex of a key is held by one thread of one process, even when nodes fail."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from shardcache_dogpile import Mutex

from shardcache import Client, LockUnavailable
from shardcache.testing.waiting import eventually


@pytest.fixture
def make() -> Callable[[], Mutex]:
    """Return what makes mutexes of one key, each as in another process."""
    client = Client("memory://a,b,c")
    return lambda: Mutex(client.lock("k", ttl=10, renew=True), lambda: True, pytest.fail)


class NoNodes:
    """A lock whose nodes do not answer."""

    error = LockUnavailable("no nodes")

    def try_acquire(self) -> None:
        """Fail."""
        raise self.error

    def acquire(self, wait: float | None) -> None:  # noqa: ARG002 - it fails at once
        """Fail."""
        raise self.error

    held = try_acquire


def test_one_holder_of_all_processes(make):
    """It is locked for all, its holder included."""
    mine, other = make(), make()
    assert not mine.locked()
    assert mine.acquire()
    assert mine.locked()
    assert other.locked()
    assert not other.acquire(wait=False)
    mine.release()
    assert other.acquire(wait=False)
    other.release()
    assert not mine.locked()


def test_a_thread_waits_for_another_of_its_process(make):
    """It asks no node meanwhile, and any thread may release."""
    mutex = make()
    mutex.acquire()
    assert not mutex.acquire(wait=False)
    waiting = threading.Thread(target=mutex.acquire)
    waiting.start()
    mutex.release()
    waiting.join(timeout=20)
    assert mutex.locked()
    mutex.release()


def test_a_process_waits_for_another(make):
    """Until it releases the mutex."""
    holder, follower = make(), make()
    holder.acquire()
    waiting = threading.Thread(target=follower.acquire)
    waiting.start()
    eventually(follower._thread_lock.locked, within=20)
    holder.release()
    waiting.join(timeout=20)
    assert follower._lease is not None
    follower.release()


def test_without_nodes_it_holds_within_the_process():
    """So that a region goes on; the reason is reported each time."""
    errors = []
    mutex = Mutex(NoNodes(), lambda: True, errors.append)
    assert mutex.acquire()
    assert mutex.locked()
    assert not mutex.acquire(wait=False)
    mutex.release()
    assert not mutex.locked()
    assert mutex.acquire(wait=False)
    mutex.release()
    assert errors == [NoNodes.error] * 3


def test_what_cannot_be_stored_is_created_by_each_process(make):
    """Otherwise all callers of all processes would create it one after the other."""
    holder = make()
    holder.acquire()
    mutex = Mutex(holder._lock, lambda: False, pytest.fail)
    assert mutex.acquire()
    assert not mutex.acquire(wait=False)
    mutex.release()
    holder.release()


def test_an_interrupt_leaves_it_free(monkeypatch):
    """Ctrl-C while it waits for the nodes."""
    mutex = Mutex(NoNodes(), lambda: True, pytest.fail)
    monkeypatch.setattr(NoNodes, "acquire", interrupt)
    with pytest.raises(KeyboardInterrupt):
        mutex.acquire()
    assert not mutex._thread_lock.locked()


def interrupt(*_: object, **__: object) -> None:
    """Be interrupted."""
    raise KeyboardInterrupt
