"""`check`: whether each node can do everything that a client needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from shardcache.cli.connect import client_options, open_client
from shardcache.cli.output import Sheet, exits_by, json_option, milliseconds, print_json, show
from shardcache.cli.terminal import styled
from shardcache.errors import CheckFailedError
from shardcache.operations.keys.checking import NodeCheck


@click.command()
@client_options
@json_option
@exits_by
def check(urls: tuple[str, ...], config: str | None, *, as_json: bool) -> bool:
    """Test on each node everything that a client needs.

    A node must read, write, compare and set, count, cache functions, lock and delete, and its server
    must be new enough. Below the table stand the faults, each with what to do about it, and notes. The
    keys of a check are deleted at its end. Exit with 1 when a node cannot serve.
    """
    faults: Mapping[str, Sequence[str]] = {}
    with open_client(urls, config) as client:
        try:
            passed: Mapping[str, NodeCheck] = client.check()
        except CheckFailedError as error:
            faults, passed = error.faults, error.passed
    if as_json:
        found = {name: {"passed": True, **each._asdict()} for name, each in passed.items()}
        failed = {name: {"passed": False, "faults": each} for name, each in faults.items()}
        print_json({**found, **failed})
    else:
        _show(passed, faults)
    return not faults


def _show(passed: Mapping[str, NodeCheck], faults: Mapping[str, Sequence[str]]) -> None:
    rows = Sheet("node", "", "server", "answer", right=("answer",))
    for name, found in passed.items():
        rows.add(name, styled("passed", "green"), found.server, milliseconds(found.seconds))
    for name in faults:
        rows.add(name, styled("failed", "red"), "–", "–")
    show(rows)
    notes = {name: found.notes for name, found in passed.items()}
    for texts_by_node, style in ((faults, "red"), (notes, "")):
        for name, texts in texts_by_node.items():
            for text in texts:
                show(styled(f"{name}: {text}", style))
