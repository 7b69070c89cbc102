"""`drain` takes a node out of the file of settings, and changes nothing else in it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from shardcache.cli import config_text
from shardcache.settings import Settings

LIST = """\
# The nodes of the shop.
nodes = [
    "memcached://10.0.0.1",  # rack 1
    "memcached://10.0.0.2",  # rack 2
    "memcached://10.0.0.3",
]
namespace = "shop"
"""
TABLES = """\
namespace = "shop"

[[nodes]]  # rack 1
url = "memcached://10.0.0.1"

[[nodes]]
url = "redis://app:pw@10.0.0.9"
name = "10.0.0.2:11211"
weight = 2

[[nodes]]
url = "memcached://10.0.0.3"
"""
FILES = {
    "list": LIST,
    "hosts": 'nodes = ["memcached://10.0.0.1,10.0.0.2*3,10.0.0.3"]  # all\n',
    "text": 'nodes = "memcached://10.0.0.1,10.0.0.2,10.0.0.3"\n',
    "mixed": (
        'nodes = ["memcached://10.0.0.1", { url = "redis://u:p%40@10.0.0.7/1", name ='
        ' "10.0.0.2:11211" }, "memcached://10.0.0.3"]\n'
    ),
    "login": 'nodes = ["redis://u:p%40w@10.0.0.1:11211,10.0.0.2:11211,10.0.0.3:11211/2"]\n',
    "windows": LIST.replace("\n", "\r\n"),
}
NAMES = ["10.0.0.1:11211", "10.0.0.2:11211", "10.0.0.3:11211"]
GONE = NAMES[1]


@pytest.fixture
def path(tmp_path):
    """Return a file of settings with three nodes."""
    return written(tmp_path / "shardcache.toml", LIST)


def written(path, text):
    """Write a file as it is; return its path."""
    path.write_bytes(text.encode())
    return path


def names(path):
    """Return the names of the nodes of a file."""
    return [node.name for node in Settings.load(path).nodes]


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_the_node_is_gone_and_the_others_are_as_they_were(typed, tmp_path, text):
    """However the nodes are written; with their names, weights and logins."""
    path = written(tmp_path / "shardcache.toml", text)
    before = Settings.load(path)
    assert typed("drain", GONE, "--yes", "--config", path)[0] == 0
    after = Settings.load(path)
    assert after.nodes == (before.nodes[0], before.nodes[2])
    assert after.namespace == before.namespace


def test_comments_stay(typed, path):
    """All but those of the node itself."""
    typed("drain", GONE, "--yes", "--config", path)
    assert path.read_text() == LIST.replace('    "memcached://10.0.0.2",  # rack 2\n', "")


def test_tables_stay(typed, tmp_path):
    """The text of the other tables is as it was."""
    path = written(tmp_path / "shardcache.toml", TABLES)
    assert typed("drain", GONE, "--yes", "--config", path)[0] == 0
    first, second, third = TABLES.split("\n[[nodes]]")[1:]
    assert path.read_text() == TABLES.replace(f"\n[[nodes]]{second}", "")
    assert first in path.read_text()
    assert third in path.read_text()


def test_a_project_file(typed, tmp_path):
    """Its other tables are not ours."""
    text = f'[project]\nname = "shop"\n\n[tool.shardcache]\n{LIST}'
    path = written(tmp_path / "pyproject.toml", text)
    assert typed("drain", GONE, "--yes", "--config", path)[0] == 0
    assert names(path) == [NAMES[0], NAMES[2]]
    assert path.read_text().startswith('[project]\nname = "shop"\n')


def test_it_says_what_it_costs_and_what_is_left_to_do(typed, path):
    """The share that moves, what the hit rate loses, and the flush before the node is used again."""
    status, out, _ = typed("drain", GONE, "--yes", "--config", path)
    assert status == 0
    first, second, *_ = out.splitlines()
    assert first == "33.4 % of the keys would move from 10.0.0.2:11211 to the other nodes."
    assert second == "Each misses once: a hit rate of 90 % falls to 59.9 % for a while."
    assert f"shardcache flush {GONE} --url memcached://{GONE}" in out


def test_as_json(typed, path):
    """Shares from 0 to 1, addresses without logins."""
    status, out, _ = typed("drain", GONE, "--yes", "--json", "--config", path)
    told = json.loads(out)
    assert (status, told.pop("moved")) == (0, pytest.approx(1 / 3, abs=0.01))
    remaining = [f"memcached://{name}" for name in (NAMES[0], NAMES[2])]
    assert told == {"node": GONE, "nodes": remaining, "drained": True}


@pytest.mark.parametrize(("answer", "drained"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_it_asks_first(on_terminal, path, answer, drained):
    """With the name of the node and of the file; no answer is a no."""
    words = ("drain", GONE, "--config", str(path))
    shown = "\n".join(on_terminal(*words, answer=answer, columns=200))
    assert f"take {GONE} out of {path}?" in shown
    assert ("not drained" in shown) is not drained
    assert (path.read_text() == LIST) is not drained


def test_a_script_has_to_say_yes(typed, path):
    """And no question is asked with --json."""
    for words in ((), ("--json",)):
        status, out, errors = typed("drain", GONE, *words, "--config", path, stdin="y\n")
        assert (status, "--yes" in out + errors) == (2, True)
    assert path.read_text() == LIST


def test_the_file_of_the_environment(typed, path):
    """It is the file that is changed."""
    assert typed("drain", GONE, "--yes", SHARDCACHE_CONFIG=str(path))[0] == 0
    assert names(path) == [NAMES[0], NAMES[2]]


@pytest.mark.parametrize("variable", [False, True])
def test_nodes_of_a_url_are_only_printed(typed, path, variable):
    """Without logins; the file that the URL overrides stays as it is."""
    url = "redis://app:hunter2@10.0.0.1,10.0.0.2"
    words = () if variable else ("--url", url)
    env = {"SHARDCACHE_CONFIG": str(path), **({"SHARDCACHE_URL": url} if variable else {})}
    status, out, errors = typed("drain", "10.0.0.1:6379", "--yes", *words, **env)
    assert (status, out.splitlines()[-1]) == (1, "  redis://10.0.0.2:6379")
    assert "no file was changed" in out
    assert "hunter2" not in out + errors
    assert path.read_text() == LIST


@pytest.mark.parametrize(
    ("text", "name", "fault"),
    [
        (LIST, "10.0.0.4:11211", "known: 10.0.0.1:11211"),
        ('nodes = ["memcached://10.0.0.1"]', NAMES[0], "at least one node"),
        (f'strategy = "jump"\n{LIST}', GONE, "jump"),
    ],
)
def test_what_cannot_be_drained(typed, tmp_path, text, name, fault):
    """A node that is not there, the last one, and one that the strategy cannot lose."""
    path = written(tmp_path / "shardcache.toml", text)
    status, _, errors = typed("drain", name, "--yes", "--config", path)
    assert (status, fault in errors) == (2, True)
    assert path.read_text() == text


def test_a_file_that_was_changed_meanwhile_is_not_overwritten(typed, path, monkeypatch):
    """Somewhere an editor was open while the question waited."""
    reads = iter([LIST, LIST + "# mine\n"])
    monkeypatch.setattr("shardcache.cli.drain._text_of", lambda _: next(reads))
    status, _, errors = typed("drain", GONE, "--yes", "--config", path)
    assert (status, "was changed meanwhile" in errors) == (1, True)
    assert path.read_text() == LIST


def test_a_text_that_cannot_be_changed_safely(typed, path, monkeypatch):
    """The result is read before it is written."""
    monkeypatch.setattr(config_text, "_without", lambda nodes, _: nodes.pop())
    status, _, errors = typed("drain", GONE, "--yes", "--config", path)
    assert (status, "edit it yourself" in errors) == (1, True)
    assert path.read_text() == LIST


def test_without_tomlkit(typed, path, monkeypatch):
    """It says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "tomlkit", None)
    status, _, errors = typed("drain", GONE, "--yes", "--config", path)
    assert (status, "pip install tomlkit" in errors) == (1, True)


def test_a_file_is_replaced_in_one_step(path):
    """It keeps its mode, a link stays a link, and nothing else is left behind."""
    path.chmod(0o640)
    link = path.with_name("link.toml")
    link.symlink_to(path)
    before = path.stat().st_ino
    config_text.write_in_one_step(link, "new\r\n")
    assert (link.is_symlink(), path.read_bytes()) == (True, b"new\r\n")
    assert (path.stat().st_mode & 0o777, path.stat().st_ino != before) == (0o640, True)
    assert sorted(path.parent.iterdir()) == [link, path]


def test_a_write_that_fails_leaves_the_file(path, monkeypatch):
    """And no other file next to it."""

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        config_text.write_in_one_step(path, "new")
    assert (path.read_text(), list(path.parent.iterdir())) == (LIST, [path])


def test_another_owner_is_no_obstacle(path, monkeypatch):
    """Only root can give the file back; its mode stays."""

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    config_text.write_in_one_step(path, "new")
    assert Path(path).read_text() == "new"
