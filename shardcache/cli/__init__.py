"""The command line; needs the extra `cli`."""

from __future__ import annotations

import sys

ADVICE = "the shardcache command needs the extra `cli`: pip install click rich tomlkit"
INTERRUPTED = 130  # 128 plus the number of SIGINT, as in shells


def main() -> None:
    """Run the command line; without its extra, print how to install it and exit with 2."""
    try:
        from shardcache.cli.app import run  # noqa: PLC0415 - click and rich come with the extra

        run()
    except KeyboardInterrupt:  # before or after a command; a command reports it itself
        sys.exit(INTERRUPTED)
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.stderr.write(f"{ADVICE}\n")
        sys.exit(2)
