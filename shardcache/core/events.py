"""What happened in a client, as facts for its observers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from inspect import iscoroutinefunction
from typing import Literal, NamedTuple, Protocol, TypeAlias

from shardcache.core.placement.nodes import Node
from shardcache.core.placement.topology import TopologyChange
from shardcache.core.pools import PoolUse
from shardcache.errors import ConfigurationError, DecodeError, NodeError

ShadowOutcome: TypeAlias = Literal[
    "same", "differs", "only_here", "only_there", "ttl_differs", "neither", "failed"
]


class ObservedCounters(Protocol):
    """The counters of a client that an observer may read: `shardcache.Client.counters`."""

    @property
    def protection(self) -> Mapping[str, float]:
        """Return the counters of all values that were recomputed through the client."""

    @property
    def circuits(self) -> Mapping[str, str]:
        """Return `closed`, `open`, `probing` or `quarantine` by the node's name."""

    @property
    def pools(self) -> Mapping[str, PoolUse]:
        """Return the connections that there are now, by the node's name."""


class ObservedClient(Protocol):
    """A client of either kind, as an observer may keep it."""

    def counters(self) -> ObservedCounters:
        """Return the client's counters, without asking any node."""


class CallFinished(NamedTuple):
    """A node was asked, and answered or failed.

    `command` is the command's lower-case name (`get`, `getmany`, …), `seconds` its whole length.
    `hits` and `misses` count the callers' keys that were read, with a value and without one. A key
    that failed is neither. A value that cannot be decoded is a hit here, and a `DecodeFailed` too.
    `keys` is the number of keys in the command, with those of shardcache itself; zero for a command
    about the whole node. `started` is when the call began, in seconds of `time.monotonic()`: a call to
    many nodes is reported when its last node is done.
    """

    command: str
    node: Node
    seconds: float
    error: NodeError | None = None
    hits: int = 0
    misses: int = 0
    keys: int = 0
    started: float = 0.0


class OperationFinished(NamedTuple):
    """An operation of the client ended, after all of its calls to nodes.

    `name` is `get`, `gets`, `get_many`, `set`, `add`, `replace`, `cas`, `touch`, `incr`, `decr`,
    `delete`, `set_many`, `delete_many`, or `cached` for a cached function and `get_or_set`. `keys` is
    the number of keys in the call, `hits` of how many a value was found; a write has none, and a
    cached value that this call or another recomputed is not a hit. `seconds` is the whole length,
    `error` what the caller got in place of a result. Never holds a key or a value.
    """

    name: str
    keys: int
    hits: int
    seconds: float
    error: BaseException | None = None


class KeysAccessed(NamedTuple):
    """A node answered for `keys`, canonical names in the order they were asked for.

    `operation` is `get`, `get_many`, `set`, `set_many`, `add`, `replace`, `cas`, `delete`,
    `delete_many`, `touch` or `incr`; a `gets` is a `get`. `sizes` has for each key the size in bytes
    of the stored value that was read or sent: `None` for a miss, and for a command without a value.
    `ttl` is seconds as they were sent, `None` for no expiry and for commands without one. Keys and
    values of shardcache itself (locks, tags, generations, stubs) are left out. Never holds a value.

    There is one for each call to a node, but only when an observer listens for it.
    """

    operation: str
    node: Node
    keys: Sequence[bytes]
    sizes: Sequence[int | None]
    ttl: float | None = None


class NodeFailed(NamedTuple):
    """A node failed; `swallowed` when the caller saw a miss or `False` in place of the error."""

    node: Node
    error: NodeError
    swallowed: bool


class DecodeFailed(NamedTuple):
    """Stored bytes could not be decoded and were read as a miss. Never holds the bytes."""

    node: Node
    key: bytes
    error: DecodeError


class NodeEjected(NamedTuple):
    """A node was ejected because of `error`: it is not asked, and its keys are misses or take a detour."""

    node: Node
    error: NodeError


class NodeRestored(NamedTuple):
    """An ejected node answered, and is asked again, after it was out for `seconds`."""

    node: Node
    seconds: float


class DeletesReplayed(NamedTuple):
    """Keys were deleted on a node, because writes of them had failed: `keys` is how many.

    For an ejected node that is before it is asked again. `flushed` is whether the whole node was
    emptied, because more writes had failed than a client remembers.
    """

    node: Node
    keys: int
    flushed: bool


class DeletesOverflowed(NamedTuple):
    """More writes to a node have failed than a client remembers: `kept` is how many keys it does.

    The node may have old values of further keys when it is back.
    """

    node: Node
    kept: int


class CallDetoured(NamedTuple):
    """A call about keys of `node`, which is ejected, was sent to `stand_in` instead.

    `command` is that of `CallFinished`, `keys` the number of keys. There is one for each such call.
    """

    command: str
    node: Node
    stand_in: Node
    keys: int


class ComputeFinished(NamedTuple):
    """A cached function was called for `key` and took `seconds`; `stored` is whether its value was."""

    key: bytes
    seconds: float
    error: Exception | None
    stored: bool


class StampedePrevented(NamedTuple):
    """A caller that missed `key` waited `seconds` for the value of another caller's recompute.

    `how` is `joined` when the recompute ran in the same process, `waited` when in another.
    """

    key: bytes
    how: Literal["joined", "waited"]
    seconds: float


class StaleServed(NamedTuple):
    """A caller got the old value of `key` after its ttl: it is refreshed, or its recompute failed."""

    key: bytes


class LeaseLost(NamedTuple):
    """A lock was lost before it was released, after it had been held for `seconds`."""

    name: bytes
    seconds: float


class LockProviderFailed(NamedTuple):
    """The provider of the client's locks raised an `error` that its protocol does not know.

    `call` is the method that raised, such as `release`, and `name` the lock's name, empty if the call was
    about no single lock. After `attempt`, `extend` and what asks for a result, the caller got
    `LockUnavailable`. After `release`, `end`, `remaining` and `close` no caller got an error.
    """

    name: bytes
    call: str
    error: Exception


class ShadowCompared(NamedTuple):
    """The value of `key` on its node, `here`, was compared with that on a node of the shadow, `there`.

    `outcome` is `same`, `differs`, `only_here`, `only_there`, `ttl_differs`, `neither` when no side has
    a value, or `failed` with an `error`. Never holds a value.
    """

    key: bytes
    outcome: ShadowOutcome
    here: Node
    there: Node
    error: Exception | None = None


class TopologyChanged(NamedTuple):
    """The client's nodes changed."""

    change: TopologyChange


class OldNodesRead(NamedTuple):
    """Keys that had moved and were missing on their new nodes were read on their old ones.

    `reads` is the number of these keys, `hits` of how many the old nodes had a value, `copied` how many
    values their new nodes have now.
    """

    reads: int
    hits: int
    copied: int


class WarmUpEnded(NamedTuple):
    """The old nodes of a change are not asked any more; `reads`, `hits` and `copied` are all there were."""

    reads: int
    hits: int
    copied: int


class ClientCreated(NamedTuple):
    """A client was created with this observer; its views are no clients of their own.

    An observer that reads the client's `counters()` later holds it by a weak reference.
    """

    client: ObservedClient


Event: TypeAlias = (
    CallFinished
    | OperationFinished
    | KeysAccessed
    | NodeFailed
    | DecodeFailed
    | NodeEjected
    | NodeRestored
    | DeletesReplayed
    | DeletesOverflowed
    | CallDetoured
    | ComputeFinished
    | StampedePrevented
    | StaleServed
    | LeaseLost
    | LockProviderFailed
    | ShadowCompared
    | TopologyChanged
    | OldNodesRead
    | WarmUpEnded
    | ClientCreated
)


class Observer:
    """An observer of a client: one method per kind of event, each optional.

    Subclass it, or bring any object with some of these methods. A method is called in the thread
    or loop of the call it reports (`node_ejected`, `node_restored`, `deletes_replayed` and
    `deletes_overflowed` in any thread of this process), so it must be quick, and must not block. Its
    exceptions are counted (`observer_errors` in `stats()`) and do not reach the caller. It may call the
    client it observes: such calls cause no events for this client's observers, for that would never end.
    One that never calls it may say so by `calls_client = False`, which makes each event cheaper.
    """

    calls_client: bool = True

    def call_finished(self, event: CallFinished) -> None:
        """Handle the end of a call to a node."""

    def operation_finished(self, event: OperationFinished) -> None:
        """Handle the end of an operation of the client."""

    def keys_accessed(self, event: KeysAccessed) -> None:
        """Handle the keys that a node answered for."""

    def node_failed(self, event: NodeFailed) -> None:
        """Handle a node's error."""

    def decode_failed(self, event: DecodeFailed) -> None:
        """Handle a stored value that cannot be decoded."""

    def node_ejected(self, event: NodeEjected) -> None:
        """Handle the ejection of a node."""

    def node_restored(self, event: NodeRestored) -> None:
        """Handle the return of an ejected node."""

    def deletes_replayed(self, event: DeletesReplayed) -> None:
        """Handle the deletes of keys whose writes had failed."""

    def deletes_overflowed(self, event: DeletesOverflowed) -> None:
        """Handle that more writes have failed than a client remembers."""

    def call_detoured(self, event: CallDetoured) -> None:
        """Handle a call that another node got, because the keys' own node is ejected."""

    def compute_finished(self, event: ComputeFinished) -> None:
        """Handle the end of a cached function's call."""

    def stampede_prevented(self, event: StampedePrevented) -> None:
        """Handle a recompute that a caller was spared."""

    def stale_served(self, event: StaleServed) -> None:
        """Handle an old value that was served after its ttl."""

    def lease_lost(self, event: LeaseLost) -> None:
        """Handle the loss of a lock."""

    def lock_provider_failed(self, event: LockProviderFailed) -> None:
        """Handle an error that the lock provider must not raise."""

    def shadow_compared(self, event: ShadowCompared) -> None:
        """Handle a value that was compared with the shadow's; called in the thread that compares."""

    def topology_changed(self, event: TopologyChanged) -> None:
        """Handle a change of the client's nodes."""

    def old_nodes_read(self, event: OldNodesRead) -> None:
        """Handle reads of keys on the nodes that they have moved from."""

    def warm_up_ended(self, event: WarmUpEnded) -> None:
        """Handle the end of the time in which old nodes are asked."""

    def client_created(self, event: ClientCreated) -> None:
        """Handle the creation of a client with this observer."""


METHODS: dict[type[Event], str] = {
    CallFinished: "call_finished",
    OperationFinished: "operation_finished",
    KeysAccessed: "keys_accessed",
    NodeFailed: "node_failed",
    DecodeFailed: "decode_failed",
    NodeEjected: "node_ejected",
    NodeRestored: "node_restored",
    DeletesReplayed: "deletes_replayed",
    DeletesOverflowed: "deletes_overflowed",
    CallDetoured: "call_detoured",
    ComputeFinished: "compute_finished",
    StampedePrevented: "stampede_prevented",
    StaleServed: "stale_served",
    LeaseLost: "lease_lost",
    LockProviderFailed: "lock_provider_failed",
    ShadowCompared: "shadow_compared",
    TopologyChanged: "topology_changed",
    OldNodesRead: "old_nodes_read",
    WarmUpEnded: "warm_up_ended",
    ClientCreated: "client_created",
}


class _Notification:
    """One event on its way to the listeners of `observers`, until it is `over`."""

    __slots__ = ("observers", "over")

    def __init__(self, observers: Observers) -> None:
        self.observers = observers
        self.over = False  # a task that an observer started outlives the notification


# The notifications that the running code is part of, from the outermost.
_notifications: ContextVar[tuple[_Notification, ...]] = ContextVar(
    "shardcache_notifications", default=()
)


class Observers:
    """The observers of one client, and how many times one of them raised.

    False when there are none, so that a `get` pays for one truth test. `heard` are the kinds of
    events that an observer listens for: an event that costs work per key is built only for these.
    """

    __slots__ = ("_call_client", "_listeners", "errors", "heard", "observers")

    def __init__(self, observers: Iterable[object] = ()) -> None:
        self.observers: Sequence[object] = tuple(observers)
        self.errors = 0
        _check(self.observers)
        self._call_client = any(getattr(each, "calls_client", True) for each in self.observers)
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
        """Pass `event` to the listeners for its kind; count their exceptions.

        An event that an observer of this client causes itself is dropped.
        """
        listeners = self._listeners[type(event)]
        if not self._call_client:
            self._call(listeners, event)
            return
        outer = _notifications.get()
        if not listeners or (outer and self._is_notifying(outer)):
            return
        notification = _Notification(self)
        try:
            _notifications.set((*outer, notification))
            self._call(listeners, event)
        finally:
            notification.over = True
            _notifications.set(outer)

    def _call(self, listeners: Iterable[Callable[[Event], object]], event: Event) -> None:
        for listener in listeners:
            try:
                listener(event)
            except Exception:  # noqa: BLE001 - it must not break the client; counted
                self.errors += 1

    def _is_notifying(self, notifications: Iterable[_Notification]) -> bool:
        return any(each.observers is self and not each.over for each in notifications)


def check_observers(observers: object) -> None:
    """Raise `ConfigurationError` for what is no list of observers, as one observer by itself."""
    if isinstance(observers, (str, bytes, Mapping)) or not isinstance(observers, Iterable):
        raise ConfigurationError(
            f"observers: must be a list of observers, not {type(observers).__name__}"
        )


def _check(observers: Iterable[object]) -> None:
    """Raise `ConfigurationError` for observers that would never hear an event."""
    faults = [fault for observer in observers for fault in _faults(observer)]
    if faults:
        raise ConfigurationError(*faults)


def _faults(observer: object) -> Iterator[str]:
    if isinstance(observer, type):
        name = observer.__name__
        yield f"observer {name} is a class: pass an object of it, as in observers=[{name}()]"
        return
    name = type(observer).__name__
    methods = {method: getattr(observer, method, None) for method in METHODS.values()}
    if all(function is None for function in methods.values()):
        yield f"observer {name} has no method of an observer: see shardcache.Observer"
    for method, function in methods.items():
        if iscoroutinefunction(function):
            yield (
                f"observer {name}.{method} is async: "
                "observers are called, not awaited; make it a plain function that starts a task"
            )


def _overrides(observer: object, method: str) -> bool:
    implementation = getattr(type(observer), method, None) or getattr(observer, method, None)
    return implementation is not None and implementation is not getattr(Observer, method)
