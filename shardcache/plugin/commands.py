"""The type of a command that a plugin adds to the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:  # click comes with the extra `cli`, which a client does not need
    import click

    CliCommand: TypeAlias = click.Command
else:
    CliCommand = object
