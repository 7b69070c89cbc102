"""Everything shardcache raises.

::

    ShardCacheError
    ├── ConfigurationError            bad settings; lists every fault found
    │   ├── UnknownPluginError        names what is known
    │   └── TopologyError             no nodes, duplicate names, zero weight
    ├── ClientClosedError
    ├── ClientCopyError (TypeError)   a client was to be copied or pickled
    ├── InvalidKeyError (ValueError)
    ├── CodecError ── EncodeError, DecodeError
    ├── NodeError                     .node; always `from` the library's own error
    │   ├── NodeUnavailableError      refused, reset, DNS, loading, ejected
    │   │   └── TooManyConnectionsError  it takes no more, and none of ours is open
    │   ├── NodeTimeoutError (TimeoutError)
    │   │   ├── ConnectTimeoutError   nothing took the connection in time
    │   │   └── PoolTimeoutError      no connection of ours came free in time
    │   ├── NodeProtocolError         the answer made no sense
    │   └── NodeRefusedError          the node said no: read only, auth, out of memory
    │       ├── ValueTooLargeError
    │       └── NotACounterError
    ├── PartialFailureError           .found or .succeeded, .failed, .total
    ├── CheckFailedError              .faults of nodes that cannot serve, .passed
    ├── UnsupportedError              the backend lacks a capability
    ├── KeyBuildError (TypeError)     no cache key can be made of a call's arguments
    ├── UncacheableResultError        what a cached function gave cannot be stored
    ├── RecomputeTimeoutError         another's value did not come in time (TimeoutError)
    └── LockError
        ├── LockTimeout               held by another (TimeoutError)
        ├── LockUnavailable           too few lock nodes could be reached
        └── LockLost                  the lease is no longer, or never was, ours
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final


def printable(text: str) -> str:
    r"""Return text that does nothing to a terminal or a log: each unprintable character as its escape.

    Controls, escape sequences, line ends, bidirectional marks and surrogates are such characters.

    >>> print(printable("a\x1b[2J\u202eb"))
    a\x1b[2J\u202eb
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


_NODES_TOLD: Final = 5  # in a message about many nodes


class ShardCacheError(Exception):
    """The root of everything shardcache raises.

    Each error pickles, and copies, with its message and all its attributes; as with any exception
    its cause and its traceback stay behind.
    """

    # Exceptions are copied by calling their class with `args`, which hold the message. Classes that
    # take other arguments could not be unpickled so, which breaks a pool of processes.
    def __reduce__(self) -> tuple[Any, ...]:  # as `object` has it
        return _restore, (type(self), self.args), vars(self)


def _restore(kind: type[ShardCacheError], args: tuple[Any, ...]) -> ShardCacheError:
    """Return an error of `kind` that says what `args` hold, without calling `__init__`."""
    error = kind.__new__(kind, *args)
    error.args = args  # an OSError takes none of them in `__new__` if its class has an `__init__`
    return error


class ConfigurationError(ShardCacheError):
    """Settings that cannot work; the message lists every fault found.

    `faults` holds them one by one, each with where it came from.
    """

    def __init__(self, *faults: str) -> None:
        self.faults: tuple[str, ...] = faults
        super().__init__(faults[0] if len(faults) == 1 else _listed(faults))


def _listed(faults: Sequence[str]) -> str:
    lines = "".join(f"\n  - {fault}" for fault in faults)
    return f"{len(faults)} faults in the settings:{lines}"


class UnknownPluginError(ConfigurationError):
    """A name nobody registered; says which are known.

    `name` is the one that was given. The message leaves it out, as that of every setting leaves out
    its value: it may be a secret that stands in the wrong place.

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
    """A client was to be copied or pickled; the message says what to do in place of that."""


class InvalidKeyError(ShardCacheError, ValueError):
    """A key that is empty, or is neither `str` nor `bytes`."""


class CodecError(ShardCacheError):
    """A value and its bytes could not be turned into one another."""


class EncodeError(CodecError):
    """The value cannot be stored; the message names its type and the ways out."""


class DecodeError(CodecError):
    """The stored bytes are not what this codec writes; their content is never shown."""


class NodeError(ShardCacheError):
    """A node did not do as asked; `node` is its name. The library's own error is the cause.

    Its message is one line of printable letters, for it may quote what a server has sent.
    """

    def __init__(self, message: str, node: str = "") -> None:
        self.node = node
        super().__init__(printable(f"{node}: {message}" if node else message))


class NodeUnavailableError(NodeError):
    """The node cannot be reached, says that it cannot serve now, or is ejected for such a reason.

    `sent` is whether the command may have reached it: not where the node was ejected before.
    """

    sent = True


class TooManyConnectionsError(NodeUnavailableError):
    """The node takes no more connections, and this client has no open one that it could use."""


class NodeTimeoutError(NodeError, TimeoutError):
    """The call's deadline passed before the node had answered.

    `excused` is whether that says nothing of the node: it was sending, or this process was held up.
    """

    excused = False


class ConnectTimeoutError(NodeTimeoutError):
    """No connection to the node came about in time."""


class PoolTimeoutError(NodeTimeoutError):
    """No connection of this client's own pool came free in time; says nothing about the node."""


class NodeProtocolError(NodeError):
    """The node's answer made no sense; the connection was closed."""


class NodeRefusedError(NodeError):
    """The node understood and said no: read only, no permission, out of memory."""


class ValueTooLargeError(NodeRefusedError):
    """The value is larger than the node takes."""


class NotACounterError(NodeRefusedError):
    """`incr` or `decr` met a value that is no whole number from 0 to 2**63 - 1."""


class PartialFailureError(ShardCacheError):
    """Some nodes of a call over many keys failed, under `on_error="raise"`.

    `found` maps the keys that were read to their values, `succeeded` holds the keys that were
    written, `failed` maps each key that was neither to its `NodeError`, or to the `DecodeError` of
    what is stored there. `total` is how many keys the call was about, `nodes` how many nodes were
    asked. `flush_all` is about nodes: `failed` and `succeeded` hold their names, and `nodes` is `None`.
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
        """Return on which nodes and why, with the first error of each node, of a few nodes."""
        errors = list(self.failed.values())
        reasons = {
            error.node: str(error) for error in reversed(errors) if isinstance(error, NodeError)
        }
        unread = sum(isinstance(error, DecodeError) for error in errors)
        parts = []
        if reasons:
            told = [reasons[node] for node in sorted(reasons)[:_NODES_TOLD]]
            more = len(reasons) - len(told)
            told += [f"and {more} more"] * bool(more)
            where = "" if self.nodes is None else f" on {len(reasons)} of {self.nodes} nodes"
            parts.append(f"{where} ({'; '.join(told)})")
        if unread:
            count = f"{unread} of them " if reasons else ""
            parts.append(f", {count}because what is stored cannot be read")
        return "".join(parts)


class CheckFailedError(ShardCacheError):
    """`check` found nodes that cannot do all that the client needs.

    `faults` maps the name of each to what is wrong with it and what to do; `passed` maps the names
    of the others to what was found of them, as `check` returns it.
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
    """The backend lacks what the call needs."""


class KeyBuildError(ShardCacheError, TypeError):
    """No cache key can be made of a call; the message names the argument and the ways out."""


class UncacheableResultError(ShardCacheError):
    """A cached function gave what its codec does not take; the `EncodeError` is the cause."""


class RecomputeTimeoutError(ShardCacheError, TimeoutError):
    """The value that another caller is making did not come within `wait`, under `on_timeout="raise"`."""


class LockError(ShardCacheError):
    """Something about a lock."""


class LockTimeout(LockError, TimeoutError):  # noqa: N818 - the field's name for it
    """The lock was held by another client for as long as the caller waited."""


class LockUnavailable(LockError):  # noqa: N818 - as above
    """Too few of the lock's nodes could be reached to be a majority; `errors` says of each why."""

    def __init__(self, message: str, errors: Mapping[str, NodeError] | None = None) -> None:
        self.errors = dict(errors or {})
        super().__init__(message)


class LockLost(LockError):  # noqa: N818 - as above
    """The lease has expired, was lost to another, or was released."""
