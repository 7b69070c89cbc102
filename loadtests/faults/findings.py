"""The figures of a row: what was expected, and what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BUSY: Final = 1.0  # seconds; no less is explained by other work on the machine


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure of a row: the expected, the measured, and whether it holds.

    A `timed` one says nothing when the machine was busy with other work.
    """

    name: str
    asked: str
    measured: str
    held: bool
    timed: bool = False

    @property
    def verdict(self) -> str:
        """Return `held`, `MISSED`, or `shown` when nothing was expected."""
        return "MISSED" if not self.held else "held" if self.asked else "shown"


def none(name: str, count: int) -> Finding:
    """Expect zero."""
    return Finding(name, "0", f"{count:,}", count == 0)


def at_most(
    name: str, value: float, limit: float, unit: str = "", *, timed: bool = False
) -> Finding:
    """Expect a number of at most `limit`."""
    return Finding(name, f"<= {_shown(limit, unit)}", _shown(value, unit), value <= limit, timed)


def at_least(
    name: str, value: float, limit: float, unit: str = "", *, timed: bool = False
) -> Finding:
    """Expect a number of at least `limit`."""
    return Finding(name, f">= {_shown(limit, unit)}", _shown(value, unit), value >= limit, timed)


def within(name: str, seconds: float | None, limit: float) -> Finding:
    """Expect a time of at most `limit` seconds; `None` means that it never happened.

    A limit of seconds is judged on a busy machine as well.
    """
    asked, timed = f"<= {_milliseconds(limit)}", limit < BUSY
    if seconds is None:
        return Finding(name, asked, "never", held=False, timed=timed)
    return Finding(name, asked, _milliseconds(seconds), seconds <= limit, timed)


def holds(name: str, *, fact: bool, measured: str = "") -> Finding:
    """Expect a fact; `measured` tells more about it."""
    return Finding(name, "yes", measured or ("yes" if fact else "no"), fact)


def shown(name: str, measured: str) -> Finding:
    """Expect nothing: the figure is only shown."""
    return Finding(name, "", measured, held=True)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.{1 if seconds < 0.1 else 0}f} ms"


def _shown(value: float, unit: str) -> str:
    text = f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"
    return f"{text} {unit}".rstrip()
