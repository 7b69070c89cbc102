"""A client that follows a file of settings: its nodes change when the file does."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import time
import weakref
from collections.abc import Callable
from datetime import timedelta
from os import PathLike
from types import FrameType
from typing import Final, NamedTuple, Protocol

from shardcache.backends.threads import start_thread
from shardcache.core.lifetimes import MAX_SECONDS, positive_seconds
from shardcache.core.placement.nodes import Node
from shardcache.core.placement.topology import TopologyChange
from shardcache.errors import ClientClosedError, ConfigurationError, printable
from shardcache.log import log
from shardcache.settings import Settings
from shardcache.settings.config_file import ConfigFile
from shardcache.settings.follow import Follow, follow_seconds

LOOK_EVERY: Final = 5.0  # seconds between two looks at the file
LOOKS: Final = 2  # of each process between an announcement and the first switch

SignalHandler = Callable[[int, FrameType | None], object] | int


class Following(Protocol):
    """A client whose nodes can be replaced from a thread without an event loop."""

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Its nodes."""

    def _announce(self, nodes: tuple[Node, ...]) -> TopologyChange:
        """Prepare for these nodes, which other processes may use from now on."""

    def _use_nodes(self, nodes: tuple[Node, ...], warm_for: float) -> TopologyChange:
        """Use exactly these nodes from now on; read old ones for `warm_for` seconds."""


class Given(NamedTuple):
    """The times of `Follow` as the program gives them, in seconds; `None` is what the file says."""

    warm_for: float | None
    announce_for: float | None

    @classmethod
    def of(cls, **times: float | timedelta | None) -> Given:
        """Return arguments as seconds; raise `ConfigurationError` that names the faulty one."""
        return cls(
            **{
                name: None if value is None else follow_seconds(name, value)
                for name, value in times.items()
            }
        )


class _Next(NamedTuple):
    """Nodes that are announced, and the monotonic time at which they are to be used."""

    nodes: tuple[Node, ...]
    due: float


class ConfigFollower:
    """The service of a client that uses the nodes of a file, now and whenever they change.

    A thread looks at the file when the service starts, then every `every` seconds unless that is
    `None`, and when `look_soon` is called. A file that cannot be used changes nothing. Times that are
    `given` precede those of the file.

    Nodes that are found at the start are used at once, without a warm-up: other processes may have
    left the former ones long ago, and what these hold is old.
    """

    __slots__ = (
        "_client",
        "_every",
        "_file",
        "_given",
        "_name",
        "_needs_restart",
        "_next",
        "_started",
        "_wakeups",
    )

    def __init__(
        self,
        client: Following,
        file: ConfigFile,
        every: float | None,
        given: Given,
    ) -> None:
        self._client = weakref.ref(client)
        self._file = file
        self._name = printable(str(file.path))
        self._every = every
        self._given = given
        self._next: _Next | None = None
        self._started = False
        self._needs_restart: tuple[str, ...] = ()
        self._wakeups: queue.SimpleQueue[None] = queue.SimpleQueue()

    def __repr__(self) -> str:
        return f"<ConfigFollower {self._name}>"

    def start(self) -> None:
        """Start the thread, and look at the file."""
        # A thread ends when this is another queue. A forked child has the greenlets of its parent.
        wakeups = self._wakeups = queue.SimpleQueue()
        self._next, self._started = None, False
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
                wakeups.get(timeout=self._pause())

    def _pause(self) -> float | None:
        """Return the seconds until there is something to do."""
        if self._next is None:
            return self._every
        left = max(0.0, self._next.due - time.monotonic())
        return left if self._every is None else min(left, self._every)

    def _look(self) -> None:
        found = self._file.look()
        client = self._client()
        if client is None:
            return
        try:
            if isinstance(found, ConfigurationError):
                raise found
            if found is not None:
                self._use(client, found)
                self._started = True
            if self._next is not None and self._next.due <= time.monotonic():
                self._switch(client, self._next.nodes)
        except ConfigurationError as error:  # the file's, or the strategy's, which cannot follow
            faults = "; ".join(map(printable, error.faults))
            log.warning("nodes not changed: %s", faults)

    def _use(self, client: Following, found: Settings) -> None:
        """Use the nodes of the file, or announce them."""
        announced, nodes = self._next, found.nodes
        if announced is not None and announced.nodes != nodes == client.nodes:
            self._next = None
            client._use_nodes(nodes, 0.0)  # noqa: SLF001 - the client's part in this
            log.info("next nodes by %s are the present ones again", self._name)
        elif nodes != client.nodes and (announced is None or announced.nodes != nodes):
            if self._started and self._how.announce_for:
                self._announce(client, nodes)
            else:
                self._switch(client, nodes)
        self._name_restarts(found)

    @property
    def _how(self) -> Follow:
        """Return how nodes change: as the caller says, else as the file does."""
        given = {name: value for name, value in self._given._asdict().items() if value is not None}
        return self._file.follow._replace(**given)

    def _announce(self, client: Following, nodes: tuple[Node, ...]) -> None:
        """Announce nodes, and switch once every process has had the time to look twice."""
        change = client._announce(nodes)  # noqa: SLF001 - as above
        wait = max(self._how.announce_for, LOOKS * (self._every or 0.0))
        self._next = _Next(nodes, time.monotonic() + wait)
        log.info("next nodes by %s: %s; they are used in %.0f s", self._name, change, wait)

    def _switch(self, client: Following, nodes: tuple[Node, ...]) -> None:
        """Use nodes from now on, and read the former ones meanwhile unless this is the start."""
        self._next = None
        change = client._use_nodes(nodes, self._how.warm_for if self._started else 0.0)  # noqa: SLF001 - as above
        moved = f"{100 * change.moved:.0f} %"  # an estimate
        log.info("nodes changed by %s: %s; about %s of the keys moved", self._name, change, moved)

    def _name_restarts(self, found: Settings) -> None:
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
    given: Given,
) -> ConfigFollower:
    """Return the service of `ClientBase.follow_config`, whose signal is handled from now on."""
    if every is None and on_signal is None:
        raise ConfigurationError("follow_config: without `every` it needs `on_signal`")
    try:
        seconds = None if every is None else positive_seconds(every, MAX_SECONDS)
    except ConfigurationError as error:
        raise ConfigurationError(f"every: {error}") from None
    file = ConfigFile.of_environment(os.environ) if path is None else ConfigFile(path)
    follower = ConfigFollower(client, file, seconds, given)
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
