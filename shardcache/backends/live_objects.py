"""The objects of a kind that are still alive: a count that no interrupt makes wrong."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class LiveObjects(Generic[T]):
    """The objects added that are still alive. It holds weak references only.

    Not a `WeakSet`: an interrupt in its Python code leaves the dead in it for ever. Safe without a
    lock, for each step is one of a dict's own.
    """

    __slots__ = ("_references",)

    def __init__(self) -> None:
        self._references: dict[int, weakref.ref[T]] = {}

    def add(self, held: T) -> None:
        """Count it from now on."""
        self._references[id(held)] = weakref.ref(held)

    def discard(self, held: T) -> None:
        """Count it no more."""
        self._references.pop(id(held), None)

    def count(self) -> int:
        """Return how many there are."""
        return sum(1 for _ in self)

    def count_with_dead(self) -> int:
        """Return how many there are, the dead among them: at no cost."""
        return len(self._references)

    def remove_dead(self) -> None:
        """Remove the references to what has died."""
        # Not its items: making pairs may collect garbage, and what dies then may change the dict.
        for number in list(self._references):
            reference = self._references.get(number)
            if reference and reference() is None and self._references.get(number) is reference:
                self._references.pop(number, None)

    def __iter__(self) -> Iterator[T]:
        for reference in list(self._references.values()):
            if (held := reference()) is not None:
                yield held
