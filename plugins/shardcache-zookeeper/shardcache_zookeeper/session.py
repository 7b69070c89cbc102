"""The session of this process with an ensemble: one for all its clients, kept while any uses it."""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any, Final

from kazoo.exceptions import (
    ConnectionLoss,
    KazooException,
    NoNodeError,
    NotEmptyError,
    SessionExpiredError,
)
from kazoo.protocol.states import EventType, KazooState

from shardcache.backends.locking import ProcessLock
from shardcache_zookeeper.answers import Answer
from shardcache_zookeeper.connection import Connection, answer_of
from shardcache_zookeeper.ensemble import Ensemble
from shardcache_zookeeper.node import HeldNode
from shardcache_zookeeper.transactions import (
    create_in_new_directory,
    created,
    delete_with_directory,
    deleted,
    found,
)
from shardcache_zookeeper.words import BEAT, Words

log = logging.getLogger("shardcache")

LOOKS: Final = 200  # paths in one request: the servers take a megabyte
SILENCE: Final = 0.25  # of the session's timeout: how long a server may be silent
EXIT: Final = 1.0  # seconds that the end of the process waits for the end of a session
LOST: Final = "its ZooKeeper session has expired"
GONE: Final = "its ZooKeeper node is gone: its session has expired, or an operator has removed it"


def _same(reply: Any) -> Any:  # whatever kazoo returns
    return reply


class Session:
    """A session with an ensemble, and the nodes of locks that live with it.

    A thread, the keeper, speaks to the ensemble all the time, so that the session's end can be told.
    It removes the nodes of locks that have ended, and those that a failed attempt may have left. It
    ends the session when no client uses it any more. `disconnected` is since when no server is
    connected, in monotonic seconds, `expired` how many sessions before this one have ended, `refusal`
    why no server takes it, if that is known.
    """

    def __init__(self, ensemble: Ensemble, connect_timeout: float) -> None:
        self.ensemble = ensemble
        self.pid = os.getpid()
        self.users: weakref.WeakSet[object] = weakref.WeakSet()
        self.words = Words(ensemble.session_timeout)
        self.disconnected: float | None = time.monotonic()
        self.expired = 0
        self._lock = threading.RLock()
        self._connected: Answer[None] = Answer()
        self._nodes: dict[HeldNode, None] = {}  # in the order in which they are written to
        # Those of locks that have just been taken: many are released before it is worth to watch them.
        self._unwatched: set[HeldNode] = set()
        # What failed attempts may have left, by directory and guid, until it is surely gone.
        self._leftovers: dict[tuple[str, str], Answer[None]] = {}
        self._beat: Answer[Any] | None = None
        self._beat_sent = self._due = 0.0
        # Not a `threading.Event`: an exception that a signal raises inside it would leave it locked.
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stopped: Answer[None] | None = None
        self._connection = Connection(
            ensemble, connect_timeout, self.words.connect, self._change_state
        )
        self._kazoo = self._connection.kazoo
        self._connection.start()
        threading.Thread(target=self._keep, name="shardcache zookeeper", daemon=True).start()

    # The connection.

    @property
    def refusal(self) -> str:
        """Why no server takes the session, as far as that is known."""
        return self._connection.refusal

    def connected(self) -> Answer[None]:
        """Return an answer that has come while the session is connected."""
        return self._connected

    def _change_state(self, state: str) -> None:
        """Follow kazoo's state; called by its connection's thread."""
        if state == KazooState.CONNECTED:
            self.disconnected = None
            self._connected.set_result(None)
            self._wakes.put(None)
            with self._lock:
                nodes = list(self._nodes)
            for node in nodes:  # kazoo's watches end with the connection
                self._watch(node)
            return
        with self._lock:
            if self.disconnected is None:
                self.disconnected = time.monotonic()
                self._connected = Answer()
            if state != KazooState.LOST:
                return
            self.expired += 1
            nodes, leftovers = list(self._nodes), list(self._leftovers)
        self._lose(nodes, LOST)
        for leftover in leftovers:  # they have gone with it
            self._forget(leftover)

    # Requests: each is sent at once, in order, and its reply is an `Answer`.

    def children(self, directory: str) -> Answer[Sequence[str]]:
        """Request the names of a directory's nodes, as the server knows them."""
        return self._send(lambda: self._kazoo.get_children_async(directory))

    def stat(self, path: str) -> Answer[Any]:
        """Request what the server knows of a node; `None` without one."""
        return self._send(lambda: self._kazoo.exists_async(path))

    def look(
        self, paths: Sequence[str], read: Callable[[Sequence[str]], Any]
    ) -> Sequence[Answer[Sequence[Any]]]:
        """Request what `read` reads of many paths; each reply is about some of them, in order.

        A request for each would cost kazoo a quarter of a millisecond.
        """
        parts = [paths[start : start + LOOKS] for start in range(0, len(paths), LOOKS)]
        return [self._send(partial(self._connection.send, read(part)), found) for part in parts]

    def sync(self, path: str) -> Answer[Any]:
        """Have the server catch up with the leader, before it answers what is requested later."""
        return self._send(lambda: self._kazoo.sync_async(path))

    def make_folder(self, path: str) -> Answer[Any]:
        """Create a directory of directories, with those above it; they stay."""
        return self._send(lambda: self._kazoo.ensure_path_async(path, acl=self._connection.acl))

    def create(self, directory: str, guid: str, data: bytes) -> Answer[tuple[str, int]]:
        """Create a node that begins with `guid`, and gets the next number of the directory.

        Return its path, and the number of the transaction. So does `create_first`.
        """

        def read(reply: Any) -> tuple[str, int]:  # kazoo has no types
            path, stat = reply
            return path, stat.czxid

        return self._send(
            lambda: self._kazoo.create_async(
                f"{directory}/{guid}-", data, ephemeral=True, sequence=True, include_data=True
            ),
            read,
            written=True,
        )

    def create_first(self, directory: str, guid: str, data: bytes) -> Answer[tuple[str, int]]:
        """Create a directory that is not there, and its first node; `NodeExistsError` if it is there."""
        request = create_in_new_directory(
            directory, f"{directory}/{guid}-", data, self._connection.acl
        )
        return self._send(lambda: self._connection.send(request), created, written=True)

    def write(self, path: str, data: bytes) -> Answer[Any]:
        """Write a node's data, which a majority confirms."""
        return self._send(lambda: self._kazoo.set_async(path, data), written=True)

    def delete(self, path: str) -> Answer[Any]:
        """Delete a node, or an empty directory."""
        return self._send(lambda: self._kazoo.delete_async(path))

    def delete_last(self, path: str) -> Answer[None]:
        """Delete a node and its directory; `NotEmptyError`, and no effect, if another node is there."""
        request = delete_with_directory(path)
        return self._send(lambda: self._connection.send(request), deleted)

    def remove(self, node: HeldNode) -> Answer[None]:
        """Delete the node of a lock, and the lock's directory if that is empty then.

        If the deletion is not confirmed, it is tried again in the background.
        """
        node.over = True
        try:
            with self._lock:
                self._nodes.pop(node, None)
                self._unwatched.discard(node)
            removal: Answer[None] = Answer()
            removal.add_done_callback(partial(self._removed, node))
            deletion = self.delete_last(node.path)
            deletion.add_done_callback(partial(self._delete_alone, node, removal))
        except BaseException:  # a signal's
            self.remove_later(node.directory, node.guid)
            raise
        return removal

    def _delete_alone(self, node: HeldNode, removal: Answer[None], deletion: Answer[None]) -> None:
        """Delete only the node, if its directory could not be deleted with it."""
        error = deletion.exception()
        if error is None or isinstance(error, (NoNodeError, SessionExpiredError, ConnectionLoss)):
            copy_outcome(deletion, removal)
        else:
            self.delete(node.path).add_done_callback(partial(copy_outcome, removal=removal))

    def _removed(self, node: HeldNode, deletion: Answer[Any]) -> None:
        error = deletion.exception()
        if error is not None and not isinstance(error, (NoNodeError, SessionExpiredError)):
            self.remove_later(node.directory, node.guid)

    def remove_later(self, directory: str, guid: str) -> Answer[None]:
        """Delete the node whose name begins with `guid`, if there is one; return when it is gone."""
        gone = self._leftovers.setdefault((directory, guid), Answer())
        self._wakes.put(None)
        return gone

    def _forget(self, leftover: tuple[str, str]) -> None:
        gone = self._leftovers.pop(leftover, None)
        if gone is not None:
            gone.set_result(None)

    def _send(
        self,
        request: Callable[[], Any],
        read: Callable[[Any], Any] = _same,
        *,
        written: bool = False,
    ) -> Answer[Any]:
        """Send a request; its reply is what `read` makes of kazoo's."""
        sent = time.monotonic()

        def record(error: BaseException | None) -> None:
            if error is None:
                self.words.record(sent, written=written)

        return answer_of(request(), read, record)

    # The nodes of locks that are held.

    def keep(self, node: HeldNode, expired: int) -> None:
        """Keep a node of the session before which `expired` had ended; the keeper's next turn watches it."""
        with self._lock:
            self._nodes[node] = None
            self._unwatched.add(node)
            lost = self.expired != expired
        if lost:
            self._lose([node], LOST)

    def _watch(self, node: HeldNode) -> None:
        """Have the connected server tell when the node is deleted.

        An ephemeral node has no children, so that a watch of them tells nothing else. One of its data
        would be over with the first beat that writes to it.
        """

        def heed(event: Any) -> None:  # kazoo has no types
            if event.type == EventType.DELETED:
                self._lose([node], GONE)

        names = self._send(lambda: self._kazoo.get_children_async(node.path, watch=heed))
        names.add_done_callback(partial(self._check_presence, node))

    def _lose(self, nodes: Sequence[HeldNode], reason: str) -> None:
        """Count nodes as lost at once, and notify their holders.

        That has a thread of its own: an observer may take a lock, for which kazoo's threads are needed.
        """
        with self._lock:
            for node in nodes:
                self._nodes.pop(node, None)
                self._unwatched.discard(node)
        listeners = [listener for node in nodes if (listener := node.lose(reason)) is not None]

        def notify() -> None:
            for listener in listeners:
                listener.notify_lost(reason)

        if listeners:
            threading.Thread(target=notify, name="shardcache zookeeper loss", daemon=True).start()

    def nodes_of(self, user: object) -> list[HeldNode]:
        """Return the nodes of one client."""
        with self._lock:
            return [node for node in self._nodes if node.user() is user]

    # The keeper.

    def _keep(self) -> None:
        while self._stopped is None:
            with suppress(queue.Empty):
                while True:
                    self._wakes.get_nowait()
            with suppress(KazooException, TimeoutError):  # the next turn tries again
                self._turn()
            with suppress(queue.Empty):
                self._wakes.get(timeout=self._pause())

    def _turn(self) -> None:
        if not self.users:  # clients that were not closed
            leave_session(self, self)
            return
        with self._lock:
            nodes = list(self._nodes)
            unwatched, self._unwatched = self._unwatched, set()
        for node in nodes:
            if node.expire():
                self.remove(node)
        self._speak()
        if self.disconnected is None:  # else all are watched when a server is connected
            for node in unwatched:
                self._watch(node)
            for directory, guid in list(self._leftovers):
                self._clean(directory, guid)

    def _pause(self) -> float:
        """Return the seconds until the next turn: until the next beat, or the end of a lock."""
        with self._lock:
            ends = [node.ends for node in self._nodes]
        return max(0.0, min([self._due, *ends]) - time.monotonic())

    def _speak(self) -> None:
        """Send a heartbeat; leave a server that is silent for another one."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + BEAT * self.words.timeout
        since = self.disconnected
        if since is not None:
            self._beat = None
            if now - since > self.words.timeout and self._connection.has_ended:
                self.disconnected = now
                self._connection.start()
        elif self._beat is None or self._beat.done():
            self._beat, self._beat_sent = self._send_beat(), now
        elif now - self._beat_sent > SILENCE * self.words.timeout:
            log.warning(
                "session with %s: its server is silent; connecting to another one", self.ensemble
            )
            self._connection.drop()

    def _send_beat(self) -> Answer[Any]:
        """Write to the node of one lock after another; without any, read."""
        with self._lock:
            node = next(iter(self._nodes), None)
            if node is None:
                return self.stat("/")
            self._nodes[node] = self._nodes.pop(node)  # it is the last one now
        beat = self.write(node.path, node.data)
        beat.add_done_callback(partial(self._check_presence, node))
        return beat

    def _check_presence(self, node: HeldNode, answer: Answer[Any]) -> None:
        if isinstance(answer.exception(), NoNodeError):
            self._lose([node], GONE)

    def _clean(self, directory: str, guid: str) -> None:
        """Find the node that an attempt may have left, and delete it."""
        seconds = BEAT * self.words.timeout
        self.sync(directory)  # an earlier server may have sent its creation to the leader
        names: Sequence[str] = ()
        with suppress(NoNodeError):
            names = self.children(directory).result(seconds)
        for name in names:
            if name.startswith(guid):
                with suppress(NoNodeError):
                    self.delete(f"{directory}/{name}").result(seconds)
        with suppress(NoNodeError, NotEmptyError):
            self.delete(directory).result(seconds)
        self._forget((directory, guid))

    def stop(self) -> Answer[None]:
        """End the session, in the background."""
        with self._lock:
            if self._stopped is not None:
                return self._stopped
            stopped = self._stopped = Answer()
        self._wakes.put(None)

        def stop() -> None:
            try:
                self._connection.stop()
            except Exception as error:  # noqa: BLE001 - the server ends the session
                log.warning(
                    "session with %s could not be closed: %r; its locks last until it times out",
                    self.ensemble,
                    error,
                )
            stopped.set_result(None)

        threading.Thread(target=stop, name="shardcache zookeeper stop", daemon=True).start()
        return stopped


_registry = ProcessLock()
# By process and ensemble: a forked child leaves its parent's alone.
_sessions: dict[tuple[int, Ensemble], Session] = {}


@cache
def _watch_exit() -> None:
    """Stop all sessions at the end of the program."""
    atexit.register(_stop_all)


def open_session(ensemble: Ensemble, connect_timeout: float, user: object) -> Session:
    """Return this process's session with an ensemble for a client, `user`; begin it if there is none."""
    with _registry.current():
        _watch_exit()
        place = os.getpid(), ensemble
        session = _sessions.get(place)
        if session is None:
            session = _sessions[place] = Session(ensemble, connect_timeout)
        session.users.add(user)
        return session


def leave_session(session: Session, user: object) -> Answer[None] | None:
    """Remove a client from a session; return the end of the session if it was the last one."""
    with _registry.current():
        session.users.discard(user)
        if session.users:
            return None
        _sessions.pop((session.pid, session.ensemble), None)
    return session.stop()


def _stop_all() -> None:
    """End this process's sessions, so that other processes need not wait for its locks."""
    process = os.getpid()
    ends = [session.stop() for (pid, _), session in list(_sessions.items()) if pid == process]
    for end in ends:
        with suppress(TimeoutError):
            end.result(EXIT)


def copy_outcome(deletion: Answer[None], removal: Answer[None]) -> None:
    """Have one answer end as another has."""
    error = deletion.exception()
    if error is None:
        removal.set_result(None)
    else:
        removal.set_exception(error)
