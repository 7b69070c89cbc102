"""What CONTRIBUTING.md names is there, under that name."""

from __future__ import annotations

import re
import tomllib
import traceback
from pathlib import Path

import pytest

from shardcache import Client
from shardcache.errors import NodeUnavailableError
from shardcache.testing.servers import free_port

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
GROUPS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]


def test_each_environment_is_one_of_tox():
    """In the tables and in the text."""
    tox = (ROOT / "tox.ini").read_text(encoding="utf-8")
    default = re.search(r"env_list = (.*)", tox)[1].split(", ")
    known = {*default, *re.findall(r"^\[testenv:([a-z]+)", tox, re.MULTILINE)}
    named = {name for names in re.findall(r"tox -e ([\w,]+)", PAGE) for name in names.split(",")}
    assert len(named) > 5
    assert named <= known


def test_each_path_is_there():
    """Of those that are written as code or as links."""
    paths = re.findall(r"[`(]((?:shardcache|tests|docs|loadtests|plugins|\.github)/[\w./-]*)", PAGE)
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_map_of_tests_is_complete():
    """Each directory is that of a package, or has a line."""
    table = PAGE.partition("## Where the tests are")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))))
    there = {path.parent.name for path in (ROOT / "tests").glob("*/*.*") if path.suffix != ".pyc"}
    packages = {path.parent.name for path in (ROOT / "shardcache").glob("*/__init__.py")}
    assert there - packages <= named
    assert named <= there


def test_the_group_of_the_first_command_is_there():
    """The environment of a developer has the tests' libraries and the linters."""
    (name,) = re.findall(r"--group (\w+) -e", PAGE)
    included = {each["include-group"] for each in GROUPS[name] if isinstance(each, dict)}
    assert included == {"coverage", "lint", "mypy"}


def test_the_traceback_is_one_of_today():
    """But for line numbers: each frame that is shown is there, in this order."""
    frame = re.compile(r'File "(shardcache/[\w/]+\.py)", line \d+, in (\w+).*\n +(.*)')
    shown = frame.findall(PAGE)
    with (
        Client(f"redis://127.0.0.1:{free_port()}", on_error="raise") as client,
        pytest.raises(NodeUnavailableError) as raised,
    ):
        client.incr("visits", initial=1)
    assert len(shown) > 7
    frames = iter(traceback.extract_tb(raised.tb))
    for path, name, line in shown:
        assert any(
            frame.filename.endswith(path) and (frame.name, frame.line) == (name, line)
            for frame in frames
        ), name
