"""Waiting in real time, with a bound."""

from __future__ import annotations

import time
from collections.abc import Callable


def eventually(fact: Callable[[], bool], *, within: float, every: float = 0.02) -> None:
    """Return once `fact()` is true; raise `AssertionError` if it is not `within` as many seconds."""
    deadline = time.monotonic() + within
    while not fact():
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {within} s: {fact}")
        time.sleep(every)
