"""A lock that a session holds, as the client sees it."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable

from kazoo.exceptions import KazooException, NoNodeError, SessionExpiredError

from shardcache_zookeeper.failures import check_ttl, unavailable
from shardcache_zookeeper.node import HeldNode, describe
from shardcache_zookeeper.session import Session
from shardcache_zookeeper.waiting import Wait


class ZooKeeperGrant:
    """A lock that is held by a node of a session. `what` names it in errors.

    `fence` is the number of the transaction that created the node: the ensemble counts all its
    transactions.
    """

    __slots__ = (
        "__weakref__",
        "_node",
        "_on_lost",
        "_session",
        "_shortest",
        "_timeout",
        "_wait",
        "_what",
    )

    def __init__(
        self, session: Session, node: HeldNode, what: str, wait: Wait, timeout: float
    ) -> None:
        self._session = session
        self._node = node
        self._what = what
        self._wait = wait
        self._timeout = timeout
        self._on_lost: Callable[[str], None] | None = None
        # Of the session as it was then: a renewal does not fail because the servers ask for more now.
        self._shortest = session.words.timeout
        node.listener = weakref.ref(self)

    @property
    def fence(self) -> int:
        """Return a number that grows with every holder of the name."""
        return self._node.fence

    @property
    def token(self) -> bytes:
        """Return the guid in the node's name."""
        return bytes.fromhex(self._node.guid)

    def remaining(self) -> float:
        """Return for how many more seconds it is surely held; 0 when it is not."""
        return self._node.remaining() if self._session.pid == os.getpid() else 0.0

    def watch(self, on_lost: Callable[[str], None]) -> None:
        """Call `on_lost` as soon as the session has expired, or another process has removed the node."""
        self._on_lost = on_lost
        if self._node.lost:
            on_lost(self._node.lost)

    def notify_lost(self, reason: str) -> None:
        """Tell the client that the lock is lost."""
        if self._on_lost is not None:
            self._on_lost(reason)

    def end(self, *, lost: bool) -> None:  # noqa: ARG002 - the node is removed in both cases
        """Count as ended; the session removes the node unless `release` does."""
        self._node.over = True

    async def extend(self, ttl: float, deadline: float) -> bool:
        """Write to the node, so that a majority confirms it; return whether it is still held.

        Raise `ConfigurationError` for a ttl that an attempt would refuse.
        """
        check_ttl(self._what, ttl, self._shortest, self._session.ensemble)
        sent = time.monotonic()
        data = describe(ttl)
        try:
            await self._wait(self._session.write(self._node.path, data), deadline)
        except (NoNodeError, SessionExpiredError):
            return False
        except (KazooException, TimeoutError) as error:
            raise unavailable(self._what, self._session, error) from error
        return self._node.extend(sent + ttl, data)

    async def release(self) -> bool:
        """Delete the node; return whether the ensemble still had it."""
        if self._session.pid != os.getpid() or self._node.lost:
            return False
        try:
            await self._wait(self._session.remove(self._node), time.monotonic() + self._timeout)
        except (NoNodeError, SessionExpiredError):
            return False
        except (KazooException, TimeoutError):
            pass  # it is deleted in the background
        return True
