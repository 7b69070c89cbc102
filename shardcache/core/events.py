"""What happened, as facts for those who watch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from inspect import iscoroutinefunction
from typing import Literal, NamedTuple, TypeAlias

from shardcache.core.placement.nodes import Node
from shardcache.core.placement.topology import TopologyChange
from shardcache.errors import ConfigurationError, DecodeError, NodeError


class CallFinished(NamedTuple):
    """A node was asked, and answered or failed.

    `command` is the command's lower-case name (`get`, `getmany`, …), `seconds` its whole length.
    `hits` and `misses` count the callers' keys that were read: those with a value, and those without
    one. A key that failed is neither. A value that cannot be decoded is a hit here, and
    a `DecodeFailed` as well.
    """

    command: str
    node: Node
    seconds: float
    error: NodeError | None = None
    hits: int = 0
    misses: int = 0


class KeysAccessed(NamedTuple):
    """A node answered for `keys`, canonical names in the order they were asked for.

    `operation` is `get`, `get_many`, `set`, `set_many`, `add`, `replace`, `cas`, `delete`,
    `delete_many`, `touch` or `incr`; a `gets` is a `get`. `sizes` has for each key the bytes of the
    value that was read or sent, as it is stored: `None` for a miss, and for what carries no value.
    `ttl` is seconds as they were sent, `None` for no expiry and for what has none. Keys and values
    that shardcache keeps for itself (locks, tags, generations, stubs) are not among them. Never
    holds a value.

    Told for each call to a node, but only when an observer listens for it.
    """

    operation: str
    node: Node
    keys: Sequence[bytes]
    sizes: Sequence[int | None]
    ttl: float | None = None


class NodeFailed(NamedTuple):
    """A node's error was met; `swallowed` when the caller saw a miss or `False` in its place."""

    node: Node
    error: NodeError
    swallowed: bool


class DecodeFailed(NamedTuple):
    """Stored bytes could not be decoded and were read as a miss. Never holds the bytes."""

    node: Node
    key: bytes
    error: DecodeError


class NodeEjected(NamedTuple):
    """A node is not asked for a while, because of `error`: its keys read as misses."""

    node: Node
    error: NodeError


class NodeRestored(NamedTuple):
    """An ejected node answered, and is asked again, after so many seconds."""

    node: Node
    seconds: float


class ComputeFinished(NamedTuple):
    """A cached function was called for `key` and took so many seconds; `stored` if its value was."""

    key: bytes
    seconds: float
    error: Exception | None
    stored: bool


class StampedePrevented(NamedTuple):
    """A caller who missed `key` got what another made, and waited `seconds` for it.

    `how` is `joined` when that was in the same process, `waited` when in another.
    """

    key: bytes
    how: Literal["joined", "waited"]
    seconds: float


class LeaseLost(NamedTuple):
    """A lock was lost before it was released, after it had been held for so many seconds."""

    name: bytes
    seconds: float


class TopologyChanged(NamedTuple):
    """The client's nodes changed."""

    change: TopologyChange


Event: TypeAlias = (
    CallFinished
    | KeysAccessed
    | NodeFailed
    | DecodeFailed
    | NodeEjected
    | NodeRestored
    | ComputeFinished
    | StampedePrevented
    | LeaseLost
    | TopologyChanged
)


class Observer:
    """Watches a client: one method per kind of event, each optional.

    Subclass it, or bring any object with some of these methods. A method is called in the thread
    or loop of the call it reports (`node_ejected` and `node_restored` in whatever thread of this
    process finds out), so it must be quick, and must not block. What it raises is
    counted (`observer_errors` in `stats()`) and does not reach the caller. It may call the client it
    watches: the events of such calls are told to nobody, for that would never end.
    """

    def call_finished(self, event: CallFinished) -> None:
        """Take note that a node was asked."""

    def keys_accessed(self, event: KeysAccessed) -> None:
        """Take note of the keys that a node answered for."""

    def node_failed(self, event: NodeFailed) -> None:
        """Take note of a node's error."""

    def decode_failed(self, event: DecodeFailed) -> None:
        """Take note that a stored value could not be read."""

    def node_ejected(self, event: NodeEjected) -> None:
        """Take note that a node is not asked for a while."""

    def node_restored(self, event: NodeRestored) -> None:
        """Take note that an ejected node is asked again."""

    def compute_finished(self, event: ComputeFinished) -> None:
        """Take note that a cached function was called."""

    def stampede_prevented(self, event: StampedePrevented) -> None:
        """Take note that a caller did not have to compute a value."""

    def lease_lost(self, event: LeaseLost) -> None:
        """Take note that a lock was lost."""

    def topology_changed(self, event: TopologyChanged) -> None:
        """Take note that nodes came or left."""


METHODS: dict[type[Event], str] = {
    CallFinished: "call_finished",
    KeysAccessed: "keys_accessed",
    NodeFailed: "node_failed",
    DecodeFailed: "decode_failed",
    NodeEjected: "node_ejected",
    NodeRestored: "node_restored",
    ComputeFinished: "compute_finished",
    StampedePrevented: "stampede_prevented",
    LeaseLost: "lease_lost",
    TopologyChanged: "topology_changed",
}


class _Notification:
    """An event being told to the observers of `observers`, until it is `over`."""

    __slots__ = ("observers", "over")

    def __init__(self, observers: Observers) -> None:
        self.observers = observers
        self.over = False  # what an observer starts may go on in tasks that are not part of it


# From the outermost: those that the running code is part of.
_notifications: ContextVar[tuple[_Notification, ...]] = ContextVar(
    "shardcache_notifications", default=()
)


class Observers:
    """The observers of one client, and how many times one of them raised.

    False when nobody listens, so that the way of a `get` pays for one truth test. `heard` are the
    kinds of events that some observer listens for: what costs work per key is told to no one else.
    """

    __slots__ = ("_listeners", "errors", "heard", "observers")

    def __init__(self, observers: Iterable[object] = ()) -> None:
        self.observers: Sequence[object] = tuple(observers)
        self.errors = 0
        _check(self.observers)
        self._listeners = {
            kind: tuple(
                getattr(observer, method)
                for observer in self.observers
                if _overrides(observer, method)
            )
            for kind, method in METHODS.items()
        }
        self.heard: frozenset[type[Event]] = frozenset(
            kind for kind, listeners in self._listeners.items() if listeners
        )

    def __bool__(self) -> bool:
        return bool(self.observers)

    def notify(self, event: Event) -> None:
        """Give `event` to those who listen for its kind; count what they raise.

        One that comes of what an observer of this client is doing is told to nobody.
        """
        listeners = self._listeners[type(event)]
        outer = _notifications.get()
        if not listeners or (outer and self._is_notifying(outer)):
            return
        notification = _Notification(self)
        try:
            _notifications.set((*outer, notification))
            for listener in listeners:
                try:
                    listener(event)
                except Exception:  # noqa: BLE001 - it must not break what it watches; counted
                    self.errors += 1
        finally:
            notification.over = True
            _notifications.set(outer)

    def _is_notifying(self, notifications: Iterable[_Notification]) -> bool:
        return any(each.observers is self and not each.over for each in notifications)


def _check(observers: Iterable[object]) -> None:
    """Raise `ConfigurationError` for observers with methods that nobody would await."""
    faults = [
        f"observer {type(observer).__name__}.{method} is async: "
        "observers are called, not awaited; make it a plain function that starts a task"
        for observer in observers
        for method in METHODS.values()
        if iscoroutinefunction(getattr(observer, method, None))
    ]
    if faults:
        raise ConfigurationError(*faults)


def _overrides(observer: object, method: str) -> bool:
    theirs = getattr(type(observer), method, None) or getattr(observer, method, None)
    return theirs is not None and theirs is not getattr(Observer, method)
