"""`plan`: which keys a change of nodes, weights or strategy would move."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from shardcache.cli.connect import client_options, each_url, open_client
from shardcache.cli.output import (
    Sheet,
    bar,
    json_option,
    percent,
    print_json,
    read_keys,
    show,
    working,
)
from shardcache.cli.terminal import escaped, say
from shardcache.core.placement.movement import Movement
from shardcache.core.placement.nodes import Node
from shardcache.core.placement.strategy import Strategy
from shardcache.core.placement.topology import Topology
from shardcache.plugin.manager import load
from shardcache.settings import node_list, parse_options

BAR = 20
HIT_RATE = 0.9  # for which the costs are shown
COMMANDS_TO_COPY = 4  # read the old node, claim, read it again, store


@click.command()
@click.option("--add", "added", multiple=True, metavar="URL", help="A node to add.")
@click.option("--remove", "removed", multiple=True, metavar="NAME", help="A node to remove.")
@click.option(
    "--weight", "weights", multiple=True, metavar="NAME=W", help="A new weight for a node."
)
@click.option("--strategy", metavar="NAME", help="Another strategy, as ketama:profile=twemproxy.")
@click.option(
    "--keys",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    help="Your own keys, one per line, instead of the whole key space.",
)
@client_options
@json_option
def plan(  # noqa: PLR0913, PLR0917 - each is an option
    added: tuple[str, ...],
    removed: tuple[str, ...],
    weights: tuple[str, ...],
    strategy: str | None,
    keys: str | None,
    urls: tuple[str, ...],
    config: str | None,
    *,
    as_json: bool,
) -> None:
    """Show which keys a change would move, and what that costs.

    Nothing is changed, and no node is asked.
    """
    if not (added or removed or weights or strategy):
        raise click.UsageError("name a change: --add, --remove, --weight or --strategy")
    own_keys = read_keys(keys)
    with open_client(urls, config) as client:
        before = client.topology
        after = _apply(before, added, removed, weights, strategy)
        with working("measuring what moves", quiet=as_json):
            movement = Movement.between(
                before.placement,
                after.placement,
                None if own_keys is None else [client.hashed(key) for key in own_keys],
            )
    figures = _figures(before, after, movement)
    if as_json:
        print_json(figures)
    else:
        _show(before, after, movement, figures)


def _apply(
    before: Topology,
    added: Sequence[str],
    removed: Sequence[str],
    weights: Sequence[str],
    strategy: str | None,
) -> Topology:
    leaving = {_find(before, name).name for name in removed}
    new_weights = dict(_weight(before, text) for text in weights)
    remaining = [node for node in before.nodes if node.name not in leaving]
    nodes = [_with_weight(node, new_weights.get(node.name)) for node in remaining]
    new = node_list([_with_scheme(before, url) for url in each_url(added)]) if added else ()
    if strategy is not None:
        return Topology((*nodes, *new), _strategy(strategy))
    return before.replaced((*nodes, *new))


def _find(before: Topology, name: str) -> Node:
    """Return the node with this name, or with this host if only one node has it."""
    of_host = [node for node in before.nodes if name and node.address.host == name.lower()]
    if len(of_host) == 1 and name not in map(str, before.nodes):
        return of_host[0]
    return before.node(name)


def _with_scheme(before: Topology, url: str) -> str:
    """Return a URL as it is; give `host:port` the scheme of the nodes, if all have the same."""
    schemes = {node.address.scheme for node in before.nodes}
    return f"{schemes.pop()}://{url}" if "://" not in url and len(schemes) == 1 else url


def _weight(before: Topology, text: str) -> tuple[str, float]:
    name, equals, weight = text.rpartition("=")
    try:
        number = float(weight)
    except ValueError:
        equals = ""
    if not equals:
        raise click.BadParameter(f"write NAME=WEIGHT, not {text!r}", param_hint="--weight")
    return _find(before, name).name, number


def _with_weight(node: Node, weight: float | None) -> Node:
    if weight is None:
        return node
    return Node(node.url, node.name if node.named else None, weight)


def _strategy(choice: str) -> Strategy:
    name, options = parse_options(choice)
    return load().strategies[name](**options)


def _figures(before: Topology, after: Topology, movement: Movement) -> dict[str, Any]:  # JSON
    """Return the figures that are shown, also as JSON; shares are from 0 to 1."""
    return {
        "strategy": {"before": before.strategy.name, "after": after.strategy.name},
        "basis": movement.basis,
        "looked_at": movement.total,
        "moved": movement.moved,
        "least_possible": least_possible(movement),
        "extra_misses": movement.moved,
        "hit_rate": {
            "before": HIT_RATE,
            "cold": HIT_RATE * (1 - movement.moved),
            "warm": HIT_RATE,
        },
        "commands_to_copy": COMMANDS_TO_COPY,
        "before": dict(movement.before),
        "after": dict(movement.after),
    }


def least_possible(movement: Movement) -> float:
    """Return the least share of keys that must move: the sum of what nodes gain."""
    before = movement.before
    gained = (share - before.get(name, 0.0) for name, share in movement.after.items())
    return min(movement.moved, sum(gain for gain in gained if gain > 0))


def _show(before: Topology, after: Topology, movement: Movement, figures: dict[str, Any]) -> None:
    names = dict.fromkeys([*map(str, before.nodes), *map(str, after.nodes)])
    widest = max(*movement.before.values(), *movement.after.values())
    rows = Sheet("node", "before", "", "after", " ", right=("before", "after"), optional=("", " "))
    for name in names:
        old, new = movement.before.get(name), movement.after.get(name)
        rows.add(
            name,
            "–" if old is None else percent(old),
            bar((old or 0) / widest, BAR, "dim cyan"),
            "–" if new is None else percent(new),
            bar((new or 0) / widest, BAR),
        )
    show(rows)
    what = {"keys": "these keys", "sample": "the keys (by a sample)"}
    moved, at_least = percent(movement.moved), percent(figures["least_possible"])
    show(f"\n[bold]{moved}[/] of {what.get(movement.basis, 'the key space')} would move.")
    if at_least == moved:
        say("No strategy could move less to reach these shares.")
    else:
        say(f"Of these, {at_least} must move to reach these shares, whatever the strategy.")
    rate, falls = f"{100 * HIT_RATE:.0f} %", percent(figures["hit_rate"]["cold"])
    say(f"Each of these keys misses once: a hit rate of {rate} falls to {falls} for a while.")
    say(
        f"With warm_for it stays at {rate}, for {COMMANDS_TO_COPY} commands more to copy each once."
    )
    if before.strategy.name != after.strategy.name:
        old_name, new_name = escaped(before.strategy.name), escaped(after.strategy.name)
        say(f"The strategy changes from {old_name} to {new_name}.")
