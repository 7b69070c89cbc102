"""Records of calls: how long each took, its result, and whether that is allowed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from faults.values import Step, Truth, value_of
from shardcache import NodeError, PartialFailureError

# A value is anything that a client returns, hence `Any`.


class Call(NamedTuple):
    """One call: monotonic seconds, the index of the key's node, and the result."""

    began: float
    seconds: float
    node: int
    outcome: str

    @property
    def ended(self) -> float:
        """Return when it ended."""
        return self.began + self.seconds


class Book:
    """The record of one worker's calls.

    Under `raises` the errors of nodes are documented, else none is. With `keeps` each call is
    noted, else only how many there were, the longest, and how many were `late`: they took that many
    seconds or more.
    """

    def __init__(
        self,
        truth: Truth,
        nodes: Sequence[int],
        *,
        raises: bool = False,
        keeps: bool = True,
        late: float = float("inf"),
    ) -> None:
        self.truth = truth
        self.tally: Counter[str] = Counter()
        self.calls: list[Call] = []
        self.longest = 0.0
        self._nodes = nodes
        self._late = late
        self._documented = (NodeError, PartialFailureError) if raises else ()
        self._keeps = keeps

    def begin(self, step: Step) -> Turn:
        """Return the turn of a call."""
        return Turn(self, step)

    def note(self, turn: Turn, seconds: float, error: Exception | None) -> None:
        """Record the result of a call."""
        outcome = self._outcome(turn, error)
        self.tally[outcome] += 1
        self.longest = max(self.longest, seconds)
        self.tally["late"] += seconds >= self._late
        if self._keeps:
            self.calls.append(Call(turn.began, seconds, self._nodes[turn.step.number], outcome))

    def _outcome(self, turn: Turn, error: Exception | None) -> str:
        if isinstance(error, self._documented):
            return "failed"
        if error is not None:
            self.tally["leaked"] += 1
            return f"leaked: {type(error).__name__}: {error}"
        kind, number = turn.step
        if kind == "get":
            return self._read(number, turn)
        if not turn.answer:
            return f"{kind} not done"
        if kind == "set":
            self.truth.acknowledge(number, turn.sequence)
        else:
            self.truth.acknowledge_delete(number)
        return f"{kind} done"

    def _read(self, number: int, turn: Turn) -> str:
        if turn.answer is None:
            return "miss"
        return self.truth.judge(number, turn.floor, turn.answer) or "hit"


class Turn:
    """A call in progress, which stores its `answer` here. Its error is recorded, not raised."""

    __slots__ = ("answer", "began", "book", "floor", "sequence", "step", "value")

    def __init__(self, book: Book, step: Step) -> None:
        self.book = book
        self.step = step
        self.answer: Any = None
        self.value = ""
        self.sequence = 0
        self.began = 0.0
        self.floor = 0

    def __enter__(self) -> Self:
        truth, number = self.book.truth, self.step.number
        if self.step.kind == "set":
            self.sequence = truth.next_sequence(number)
            self.value = value_of(number, number % truth.writers, self.sequence)
        self.floor = truth.floor(number)
        self.began = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        seconds = time.monotonic() - self.began
        if error is not None and not isinstance(error, Exception):
            return False
        self.book.note(self, seconds, error)
        return True


def total(books: Iterable[Book]) -> Counter[str]:
    """Return the sum of all counts."""
    return sum((book.tally for book in books), Counter())
