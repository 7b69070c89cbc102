"""The text of a file of settings: take a node out of it, and write it in one step."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import click

from shardcache.core.placement.nodes import Node
from shardcache.core.urls import split_url
from shardcache.settings import node_list

ADVICE = "changing a file needs tomlkit: pip install tomlkit"


def without_node(path: Path, text: str, name: str) -> str:
    """Return the text of a file of settings without one of its nodes; all else stays as it is.

    Raise `ClickException` if the node cannot be taken out so.
    """
    try:
        import tomlkit  # noqa: PLC0415 - of all commands only this one needs it
    except ModuleNotFoundError:
        raise click.ClickException(ADVICE) from None
    document = tomlkit.parse(text)
    table = _settings_of(path, document)
    remaining = _without(table["nodes"], name)
    if isinstance(remaining, str):
        table["nodes"] = remaining
    changed = tomlkit.dumps(document)
    if _nodes_in(path, changed) != tuple(n for n in _nodes_in(path, text) if n.name != name):
        raise click.ClickException(f"{path}: cannot take {name} out of this text: edit it yourself")
    return changed


def write_in_one_step(path: Path, text: str) -> None:
    """Replace a file, so that a process that reads it gets the old text or the new one.

    A link stays a link, and the file keeps its owner and its permissions.
    """
    target = path.resolve()
    old = target.stat()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    written = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(handle)
        with contextlib.suppress(PermissionError):  # only root gives files to other users
            os.chown(written, old.st_uid, old.st_gid)
        written.chmod(stat.S_IMODE(old.st_mode))
        written.replace(target)
    except BaseException:
        written.unlink()
        raise


def _settings_of(path: Path, document: Any) -> Any:  # tables of either library
    return document["tool"]["shardcache"] if path.name == "pyproject.toml" else document


def _nodes_in(path: Path, text: str) -> tuple[Node, ...]:
    return node_list(_settings_of(path, tomllib.loads(text))["nodes"])


def _without(nodes: Any, name: str) -> Any:
    """Take a node out of a list in place, or return the text that replaces a URL of several hosts."""
    if isinstance(nodes, str):
        place = [node.name for node in node_list(nodes)].index(name)
        parts = split_url(nodes)
        hosts = (host for number, host in enumerate(parts.hosts) if number != place)
        return parts.alone(",".join(hosts), parts.fields)
    for place, entry in enumerate(nodes):
        names = [node.name for node in node_list(entry)]
        if names == [name]:
            del nodes[place]
            return nodes
        if name in names:
            nodes[place] = _without(entry, name)
            return nodes
    return nodes
