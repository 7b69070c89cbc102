"""`bypass` and `refresh`: blocks of code within which cached functions behave in another way."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextvars import ContextVar
from typing import Final, TypeAlias


class Bypassing:
    """The inside of a `bypass` block."""

    __slots__ = ()


class Refreshing:
    """The inside of a `refresh` block: it knows which values it has recomputed, by name."""

    __slots__ = ("_recomputed",)

    def __init__(self) -> None:
        self._recomputed: set[Hashable] = set()

    def is_due(self, value: Hashable) -> bool:
        """Return whether the block has not recomputed a value yet."""
        return value not in self._recomputed

    def note(self, value: Hashable) -> None:
        """Note that a value was recomputed."""
        self._recomputed.add(value)


Inside: TypeAlias = Bypassing | Refreshing

# The blocks that the running code is in, each with its inside; the last is the innermost, which counts.
entered: Final[ContextVar[tuple[tuple[Block, Inside], ...]]] = ContextVar(
    "shardcache_blocks", default=()
)


class Block:
    """A `with` block that changes how cached functions behave inside it.

    It holds for what the running thread or task calls, and for the tasks that it starts. A block
    has no state, so one object may be entered again, and by many threads at once. Blocks may end in
    any order, as those of fixtures and generators do: each ends itself alone.
    """

    __slots__ = ("_inside",)

    def __init__(self, inside: Callable[[], Inside]) -> None:
        self._inside = inside

    def __enter__(self) -> None:
        entered.set((*entered.get(), (self, self._inside())))

    def __exit__(self, *_: object) -> None:
        blocks = list(entered.get())
        for place in reversed(range(len(blocks))):
            if blocks[place][0] is self:
                del blocks[place]
                break
        entered.set(tuple(blocks))


def bypass() -> Block:
    """Return a block that bypasses the cache: `with shardcache.bypass(): …`.

    Inside it a call of a cached function, or of `get_or_set`, calls the function, and neither reads
    nor stores. Calls that name the cache, such as `f.get(…)` or `client.set(…)`, are not changed. The
    block holds in this thread or task, and in the tasks that it starts; a block within it replaces it.

    >>> from shardcache import Client, bypass
    >>> client = Client("memory://a,b,c")
    >>> with bypass():
    ...     client.get_or_set("answer", lambda: 42, ttl=60)
    42
    >>> client.get("answer") is None
    True
    """
    return Block(Bypassing)


def refresh() -> Block:
    """Return a block that recomputes cached values: `with shardcache.refresh(): …`.

    Inside it a cached function, or `get_or_set`, recomputes each value once, whatever is stored, and
    stores it; the functions that it calls do so too. Callers of this process that want a value
    refreshed at the same time share one recompute. Another call for the value in the block is an
    ordinary one. Where a block holds, see `bypass`.
    """
    return Block(Refreshing)


def bypassed() -> bool:
    """Return whether the running code is in a `bypass` block."""
    return isinstance(_innermost(), Bypassing)


def refreshing() -> Refreshing | None:
    """Return the inside of the `refresh` block that the running code is in, `None` if it is in none."""
    inside = _innermost()
    return inside if isinstance(inside, Refreshing) else None


def _innermost() -> Inside | None:
    """Return the inside of the innermost block, `None` if the running code is in none."""
    blocks = entered.get()
    return blocks[-1][1] if blocks else None
