"""Flights of a single-flight group, and the wait-for graph that keeps them from deadlock.

*Single flight*: of all callers that want the same work at the same time, one does it (the leader)
and the others (followers) wait for its outcome, as with Go's `singleflight.Group`. Each such piece
of work is a `Flight`. `ThreadSingleFlight` and `TaskSingleFlight` are the two groups: one waits by
blocking a thread, the other by awaiting.

A leader's work may itself want other flights, and so callers may come to wait for each other in a
circle. A context variable says which flights the running code is part of, and each flight lists the
flights that it waits for: the *wait-for graph*. Before a caller waits, it adds its edge and then
walks the graph. If the walk reaches a flight that the caller is in, waiting would be a deadlock, and
the caller does the work alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from typing import Any

# The flights that the running code is part of, from the outermost.
_running: ContextVar[tuple[Flight, ...]] = ContextVar("shardcache_flights", default=())


class Flight:
    """One piece of shared work: its progress, and the flights that it waits for.

    The flights of a batch have one `work` in common, which stands for all of them in the graph.
    """

    __slots__ = ("over", "progress", "waits_for", "work")

    def __init__(self, progress: Any = None, work: Flight | None = None) -> None:  # of its own type
        self.progress = progress
        self.work = self if work is None else work
        self.waits_for: list[Flight] = []
        self.over = False  # threads and tasks that its work started may outlive it

    @contextmanager
    def running(self) -> Iterator[None]:
        """Mark the code within as part of this flight's work."""
        token = _running.set((*_current(), self))
        try:
            yield
        finally:
            self.over = True
            _running.reset(token)

    @contextmanager
    def waiting_on(self) -> Iterator[bool]:
        """Add an edge to the wait-for graph while the running code waits for this flight.

        Yield whether that closes a circle: the code would wait for itself.
        """
        edge = self.add_edge()
        if edge is None:
            yield False
            return
        try:
            yield edge.closes_circle
        finally:
            edge.remove()

    def add_edge(self) -> Edge | None:
        """Add an edge to the wait-for graph: the running code waits for this flight.

        Return `None` if the code is in no flight, as is usual: nothing waits for it.
        """
        own = _current()
        return Edge(own, self.work) if own else None

    def _reaches(self, own: tuple[Flight, ...]) -> bool:
        """Return whether the wait-for graph leads from this flight to one of `own`."""
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


class Edge:
    """An edge of the wait-for graph, from the innermost of `own` flights to the one that it waits for."""

    __slots__ = ("_from", "_to", "closes_circle")

    def __init__(self, own: tuple[Flight, ...], to: Flight) -> None:
        self._from = own[-1].waits_for
        self._to = to
        # Add the edge, then look: of two callers that close a circle at once, at least one sees it.
        self._from.append(to)
        self.closes_circle = to._reaches(own)  # noqa: SLF001 - of this module

    def remove(self) -> None:
        """Remove the edge: the wait is over."""
        self._from.remove(self._to)


def nested() -> bool:
    """Return whether the running code is in a flight that is itself within another."""
    return len(_current()) > 1


def context_outside() -> Context:
    """Return a copy of the context for work that is not part of any flight.

    Such work may wait for the caller's flight, because that flight does not wait for it.
    """
    context = copy_context()
    context.run(_running.set, ())
    return context


def _current() -> tuple[Flight, ...]:
    running = _running.get()
    return tuple(flight for flight in running if not flight.over) if running else ()
