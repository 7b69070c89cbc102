"""`stats`: what each server tells of itself."""

from __future__ import annotations

from typing import Final

import click

from shardcache.cli.opening import client_options, open_client
from shardcache.cli.output import Sheet, exits_by, json_option, percent, print_json, show
from shardcache.cli.text import foreign, reason_of
from shardcache.errors import NodeError
from shardcache.operations.whole import NodeStats

# What most servers tell of themselves, by the names that each kind gives it.
FIGURES: Final = {
    "version": ("version", "redis_version"),
    "items": ("curr_items", "entries"),
    "memory": ("bytes", "used_memory"),
    "connections": ("curr_connections", "connected_clients"),
    "uptime s": ("uptime", "uptime_in_seconds"),
}
HITS: Final = (("get_hits", "get_misses"), ("keyspace_hits", "keyspace_misses"), ("hits", "misses"))
UNKNOWN: Final = "–"
MAX_DIGITS: Final = 20  # of a counter of 64 bits


@click.command()
@client_options
@json_option
@exits_by
def stats(urls: tuple[str, ...], config: str | None, *, as_json: bool) -> bool:
    """Show what each server tells of itself; exit with 1 when one does not answer."""
    with open_client(urls, config) as client:
        figures = client.stats()
    if as_json:
        print_json({name: figure._asdict() for name, figure in figures.items()})
    else:
        show(_sheet(figures))
    return not any(isinstance(figure.server, NodeError) for figure in figures.values())


def _sheet(figures: dict[str, NodeStats]) -> Sheet:
    down = {
        name: each.server for name, each in figures.items() if isinstance(each.server, NodeError)
    }
    columns = ("node", *FIGURES, "hit rate", *(("error",) if down else ()))
    rows = Sheet(*columns, right=columns[2:7], wraps="error" if down else None)
    for name, each in figures.items():
        if isinstance(each.server, NodeError):
            rows.add(name, *[UNKNOWN] * (len(FIGURES) + 1), foreign(reason_of(each.server), "red"))
        else:
            rows.add(name, *_cells(each.server), *([""] if down else []))
    return rows


def _cells(server: dict[str, str]) -> list[str]:
    told = [
        next((server[alias] for alias in aliases if alias in server), UNKNOWN)
        for aliases in FIGURES.values()
    ]
    hits, misses = reads(server)
    return [*told, percent(hits / (hits + misses)) if hits + misses else UNKNOWN]


def reads(server: dict[str, str]) -> tuple[int, int]:
    """Return how many reads a server answered with a value, and how many without."""
    for hits, misses in HITS:
        if hits in server:
            return _number(server[hits]), _number(server.get(misses, "0"))
    return 0, 0


def _number(text: str) -> int:
    """Return the whole number that a server sent; zero for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else 0
