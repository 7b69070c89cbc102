"""The keys and values of a run, and subjects that call with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from bench.rounds import Subject

VALUE: Final = b"v" * 100
TTL: Final = 3600

Call = Callable[..., Any]  # of any client


def keys_of(tag: str, count: int) -> list[str]:
    """Return the keys of one client, of 21 characters; no other client writes them."""
    return [f"{tag[:4]:_<4}:{number:08d}:profile" for number in range(count)]


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun, as in `1 task` or `5,000 tasks`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def batches_of(keys: Sequence[str], size: int) -> list[list[str]]:
    """Return the keys in lists of `size`."""
    return [list(keys[start : start + size]) for start in range(0, len(keys), size)]


def each(call: Call, *columns: Sequence[Any]) -> Subject:
    """Return a subject that calls with each item, or with an item of each column, over and over."""
    rows = list(zip(*columns, strict=True))
    if len(columns) == 1:
        (single,) = columns
        return lambda calls: _call_each(call, single, calls)
    return lambda calls: _call_each_row(call, rows, calls)


def _call_each(call: Call, items: Sequence[Any], calls: int) -> None:
    while calls > 0:
        for item in items[:calls]:
            call(item)
        calls -= len(items)


def _call_each_row(call: Call, rows: Sequence[tuple[Any, ...]], calls: int) -> None:
    while calls > 0:
        for row in rows[:calls]:
            call(*row)
        calls -= len(rows)
