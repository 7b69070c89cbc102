"""Output can be read at 80 columns, in a pipe, and where there is nothing but ASCII."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from shardcache.cli import demo, stampede

HOSTS = [f"cache-{number:02}.eu-west-1.production.example.com" for number in range(3)]
NAMES = [f"{host}:11211" for host in HOSTS]
URL = "memcached://" + ",".join(HOSTS)
MEMORY = "memory://a,b"
ASCII = [
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "ascii"},
]

COMMANDS = [
    ["nodes"],
    ["ping"],
    ["stats"],
    ["where", "user:42", "user:43"],
    ["plan", "--add", "memcached://cache-03.eu-west-1.production.example.com"],
    ["plan", "--remove", NAMES[0], "--strategy", "jump"],
]
LETTERS = [
    ["set", "schlüssel", "v"],
    ["where", "schlüssel-漢字"],
    ["get", "漢字", "--json"],
    ["get", "k", "--no-such-öption"],
]


@pytest.fixture
def named(tmp_path):
    """Give the options that name the nodes: those that are asked are down, and need no look-up."""
    path = tmp_path / "shardcache.toml"
    tables = (
        f'[[nodes]]\nurl = "memcached://127.0.0.1:{port}"\nname = "{name}"\n'
        for port, name in enumerate(NAMES, 1)
    )
    path.write_text("".join(tables))
    return lambda words: ["--config", path] if words[0] in {"ping", "stats"} else ["--url", URL]


@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_at_80_columns_no_name_is_cut(on_terminal, named, words):
    """Each line fits, and each node's name stands on a line of its own or with its figures."""
    shown = on_terminal(*words, *named(words))
    assert max(map(len, shown)) <= 80
    for name in NAMES:
        assert any(name in line for line in shown)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_in_a_pipe_a_line_is_a_node(typed, named, words):
    """Nothing is wrapped or cut there, and no line ends in blanks, whatever `COLUMNS` says."""
    _, out, _ = typed(*words, *named(words), COLUMNS="40")
    lines = out.splitlines()
    assert all(line == line.rstrip() for line in lines)
    if words[0] in {"nodes", "ping", "stats"}:
        assert [line.split()[0] for line in lines[1:4]] == NAMES
    if words[0] in {"ping", "stats"}:
        assert all("cannot be reached" in line for line in lines[1:4])


def check_ascii(words, told):
    """Check that a command said what it had to say in ASCII alone."""
    status, out, errors = told
    assert (out + errors).isascii()
    assert status in {0, 1, 2}
    if all(word.isascii() for word in words):
        assert "\\u" not in out + errors
    if words[0] == "nodes":
        assert "####" in out


@pytest.mark.parametrize("words", [*COMMANDS, *LETTERS, ["get", "k"], ["plugins"]], ids=" ".join)
def test_where_there_is_only_ascii(typed, words):
    """Bars and marks are drawn in ASCII, and other letters are escaped."""
    url = [] if words == ["plugins"] else ["--url", "memory://a,b"]
    words = [word.replace(NAMES[0], "a") for word in words]
    check_ascii(words, typed(*words, *url, encoding="ascii"))


@pytest.mark.slow
@pytest.mark.parametrize("env", ASCII, ids=["LC_ALL=C", "PYTHONIOENCODING"])
@pytest.mark.parametrize("words", [["nodes"], *LETTERS], ids=" ".join)
def test_the_environment_says_that_there_is_only_ascii(typed_in_a_process, words, env):
    """Python then reads the command line in another way, too."""
    check_ascii(words, typed_in_a_process(*words, "--url", "memory://a,b", **env))


def test_the_demo_where_there_is_only_ascii(typed, monkeypatch):
    """Its panel and stacked bars as well; a few keys and figures made up show all of them."""
    seen = {"runs": 200, "right": 175, "longest": 0.3, "again_after": 2.0}
    crowd = {"unprotected": seen, "protected": seen, "killed": seen}
    figures = {"processes": 8, "threads": 25, **crowd}
    monkeypatch.setattr(demo, "KEYS", 500)
    monkeypatch.setattr(stampede, "installed_server", lambda: "memcached")
    start = demo._start_nodes  # no server is needed for figures that are made up
    monkeypatch.setattr(demo, "_start_nodes", lambda kind: nullcontext([]) if kind else start(kind))
    monkeypatch.setattr(stampede, "among_processes", lambda _: figures)
    status, out, errors = typed("demo", encoding="ascii")
    assert (status, errors, out.isascii(), "\\u" in out) == (0, "", True, False)
    assert "175 of the 175 others got the value" in out


def test_what_a_list_shows(on_terminal, memcached_servers):
    """A table that does not fit is a list: each node's name, and its figures below."""
    shown = on_terminal("stats", "--url", memcached_servers[0].url, columns=40)
    start = next(line for line in shown if memcached_servers[0].url.partition("://")[2] in line)
    below = shown[shown.index(start) + 1 :]
    assert below[0].split()[0] == "version"
    assert max(map(len, shown)) <= 40


def test_a_node_that_is_down_makes_no_list_of_a_table(on_terminal, memcached_servers):
    """Its error stands in the table where there is room, and else below."""
    names = [server.url.partition("://")[2] for server in memcached_servers]
    url = f"memcached://{','.join(names)},127.0.0.1:1"
    for command in ("ping", "stats"):
        shown = on_terminal(command, "--url", url)
        assert [line.split()[0] for line in shown[:5]] == ["node", *names, "127.0.0.1:1"]
        assert any("refused" in line for line in shown)
        assert max(map(len, shown)) <= 80
