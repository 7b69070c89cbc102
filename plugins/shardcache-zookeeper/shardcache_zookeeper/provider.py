"""The locks of an ensemble, for one client."""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar, TypeVarTuple

from kazoo.exceptions import (
    ConnectionLoss,
    KazooException,
    NodeExistsError,
    NoNodeError,
    SessionExpiredError,
    SessionMovedError,
)

from shardcache.core.leases import long_enough
from shardcache.core.lock_providers import (
    Holder,
    LockOptions,
    LockProvider,
    LockScope,
    NamedLock,
    Refusal,
)
from shardcache.core.placement.url_warnings import tls_warnings
from shardcache.core.secrecy import takes_secrets
from shardcache.errors import LockUnavailable
from shardcache_zookeeper.answers import Answer
from shardcache_zookeeper.ensemble import (
    Ensemble,
    first,
    holders_among,
    is_the_first,
    lock_name,
    parse_url,
)
from shardcache_zookeeper.failures import check_ttl, unavailable
from shardcache_zookeeper.grant import ZooKeeperGrant
from shardcache_zookeeper.node import HeldNode, describe
from shardcache_zookeeper.session import Session, leave_session, open_session
from shardcache_zookeeper.transactions import read_children, read_nodes
from shardcache_zookeeper.waiting import Wait, block, suspend

log = logging.getLogger("shardcache")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

CLOSING: Final = 2.0  # seconds that `close` waits for the end of the session

# A server that was left, or is gone, may have carried out the request or not.
UNANSWERED: Final = (ConnectionLoss, SessionExpiredError, SessionMovedError)


class ZooKeeperLocks:
    """The factory of lock providers for URLs such as `zookeeper://h1:2181,h2:2181,h3:2181/shop`."""

    @takes_secrets
    def blocking(self, url: str, options: LockOptions) -> LockProvider:
        """Return the provider of a blocking client."""
        return _provider(url, options, block)

    @takes_secrets
    def asyncio(self, url: str, options: LockOptions) -> LockProvider:
        """Return the provider of an asyncio client."""
        return _provider(url, options, suspend)


class ZooKeeperProvider:
    """The locks of an ensemble, for one client; `wait` blocks its threads, or suspends its tasks.

    Each lock is a directory. Its first node, an ephemeral one, is the holder's.
    """

    def __init__(self, ensemble: Ensemble, options: LockOptions, wait: Wait) -> None:
        self._ensemble = ensemble
        self._options = options
        self._wait = wait
        self._session: Session | None = None
        self._closed = False

    async def attempt(
        self, lock: NamedLock, ttl: float, deadline: float
    ) -> ZooKeeperGrant | Refusal:
        """Try once to take a lock: create a node in its directory, if there is none."""
        return await self._ask(f"lock {lock.shown}", deadline, self._attempt, lock, ttl)

    async def is_held(self, lock: NamedLock, deadline: float) -> bool:
        """Return whether the lock's directory has a node now."""
        directory = self._ensemble.directory(lock)
        names = await self._ask(f"lock {lock.shown}", deadline, self._names, directory)
        return bool(holders_among(names))

    async def holder(self, lock: NamedLock, deadline: float) -> Holder | None:
        """Return who holds a lock, `None` if no process does."""
        what, directory = f"lock {lock.shown}", self._ensemble.directory(lock)
        return await self._ask(what, deadline, self._holder, lock.scope, directory)

    async def holders(self, deadline: float) -> Sequence[Holder]:
        """Return the holders of all locks below the path of the URL."""
        return await self._ask("locks", deadline, self._holders)

    async def break_lock(self, lock: NamedLock, deadline: float) -> bool:
        """Delete the node of the holder, who learns that at once; return whether there was one."""
        directory = self._ensemble.directory(lock)
        return await self._ask(f"lock {lock.shown}", deadline, self._break, directory)

    async def close(self) -> None:
        """Release what this client holds, and end the session if no other client uses it."""
        self._closed = True
        session, self._session = self._session, None
        if session is None or session.pid != os.getpid():
            return
        deadline = time.monotonic() + self._options.timeout
        for removal in [session.remove(node) for node in session.nodes_of(self)]:
            with suppress(KazooException, TimeoutError):
                await self._wait(removal, deadline)
        ending = leave_session(session, self)
        if ending is not None:
            with suppress(TimeoutError):
                await self._wait(ending, time.monotonic() + CLOSING)

    async def _ask(
        self,
        what: str,
        deadline: float,
        ask: Callable[[Session, float, *Ts], Awaitable[T]],
        *arguments: *Ts,
    ) -> T:
        """Ask the ensemble, in this process's session."""
        if self._closed:
            raise LockUnavailable(f"{what}: the client is closed")
        session = self._session
        if session is None or session.pid != os.getpid():
            session = open_session(self._ensemble, self._options.connect_timeout, self)
            self._session = session
        try:
            await self._connect(session, deadline)
            return await ask(session, deadline, *arguments)
        except (KazooException, TimeoutError) as error:
            raise unavailable(what, session, error) from error

    async def _connect(self, session: Session, deadline: float) -> None:
        """Wait until a server is connected; while none can be, only the first calls wait."""
        since = session.disconnected
        if since is not None:
            deadline = min(deadline, since + self._options.timeout)
        await self._wait(session.connected(), deadline)

    async def _attempt(
        self, session: Session, deadline: float, lock: NamedLock, ttl: float
    ) -> ZooKeeperGrant | Refusal:
        check_ttl(f"lock {lock.shown}", ttl, session.words.timeout, session.ensemble)
        folder, directory = self._ensemble.folder(lock.scope), self._ensemble.directory(lock)
        has_folder = True  # as far as is known
        while True:
            try:
                if not has_folder:
                    await self._wait(session.make_folder(folder), deadline)
                # Most attempts at a lock that is held end here, and cost the ensemble no write.
                names = await self._find_names(session, deadline, directory)
                if holders_among(names or ()):
                    return Refusal.HELD
                return await self._create(session, deadline, lock, ttl, is_new=names is None)
            except NodeExistsError:  # the directory has just been made
                continue
            except NoNodeError:  # it has just been removed, or what is above it is missing
                has_folder = False
            except UNANSWERED:  # another server may answer in time
                await self._connect(session, deadline)

    async def _create(
        self, session: Session, deadline: float, lock: NamedLock, ttl: float, *, is_new: bool
    ) -> ZooKeeperGrant | Refusal:
        """Create a node; it holds the lock if it is the first one, and is removed otherwise.

        In a directory that `is_new`, no other can be before it. Whatever is raised, the node is removed,
        also if the ensemble creates it later.
        """
        directory = self._ensemble.directory(lock)
        guid = secrets.token_hex(16)
        data = describe(ttl)
        expired, sent = session.expired, time.monotonic()
        create = session.create_first if is_new else session.create
        try:
            creation = create(directory, guid, data)
            listing = None if is_new else session.children(directory)
            path, fence = await self._wait(creation, deadline)
            names = [path] if listing is None else await self._wait(listing, deadline)
            node = HeldNode(
                path, fence=fence, data=data, ends=sent + ttl, words=session.words, user=self
            )
            grant = ZooKeeperGrant(
                session, node, f"lock {lock.shown}", self._wait, self._options.timeout
            )
            is_first = is_new or is_the_first(path, names)
            if is_first and long_enough(node.remaining(), session.words.timeout):
                session.keep(node, expired)
                return grant
            session.remove(node)
        except (NoNodeError, NodeExistsError):
            raise
        except BaseException as error:
            gone = session.remove_later(directory, guid)
            if isinstance(error, UNANSWERED):
                await self._wait(gone, deadline)
            raise
        return Refusal.LATE if is_first else Refusal.HELD

    async def _find_names(
        self, session: Session, deadline: float, directory: str
    ) -> Sequence[str] | None:
        """Return the names in a directory, as the connected server knows them; `None` without one."""
        return await self._unless_gone(session.children(directory), deadline)

    async def _names(self, session: Session, deadline: float, directory: str) -> Sequence[str]:
        """Return the names in a directory that the leader knows now; none without one."""
        session.sync(directory)
        return await self._find_names(session, deadline, directory) or ()

    async def _unless_gone(self, reply: Answer[T], deadline: float) -> T | None:
        """Return a reply about a node; `None` if there is no such node."""
        try:
            return await self._wait(reply, deadline)
        except NoNodeError:
            return None

    async def _holder(
        self, session: Session, deadline: float, scope: LockScope, directory: str
    ) -> Holder | None:
        # A server that does not know the next request would answer it before this one.
        await self._wait(session.sync(directory), deadline)
        found = await self._find_holders(session, deadline, scope, [directory])
        return found[0] if found else None

    async def _holders(self, session: Session, deadline: float) -> list[Holder]:
        found: list[Holder] = []
        for scope in LockScope:
            folder = self._ensemble.folder(scope)
            names = sorted(await self._names(session, deadline, folder))
            directories = [f"{folder}/{name}" for name in names]
            found += await self._find_holders(session, deadline, scope, directories)
        return found

    async def _find_holders(
        self, session: Session, deadline: float, scope: LockScope, directories: Sequence[str]
    ) -> list[Holder]:
        """Return who holds the locks of these directories: in two round trips, as there may be many."""
        listings = await self._look(session, deadline, directories, read_children)
        paths = [
            f"{directory}/{first(names)}"
            for directory, listing in zip(directories, listings, strict=True)
            if (names := holders_among(listing or ()))
        ]
        nodes = await self._look(session, deadline, paths, read_nodes)
        return [  # without those that have just been released
            _holder_of(path, scope, *node) for path, node in zip(paths, nodes, strict=True) if node
        ]

    async def _look(
        self,
        session: Session,
        deadline: float,
        paths: Sequence[str],
        read: Callable[[Sequence[str]], Any],
    ) -> list[Any]:
        """Return what `read` reads of each path, `None` where nothing is."""
        replies = session.look(paths, read)
        return [each for reply in replies for each in await self._wait(reply, deadline)]

    async def _break(self, session: Session, deadline: float, directory: str) -> bool:
        names = holders_among(await self._names(session, deadline, directory))
        if not names:
            return False
        try:
            await self._wait(session.delete(f"{directory}/{first(names)}"), deadline)
        except NoNodeError:
            return False
        return True


@takes_secrets
def _provider(url: str, options: LockOptions, wait: Wait) -> LockProvider:
    ensemble = parse_url(url, options.ssl_context)
    for caution in () if ensemble.tls is None else tls_warnings(dict(ensemble.tls.options)):
        log.warning("locks: %s", caution)
    return ZooKeeperProvider(ensemble, options, wait)


def _holder_of(path: str, scope: LockScope, data: bytes, stat: Any) -> Holder:  # kazoo has no types
    """Return who holds a lock, by the node of the holder."""
    owner, until = _parse_holder(data)
    return Holder(
        name=lock_name(path.rpartition("/")[0]),
        scope=scope,
        owner=owner,
        since=stat.ctime / 1000,
        remaining=None if until is None else max(0.0, until - time.time()),
        fence=stat.czxid,
    )


def _parse_holder(data: bytes) -> tuple[str | None, float | None]:
    """Return the owner that a node names, and until when; nothing if another program wrote it."""
    try:
        told: Any = json.loads(data)
        return str(told["owner"]), float(told["until"])
    except (ValueError, KeyError, TypeError):
        return None, None
