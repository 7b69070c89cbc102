"""What a hashing strategy promises: from a set of nodes to a placement of every key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from shardcache.core.nodes import Node


class Placement(Protocol):
    """Where every key lives, for one set of nodes. Immutable, and safe between threads."""

    @property
    def owner(self) -> Callable[[bytes], Node]:
        """Return the function from a key to the node that holds it: hot, so a plain closure."""

    @property
    def digest(self) -> bytes:
        """Return a digest of all that decides placement: hash, parameters, nodes, and the table."""

    def preference(self, key: bytes, count: int) -> Sequence[Node]:
        """Return up to `count` distinct nodes in order, the owner first; the same list each time."""


class HashRanges(NamedTuple):
    """The space of hashes cut into runs, each with one owner: a placement one can measure exactly.

    Run `i` goes from the end of the run before it, or 0, up to but without `ends[i]`; the last end
    is the size of the space, and `owner(i)` gives the run's node. `space` names what is hashed and
    how: two placements compare run by run only when theirs are equal. `cost` is roughly how many
    hashes one call of `owner` takes.
    """

    space: str
    ends: Sequence[int]
    owner: Callable[[int], Node]
    cost: int = 1


@runtime_checkable
class Measurable(Protocol):
    """What a placement may offer beyond the rest, so that movement and balance are exact."""

    def hash_ranges(self) -> HashRanges | None:
        """Return the placement as runs of the hash space; `None` when it is not made of such."""


class Strategy(Protocol):
    """A way of spreading keys over nodes."""

    @property
    def name(self) -> str:
        """Return the registered name with its options: `ketama:profile=twemproxy`."""

    @property
    def hashes_namespace(self) -> bool:
        """Return whether the namespace is part of what is hashed.

        True for our own strategies; false for those that keep keys where another client, which
        hashes the caller's key alone, has put them.
        """

    def build(self, nodes: Sequence[Node]) -> Placement:
        """Place every key on `nodes`; raise `TopologyError` for nodes that cannot be placed.

        `nodes` is not empty, its names are distinct and its weights above zero.
        """

    def check_change(self, before: Sequence[Node], after: Sequence[Node]) -> None:
        """Raise `TopologyError` for a change of nodes that this strategy cannot follow.

        Whoever changes a topology calls it before `build`. Most strategies follow any change; one
        like `jump`, whose nodes come and leave at the end of the list only, says no here.
        """


class StrategyFactory(Protocol):
    """Makes a strategy from the options behind its name: what a plugin registers."""

    def __call__(self, **options: Any) -> Strategy:  # texts from settings, or natural types
        """Make the strategy; raise `ConfigurationError` naming an option that is unknown or bad."""
