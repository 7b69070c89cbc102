"""The command line; needs the extra `cli`."""

from __future__ import annotations

import sys

ADVICE = "the shardcache command needs what its extra `cli` brings: pip install click rich"
INTERRUPTED = 130  # 128 and the number of SIGINT, as shells have it


def main() -> None:
    """Run the command line; without the extra, say how to install it and exit with 2."""
    try:
        from shardcache.cli.app import run  # noqa: PLC0415 - click and rich come with the extra

        run()
    except KeyboardInterrupt:  # before or after a command, which tells of it itself
        sys.exit(INTERRUPTED)
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.stderr.write(f"{ADVICE}\n")
        sys.exit(2)
