"""A count of the objects that are still alive, which no interrupt makes wrong."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class LiveObjects(Generic[T]):
    """The added objects that are still alive, by weak references alone.

    Not a `WeakSet`: an interrupt in its Python code can leave dead references in it for ever. It
    needs no lock, because each step is a single operation of a dict.
    """

    __slots__ = ("_references",)

    def __init__(self) -> None:
        self._references: dict[int, weakref.ref[T]] = {}

    def add(self, item: T) -> None:
        """Start to count an object."""
        self._references[id(item)] = weakref.ref(item)

    def discard(self, item: T) -> None:
        """Stop counting an object."""
        self._references.pop(id(item), None)

    def count(self) -> int:
        """Return how many objects are alive."""
        return sum(1 for _ in self)

    def count_with_dead(self) -> int:
        """Return an upper bound at no cost: dead objects are counted as well."""
        return len(self._references)

    def remove_dead(self) -> None:
        """Remove the references to dead objects."""
        # Not `items()`: building its pairs may collect garbage, and a dying object may change the dict.
        for number in list(self._references):
            reference = self._references.get(number)
            if reference and reference() is None and self._references.get(number) is reference:
                self._references.pop(number, None)

    def __iter__(self) -> Iterator[T]:
        for reference in list(self._references.values()):
            if (item := reference()) is not None:
                yield item
