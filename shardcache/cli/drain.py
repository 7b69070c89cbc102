"""`drain`: take a node out of the file of settings."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from shardcache.cli.config_text import without_node, write_in_one_step
from shardcache.cli.connect import client_options, config_file, open_client
from shardcache.cli.output import exits_by, json_option, percent, print_json, working
from shardcache.cli.terminal import escaped, say
from shardcache.core.placement.movement import Movement
from shardcache.core.placement.nodes import Node
from shardcache.core.placement.topology import Topology

EXAMPLE = 0.9  # of a hit rate


@click.command()
@click.argument("name", metavar="NODE")
@click.option("--yes", is_flag=True, help="Do not ask; needed in scripts and with --json.")
@client_options
@json_option
@exits_by
def drain(
    name: str, urls: tuple[str, ...], config: str | None, *, yes: bool, as_json: bool
) -> bool:
    """Take NODE out of the file of --config or SHARDCACHE_CONFIG.

    It says how many keys move and what that costs, and asks before it writes. Nothing else in the
    file changes, and no process reads half of it. No node is asked. If the nodes come from a
    URL, the remaining ones are printed, without logins. Exit with 1 when no file was changed.
    """
    with open_client(urls, config) as client:
        before = client.topology
    leaving = before.node(name)
    after = before.removing(name)
    with working("measuring what moves", quiet=as_json):
        moved = Movement.between(before.placement, after.placement).moved
    file = config_file(urls, config)
    if not as_json:
        _say_cost(leaving, moved)
    drained = file is not None and _drain(file.path, leaving, yes=yes, as_json=as_json)
    if as_json:
        remaining = [str(node.address) for node in after.nodes]
        print_json({"node": leaving.name, "moved": moved, "nodes": remaining, "drained": drained})
    elif file is None:
        _say_remaining(after)
    elif drained:
        _say_what_is_left(leaving)
    return drained


def _drain(path: Path, leaving: Node, *, yes: bool, as_json: bool) -> bool:
    """Take a node out of a file, if that is confirmed; return whether it was."""
    text = _text_of(path)
    changed = without_node(path, text, leaving.name)
    if not yes and not _confirm(path, leaving, can_ask=sys.stdin.isatty() and not as_json):
        say("not drained", err=True)
        return False
    if _text_of(path) != text:
        raise click.ClickException(f"{path}: was changed meanwhile; nothing was written")
    write_in_one_step(path, changed)
    return True


def _text_of(path: Path) -> str:
    return path.read_bytes().decode()


def _confirm(path: Path, node: Node, *, can_ask: bool) -> bool:
    """Ask whether to change the file; where no one can answer, `--yes` is required."""
    if not can_ask:
        raise click.UsageError("drain changes a file: pass --yes where it cannot prompt")
    return click.confirm(f"take {escaped(node)} out of {escaped(path)}?", err=True)


def _say_cost(leaving: Node, moved: float) -> None:
    before, after = f"{EXAMPLE * 100:.0f} %", percent(EXAMPLE * (1 - moved))
    say(f"{percent(moved)} of the keys would move from {escaped(leaving)} to the other nodes.")
    say(f"Each misses once: a hit rate of {before} falls to {after} for a while.")


def _say_remaining(after: Topology) -> None:
    say("\nThe nodes come from a URL, and no file was changed. These are left:")
    for node in after.nodes:
        say(f"  {escaped(node.address)}")


def _say_what_is_left(leaving: Node) -> None:
    url = escaped(leaving.address)
    say(
        f"\n{escaped(leaving)} is taken out. Processes that follow the file leave it within seconds,"
    )
    say("others when they restart. Stop the server when it has no calls any more:")
    say(f"  shardcache stats --watch --url {url}")
    say("Empty it before it comes back:")
    say(f"  shardcache flush {escaped(leaving.address.label)} --url {url}")
