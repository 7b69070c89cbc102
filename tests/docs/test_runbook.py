"""The commands of the runbook do what it shows, one after another, over real nodes."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from shardcache.cli.watch import NUMBERS

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "operate.md"
BLOCK = re.compile(r"^ *```(?P<language>\w+)\n(?P<text>.*?)^ *```", re.MULTILINE | re.DOTALL)
ADDRESS = re.compile(r"10\.0\.0\.(?P<number>\d)(?::11211)?")
FILE = "/etc/shop/shardcache.toml"
# What belongs to the machine, to a web server, or ends only with Ctrl-C.
OTHERS = ("export ", "gunicorn ", "systemctl ", "shardcache watch")
ALIKE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Step(NamedTuple):
    """A command, and what the page shows below it."""

    command: str
    shown: str


def blocks(page: str, language: str) -> list[str]:
    """Return the blocks of a language, without the indent of a list."""
    found = (block for block in BLOCK.finditer(page) if block["language"] == language)
    return [re.sub(r"^   ", "", block["text"], flags=re.MULTILINE) for block in found]


def steps(page: str) -> Iterator[Step]:
    """Yield the commands of a page; lines that begin with `> ` belong to the one above."""
    for block in blocks(page, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, shown = re.fullmatch(r"(.*\n(?:> .*\n)*)((?:.*\n)*)", part).groups()
            yield Step(re.sub(r"^> ", "", command, flags=re.MULTILINE), shown)


@pytest.fixture
def machine(make_memcached, tmp_path):
    """Return a function that runs a command as on the page: with its file and its addresses."""
    page = PAGE.read_text(encoding="utf-8")
    servers = {number: make_memcached() for number in "12345"}
    names = {f"{server.host}:{server.port}": f"10.0.0.{n}:11211" for n, server in servers.items()}

    def here(text: str) -> str:
        text = text.replace(FILE, str(tmp_path / "shardcache.toml"))
        if text.startswith("shardcache plan"):  # it asks no node, and the name of a node counts
            return text
        return ADDRESS.sub(lambda found: servers[found["number"]].url.partition("://")[2], text)

    def there(text: str) -> str:
        for ours, shown in names.items():
            text = text.replace(ours, shown)
        return text.replace(str(tmp_path / "shardcache.toml"), FILE)

    (tmp_path / "shardcache.toml").write_text(here(blocks(page, "toml")[0]))
    program = tmp_path / "shardcache"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m shardcache.cli "$@"\n')
    program.chmod(0o755)
    env = {name: value for name, value in os.environ.items() if name != "SHARDCACHE_URL"}
    env |= {
        "SHARDCACHE_CONFIG": str(tmp_path / "shardcache.toml"),
        "PATH": f"{tmp_path}:{env['PATH']}",
        "PYTHONIOENCODING": "utf-8",
    }

    def run(command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", here(command)],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, ""), command
        return there(done.stdout)

    return run


@pytest.mark.slow
def test_each_command_does_what_the_page_shows(machine):
    """From the first to the last, on the file that the ones before have left."""
    checker = doctest.OutputChecker()
    ran = 0
    for command, shown in steps(PAGE.read_text(encoding="utf-8")):
        if command.startswith(OTHERS) and "--count" not in command:
            continue
        ran += 1
        told = machine(command)
        assert checker.check_output(shown, told, ALIKE), f"$ {command}{told}"
    assert ran > 10


def test_a_command_of_several_lines_is_one():
    """And what is shown below it is its output."""
    page = "1. x\n\n   ```console\n   $ cat <<END\n   > a\n   > END\n   a\n   $ b\n   ```\n"
    assert list(steps(page)) == [("cat <<END\na\nEND\n", "a\n"), ("b\n", "")]


def test_the_picture_of_watch_has_its_columns():
    """The one on the page, for a reader who compares."""
    picture = next(text for text in blocks(PAGE.read_text(encoding="utf-8"), "text"))
    titles = [title for title in map(str.strip, picture.splitlines()[0].split("  ")) if title]
    assert titles == ["node", "circuit", *NUMBERS]
