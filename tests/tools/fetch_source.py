"""Fetch the source distribution of a framework, whose own tests are to run against an adapter.

    python tests/tools/fetch_source.py django==5.2.9 DIRECTORY

prints the folder that was unpacked. Nothing of it is copied into the repository.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path


def fetch(requirement: str, directory: Path) -> Path:
    """Return the unpacked source of `name==version` below `directory`; fetch it once.

    Raise `subprocess.CalledProcessError` if pip cannot download it; pip has told why.
    """
    home = directory / requirement.replace("==", "-")
    source = home / "source"
    if not source.exists():
        arguments = [
            "--quiet",
            "--no-deps",
            "--no-binary",
            ":all:",
            "--dest",
            str(home / "archive"),
        ]
        subprocess.run(
            [sys.executable, "-m", "pip", "download", *arguments, requirement], check=True
        )
        (archive,) = (home / "archive").iterdir()
        with tarfile.open(archive) as files:
            files.extractall(home / "unpacked", filter="data")
        (home / "unpacked").rename(source)  # whole, or not there at all
    (folder,) = source.iterdir()
    return folder


if __name__ == "__main__":
    sys.stdout.write(f"{fetch(sys.argv[1], Path(sys.argv[2]))}\n")
