"""The group of all commands: built-in ones and those of plugins."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from shardcache.cli.bench import bench
from shardcache.cli.check import check
from shardcache.cli.cluster import nodes, ping, where
from shardcache.cli.demo import demo
from shardcache.cli.drain import drain
from shardcache.cli.errors import flush_output, report_error
from shardcache.cli.flush import flush
from shardcache.cli.keys import delete, get, set_
from shardcache.cli.locks import locks
from shardcache.cli.plan import plan
from shardcache.cli.plugins import plugins
from shardcache.cli.stats import stats
from shardcache.cli.terminal import prepare_output
from shardcache.cli.watch import watch
from shardcache.plugin.manager import load
from shardcache.settings import DISABLED_VARIABLE


class Commands(click.Group):
    """The built-in commands and those of plugins; plugins are loaded when a command is looked up."""

    def invoke(self, ctx: click.Context) -> None:
        """Run a command; its return value is not its exit status."""
        try:
            super().invoke(ctx)
        except BrokenPipeError as error:  # which click would report as a failure
            ctx.exit(report_error(error, ()))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(ctx), *load().commands})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one command; built-in ones come first."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        commands = load().commands
        return commands[cmd_name] if cmd_name in set(commands) else None


COMPLETION = """\b
Completion of commands and options, in the start-up file of the shell:
  bash  eval "$(_SHARDCACHE_COMPLETE=bash_source shardcache)"
  zsh   eval "$(_SHARDCACHE_COMPLETE=zsh_source shardcache)"
  fish  _SHARDCACHE_COMPLETE=fish_source shardcache | source
"""


@click.group(
    cls=Commands, epilog=COMPLETION, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="shardcache")
def cli() -> None:
    """Inspect and plan one key space over memcached, Redis and in-process nodes.

    Exit status: 0 done, 1 not found or a node down, 2 bad usage, 130 interrupted.
    """


COMMANDS = (
    *(demo, where, nodes, ping, check, stats, watch, bench),
    *(get, set_, delete, locks, flush, plan, drain, plugins),
)
for command in COMMANDS:
    cli.add_command(command)


def run() -> None:
    """Run the command line; a user's mistake is reported in one clear line, without a traceback."""
    prepare_output()
    os.environ.pop(
        DISABLED_VARIABLE, None
    )  # it is for programs: an operator wants to see the nodes
    words = sys.argv[1:]
    try:
        status = cli.main(prog_name="shardcache", standalone_mode=False)
    except Exception as error:  # noqa: BLE001 - a bug is reported in a line as well
        status = _report(error, words)
    sys.exit(flush_output(status or 0))


def _report(error: BaseException, words: Sequence[str]) -> int:
    try:
        return report_error(error, words)
    except BrokenPipeError as broken:
        return report_error(broken, words)
