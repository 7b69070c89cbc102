"""`where`, `nodes`, `ping`, `stats` and `plugins`: what a client believes, and how its nodes are."""

from __future__ import annotations

from typing import Final

import click

from shardcache.cli.opening import client_options, open_client
from shardcache.cli.output import (
    bar,
    console,
    exits_by,
    json_option,
    percent,
    print_json,
    rows_of,
    table,
)
from shardcache.core.movement import shares
from shardcache.errors import NodeError
from shardcache.operations.whole import NodeStats
from shardcache.plugin.manager import load

PREFERRED: Final = 3
BAR: Final = 24

# What most servers say of themselves, by the names that each kind gives it.
FIGURES: Final = {
    "version": ("version", "redis_version"),
    "items": ("curr_items", "entries"),
    "memory": ("bytes", "used_memory"),
    "connections": ("curr_connections", "connected_clients"),
    "uptime s": ("uptime", "uptime_in_seconds"),
}


@click.command()
@click.argument("keys", nargs=-1, required=True)
@client_options
@json_option
def where(keys: tuple[str, ...], url: str | None, config: str | None, *, as_json: bool) -> None:
    """Say which node holds each of KEYS, and which would be next."""
    with open_client(url, config) as client:
        found = [
            {"key": key, "nodes": [node.name for node in client.nodes_for(key, PREFERRED)]}
            for key in keys
        ]
        strategy = client.topology.strategy.name
    if as_json:
        print_json(found)
        return
    rows = table("key", "node", "then")
    for entry in found:
        first, *rest = entry["nodes"]
        rows.add_row(str(entry["key"]), first, ", ".join(rest))
    console().print(rows)
    console().print(f"\nby {strategy}")


@click.command()
@client_options
@json_option
def nodes(url: str | None, config: str | None, *, as_json: bool) -> None:
    """List the nodes with their weights and their shares of the key space."""
    with open_client(url, config) as client:
        topology, fingerprint = client.topology, client.fingerprint
    held = shares(topology.placement)
    if as_json:
        print_json(
            {
                "strategy": topology.strategy.name,
                "fingerprint": fingerprint,
                "nodes": [
                    {
                        "name": node.name,
                        "address": str(node.address),
                        "weight": node.weight,
                        "share": held.get(node.name, 0.0),
                    }
                    for node in topology.nodes
                ],
            }
        )
        return
    rows = table("node", "address", "weight", "share", "", right=("weight", "share"))
    widest = max(held.values())
    for node in topology.nodes:
        share = held.get(node.name, 0.0)
        rows.add_row(
            node.name,
            str(node.address),
            f"{node.weight:g}",
            percent(share),
            bar(share / widest, BAR),
        )
    console().print(rows)
    console().print(f"\nstrategy {topology.strategy.name}, fingerprint {fingerprint}")


@click.command()
@client_options
@json_option
@exits_by
def ping(url: str | None, config: str | None, *, as_json: bool) -> bool:
    """Ask every node for a sign of life; exit with 1 when one gives none."""
    with open_client(url, config) as client:
        answers = client.ping()
    up = {name: not isinstance(answer, NodeError) for name, answer in answers.items()}
    if as_json:
        print_json(
            {
                name: {"up": up[name], ("seconds" if up[name] else "error"): answer}
                for name, answer in answers.items()
            }
        )
    else:
        rows = table("node", "", "", right=("",))
        for name, answer in answers.items():
            shown = f"[red]{answer}[/]" if isinstance(answer, NodeError) else _ms(answer)
            rows.add_row(name, "[green]up[/]" if up[name] else "[red]down[/]", shown)
        console().print(rows)
    return all(up.values())


@click.command()
@client_options
@json_option
@exits_by
def stats(url: str | None, config: str | None, *, as_json: bool) -> bool:
    """Show what each server says of itself; exit with 1 when one says nothing."""
    with open_client(url, config) as client:
        figures = client.stats()
    if as_json:
        print_json({name: figure._asdict() for name, figure in figures.items()})
    else:
        columns = ("node", *FIGURES, "hit rate")
        rows = table(*columns, right=columns[2:])
        console().print(rows_of(rows, (_stats_row(*item) for item in figures.items())))
    return not any(isinstance(figure.server, NodeError) for figure in figures.values())


@click.command()
@json_option
def plugins(*, as_json: bool) -> None:
    """List the plugins that are loaded, with what they offer."""
    loaded = load()
    if as_json:
        print_json(
            {
                "plugins": [plugin._asdict() for plugin in loaded.described],
                "blocked": sorted(loaded.blocked),
            }
        )
        return
    rows = table("plugin", "distribution", "offers", "")
    for plugin in loaded.described:
        kinds: dict[str, list[str]] = {}
        for offer in plugin.offers:
            kind, _, name = offer.partition(" ")
            kinds.setdefault(kind, []).append(name)
        for row, (kind, names) in enumerate(kinds.items()):
            of = ("", "") if row else (plugin.name, plugin.distribution)
            rows.add_row(*of, kind, ", ".join(names))
    console().print(rows)
    if loaded.blocked:
        console().print(f"kept out: {', '.join(sorted(loaded.blocked))}")


def _stats_row(name: str, figures: NodeStats) -> list[str]:
    server = figures.server
    if isinstance(server, NodeError):
        return [name, f"[red]{server}[/]"]
    told = [
        next((server[alias] for alias in aliases if alias in server), "–")
        for aliases in FIGURES.values()
    ]
    return [name, *told, _hit_rate(server)]


def _hit_rate(server: dict[str, str]) -> str:
    pairs = (("get_hits", "get_misses"), ("keyspace_hits", "keyspace_misses"), ("hits", "misses"))
    for hits, misses in pairs:
        if hits in server:
            asked = int(server[hits]) + int(server[misses])
            return percent(int(server[hits]) / asked) if asked else "–"
    return "–"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"
