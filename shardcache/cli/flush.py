"""`flush`: empty one node."""

from __future__ import annotations

import sys

import click

from shardcache.cli.connect import client_options, open_client
from shardcache.cli.output import exits_by, json_option, print_json
from shardcache.cli.text import say, visible
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
    """Delete everything on NODE, for all who use it.

    Flush a node that was away before it comes back: what it holds is from before. On Redis it is
    the database of the URL that is emptied. Exit with 1 when it was not.
    """
    with open_client(urls, config) as client:
        node = client.topology.node(name)
        if not yes and not _confirmed(node, asking=sys.stdin.isatty() and not as_json):
            say("not flushed", err=True)
            return False
        flushed = client.flush_node(name)
    if as_json:
        print_json({"node": node.name, "flushed": flushed})
    else:
        say(f"{visible(node)}: {'flushed' if flushed else 'not flushed'}")
    return flushed


def _confirmed(node: Node, *, asking: bool) -> bool:
    """Ask whether the node shall be emptied; a script has to say so itself."""
    if not asking:
        raise click.UsageError(
            "flush deletes everything on a node: say --yes where nobody is asked"
        )
    question = f"delete everything on {visible(node)} ({visible(node.address)})?"
    return click.confirm(question, err=True)
