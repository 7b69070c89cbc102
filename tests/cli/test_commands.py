"""Each command, as a person types it: output, JSON, exit status, and mistakes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from shardcache.cli.app import cli
from shardcache.plugin import manager

MEMORY = "memory://a,b,c"


@pytest.fixture
def url(memcached_servers):
    """Name three empty memcached nodes."""
    return ",".join(
        [memcached_servers[0].url, *(f"{s.host}:{s.port}" for s in memcached_servers[1:])]
    )


def test_values_go_in_and_come_out(typed, url):
    """`set`, `get` and `delete` do what they say, and say what they did."""
    status, out, _ = typed("set", "k", "a value", "--ttl", "60", "--url", url)
    assert (status, "stored on" in out) == (0, True)
    assert typed("get", "k", "--url", url)[:2] == (0, "a value\n")
    assert typed("set", "n", '{"a": [1, 2]}', "--parse", "--url", url)[0] == 0
    status, out, _ = typed("get", "n", "--json", "--url", url)
    assert (status, json.loads(out)["value"]) == (0, {"a": [1, 2]})
    assert typed("delete", "k", "n", "gone", "--url", url)[:2] == (0, "2 of 3 deleted\n")
    assert typed("get", "k", "--url", url)[0] == 1
    status, out, _ = typed("get", "k", "--json", "--url", url)
    assert (status, json.loads(out)["found"]) == (1, False)
    assert typed("delete", "k", "--url", url)[0] == 1


def test_a_disabled_cache_can_be_looked_at(typed, url):
    """`SHARDCACHE_DISABLED` is for programs: an operator wants to see the nodes."""
    assert typed("set", "k", "v", "--url", url, SHARDCACHE_DISABLED="1")[0] == 0
    assert typed("get", "k", "--url", url, SHARDCACHE_DISABLED="1")[:2] == (0, "v\n")


@pytest.mark.parametrize("ttl", ["0", "-1"])
def test_no_time_to_live_is_reported(typed, url, ttl):
    """Storing for no time removes the key, and `set` says so."""
    assert typed("set", "k", "old", "--url", url)[0] == 0
    status, out, _ = typed("set", "k", "v", "--ttl", ttl, "--url", url)
    assert (status, "stored on" in out, "deleted from" in out) == (0, False, True)
    status, out, _ = typed("set", "k", "v", "--ttl", ttl, "--json", "--url", url)
    assert (status, json.loads(out)["stored"]) == (0, False)
    assert typed("get", "k", "--url", url)[0] == 1


def test_where_keys_live(typed):
    """`where` names the owner first, then who would be next."""
    status, out, _ = typed("where", "x", "y", "--json", "--url", MEMORY)
    found = json.loads(out)
    assert status == 0
    assert [entry["key"] for entry in found] == ["x", "y"]
    assert all(sorted(entry["nodes"]) == ["a", "b", "c"] for entry in found)
    assert found[0]["nodes"][0] in typed("where", "x", "--url", MEMORY)[1]


def test_nodes_and_their_shares(typed):
    """`nodes` shows weights and the shares that follow."""
    status, out, _ = typed("nodes", "--json", "--url", "memory://a,b*2".replace("memory", "redis"))
    nodes = {node["name"]: node for node in json.loads(out)["nodes"]}
    assert status == 0
    assert nodes["b:6379"]["share"] == pytest.approx(2 / 3, abs=0.02)
    assert "fingerprint" in typed("nodes", "--url", MEMORY)[1]


def test_ping_tells_who_is_down(typed, url):
    """`ping` exits with 1 when a node is down, and names the error."""
    assert typed("ping", "--url", url)[0] == 0
    status, out, _ = typed("ping", "--json", "--url", "memcached://127.0.0.1:1")
    answer = json.loads(out)["127.0.0.1:1"]
    assert (status, answer["up"]) == (1, False)
    assert "refused" in answer["error"]


def test_stats(typed, url, redis_servers):
    """`stats` shows each server's figures; one that gives none makes the status 1."""
    status, out, _ = typed("stats", "--json", "--url", url)
    assert status == 0
    assert all(node["server"]["version"] for node in json.loads(out).values())
    assert "version" in typed("stats", "--url", redis_servers[0].url)[1]
    assert typed("stats", "--url", "memcached://127.0.0.1:1")[0] == 1


@pytest.mark.parametrize(
    ("change", "low", "high"),
    [
        (["--add", "memory://d"], 0.24, 0.26),
        (["--remove", "c"], 0.32, 0.35),
        (["--weight", "a=2"], 0.15, 0.18),
        (["--strategy", "modulo"], 0.6, 0.72),
    ],
)
def test_plan_shows_what_would_move(typed, change, low, high):
    """`plan` gives the share that moves, and the balance before and after."""
    status, out, _ = typed("plan", *change, "--json", "--url", MEMORY)
    figures = json.loads(out)
    assert status == 0
    assert low < figures["moved"] < high
    assert sum(figures["before"].values()) == pytest.approx(1)
    assert sum(figures["after"].values()) == pytest.approx(1)
    assert figures["hit_rate"]["cold"] == pytest.approx(0.9 * (1 - figures["moved"]))
    assert figures["hit_rate"]["warm"] == figures["hit_rate"]["before"] == 0.9
    told = typed("plan", *change, "--url", MEMORY)[1]
    assert "would move" in told
    assert "With warm_for it stays at 90 %" in told.replace("\n", " ")


def test_plan_counts_the_keys_of_a_file(typed, tmp_path):
    """`plan --keys` looks at one's own keys, from a file or standard input."""
    keys = "".join(f"user:{number}\n" for number in range(400))
    path = tmp_path / "keys.txt"
    path.write_text(keys)
    words = ["plan", "--add", "memory://d", "--json", "--url", MEMORY, "--keys"]
    figures = json.loads(typed(*words, str(path))[1])
    assert (figures["looked_at"], figures["basis"]) == (400, "keys")
    assert figures == json.loads(typed(*words, "-", stdin=keys)[1])


def test_plugins(typed):
    """`plugins` lists who offers what."""
    status, out, _ = typed("plugins", "--json")
    ours = json.loads(out)["plugins"][0]
    assert status == 0
    assert ours["name"] == "shardcache"
    assert "strategy rendezvous" in ours["offers"]
    assert "rendezvous" in typed("plugins")[1]


def test_plugins_that_offer_nothing_by_name_are_listed_too(typed, monkeypatch, tmp_path):
    """One that only observes is loaded code like any other; what is kept out is told."""
    info = tmp_path / "watching-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: watching\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[shardcache]\nwatcher = watcher_plugin\n")
    (tmp_path / "watcher_plugin.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(manager, "_loaded", {})
    alone = typed("plugins", SHARDCACHE_PLUGINS="watcher")[1]
    loaded, _, kept_out = alone.partition("not loaded")
    assert "watcher" in loaded
    assert "watcher" not in kept_out
    none = typed("plugins", "--json", SHARDCACHE_PLUGINS="none")[1]
    assert "watcher" in json.loads(none)["blocked"]
    assert [plugin["name"] for plugin in json.loads(none)["plugins"]] == ["shardcache"]
    assert "installed, not loaded: " in typed("plugins", SHARDCACHE_PLUGINS="none")[1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["get", "k"], "SHARDCACHE_URL"),
        (["get", "k", "--url", "nonsense"], "://"),
        (["get", "k", "--url", "gopher://a"], "no such backend for the URL scheme"),
        (["get", "", "--url", MEMORY], "empty"),
        (["get", "k", "--url", MEMORY, "--config", "no-such-file"], "no-such-file"),
        (["get"], "KEY"),
        (["set", "k", "v", "--ttl", "soon", "--url", MEMORY], "soon"),
        (["set", "k", "v", "--ttl", "nan", "--url", MEMORY], "finite"),
        (["set", "k", "{", "--parse", "--url", MEMORY], "JSON"),
        (["plan", "--url", MEMORY], "--add"),
        (["plan", "--remove", "z", "--url", MEMORY], "known: a, b, c"),
        (["plan", "--weight", "a", "--url", MEMORY], "NAME=WEIGHT"),
        (["plan", "--strategy", "kettle", "--url", MEMORY], "rendezvous"),
        (["where", "k", "--url", f"{MEMORY}?strateggy=x"], "strategy"),
        (["no-such-command"], "no-such-command"),
        (["demo", "--servers", "oracle"], "memcached"),
    ],
)
def test_mistakes_are_reported_in_a_line(typed, words, told):
    """Bad usage exits with 2 and says what is known, without a traceback."""
    status, _, errors = typed(*words)
    assert status == 2
    assert told in errors


def test_a_node_that_is_down_is_reported_in_a_line(typed):
    """A failing node exits with 1, and its reason is told, once for all its keys."""
    for words in (["get", "k"], ["delete", "k"], ["delete", "k", "l"]):
        status, _, errors = typed(*words, "--url", "memcached://127.0.0.1:1")
        assert status == 1
        assert errors.count("cannot be reached: Connection refused") == 1


def test_without_the_extra_it_says_how_to_get_it():
    """Where click or rich is missing, one line names the extra."""
    code = (
        "import sys; sys.modules['click'] = None\n"
        "sys.argv = ['shardcache']\n"
        "from shardcache.cli import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "needs the extra `cli`: pip install click rich" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["nodes"],
        ["where", "schlüssel", "--json"],
        ["get", "k"],
        ["get", "k", "--json", "--url", "memcached://127.0.0.1:1"],
        ["delete", "k", "l", "--url", "memcached://127.0.0.1:1"],
        ["plan", "--keys", "-", "--add", "memory://d"],
        ["flush", "a"],
        ["plan", "--remove", "z"],
        ["no-such-command"],
        ["--help"],
        [],
    ],
    ids=" ".join,
)
def test_a_process_says_the_same(typed, typed_in_a_process, words):
    """What other tests see of a command in their own process is what a shell gets."""
    given = {"stdin": "user:1\nuser:2\n", "SHARDCACHE_URL": MEMORY}
    assert typed(*words, **given) == typed_in_a_process(*words, **given)


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_has_json_and_help(name):
    """Programs can read what people see."""
    command = cli.commands[name]
    assert command.help
    assert "--json" in {option for parameter in command.params for option in parameter.opts}
