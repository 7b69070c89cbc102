"""`watch`: the nodes of a running pool, second by second."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Any, Final

import click
from rich.text import Text

from shardcache.cli.connect import client_options, config_file, open_client
from shardcache.cli.output import (
    UNKNOWN,
    Sheet,
    drawing,
    exits_by,
    json_option,
    milliseconds,
    percent,
    print_json,
    show,
)
from shardcache.cli.readings import Figures, Interval, Intervals, readings
from shardcache.cli.stats import rates
from shardcache.cli.terminal import reason_of, styled
from shardcache.clients.blocking import Client
from shardcache.core.placement.movement import shares
from shardcache.core.placement.nodes import Node
from shardcache.core.placement.topology import TopologyChange
from shardcache.errors import ConfigurationError, NodeError
from shardcache.settings.config_file import ConfigFile

INTERVAL: Final = 1.0  # seconds between two readings
NUMBERS: Final = ("ping", "share", "calls/s", "hit rate", "evictions")
STYLES: Final = {"closed": "green", "open": "red", "probing": "yellow", "quarantine": "yellow"}


@click.command()
@click.option(
    "--interval",
    metavar="SECONDS",
    default=INTERVAL,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="The time between two readings.",
)
@click.option("--count", metavar="N", type=click.IntRange(min=1), help="End after N readings.")
@client_options
@json_option
@exits_by
def watch(
    interval: float,
    count: int | None,
    urls: tuple[str, ...],
    config: str | None,
    *,
    as_json: bool,
) -> bool:
    """Show the nodes and what they do, every second until Ctrl-C.

    The circuit and the ping are those of this command, which asks each node. Calls, hit rate and
    evictions are the servers' figures, for all their clients, since the last reading. When the file
    of --config or SHARDCACHE_CONFIG changes, its nodes are used, and the share of keys that have
    moved since the start is shown. In a pipe each reading is one line. Exit with 1 when a node does
    not answer at the last reading.
    """
    with open_client(urls, config) as client:
        watched = Watched(client, config_file(urls, config))
        shown = islice(readings(watched.read, interval), count)
        if as_json or not sys.stdout.isatty():
            for figures, since in shown:
                if as_json:
                    print_json(watched.as_json(figures, since), indent=None)
                else:
                    show(watched.line(figures, since))
        else:
            with drawing() as draw:
                for figures, since in shown:
                    draw(watched.sheet(figures, since), *watched.notes(since))
        return not watched.down


class Watched:
    """The nodes of a client: what is read of them, and how it is shown."""

    def __init__(self, client: Client, file: ConfigFile | None) -> None:
        self._client = client
        self._file = file
        self._fault: str | None = None
        self._begin = client.topology
        self._change = TopologyChange(self._begin, self._begin)
        self._shares = shares(self._begin.placement)
        self._pings: Mapping[str, float | NodeError] = {}

    def read(self) -> Figures:
        """Use the nodes of the file, ping every node, and return the servers' figures."""
        self._follow()
        self._pings = self._client.ping()
        return self._client.stats()

    @property
    def down(self) -> dict[str, NodeError]:
        """The nodes that did not answer, with their errors."""
        return {name: reply for name, reply in self._pings.items() if isinstance(reply, NodeError)}

    def sheet(self, figures: Figures, since: Intervals) -> Sheet:
        """Return a table with a row for each node."""
        down = self.down
        columns = ("node", "circuit", *NUMBERS, *(["error"] if down else []))
        rows = Sheet(*columns, right=NUMBERS, wraps="error" if down else None)
        for name, figure in figures.items():
            reply, share = self._pings[name], self._shares.get(name)
            answered = None if isinstance(reply, NodeError) else reply
            cells: list[str | Text] = [
                name,
                styled(figure.circuit, STYLES[figure.circuit]),
                milliseconds(answered),
                UNKNOWN if share is None else percent(share),
                *rates(since.get(name)),
            ]
            error = styled(reason_of(down[name]), "red") if name in down else ""
            rows.add(*cells, *([error] if down else []))
        return rows

    def notes(self, since: Intervals) -> Iterator[Text]:
        """Yield the lines below the table: all nodes together, and what has changed."""
        calls, rate = _in_all(since)
        yield Text()
        yield styled(f"all nodes: {calls} calls/s, hit rate {rate}; {self._moved()}")
        if self._fault is not None:
            yield styled(f"the nodes stay as they are: {self._fault}", "red")

    def line(self, figures: Figures, since: Intervals) -> Text:
        """Return a line for a file or another program: the time, and all nodes together."""
        calls, rate = _in_all(since)
        down = self.down
        fields = [
            _now(),
            f"{len(self._pings) - len(down)} of {len(self._pings)} up",
            f"calls/s {calls}",
            f"hit rate {rate}",
            self._moved(),
            *(
                f"{name} {figures[name].circuit}: {reason_of(error)}"
                for name, error in down.items()
            ),
            *([] if self._fault is None else [self._fault]),
        ]
        return styled("  ".join(fields))

    def as_json(self, figures: Figures, since: Intervals) -> dict[str, Any]:  # JSON
        """Return a reading as JSON; shares are from 0 to 1."""
        return {
            "time": _now(),
            "moved": self._change.movement.moved,
            "change": str(self._change),
            "fault": self._fault,
            "nodes": {name: self._node_as_json(name, figures, since) for name in figures},
        }

    def _node_as_json(self, name: str, figures: Figures, since: Intervals) -> dict[str, Any]:
        reply, interval = self._pings[name], since.get(name)
        down = isinstance(reply, NodeError)
        return {
            "circuit": figures[name].circuit,
            "seconds": None if down else reply,
            "error": str(reply) if down else None,
            "share": self._shares.get(name),
            # With the hit rate, as `stats` has it.
            "interval": interval and interval._asdict() | {"hit_rate": interval.hit_rate},
        }

    def _follow(self) -> None:
        found = None if self._file is None else self._file.look()
        if found is None:
            return
        self._fault = None
        try:
            if isinstance(found, ConfigurationError):
                raise found
            self._use(found.nodes)
        except ConfigurationError as error:  # of the file, or of a strategy that refuses its nodes
            self._fault = "; ".join(error.faults)

    def _use(self, nodes: tuple[Node, ...]) -> None:
        if nodes != self._client.nodes:
            self._client.set_nodes(nodes)
            topology = self._client.topology
            self._change = TopologyChange(self._begin, topology)
            self._shares = shares(topology.placement)

    def _moved(self) -> str:
        if self._client.topology is self._begin:
            return "no key has moved"
        return f"{self._change}: {percent(self._change.movement.moved)} of the keys moved"


def _in_all(since: Intervals) -> tuple[str, str]:
    """Return the calls a second and the hit rate of all nodes together."""
    if not since:
        return UNKNOWN, UNKNOWN
    intervals = list(since.values())
    whole = Interval(
        hits=sum(each.hits for each in intervals),
        misses=sum(each.misses for each in intervals),
        seconds=intervals[0].seconds,
        calls=sum(each.calls or 0 for each in intervals),
    )
    calls, rate, _ = rates(whole)
    return calls, rate


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
