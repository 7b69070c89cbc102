"""Run one command in the directory of every plugin: `python tests/tools/each_plugin.py COMMAND…`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PLUGINS = Path(__file__).parents[2] / "plugins"


def main(command: list[str]) -> int:
    """Run `command` in each plugin; return the first status that is not zero, 1 if there is none."""
    projects = sorted(PLUGINS.glob("*/pyproject.toml"))
    if not projects:
        sys.stderr.write(f"there is no plugin below {PLUGINS}\n")
        return 1
    for project in projects:
        status = subprocess.run(command, cwd=project.parent, check=False).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
