"""Values that name their key, writer and sequence, and what a reader can tell from them."""

from __future__ import annotations

from enum import StrEnum
from random import Random
from typing import Any, Final, Literal, NamedTuple

FILLER: Final = "abcdefghijklmnopqrstuvwxyz" * 16


class Wrong(StrEnum):
    """What is wrong with a value that was read."""

    MIXED = "of another key"
    TORN = "torn"
    OLDER = "older than acknowledged"


def key_of(number: int) -> str:
    """Return the name of a key."""
    return f"fault:{number}"


def value_of(number: int, writer: int, sequence: int) -> str:
    """Return the value that `writer` gives a key as its write number `sequence`.

    >>> value_of(7, 3, 12)[:22]
    'fault:7 of 3 as 12 abc'
    """
    return f"{key_of(number)} of {writer} as {sequence} {FILLER[: 5 + sequence * 37 % 400]}."


class Truth:
    """What has been acknowledged of each key. One worker writes it: number modulo `writers`.

    A worker has one write under way at a time, so that the sequence of a key only grows.
    """

    def __init__(self, keys: int, writers: int) -> None:
        self.keys = keys
        self.writers = writers
        self._written = [0] * keys
        self._floors = [0] * keys

    def floor(self, number: int) -> int:
        """Return the lowest sequence that a read which begins now may find."""
        return self._floors[number]

    def next_sequence(self, number: int) -> int:
        """Return the sequence of the write that comes now."""
        self._written[number] += 1
        return self._written[number]

    def acknowledge(self, number: int, sequence: int) -> None:
        """Note that a write was stored."""
        self._floors[number] = sequence

    def acknowledge_delete(self, number: int) -> None:
        """Note that a delete was done: nothing that was written so far may be read again."""
        self._floors[number] = self._written[number] + 1

    def judge(self, number: int, floor: int, value: Any) -> Wrong | None:
        """Return what is wrong with the value of a read that began at this floor."""
        try:
            key, _, writer, _, sequence, _ = value.split(" ")
            right = value == value_of(int(key.partition(":")[2]), int(writer), int(sequence))
        except (AttributeError, TypeError, ValueError):
            return Wrong.TORN
        if not right:
            return Wrong.TORN
        if key != key_of(number):
            return Wrong.MIXED
        return Wrong.OLDER if int(sequence) < floor else None


class Step(NamedTuple):
    """What a worker does next, with which key."""

    kind: Literal["get", "set", "delete"]
    number: int


class Traffic:
    """The calls of one worker: nine in ten read any key, the others write one of its keys.

    The share `deletes` of those others are deletes.
    """

    def __init__(self, truth: Truth, worker: int, seed: int, deletes: float = 0.0) -> None:
        self._random = Random(f"{seed} {worker}")
        self._truth = truth
        self._worker = worker
        self._deletes = deletes

    def next(self) -> Step:
        """Return the next call."""
        chance = self._random.random()
        if chance < 0.9:
            return Step("get", self._random.randrange(self._truth.keys))
        own = range(self._worker, self._truth.keys, self._truth.writers)
        kind: Literal["set", "delete"] = "delete" if (chance - 0.9) * 10 < self._deletes else "set"
        return Step(kind, self._random.choice(own))
