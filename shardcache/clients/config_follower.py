"""A client that follows a file of settings: its nodes change when the file does."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import weakref
from collections.abc import Callable
from datetime import timedelta
from os import PathLike
from types import FrameType
from typing import Final, Protocol

from shardcache.backends.threads import start_thread
from shardcache.core.lifetimes import MAX_SECONDS, positive_seconds
from shardcache.core.placement.nodes import Node
from shardcache.core.placement.topology import TopologyChange
from shardcache.errors import ClientClosedError, ConfigurationError, printable
from shardcache.log import log
from shardcache.settings import Settings
from shardcache.settings.config_file import ConfigFile

LOOK_EVERY: Final = 5.0  # seconds between two looks at the file

SignalHandler = Callable[[int, FrameType | None], object] | int


class Following(Protocol):
    """A client whose nodes can be replaced from a thread without an event loop."""

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Its nodes."""

    def _use_nodes(self, nodes: tuple[Node, ...], warm_for: float) -> TopologyChange:
        """Use exactly these nodes from now on; read old ones for `warm_for` seconds."""


class ConfigFollower:
    """The service of a client that uses the nodes of a file, now and whenever they change.

    A thread looks at the file when the service starts, then every `every` seconds unless that is
    `None`, and when `look_soon` is called. A file that cannot be used changes nothing.
    """

    __slots__ = ("_client", "_every", "_file", "_name", "_needs_restart", "_wakeups", "_warm_for")

    def __init__(
        self, client: Following, file: ConfigFile, every: float | None, warm_for: float = 0.0
    ) -> None:
        self._client = weakref.ref(client)
        self._file = file
        self._name = printable(str(file.path))
        self._every = every
        self._warm_for = warm_for
        self._needs_restart: tuple[str, ...] = ()
        self._wakeups: queue.SimpleQueue[None] = queue.SimpleQueue()

    def __repr__(self) -> str:
        return f"<ConfigFollower {self._name}>"

    def start(self) -> None:
        """Start the thread, and look at the file."""
        # A thread ends when this is another queue. A forked child has the greenlets of its parent.
        wakeups = self._wakeups = queue.SimpleQueue()
        start_thread(lambda: self._run(wakeups), "shardcache config")

    def stop(self) -> None:
        """End the thread."""
        wakeups, self._wakeups = self._wakeups, queue.SimpleQueue()
        wakeups.put(None)

    def look_soon(self) -> None:
        """Have the thread look at the file now; a signal handler may call this."""
        self._wakeups.put(None)

    def _run(self, wakeups: queue.SimpleQueue[None]) -> None:
        while wakeups is self._wakeups:
            try:
                self._look()
            except ClientClosedError:
                return
            except Exception:
                log.exception("following %s failed; looking again at its next change", self._name)
            with contextlib.suppress(queue.Empty):
                wakeups.get(timeout=self._every)

    def _look(self) -> None:
        found = self._file.look()
        client = self._client()
        if found is None or client is None:
            return
        try:
            if isinstance(found, ConfigurationError):
                raise found
            self._use(client, found)
        except ConfigurationError as error:  # the file's, or the strategy's, which cannot follow
            faults = "; ".join(map(printable, error.faults))
            log.warning("nodes not changed: %s", faults)

    def _use(self, client: Following, found: Settings) -> None:
        if found.nodes != client.nodes:
            change = client._use_nodes(found.nodes, self._warm_for)  # noqa: SLF001 - the client's part in this
            moved = f"{100 * change.moved:.0f} %"  # an estimate
            log.info(
                "nodes changed by %s: %s; about %s of the keys moved", self._name, change, moved
            )
        names = self._file.restart_needed(found)
        if names and names != self._needs_restart:
            log.warning(
                "%s has other settings than this process: %s; restart it to use them",
                self._name,
                ", ".join(names),
            )
        self._needs_restart = names


def config_follower(
    client: Following,
    path: str | PathLike[str] | None,
    every: float | timedelta | None,
    on_signal: int | None,
    warm_for: float,
) -> ConfigFollower:
    """Return the service of `ClientBase.follow_config`, whose signal is handled from now on."""
    if every is None and on_signal is None:
        raise ConfigurationError("follow_config: without `every` it needs `on_signal`")
    try:
        seconds = None if every is None else positive_seconds(every, MAX_SECONDS)
    except ConfigurationError as error:
        raise ConfigurationError(f"every: {error}") from None
    file = ConfigFile.of_environment(os.environ) if path is None else ConfigFile(path)
    follower = ConfigFollower(client, file, seconds, warm_for)
    if on_signal is not None:
        _look_on_signal(follower, on_signal)
    return follower


def _look_on_signal(follower: ConfigFollower, number: int) -> None:
    """Handle a signal by a look at the file, then as it was handled before."""

    def handle(received: int, frame: FrameType | None) -> None:
        follower.look_soon()
        if callable(before):
            before(received, frame)

    try:
        before = _handler_of(number)
        signal.signal(number, handle)
    except (OSError, TypeError, ValueError) as error:  # such as: this is not the main thread
        raise ConfigurationError(f"on_signal: {error}") from error


def _handler_of(number: int) -> SignalHandler:
    handler = signal.getsignal(number)
    if handler is None:
        raise ValueError("it has a handler that Python cannot call, and that would be lost")
    return handler
