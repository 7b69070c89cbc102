"""Which flights a thread or task is in, and whether one more would wait for itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from typing import Any

# From the outermost: those whose work the running code is part of.
_running: ContextVar[tuple[Flight, ...]] = ContextVar("shardcache_flights", default=())


class Flight:
    """Work under way, what it says of its progress, and the flights that it waits for."""

    __slots__ = ("over", "progress", "waits_for")

    def __init__(self, progress: Any = None) -> None:  # whatever the work says of itself
        self.progress = progress
        self.waits_for: list[Flight] = []
        self.over = False  # what it began may go on in threads and tasks that are not part of it

    @contextmanager
    def running(self) -> Iterator[None]:
        """Make what runs within part of this flight's work."""
        token = _running.set((*_under_way(), self))
        try:
            yield
        finally:
            self.over = True
            _running.reset(token)

    @contextmanager
    def waiting_on(self) -> Iterator[bool]:
        """Note that the running code waits for this flight; give whether it waits for itself so."""
        own = _under_way()
        if not own:
            yield False
            return
        # Noted first, then looked for: of two who begin to wait for each other at once, one sees it.
        waits = own[-1].waits_for
        waits.append(self)
        try:
            yield self._leads_to(own)
        finally:
            waits.remove(self)

    def _leads_to(self, own: tuple[Flight, ...]) -> bool:
        seen: set[Flight] = set()
        ahead = [self]
        while ahead:
            reached = ahead.pop()
            if reached in own:
                return True
            if reached not in seen:
                seen.add(reached)
                ahead.extend(list(reached.waits_for))
        return False


def nested() -> bool:
    """Say whether the caller is within a flight that is itself within another."""
    return len(_under_way()) > 1


def context_outside() -> Context:
    """Return a copy of the context for work that is no part of any flight.

    What it waits for may wait for the caller's flight, which does not wait for it.
    """
    context = copy_context()
    context.run(_running.set, ())
    return context


def _under_way() -> tuple[Flight, ...]:
    return tuple(flight for flight in _running.get() if not flight.over)
