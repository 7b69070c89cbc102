"""The source of a framework is fetched once, and again after a download that failed."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest

from fetch_source import fetch


class Pip:
    """A pip that fails until the index answers, and then downloads an archive of one file."""

    def __init__(self) -> None:
        self.answers = False
        self.downloads = 0

    def run(self, arguments: list[str], *, check: bool) -> None:
        """Download to `--dest`, which pip creates first."""
        assert check
        archive = Path(arguments[arguments.index("--dest") + 1])
        archive.mkdir(parents=True, exist_ok=True)
        if not self.answers:
            raise subprocess.CalledProcessError(1, arguments)
        self.downloads += 1
        (archive / "setup.py").touch()
        with tarfile.open(archive / "framework-1.0.tar.gz", "w:gz") as files:
            files.add(archive / "setup.py", "framework-1.0/setup.py")
        (archive / "setup.py").unlink()


def test_a_failed_download_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """What it leaves behind is not taken for a source; a source is not fetched twice."""
    pip = Pip()
    monkeypatch.setattr(subprocess, "run", pip.run)
    with pytest.raises(subprocess.CalledProcessError):
        fetch("framework==1.0", tmp_path)
    pip.answers = True
    folders = {fetch("framework==1.0", tmp_path) for _ in range(2)}
    assert [(folder / "setup.py").exists() for folder in folders] == [True]
    assert pip.downloads == 1
