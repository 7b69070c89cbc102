"""Callers whose nodes change while they call: each client of the process is told by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from faults.players import Player, TasksPlayer, ThreadsPlayer


class Moving(Player):
    """A player whose clients announce and change their nodes."""

    def announce(self, urls: list[str]) -> None:
        """Announce the next nodes to every client."""
        for client in self.clients:
            self._await(client.announce_nodes, urls)

    def switch(self, client: int, urls: list[str], warm_for: float) -> float:
        """Change the nodes of one client; return the share of the keys that moves."""
        change = self._await(self.clients[client].set_nodes, urls, warm_for=warm_for)
        return float(change.moved)

    def fill_now(self) -> None:
        """Write the first value of every key on the nodes of now."""
        self.part = replace(self.part, urls=tuple(node.url for node in self.clients[0].nodes))
        self.fill()

    def moving(self) -> dict[str, float]:
        """Return the counters of the change in progress, of the first client."""
        return dict(self.clients[0].counters().moving)

    def _await(self, call: Any, *arguments: Any, **options: Any) -> Any:
        return call(*arguments, **options)


class MovingThreads(Moving, ThreadsPlayer):
    """Workers are threads with a blocking client."""


class MovingTasks(Moving, TasksPlayer):
    """Workers are tasks of one event loop."""

    def _await(self, call: Any, *arguments: Any, **options: Any) -> Any:
        return self.loop.run(lambda: call(*arguments, **options))
