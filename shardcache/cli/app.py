"""The group of all commands: ours and those of plugins."""

from __future__ import annotations

import sys

import click

from shardcache.cli.cluster import nodes, ping, plugins, stats, where
from shardcache.cli.demo import demo
from shardcache.cli.keys import delete, get, set_
from shardcache.cli.output import EXIT_NOT_DONE, EXIT_USAGE
from shardcache.cli.plan import plan
from shardcache.errors import (
    CodecError,
    ConfigurationError,
    InvalidKeyError,
    PartialFailureError,
    ShardCacheError,
)
from shardcache.plugin.manager import load

USAGE_ERRORS = (ConfigurationError, InvalidKeyError, CodecError)


class Commands(click.Group):
    """Our commands, and those that plugins registered; plugins are loaded when one is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the names of all commands."""
        return sorted({*super().list_commands(ctx), *load().commands})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Give one command; our own come first."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        commands = load().commands
        return commands[cmd_name] if cmd_name in set(commands) else None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="shardcache")
def cli() -> None:
    """Look at, and plan, one key space over memcached, Redis and embedded nodes.

    Exit status: 0 done, 1 not found or a node down, 2 bad usage.
    """


for command in (demo, where, nodes, ping, stats, get, set_, delete, plan, plugins):
    cli.add_command(command)


def run() -> None:
    """Run the command line; a user's mistake is one clear line, never a traceback."""
    try:
        cli(prog_name="shardcache")
    except USAGE_ERRORS as error:
        _fail(error, EXIT_USAGE)
    except PartialFailureError as error:
        for reason in sorted({str(failure) for failure in error.failed.values()}):
            click.echo(reason, err=True)
        _fail(error, EXIT_NOT_DONE)
    except ShardCacheError as error:
        _fail(error, EXIT_NOT_DONE)


def _fail(error: Exception, status: int) -> None:
    click.echo(f"error: {error}", err=True)
    sys.exit(status)
