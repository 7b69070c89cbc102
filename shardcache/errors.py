"""Everything shardcache raises.

::

    ShardCacheError
    ├── ConfigurationError            bad settings; lists every fault found
    │   ├── UnknownPluginError        names what is known
    │   └── TopologyError             no nodes, duplicate names, zero weight
    ├── ClientClosedError
    ├── ClientCopyError (TypeError)   a client cannot be copied or pickled
    ├── InvalidKeyError (ValueError)
    ├── CodecError ── EncodeError, DecodeError
    ├── NodeError                     .node; always `from` the library's own error
    │   ├── NodeUnavailableError      refused, reset, DNS, loading, ejected
    │   │   └── TooManyConnectionsError  the node takes no more, and the client has none open
    │   ├── NodeTimeoutError (TimeoutError)
    │   │   ├── ConnectTimeoutError   no connection was made in time
    │   │   └── PoolTimeoutError      no connection in the client's pool came free in time
    │   ├── NodeProtocolError         the answer made no sense
    │   └── NodeRefusedError          the node said no: read only, auth, out of memory
    │       ├── ValueTooLargeError
    │       └── NotACounterError
    ├── PartialFailureError           .found or .succeeded, .failed, .total
    ├── CheckFailedError              .faults of nodes that cannot serve, .passed
    ├── UnsupportedError              the backend lacks a capability
    ├── KeyBuildError (TypeError)     a call's arguments give no cache key
    ├── UncacheableResultError        the result of a cached function cannot be stored
    ├── RecomputeTimeoutError         another caller's value did not come in time (TimeoutError)
    └── LockError
        ├── LockTimeout               held by another client (TimeoutError)
        ├── LockUnavailable           too few lock nodes could be reached
        └── LockLost                  the client does not hold the lease
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final


def printable(text: str) -> str:
    r"""Return text that is safe in a terminal or a log: unprintable characters become escapes.

    Those are controls, escape sequences, line ends, bidirectional marks and surrogates.

    >>> print(printable("a\x1b[2J\u202eb"))
    a\x1b[2J\u202eb
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


_NODES_NAMED: Final = 5  # in a message about many nodes


class ShardCacheError(Exception):
    """The root of everything shardcache raises.

    Every error can be pickled and copied, with its message and all its attributes. As with any
    exception, cause and traceback are left out.
    """

    # Python copies an exception by calling its class with `args`, which hold the message. Classes
    # with other parameters could not be unpickled, which breaks a pool of processes.
    def __reduce__(self) -> tuple[Any, ...]:  # as `object` has it
        return _restore, (type(self), self.args), vars(self)


def _restore(kind: type[ShardCacheError], args: tuple[Any, ...]) -> ShardCacheError:
    """Return an error of `kind` with these `args`, without calling `__init__`."""
    error = kind.__new__(kind, *args)
    error.args = args  # OSError's `__new__` drops them if the class has an `__init__`
    return error


class ConfigurationError(ShardCacheError):
    """Settings that cannot work; the message lists every fault found.

    `faults` holds each fault with the place it came from.
    """

    def __init__(self, *faults: str) -> None:
        self.faults: tuple[str, ...] = faults
        super().__init__(faults[0] if len(faults) == 1 else _list_of(faults))


def _list_of(faults: Sequence[str]) -> str:
    lines = "".join(f"\n  - {fault}" for fault in faults)
    return f"{len(faults)} faults in the settings:{lines}"


class UnknownPluginError(ConfigurationError):
    """A name that is not registered; the message lists those that are.

    `name` is the unknown name. The message leaves it out, as messages about settings leave out all
    values: it may be a secret in the wrong place.

    >>> print(UnknownPluginError("strategy", "kettle", ["ketama", "jump"]))
    no such strategy (known: jump, ketama)
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind = kind
        self.name = name
        self.known = tuple(sorted(known))
        super().__init__(f"no such {kind} (known: {', '.join(self.known) or 'none'})")


class TopologyError(ConfigurationError):
    """A set of nodes that cannot hold keys: none, two of one name, a weight of zero."""


class ClientClosedError(ShardCacheError):
    """The client was used after it had been closed."""


class ClientCopyError(ShardCacheError, TypeError):
    """A client cannot be copied or pickled; the message says what to do instead."""


class InvalidKeyError(ShardCacheError, ValueError):
    """A key that is empty, or neither `str` nor `bytes`."""


class CodecError(ShardCacheError):
    """A value could not be encoded, or stored bytes could not be decoded."""


class EncodeError(CodecError):
    """The value cannot be stored; the message names its type and the ways out."""


class DecodeError(CodecError):
    """The stored bytes are not what this codec writes; the message never shows them."""


class NodeError(ShardCacheError):
    """A node failed or refused; `node` is its name. The library's own error is the cause.

    The message is one line of printable characters, because it may quote a server.
    """

    def __init__(self, message: str, node: str = "") -> None:
        self.node = node
        super().__init__(printable(f"{node}: {message}" if node else message))


class NodeUnavailableError(NodeError):
    """The node cannot be reached, reports that it cannot serve now, or is ejected for either.

    `sent` is whether the command may have reached the node: false if it was already ejected.
    """

    sent = True


class TooManyConnectionsError(NodeUnavailableError):
    """The node takes no more connections, and the client has no open one to use."""


class NodeTimeoutError(NodeError, TimeoutError):
    """The call's deadline passed before the node answered.

    `excused` is whether the node is not to blame: it was sending, or this process was held up.
    """

    excused = False


class ConnectTimeoutError(NodeTimeoutError):
    """No connection to the node was made in time."""


class PoolTimeoutError(NodeTimeoutError):
    """No connection in the client's pool came free in time; says nothing about the node."""


class NodeProtocolError(NodeError):
    """The node's answer made no sense; the connection was closed."""


class NodeRefusedError(NodeError):
    """The node understood and refused: read only, no permission, out of memory."""


class ValueTooLargeError(NodeRefusedError):
    """The value is larger than the node takes."""


class NotACounterError(NodeRefusedError):
    """`incr` or `decr` met a value that is not a whole number in the range of its counter."""


class PartialFailureError(ShardCacheError):
    """Some nodes of a call over many keys failed, under `on_error="raise"`.

    `found` maps the keys that were read to their values. `succeeded` holds the keys that were
    written. `failed` maps every other key to its `NodeError`, or to the `DecodeError` of its stored
    bytes. `total` is the number of keys in the call, `nodes` the number of nodes asked. `flush_all`
    asks nodes: `failed` and `succeeded` then hold node names, and `nodes` is `None`.
    """

    def __init__(
        self,
        failed: Mapping[str | bytes, NodeError | DecodeError],
        *,
        total: int,
        nodes: int | None = None,
        found: Mapping[str | bytes, Any] | None = None,  # values are the caller's own
        succeeded: Sequence[str | bytes] = (),
    ) -> None:
        self.failed = dict(failed)
        self.found = dict(found or {})
        self.succeeded = list(succeeded)
        self.total = total
        self.nodes = nodes
        of = "nodes" if nodes is None else "keys"
        super().__init__(f"{len(self.failed)} of {total} {of} failed{self._why()}")

    def _why(self) -> str:
        """Return the first error of each node, for the first few nodes by name."""
        errors = list(self.failed.values())
        reasons = {
            error.node: str(error) for error in reversed(errors) if isinstance(error, NodeError)
        }
        unread = sum(isinstance(error, DecodeError) for error in errors)
        parts = []
        if reasons:
            named = [reasons[node] for node in sorted(reasons)[:_NODES_NAMED]]
            more = len(reasons) - len(named)
            named += [f"and {more} more"] * bool(more)
            where = "" if self.nodes is None else f" on {len(reasons)} of {self.nodes} nodes"
            parts.append(f"{where} ({'; '.join(named)})")
        if unread:
            count = f"{unread} of them " if reasons else ""
            parts.append(f", {count}because the stored value cannot be read")
        return "".join(parts)


class CheckFailedError(ShardCacheError):
    """`check` found nodes that cannot do everything the client needs.

    `faults` maps each of their names to what is wrong and what to do about it. `passed` maps the
    other names to their `NodeCheck`, as `check` returns it.
    """

    def __init__(
        self,
        faults: Mapping[str, Sequence[str]],
        passed: Mapping[str, Any] | None = None,  # `NodeCheck`s, of a layer above
    ) -> None:
        self.faults = {name: tuple(each) for name, each in faults.items()}
        self.passed = dict(passed or {})
        count = len(self.faults) + len(self.passed)
        lines = [f"\n  - {name}: {fault}" for name, each in self.faults.items() for fault in each]
        super().__init__(
            f"{len(self.faults)} of {count} nodes cannot serve this client:{''.join(lines)}"
        )


class UnsupportedError(ShardCacheError):
    """The backend does not support the call."""


class KeyBuildError(ShardCacheError, TypeError):
    """A call gives no cache key; the message names the argument and the ways out."""


class UncacheableResultError(ShardCacheError):
    """The codec does not take a cached function's result; the `EncodeError` is the cause."""


class RecomputeTimeoutError(ShardCacheError, TimeoutError):
    """Another caller did not finish its recompute within `wait`, under `on_timeout="raise"`."""


class LockError(ShardCacheError):
    """The root of all errors about locks."""


class LockTimeout(LockError, TimeoutError):  # noqa: N818 - the field's name for it
    """Another client held the lock for as long as the caller waited."""


class LockUnavailable(LockError):  # noqa: N818 - as above
    """Too few lock nodes for a majority could be reached, or the lock service could not.

    `errors` maps the names of nodes to reasons.
    """

    def __init__(self, message: str, errors: Mapping[str, NodeError] | None = None) -> None:
        self.errors = dict(errors or {})
        super().__init__(message)


class LockLost(LockError):  # noqa: N818 - as above
    """The lease has expired, was lost to another client, or was released."""
