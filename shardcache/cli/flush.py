"""`flush`: empty one node."""

from __future__ import annotations

import sys

import click

from shardcache.cli.connect import client_options, open_client
from shardcache.cli.output import exits_by, json_option, print_json
from shardcache.cli.terminal import escaped, say
from shardcache.core.placement.nodes import Node


@click.command()
@click.argument("name", metavar="NODE")
@click.option("--yes", is_flag=True, help="Do not ask; needed in scripts and with --json.")
@client_options
@json_option
@exits_by
def flush(
    name: str, urls: tuple[str, ...], config: str | None, *, yes: bool, as_json: bool
) -> bool:
    """Delete everything on NODE, for all its users.

    Flush a node that was away before it comes back: its values are out of date. A spare node is
    called "gutter NODE". On Redis only the
    database of the URL is emptied. Exit with 1 when the node was not flushed.
    """
    with open_client(urls, config) as client:
        spares = {f"gutter {spare.name}": spare for spare in client.gutter_nodes}
        node = spares.get(name) or client.topology.node(name)
        if not yes and not _confirm(node, can_ask=sys.stdin.isatty() and not as_json):
            say("not flushed", err=True)
            return False
        flushed = client.flush_node(name)
    if as_json:
        print_json({"node": node.name, "flushed": flushed})
    else:
        say(f"{escaped(node)}: {'flushed' if flushed else 'not flushed'}")
    return flushed


def _confirm(node: Node, *, can_ask: bool) -> bool:
    """Ask whether to empty the node; where no one can answer, `--yes` is required."""
    if not can_ask:
        raise click.UsageError(
            "flush deletes everything on a node: pass --yes where it cannot prompt"
        )
    question = f"delete everything on {escaped(node)} ({escaped(node.address)})?"
    return click.confirm(question, err=True)
