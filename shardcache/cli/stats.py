"""`stats`: the figures of each server."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Final

import click
from rich.text import Text

from shardcache.cli.connect import client_options, open_client
from shardcache.cli.output import (
    UNKNOWN,
    Sheet,
    drawing,
    exits_by,
    json_option,
    percent,
    print_json,
    show,
)
from shardcache.cli.readings import Figures, Interval, Intervals, is_number, readings, reads
from shardcache.cli.terminal import reason_of, styled
from shardcache.clients.blocking import Client
from shardcache.errors import NodeError
from shardcache.operations.keys.admin import NodeStats

# Figures of most servers, by the names that each kind uses.
FIGURES: Final = {
    "version": ("version", "redis_version"),
    "items": ("curr_items", "entries"),
    "memory": ("bytes", "used_memory"),
    "connections": ("curr_connections", "connected_clients"),
    "uptime": ("uptime", "uptime_in_seconds"),
}
INTERVAL: Final = 2.0  # seconds between two readings
WATCHED_FIGURES: Final = ("items", "memory")  # more would not fit next to those of the interval
WATCHED: Final = ("calls/s", "hit rate now", "evictions")


@click.command()
@click.option(
    "--watch",
    metavar="[SECONDS]",
    is_flag=False,
    flag_value=INTERVAL,
    type=click.FloatRange(min=0.1),
    help=f"Show it again every SECONDS ({INTERVAL:g} unless given), until Ctrl-C. The last columns"
    " cover the seconds since the last reading. In a pipe each node is one line.",
)
@click.option(
    "--count", metavar="N", type=click.IntRange(min=1), help="With --watch: end after N readings."
)
@client_options
@json_option
@exits_by
def stats(
    watch: float | None,
    count: int | None,
    urls: tuple[str, ...],
    config: str | None,
    *,
    as_json: bool,
) -> bool:
    """Show the figures of each server.

    The hit rate covers all its clients since the server started. With --watch and --json, each
    reading is one line. Exit with 1 when a server does not answer.
    """
    if count is not None and watch is None:
        raise click.UsageError("--count needs --watch")
    with open_client(urls, config) as client:
        if watch is not None:
            return _watch(client, watch, count, as_json=as_json)
        figures = client.stats()
    if as_json:
        print_json({name: _as_json(figure) for name, figure in figures.items()})
    else:
        show(_sheet(figures))
    return _complete(figures)


def _as_json(figure: NodeStats) -> dict[str, object]:
    """Return a node's figures for JSON: those of the server as the text it sent, and its hit rate."""
    server = figure.server
    rate = None if isinstance(server, NodeError) else _hit_rate(server)
    return {**figure._asdict(), "hit_rate": rate}


def _complete(figures: Figures) -> bool:
    return not any(isinstance(figure.server, NodeError) for figure in figures.values())


def _watch(client: Client, seconds: float, count: int | None, *, as_json: bool) -> bool:
    """Show the figures repeatedly; return whether the last ones were complete."""
    shown = islice(readings(client.stats, seconds), count)
    complete = True
    if as_json or not sys.stdout.isatty():
        for figures, since in shown:
            complete = _complete(figures)
            if as_json:
                print_json(_line(figures, since), indent=None)
            else:
                show(*_plain_lines(figures, since))
        return complete
    with drawing() as draw:
        for figures, since in shown:
            complete = _complete(figures)
            draw(_sheet(figures, since))
    return complete


def _plain_lines(figures: Figures, since: Intervals) -> Iterator[Text]:
    """Yield a line for each node, for a file or another program: time, node, and what it did."""
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    for name, figure in figures.items():
        if isinstance(figure.server, NodeError):
            shown = reason_of(figure.server)
        else:
            cells = rates(since.get(name))
            shown = "  ".join(f"{what} {cell}" for what, cell in zip(WATCHED, cells, strict=True))
        yield styled(f"{now}  {name}  {shown}")


def _line(figures: Figures, since: Intervals) -> dict[str, object]:
    return {
        name: {
            **_as_json(figure),
            "interval": since[name]._asdict() | {"hit_rate": since[name].hit_rate}
            if name in since
            else None,
        }
        for name, figure in figures.items()
    }


def _sheet(figures: Figures, since: Intervals | None = None) -> Sheet:
    down = not _complete(figures)
    figures_shown = list(FIGURES) if since is None else list(WATCHED_FIGURES)
    numbers = [*figures_shown, "hit rate", *([] if since is None else WATCHED)]
    columns = ("node", *numbers, *(["error"] if down else []))
    rows = Sheet(*columns, right=numbers, wraps="error" if down else None)
    for name, figure in figures.items():
        error: str | Text = ""
        if isinstance(figure.server, NodeError):
            cells = [UNKNOWN] * len(numbers)
            error = styled(reason_of(figure.server), "red")
        else:
            now = [] if since is None else rates(since.get(name))
            cells = [*_cells(figure.server, figures_shown), *now]
        rows.add(name, *cells, *([error] if down else []))
    return rows


def rates(interval: Interval | None) -> list[str]:
    """Return the cells of `WATCHED` for one node; dashes if its interval is unknown."""
    if interval is None:
        return [UNKNOWN] * len(WATCHED)
    rate, calls = interval.hit_rate, interval.calls_per_second
    return [
        UNKNOWN if calls is None else f"{calls:.0f}",
        UNKNOWN if rate is None else percent(rate),
        UNKNOWN if interval.evictions is None else str(interval.evictions),
    ]


def _cells(server: dict[str, str], shown: Sequence[str]) -> list[str]:
    rate = _hit_rate(server)
    return [*(_figure(server, name) for name in shown), UNKNOWN if rate is None else percent(rate)]


def _figure(server: dict[str, str], name: str) -> str:
    text = next((server[alias] for alias in FIGURES[name] if alias in server), UNKNOWN)
    if name == "memory" and is_number(text):
        return _size(int(text))
    return _duration(int(text)) if name == "uptime" and is_number(text) else text


def _size(count: int) -> str:
    """Return a number of bytes for people."""
    for unit, size in (("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} B"


def _duration(seconds: int) -> str:
    """Return seconds as days, hours or minutes, rounded down."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _hit_rate(server: dict[str, str]) -> float | None:
    hits, misses = reads(server)
    return hits / (hits + misses) if hits + misses else None
