"""What was seen of a run, in half seconds, by node; figures of many processes add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

STEP: Final = 0.5  # seconds that are counted together
DIGITS: Final = 2  # of a length of time: its error is at most 5 %

# Figures travel as plain lists and dicts of JSON and msgpack, hence `Any`.
Plain = dict[str, Any]
Where = Callable[[str], bool]


class Event(NamedTuple):
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


@dataclass(slots=True)
class Step:
    """Half a second: counts by node and kind, lengths of calls by node, lateness of this process."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    lengths: Counter[tuple[str, int]] = field(default_factory=Counter)
    lags: Counter[int] = field(default_factory=Counter)


def anywhere(_node: str) -> bool:
    """Return that a node counts, whichever it is."""
    return True


class Figures:
    """Counts, lengths of calls, and events; moments are seconds from the start of the run.

    Counts are of `calls`, `errors`, `hung` calls, `wrong` values, writes `not stored`, calls that
    were due and `made` or `not made`, and of keys read: `hits`, `misses`, and `expired` ones, which
    are gone because their time to live is over. `loads` are keys that were there once and had to be
    read from their source, `loads again` those of a key that had been loaded during the same fault.
    """

    def __init__(self) -> None:
        self._steps: dict[int, Step] = {}
        self.events: list[Event] = []

    def count(self, moment: float, node: str, what: str, number: float = 1) -> None:
        """Add a number to a count of a node."""
        if number:
            self._step(moment).counts[node, what] += number  # type: ignore[assignment]

    def call(self, moment: float, node: str, seconds: float) -> None:
        """Count a call to a node that began at `moment`, and how long it took."""
        step = self._step(moment)
        step.counts[node, "calls"] += 1
        step.lengths[node, _rounded(seconds)] += 1

    def lag(self, moment: float, seconds: float) -> None:
        """Count how late this process itself woke up."""
        self._step(moment).lags[_rounded(seconds)] += 1

    def event(self, moment: float, what: str, where: str = "") -> None:
        """Keep something that took place."""
        self.events.append(Event(round(moment, 3), what, where))

    # What is asked of them.

    def total(self, what: str, within: Window = EVER, where: Where = anywhere) -> float:
        """Return a count, of some stretch and of the nodes that `where` is true of."""
        return sum(
            number
            for _, step in self._within(within)
            for (node, kind), number in step.counts.items()
            if kind == what and where(node)
        )

    def first(self, what: str, within: Window, node: str) -> float | None:
        """Return the begin of the first step in which a node had a count; `None` without any."""
        steps = (number for number, step in self._within(within) if step.counts[node, what])
        first = min(steps, default=None)
        return None if first is None else first * STEP

    def by_node(self, what: str) -> dict[str, float]:
        """Return a count for each node."""
        nodes: Counter[str] = Counter()
        for step in self._steps.values():
            for (node, kind), number in step.counts.items():
                if kind == what:
                    nodes[node] += number
        return dict(sorted(nodes.items()))

    def hit_rate(self, within: Window = EVER, *, kept: bool = False) -> float | None:
        """Return hits among all reads; `None` without any.

        With `kept`, a value whose time to live was over counts as one that was there.
        """
        hits, misses, expired = (self.total(what, within) for what in ("hits", "misses", "expired"))
        reads = hits + misses + expired
        return (hits + (expired if kept else 0)) / reads if reads else None

    def percentile(
        self, share: float, within: Window = EVER, where: Where = anywhere
    ) -> float | None:
        """Return the seconds within which a share of the calls was over; `None` without calls."""
        lengths: Counter[int] = Counter()
        for _, step in self._within(within):
            for (node, length), number in step.lengths.items():
                if where(node):
                    lengths[length] += number
        return _percentile(lengths, share)

    def lag_percentile(self, share: float, within: Window = EVER) -> float | None:
        """Return the seconds within which this process woke up; `None` without a measurement."""
        lags: Counter[int] = Counter()
        for _, step in self._within(within):
            lags.update(step.lags)
        return _percentile(lags, share)

    def moments(self, what: str, within: Window = EVER, where: str | None = None) -> list[float]:
        """Return the moments at which something took place, the first one first."""
        return sorted(
            one.moment
            for one in self.events
            if one.what == what and within.has(one.moment) and where in {None, one.where}
        )

    def latest(self) -> float:
        """Return the begin of the last step in which there were calls; 0 without any."""
        calling = (
            number
            for number, step in self._steps.items()
            if any(kind == "calls" for _, kind in step.counts)
        )
        return max(calling, default=0) * STEP

    def recent(self, moment: float, seconds: float) -> Window:
        """Return the last seconds before a moment of which everything is known.

        The step that is not over says too little; what workers have not reported says nothing.
        """
        end = min(moment, self.latest()) // STEP * STEP
        return Window(end - seconds, end)

    # How they travel.

    def take(self) -> Plain:
        """Return the figures as plain lists, and begin again from nothing."""
        plain = {
            "steps": [
                [
                    number,
                    [[*key, count] for key, count in step.counts.items()],
                    [[*key, count] for key, count in step.lengths.items()],
                    list(step.lags.items()),
                ]
                for number, step in self._steps.items()
            ],
            "events": [list(event) for event in self.events],
        }
        self._steps.clear()
        self.events.clear()
        return plain

    def add(self, plain: Plain) -> None:
        """Add what another process took."""
        for number, counts, lengths, lags in plain["steps"]:
            step = self._steps.setdefault(number, Step())
            for node, what, count in counts:
                step.counts[node, what] += count
            for node, length, count in lengths:
                step.lengths[node, length] += count
            for lag, count in lags:
                step.lags[lag] += count
        self.events.extend(Event(*event) for event in plain["events"])

    @classmethod
    def of(cls, plain: Plain) -> Self:
        """Return the figures of plain lists."""
        figures = cls()
        figures.add(plain)
        return figures

    def _step(self, moment: float) -> Step:
        number = int(moment // STEP)
        step = self._steps.get(number)
        if step is None:
            step = self._steps[number] = Step()
        return step

    def _within(self, window: Window) -> Iterator[tuple[int, Step]]:
        return ((number, step) for number, step in self._steps.items() if window.has(number * STEP))


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
