"""The same settings, wherever they come from."""

from __future__ import annotations

import json
import pickle
import tempfile
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.core.placement.nodes import Node
from shardcache.core.timeouts import TimeoutPolicy
from shardcache.errors import ConfigurationError, TopologyError
from shardcache.settings import Settings

SECONDS = st.integers(1, 80_000) | st.floats(1e-6, 80_000)
PRINTABLE = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=12)
PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "strategy": st.sampled_from(["jump", "ketama:profile=twemproxy,hash=md5"]),
        "codec": st.sampled_from(["json", "mine:level=9"]),
        "read_unsigned": st.booleans() | st.just("plain"),
        "read_compressed": st.booleans(),
        "namespace": PRINTABLE,
        "default_ttl": SECONDS,
        "timeout": SECONDS,
        "connect_timeout": SECONDS,
        "on_error": st.sampled_from(["miss", "raise"]),
        "on_overflow": st.sampled_from(["warn", "flush"]),
        "failover": st.sampled_from(["miss", "next", "memory://spare1,spare2"]),
        "pool_size": st.integers(1, 10**6),
        "clearable": st.booleans(),
    },
)
URL = "redis://u:p%40ss@h1,h2*3/0"


@contextmanager
def written(text, name="shardcache.toml"):
    """Give the path of a file that holds `text`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_text(text, encoding="utf-8")
        yield path


def toml(**values):
    """Give a TOML text of plain values; JSON writes those as TOML does."""
    return "\n".join(
        f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()
    )


def faults_of(make, *args, **given):
    """Give the faults that a constructor tells."""
    with pytest.raises(ConfigurationError) as caught:
        make(*args, **given)
    return caught.value.faults


@given(PARAMETERS)
def test_every_source_gives_the_same_settings(parameters):
    """A dict, keyword arguments, a file, a URL and the environment mean the same by the same."""
    expected = Settings.from_dict({"nodes": URL, **parameters})
    texts = {name: str(value) for name, value in parameters.items()}
    query = "&".join(f"{name}={quote(text, safe=':=,/')}" for name, text in texts.items())
    environ = {f"SHARDCACHE_{name.upper()}": text for name, text in texts.items()}

    assert Settings.of(nodes=[URL], **parameters) == expected
    assert Settings.from_url(f"{URL}?{query}") == expected
    assert Settings.from_env({"SHARDCACHE_URL": f"{URL}?{query}"}) == expected
    assert Settings.from_env({"SHARDCACHE_URL": URL, **environ}) == expected
    table = toml(nodes=[URL], **parameters)
    with written(table) as path:
        assert Settings.load(path) == Settings.load(str(path)) == expected
        assert Settings.from_env({"SHARDCACHE_CONFIG": str(path)}) == expected
    with written(f"[tool.shardcache]\n{table}", "pyproject.toml") as path:
        assert Settings.load(path) == expected


@given(PARAMETERS)
def test_settings_make_themselves_again(parameters):
    """The fields of settings, given to a client or to another process, make equal settings."""
    settings = Settings.from_dict({"nodes": URL, "secret": ["a" * 16, b"b" * 16], **parameters})
    fields = {name: getattr(settings, name) for name in Settings.__slots__}
    assert Settings.of(**fields) == settings
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_defaults_are_those_of_the_page():
    """Settings of nodes alone have the documented defaults."""
    assert Settings.of(nodes="memory://a") == Settings(
        nodes=(Node("memory://a"),),
        strategy="rendezvous",
        codec="msgpack",
        secret=None,
        read_unsigned=False,
        read_compressed=False,
        namespace="",
        default_ttl=None,
        timeout=TimeoutPolicy(0.5),
        on_error="miss",
        on_overflow="warn",
        failover="miss",
        pool_size=32,
        clearable=False,
        locks="redlock",
        lock_nodes=None,
    )


def test_durations_are_converted_at_the_door():
    """A `timedelta`, a number and a policy are all taken, and kept as seconds."""
    settings = Settings.of(
        nodes="memory://a", default_ttl=timedelta(minutes=5), timeout=timedelta(seconds=2)
    )
    assert settings.default_ttl == 300.0
    assert settings.timeout == TimeoutPolicy(2.0)
    policy = TimeoutPolicy(2, connect=1)
    assert Settings.of(nodes="memory://a", timeout=policy).timeout is policy
    both = Settings.of(nodes="memory://a", timeout=policy, connect_timeout=0.5)
    assert both.timeout == TimeoutPolicy(2, connect=0.5)


@pytest.mark.parametrize(
    ("secret", "kept"),
    [
        (None, None),
        ("a", (b"a",)),
        (b"\0", (b"\0",)),
        (["a", b"b"], (b"a", b"b")),
        ("é", (b"\xc3\xa9",)),
    ],
)
def test_secrets_are_bytes(secret, kept):
    """One secret or several are kept as bytes, in order, whatever they were given as."""
    assert Settings.of(nodes="memory://a", secret=secret).secret == kept


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a", (b"a",)),
        ("a b,c", (b"a b,c",)),
        (" a\n", (b"a",)),
        ("new\nold", (b"new", b"old")),
        ("\r\n new \r\n\n old\n", (b"new", b"old")),
    ],
)
def test_secrets_of_a_variable_stand_on_lines(text, kept):
    """One a line, as a list in a file: so a secret can be changed while values of the old one are read."""
    environ = {"SHARDCACHE_URL": "memory://a", "SHARDCACHE_SECRET": text}
    assert Settings.from_env(environ).secret == kept
    with written(toml(nodes=["memory://a"], secret=[one.decode() for one in kept])) as path:
        assert Settings.load(path).secret == kept


def test_blanks_around_a_secret_are_never_part_of_it():
    """A text means the same secret in a file and in a variable, or is refused; bytes may be any."""
    assert faults_of(Settings.of, nodes="memory://a", secret=" hunter2") == (
        "secret: must not begin or end with a blank if it is text",
    )
    assert Settings.of(nodes="memory://a", secret=b" a\n").secret == (b" a\n",)


BAD = {
    "nodes": [[], 3, None, ["memory://a,,"], ["h:11211"]],
    "strategy": ["", 3, None, "ketama:x", ["jump"]],
    "codec": ["", False, "pickle:secret=x"],
    "secret": ["", b"", [], [""], 3, "a\n", " a", ["a", "b "], {"a": "b"}, ["a", None]],
    "namespace": [None, b"a", "a\n", "\ud800"],
    "default_ttl": [0, -1, float("nan"), 10**9, "300", True],
    "timeout": [0, -1, float("inf"), 10**9, "1", True, None],
    "connect_timeout": [0, -1, float("inf"), 10**9, "1", True],
    "on_error": ["next", "", None, True, ["miss"]],
    "on_overflow": ["keep", "", None, True],
    "failover": ["", "raise", None, True, ["next"], "nonsense://", {}, {"nodes": []}],
    "pool_size": [0, -1, 1.0, True, "3", None],
    "locks": ["", 3, None, "zookeeper", "h1:2181", "zookeeper://h 1", ["zookeeper://h1"]],
    "lock_nodes": [[], 3, ["memory://a,,"], ["h:11211"]],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in BAD.items() for v in values])
def test_values_are_checked_strictly(name, value):
    """A value of another type or out of range is refused, under the name of its setting."""
    told = faults_of(Settings.from_dict, {"nodes": "memory://a", name: value})
    assert told
    assert all(fault.startswith(f"{name}: ") for fault in told)


@given(st.sets(st.sampled_from(sorted(BAD)), min_size=1), st.data())
def test_all_faults_are_reported_at_once(broken, data):
    """One error tells of every broken setting and of no sound one."""
    bad = {name: data.draw(st.sampled_from(BAD[name])) for name in sorted(broken)}
    told = faults_of(Settings.from_dict, {"nodes": "memory://a", **bad, "strateggy": 1})
    assert {fault.partition(":")[0] for fault in told} == {*broken, "strateggy"}


def test_failover_says_what_is_known():
    """A choice that there is not is refused with those that there are."""
    assert faults_of(Settings.of, nodes="memory://a", failover="raise") == (
        "failover: no such choice (known: miss, next, a Gutter or URLs of spare nodes)",
    )


def test_nodes_alone_at_fault_are_a_topology_error():
    """Nodes that cannot hold keys raise the error that says so, unless other settings are bad."""
    with pytest.raises(TopologyError, match="nodes: a topology needs at least one node"):
        Settings.of(nodes=[])
    with pytest.raises(ConfigurationError) as caught:
        Settings.of(nodes=[], timeout=0)
    assert not isinstance(caught.value, TopologyError)


def test_unknown_keys_of_a_dict_are_faults():
    """A misspelt key is told with what was probably meant; an odd one is no crash."""
    strategy, odd, nodes = faults_of(Settings.from_dict, {"strateggy": "jump", 3: 4})
    assert strategy.startswith("strateggy: no such option (known: clearable, codec, ")
    assert strategy.endswith("did you mean 'strategy'?)")
    assert odd.startswith("3: no such option")
    assert nodes == "nodes: is missing (a list of URLs)"


def test_faults_of_a_file_name_the_file():
    """Each fault of a file begins with its path, then its key."""
    with written("timeout = -1\nstrateggy = 'jump'\nnodes = ['memory://a,b:1*0']") as path:
        told = faults_of(Settings.load, path)
    assert [fault.removeprefix(f"{path}: ").partition(" (")[0] for fault in told] == [
        "strateggy: no such option",
        "timeout: must be above zero",
        "nodes: entry 1: host 2: a weight is a number above zero, as in 10.0.0.1:11211*3",
    ]


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("shardcache.toml", "nodes = [", "is not TOML: "),
        ("shardcache.toml", f"pool_size = {'9' * 5000}", "is not TOML: "),
        ("pyproject.toml", "nodes = ['memory://a']", "has no table [tool.shardcache]"),
        ("pyproject.toml", "tool = 3", "has no table [tool.shardcache]"),
        ("pyproject.toml", "tool.shardcache = 3", "has no table [tool.shardcache]"),
        ("shardcache.toml", "", "nodes: is missing (a list of URLs)"),
    ],
)
def test_files_that_hold_no_settings_are_refused(name, text, fault):
    """A file that is no TOML, or lacks our table or nodes, is named with the reason."""
    with written(text, name) as path:
        (told,) = faults_of(Settings.load, path)
    assert told.startswith(f"{path}: {fault}")


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    """A missing file and one that is no UTF-8 are configuration errors as well."""
    missing, latin = tmp_path / "missing.toml", tmp_path / "latin.toml"
    latin.write_bytes(b"namespace = '\xe9'")
    assert faults_of(Settings.load, missing) == (
        f"{missing}: cannot be read: No such file or directory",
    )
    assert faults_of(Settings.load, latin) == (f"{latin}: is not UTF-8",)


@pytest.mark.parametrize(
    "environ",
    [{}, {"SHARDCACHE_URL": ""}, {"SHARDCACHE_TIMEOUT": "2"}, {"PATH": "/bin", "URL": "redis://h"}],
)
def test_without_url_and_file_there_are_no_settings(environ):
    """With no nodes named the error names the variables; a default has to be given."""
    (fault,) = faults_of(Settings.from_env, environ)
    assert fault.startswith("no nodes are named: set SHARDCACHE_URL")
    assert "SHARDCACHE_CONFIG" in fault
    assert "memory://" in fault
    settings = Settings.from_env(environ, "memory://a,b?namespace=n&timeout=3")
    assert settings.nodes == (Node("memory://a"), Node("memory://b"))
    assert settings.namespace == "n"
    assert settings.timeout.call == (2 if "SHARDCACHE_TIMEOUT" in environ else 3)


def test_a_default_is_for_want_of_nodes_alone():
    """A URL or a file in the environment counts, and what is wrong with a default is told."""
    environ = {"SHARDCACHE_URL": "memory://u"}
    assert Settings.from_env(environ, "memory://a?namespace=n") == Settings.from_env(environ)
    with written("nodes = ['memory://f']") as path:
        environ = {"SHARDCACHE_CONFIG": str(path)}
        assert Settings.from_env(environ, "memory://a") == Settings.from_env(environ)
    assert faults_of(Settings.from_env, {}, "memory://a?timeout=soon") == (
        "default: ?timeout=: must be seconds as a number",
    )


def test_the_more_particular_source_wins():
    """A file counts least, then the URL and its query, then the variable of one setting."""
    file = toml(nodes=["memory://f"], namespace="f", pool_size=1, codec="json", default_ttl=5)
    with written(file) as path:
        settings = Settings.from_env(
            {
                "SHARDCACHE_CONFIG": str(path),
                "SHARDCACHE_URL": " memory://u?namespace=u&pool_size=2\n",
                "SHARDCACHE_POOL_SIZE": "3",
                "SHARDCACHE_DEFAULT_TTL": "none",
                "SHARDCACHE_SECRET": "s" * 16,
            }
        )
    assert settings == Settings.of(
        nodes="memory://u",
        namespace="u",
        pool_size=3,
        codec="json",
        default_ttl=None,
        secret="s" * 16,
    )


def test_a_file_may_leave_the_nodes_to_the_url():
    """What is secret stays in the environment; without either the file is at fault."""
    with written("namespace = 'f'") as path:
        config = {"SHARDCACHE_CONFIG": str(path)}
        assert Settings.from_env({**config, "SHARDCACHE_URL": "memory://u"}).namespace == "f"
        assert faults_of(Settings.from_env, config) == (
            f"{path}: nodes: is missing (a list of URLs)",
        )


def test_faults_of_the_environment_name_the_variable():
    """Every fault says which variable it is of, and which field of the URL in it."""
    assert faults_of(
        Settings.from_env,
        {
            "SHARDCACHE_CONFIG": "/missing.toml",
            "SHARDCACHE_URL": "memcached://a,a:x?timeout=soon",
            "SHARDCACHE_TIMEOUTT": "1",
            "SHARDCACHE_POOL_SIZE": "many",
            "SHARDCACHE_STRATEGY": ":",
        },
    ) == (
        "/missing.toml: cannot be read: No such file or directory",
        "SHARDCACHE_URL: host 2: a port is a number from 1 to 65535",
        "SHARDCACHE_TIMEOUTT: did you mean 'SHARDCACHE_TIMEOUT'?",
        "SHARDCACHE_URL: ?timeout=: must be seconds as a number",
        "SHARDCACHE_STRATEGY: must begin with a name",
        "SHARDCACHE_STRATEGY: option 1 is not written name=value",
        "SHARDCACHE_POOL_SIZE: must be a whole number",
    )


@pytest.mark.parametrize(
    "name", ["PLUGINS", "DISABLED", "PORT", "PORT_11211_TCP", "SERVICE_HOST", "PROMETHEUS_BUCKETS"]
)
def test_variables_of_others_are_ignored(name):
    """Plugins and Kubernetes may set variables that begin like ours."""
    assert Settings.from_env({f"SHARDCACHE_{name}": "x"}, "memory://a").nodes == (
        Node("memory://a"),
    )


@pytest.mark.parametrize("text", ["0x10", "1_000", "1e9999", "nan", "inf", "\u0661", "1 s", "--1"])
def test_texts_that_are_no_plain_number_are_refused(text):
    """A number in text is written in plain digits, not in all the ways Python reads one."""
    for name in ("SHARDCACHE_TIMEOUT", "SHARDCACHE_POOL_SIZE"):
        (fault,) = faults_of(Settings.from_env, {"SHARDCACHE_URL": URL, name: text})
        assert fault.startswith(name)
