"""Measured figures, and the bounds that were set for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What one figure should be: from `low` to `high`.

    A `timed` one is in seconds. It may be missed for other work on the machine, so it is measured
    again; a count is not.
    """

    figure: str
    low: float = 0
    high: float = float("inf")
    timed: bool = False

    def holds(self, figures: Figures) -> bool:
        """Return whether the figure was measured, and is within the bound."""
        return self.figure in figures and self.low <= figures[self.figure] <= self.high

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.figure} = {self._shown(self.low)}"
        if self.low and self.high != float("inf"):
            return f"{self.figure} {self._shown(self.low)} – {self._shown(self.high)}"
        if self.low:
            return f"{self.figure} >= {self._shown(self.low)}"
        return f"{self.figure} <= {self._shown(self.high)}"

    def measured(self, figures: Figures) -> str:
        """Return the figure as text."""
        return self._shown(figures[self.figure]) if self.figure in figures else "not measured"

    def _shown(self, value: float) -> str:
        if self.timed:
            return f"{value * 1000:,.0f} ms"
        return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def exactly(figure: str, number: float) -> Bound:
    """Ask for one number."""
    return Bound(figure=figure, low=number, high=number)


def at_most(figure: str, number: float) -> Bound:
    """Ask for a count up to `number`."""
    return Bound(figure=figure, high=number)


def within(figure: str, seconds: float) -> Bound:
    """Expect a time of at most `seconds`."""
    return Bound(figure=figure, high=seconds, timed=True)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that this share of all values does not exceed.

    >>> percentile([3, 1, 2, 4], 0.5)
    2
    """
    ranked = sorted(values)
    return ranked[max(0, ceil(share * len(ranked)) - 1)]
