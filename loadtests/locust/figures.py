"""What a process saw of a run, in half seconds and by node; figures of many processes add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, Self

STEP: Final = 0.5  # seconds that are counted together
DIGITS: Final = 2  # of a length of time: its error is at most 5 %

# Figures travel as plain lists and dicts of JSON and msgpack, hence `Any`.
Plain = dict[str, Any]


class Happening(NamedTuple):
    """Something that took place at a moment: a node ejected or restored, a value recomputed."""

    moment: float
    what: str
    where: str


class Window(NamedTuple):
    """A stretch of a run, in seconds from its start: `begin` is part of it, `end` is not."""

    begin: float
    end: float

    def has(self, moment: float) -> bool:
        """Return whether a moment falls into it."""
        return self.begin <= moment < self.end


EVER: Final = Window(float("-inf"), float("inf"))


class Figures:
    """Counts, lengths of calls, and happenings; moments are seconds from the start of the run.

    Counts are of `calls`, `errors`, `wrong` values, writes `not stored`, calls `not made` in time,
    and of keys read: `hits`, `misses`, and `expired` ones, of which a miss says nothing.
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[int, str, str]] = Counter()
        self._lengths: Counter[tuple[int, str, int]] = Counter()
        self._lags: Counter[tuple[int, int]] = Counter()
        self.happenings: list[Happening] = []

    def count(self, moment: float, node: str, what: str, number: float = 1) -> None:
        """Add a number to a count of a node."""
        self._counts[_step(moment), node, what] += number  # type: ignore[assignment]

    def call(self, moment: float, node: str, seconds: float) -> None:
        """Take note of a call to a node that began at `moment`, and how long it took."""
        step = _step(moment)
        self._counts[step, node, "calls"] += 1
        self._lengths[step, node, _rounded(seconds)] += 1

    def lag(self, moment: float, seconds: float) -> None:
        """Take note of how late this process itself woke up."""
        self._lags[_step(moment), _rounded(seconds)] += 1

    def happen(self, moment: float, what: str, where: str = "") -> None:
        """Take note of something that took place."""
        self.happenings.append(Happening(round(moment, 3), what, where))

    # What is asked of them.

    def total(self, what: str, within: Window = EVER, where: Where = lambda _node: True) -> float:
        """Return a count, of some stretch and of the nodes that `where` is true of."""
        return sum(
            number
            for (step, node, kind), number in self._counts.items()
            if kind == what and within.has(step * STEP) and where(node)
        )

    def first(self, what: str, within: Window, node: str) -> float | None:
        """Return the begin of the first step in which a node had a count; `None` without any."""
        steps = (
            step * STEP
            for (step, where, kind), number in self._counts.items()
            if (where, kind) == (node, what) and number and within.has(step * STEP)
        )
        return min(steps, default=None)

    def by_node(self, what: str) -> dict[str, float]:
        """Return a count for each node."""
        nodes: Counter[str] = Counter()
        for (_, node, kind), number in self._counts.items():
            if kind == what:
                nodes[node] += number
        return dict(sorted(nodes.items()))

    def hit_rate(self, within: Window = EVER) -> float | None:
        """Return hits among the reads that say something; `None` without any."""
        hits, misses = self.total("hits", within), self.total("misses", within)
        return hits / (hits + misses) if hits + misses else None

    def percentile(
        self, share: float, within: Window = EVER, where: Where = lambda _node: True
    ) -> float | None:
        """Return the seconds within which a share of the calls was over; `None` without calls."""
        lengths: Counter[int] = Counter()
        for (step, node, length), number in self._lengths.items():
            if within.has(step * STEP) and where(node):
                lengths[length] += number
        return _percentile(lengths, share)

    def lag_percentile(self, share: float, within: Window = EVER) -> float | None:
        """Return the seconds within which this process woke up; `None` when nobody looked."""
        lags: Counter[int] = Counter()
        for (step, lag), number in self._lags.items():
            if within.has(step * STEP):
                lags[lag] += number
        return _percentile(lags, share)

    def happened(self, what: str, within: Window = EVER, where: str | None = None) -> list[float]:
        """Return the moments at which something took place, the first one first."""
        return sorted(
            one.moment
            for one in self.happenings
            if one.what == what and within.has(one.moment) and where in {None, one.where}
        )

    def latest(self) -> float:
        """Return the begin of the last step in which there were calls; 0 without any."""
        return max((step * STEP for step, _, kind in self._counts if kind == "calls"), default=0.0)

    # How they travel.

    def plain(self) -> Plain:
        """Return the figures as plain lists."""
        return {
            "counts": [[*key, number] for key, number in self._counts.items()],
            "lengths": [[*key, number] for key, number in self._lengths.items()],
            "lags": [[*key, number] for key, number in self._lags.items()],
            "happenings": [list(one) for one in self.happenings],
        }

    def take(self) -> Plain:
        """Return the figures as plain lists, and begin again from nothing."""
        plain = self.plain()
        for counts in (self._counts, self._lengths, self._lags, self.happenings):
            counts.clear()  # type: ignore[attr-defined]
        return plain

    def add(self, plain: Plain) -> None:
        """Add what another process took."""
        for *key, number in plain["counts"]:
            self._counts[tuple(key)] += number  # type: ignore[index]
        for *key, number in plain["lengths"]:
            self._lengths[tuple(key)] += number  # type: ignore[index]
        for *key, number in plain["lags"]:
            self._lags[tuple(key)] += number  # type: ignore[index]
        self.happenings.extend(Happening(*one) for one in plain["happenings"])

    @classmethod
    def of(cls, plain: Plain) -> Self:
        """Return the figures of plain lists."""
        figures = cls()
        figures.add(plain)
        return figures


Where = Callable[[str], bool]


def bursts(moments: Iterable[float], gap: float) -> list[int]:
    """Return how many moments there are in each group that nothing but a `gap` separates.

    >>> bursts([1.0, 1.1, 5.0], gap=2)
    [2, 1]
    """
    sizes: list[int] = []
    last = float("-inf")
    for moment in sorted(moments):
        if moment - last > gap:
            sizes.append(0)
        sizes[-1] += 1
        last = moment
    return sizes


def _step(moment: float) -> int:
    return int(moment // STEP)


def _rounded(seconds: float) -> int:
    """Return microseconds with two digits, so that a process keeps few lengths apart."""
    return int(float(f"{seconds * 1e6:.{DIGITS - 1}e}"))


def _percentile(counts: Mapping[int, int], share: float) -> float | None:
    wanted = share * sum(counts.values())
    seen = 0
    for length in sorted(counts):
        seen += counts[length]
        if seen >= wanted:
            return length / 1e6
    return None
