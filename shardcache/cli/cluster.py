"""`where`, `nodes` and `ping`: which node holds a key, which nodes there are, which answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from shardcache.cli.connect import client_options, open_client
from shardcache.cli.output import (
    Sheet,
    bar,
    exits_by,
    json_option,
    milliseconds,
    percent,
    print_json,
    show,
)
from shardcache.cli.terminal import escaped, reason_of, say, styled
from shardcache.clients.blocking import Client
from shardcache.core.health import DEFAULT_EJECTION
from shardcache.core.placement.movement import shares
from shardcache.core.placement.nodes import Node
from shardcache.errors import NodeError

PREFERRED: Final = 3
ROUNDS: Final = 3  # pings; the best is a node's round trip
BAR: Final = 24


@click.command()
@click.argument("keys", nargs=-1, required=True)
@client_options
@json_option
def where(
    keys: tuple[str, ...], urls: tuple[str, ...], config: str | None, *, as_json: bool
) -> None:
    """Show which node holds each of KEYS, and which come next.

    With a failover all nodes are pinged first. A key whose node is down has the node that keeps it now.
    """
    with open_client(urls, config) as client:
        _look_for_ejected(client)
        found = {key: [node.name for node in client.nodes_for(key, PREFERRED)] for key in keys}
        stand_ins = {key: _name_of(client.stand_in_for(key)) for key in keys}
        strategy = client.topology.strategy.name
    if as_json:
        print_json(
            [
                {"key": key, "nodes": names, "stand_in": stand_ins[key]}
                for key, names in found.items()
            ]
        )
        return
    detoured = any(stand_ins.values())
    rows = Sheet("key", "node", "next nodes", *(["now on"] if detoured else []))
    for key, (first, *rest) in found.items():
        rows.add(key, first, ", ".join(rest), *([stand_ins[key] or first] if detoured else []))
    show(rows)
    say(f"\nstrategy {escaped(strategy)}")


@click.command()
@client_options
@json_option
def nodes(urls: tuple[str, ...], config: str | None, *, as_json: bool) -> None:
    """List the nodes with their weights and their shares of the keys.

    With a failover all nodes are pinged first. One that is down has the nodes that keep its keys now.
    """
    with open_client(urls, config) as client:
        _look_for_ejected(client)
        topology, fingerprint = client.topology, client.fingerprint
        spares = [node.name for node in client.gutter_nodes]
        stand_ins = {node.name: _stand_ins(client, node) for node in client.nodes}
    share_of = shares(topology.placement)
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
                        "share": share_of.get(node.name, 0.0),
                        "stand_ins": stand_ins[node.name],
                    }
                    for node in topology.nodes
                ],
                "gutter": spares,
            }
        )
        return
    detoured = any(stand_ins.values())
    rows = Sheet(
        "node",
        "address",
        "weight",
        "share",
        *(["keys now on"] if detoured else []),
        "",
        right=("weight", "share"),
        optional=("",),
    )
    widest = max(share_of.values())
    for node in topology.nodes:
        share = share_of.get(node.name, 0.0)
        rows.add(
            node.name,
            str(node.address),
            f"{node.weight:g}",
            percent(share),
            *([", ".join(stand_ins[node.name]) or node.name] if detoured else []),
            bar(share / widest, BAR),
        )
    show(rows)
    if spares:
        say(f"\ngutter {escaped(', '.join(spares))}")
    say(f"\nstrategy {escaped(topology.strategy.name)}, fingerprint {fingerprint}")


@click.command()
@client_options
@json_option
@exits_by
def ping(urls: tuple[str, ...], config: str | None, *, as_json: bool) -> bool:
    """Ping every node.

    The round trip is over an open connection; the first call includes connecting. Exit with 1 when a
    node does not answer.
    """
    with open_client(urls, config) as client:
        first = client.ping()
        again = [client.ping() for _ in range(ROUNDS)]
    answers = {name: _best([each[name] for each in again]) for name in first}
    up = {name: not isinstance(answer, NodeError) for name, answer in answers.items()}
    if as_json:
        print_json(
            {
                name: {"up": False, "error": str(answer)}
                if isinstance(answer, NodeError)
                else {"up": True, "seconds": answer, "first_seconds": _seconds(first[name])}
                for name, answer in answers.items()
            }
        )
    else:
        down = not all(up.values())
        rows = Sheet(
            "node",
            "",
            "round trip",
            "first call",
            *(["error"] if down else []),
            right=("round trip", "first call"),
            wraps="error" if down else None,
        )
        for name, answer in answers.items():
            if isinstance(answer, NodeError):
                rows.add(name, styled("down", "red"), "–", "–", styled(reason_of(answer), "red"))
            else:
                times = (milliseconds(answer), milliseconds(_seconds(first[name])))
                rows.add(name, styled("up", "green"), *times, *([""] if down else []))
        show(rows)
    return all(up.values())


def _look_for_ejected(client: Client) -> None:
    """Ping all nodes of a client with a failover, until those that are down are ejected."""
    if client.failover == "miss":
        return
    for _ in range(DEFAULT_EJECTION.timeouts):
        if not any(isinstance(answer, NodeError) for answer in client.ping().values()):
            return


def _stand_ins(client: Client, node: Node) -> list[str]:
    """Return the names of the nodes that keep the keys of an ejected node; none for another."""
    out = client.ejected
    if node not in out or client.failover == "miss":
        return []
    return [each.name for each in client.gutter_nodes or client.nodes if each not in out]


def _name_of(node: Node | None) -> str | None:
    return None if node is None else node.name


def _best(answers: Sequence[float | NodeError]) -> float | NodeError:
    """Return the shortest time, or the error if the last ping failed."""
    if isinstance(answers[-1], NodeError):
        return answers[-1]
    return min(answer for answer in answers if not isinstance(answer, NodeError))


def _seconds(answer: float | NodeError) -> float | None:
    return None if isinstance(answer, NodeError) else answer
