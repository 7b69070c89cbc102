"""What the author of a hashing strategy implements: from a set of nodes to a placement of keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from shardcache.core.placement.nodes import Node


class Placement(Protocol):
    """Where every key lives, for one set of nodes. Immutable, and safe between threads.

    It may also have `owners`, a function from a list of keys to their nodes in order, if that takes
    less than a call of `owner` for each.
    """

    @property
    def owner(self) -> Callable[[bytes], Node]:
        """Return the function from a key to its node: called for every key, so a plain closure."""

    @property
    def digest(self) -> bytes:
        """Return a digest of all that decides placement: hash, parameters, nodes, and the table."""

    def preference(self, key: bytes, count: int) -> Sequence[Node]:
        """Return up to `count` distinct nodes in order, owner first; the same list each time."""


class HashRanges(NamedTuple):
    """A placement as ranges of the hash space, each with one owner, so that it can be measured exactly.

    Range `i` begins at the end of the one before it, or at 0, and ends before `ends[i]`. The last
    end is the size of the space. `owner(i)` returns the node of range `i`. `space` names the hash;
    two placements can be compared only if their `space` is equal. `cost` is roughly how many hashes
    one call of `owner` takes.
    """

    space: str
    ends: Sequence[int]
    owner: Callable[[int], Node]
    cost: int = 1


@runtime_checkable
class Measurable(Protocol):
    """A placement that can be measured exactly: an optional capability."""

    def hash_ranges(self) -> HashRanges | None:
        """Return the placement as ranges of the hash space; `None` if it is not made of ranges."""


class Strategy(Protocol):
    """A way of spreading keys over nodes."""

    @property
    def name(self) -> str:
        """Return the registered name with its options: `ketama:profile=twemproxy`."""

    @property
    def hashes_namespace(self) -> bool:
        """Return whether the namespace is part of the hashed bytes.

        True for shardcache's own strategies. False for those that find the keys of another client,
        which hashes the caller's key alone.
        """

    def build(self, nodes: Sequence[Node]) -> Placement:
        """Return the placement of all keys on `nodes`; raise `TopologyError` if that is impossible.

        `nodes` is not empty, its names are distinct, and its weights are above zero.
        """

    def check_change(self, before: Sequence[Node], after: Sequence[Node]) -> None:
        """Raise `TopologyError` for a change of nodes that this strategy cannot follow.

        It is called before `build`. Most strategies follow any change. `jump` does not: its nodes
        come and leave only at the end of the list.
        """


class StrategyFactory(Protocol):
    """Makes a strategy from the options after its name: what a plugin registers."""

    def __call__(self, **options: Any) -> Strategy:  # texts from settings, or natural types
        """Make the strategy; raise `ConfigurationError` naming an unknown or bad option."""
