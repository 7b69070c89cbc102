"""A file of settings is read again when it has changed, and only then."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from shardcache.errors import ConfigurationError
from shardcache.settings import Settings, config_file
from shardcache.settings.config_file import ConfigFile

NODES = 'nodes = ["memory://a,b"]\n'


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """Return what happens during each pause in which a file settles; by default nothing."""
    happenings = []

    def sleep(seconds):
        assert seconds == config_file.SETTLES
        if happenings:
            happenings.pop(0)()

    # Only there: a thread that another test has left sleeps too.
    monkeypatch.setattr(config_file, "time", SimpleNamespace(sleep=sleep))
    return happenings


@pytest.fixture
def path(tmp_path):
    """Return a file with two nodes."""
    path = tmp_path / "shardcache.toml"
    path.write_text(NODES)
    return path


def names(found):
    """Return the names of the nodes of settings."""
    assert isinstance(found, Settings)
    return [node.name for node in found.nodes]


def test_the_first_look_returns_what_the_file_has(path):
    """And a second one nothing, as long as it does not change, whatever its date is."""
    file = ConfigFile(path)
    assert names(file.look()) == ["a", "b"]
    assert file.look() is None
    os.utime(path, (1, 1))
    path.write_text(NODES)
    assert file.look() is None


def test_a_change_is_seen_once(path):
    """Also one that leaves size and date as they were."""
    file = ConfigFile(path)
    file.look()
    before = path.stat()
    path.write_text(NODES.replace("a,b", "a,c"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert names(file.look()) == ["a", "c"]
    assert file.look() is None


def test_a_file_that_is_replaced_is_seen(path, tmp_path):
    """By a rename, and by another target of a link, as Kubernetes does it."""
    link = tmp_path / "link.toml"
    link.symlink_to(path)
    file = ConfigFile(link)
    file.look()
    other = tmp_path / "other.toml"
    other.write_text('nodes = ["memory://x"]')
    link.unlink()
    link.symlink_to(other)
    assert names(file.look()) == ["x"]
    path.rename(other)
    assert names(file.look()) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("nodes = [", "is not TOML"),
        ("", "nodes: is missing"),
        (None, "cannot be read: No such file"),
        (NODES + "nodse = 1", "no such option"),
    ],
)
def test_a_broken_file_is_seen_once_too(path, text, fault):
    """With its faults; and so is the next good one."""
    file = ConfigFile(path)
    file.look()
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    found = file.look()
    assert isinstance(found, ConfigurationError)
    assert fault in str(found)
    assert file.look() is None
    path.write_text(NODES)
    assert names(file.look()) == ["a", "b"]


def test_a_file_that_is_being_written_is_waited_for(path, pauses):
    """Tables that are not all there yet would be fewer nodes."""
    file = ConfigFile(path)
    file.look()
    tables = [f'[[nodes]]\nurl = "memory://{name}"\n' for name in "abc"]
    path.write_text(tables[0])
    pauses += [
        lambda: path.write_text("".join(tables[:2])),
        lambda: path.write_text("".join(tables)),
    ]
    assert names(file.look()) == ["a", "b", "c"]


def test_the_path_does_not_depend_on_the_directory(path, monkeypatch, tmp_path):
    """A server changes it when it becomes a daemon."""
    monkeypatch.chdir(tmp_path)
    files = [ConfigFile("shardcache.toml"), ConfigFile.of_environment(variables("shardcache.toml"))]
    monkeypatch.chdir("/")
    path.write_text('nodes = ["memory://z"]')
    assert [names(file.look()) for file in files] == [["z"], ["z"]]
    assert files[0].path == path


def variables(path, **others):
    """Return an environment that names a file."""
    return {"SHARDCACHE_CONFIG": str(path), "HOME": "/", **others}


def test_variables_override_the_file(path):
    """As when the client was made; later changes of the environment do not count."""
    environ = variables(path, SHARDCACHE_STRATEGY="jump")
    file = ConfigFile.of_environment(environ)
    environ.clear()
    assert file.settings.strategy == "jump"
    found = file.look()
    assert found.strategy == "jump"
    assert file.restart_needed(found) == ()


def test_settings_that_need_a_restart_are_named(path):
    """All that differ from those of the start, but not the nodes."""
    file = ConfigFile(path)
    path.write_text('nodes = ["memory://c"]\nstrategy = "jump"\nlock_nodes = ["memory://l"]\n')
    assert file.restart_needed(file.look()) == ("strategy", "lock_nodes")
    path.write_text('nodes = ["memory://c"]\n')
    assert file.restart_needed(file.look()) == ()


def test_a_file_of_python_projects(tmp_path):
    """Its table is read."""
    path = Path(tmp_path, "pyproject.toml")
    path.write_text('[tool.shardcache]\nnodes = ["memory://a"]')
    assert names(ConfigFile(path).look()) == ["a"]


@pytest.mark.parametrize(
    ("environ", "fault"),
    [
        ({}, "no file of settings names the nodes: set SHARDCACHE_CONFIG"),
        (
            {"SHARDCACHE_CONFIG": "x.toml", "SHARDCACHE_URL": "memory://a"},
            "SHARDCACHE_URL names the nodes",
        ),
        ({"SHARDCACHE_CONFIG": "/no/such.toml"}, "/no/such.toml: cannot be read"),
    ],
)
def test_there_must_be_a_file(environ, fault):
    """That can be used, and that decides."""
    with pytest.raises(ConfigurationError, match=fault):
        ConfigFile.of_environment(environ)
