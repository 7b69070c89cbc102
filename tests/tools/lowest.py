"""Print the lowest version of each dependency that the package states, as constraints for pip.

`python tests/tools/lowest.py > lowest.txt && pip install -c lowest.txt '.[cli,testing]'`
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).parents[2] / "pyproject.toml"

_stated = re.compile(r"([\w.-]+)(?:\[[\w,-]+\])?>=([\w.]+)").fullmatch


def lowest() -> Iterator[str]:
    """Return a constraint for each dependency, those of the extras included.

    Raise `ValueError` for one that states another range than "from this version on".
    """
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    for requirement in [*project["dependencies"], *(each for extra in extras for each in extra)]:
        stated = _stated(requirement)
        if stated is None:
            raise ValueError(f"{requirement!r} does not state its lowest version alone")
        name, version = stated.groups()
        yield f"{name}=={version}"


if __name__ == "__main__":
    sys.stdout.write("".join(f"{line}\n" for line in lowest()))
