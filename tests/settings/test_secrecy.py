"""No secret is ever shown, however broken the settings that hold it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import pickle
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hostile.showing import all_shown
from shardcache import AsyncClient, Client, UnknownPluginError, configure
from shardcache.backends.transport.tls import TLS_OPTIONS
from shardcache.core.placement.nodes import Address, Node
from shardcache.decorators import Defaults
from shardcache.errors import ConfigurationError
from shardcache.settings import Settings, node_list, parse_node, parse_nodes
from shardcache.settings.parameters import PARAMETERS

# Of letters that no message and no host has four of in a row, so that a part of a secret is met
# only where it leaked. No secret is a number: `redis://user:123` with its end missing is a host and
# its port, and nothing tells it apart.
SECRETS = st.text("QXZJ", min_size=12, max_size=24)
GARBAGE = st.sampled_from(
    [
        "@",
        ":",
        "/",
        "?",
        "#",
        "[",
        "]",
        ",",
        "*",
        "*0",
        "%",
        "%zz",
        "%ff",
        "%0a",
        "&",
        "=",
        "://",
        "//",
        "[::1",
        ":99999",
        ":x",
        "?db=1&db=1",
        "?timeout=x",
    ]
) | st.sampled_from([" ", "\n", "\x00", "\u200b", "\uff20"])


@st.composite
def broken(draw):
    """Give a secret, and a URL with it as the password, broken in one to three places."""
    secret = draw(SECRETS)
    scheme = draw(st.sampled_from(["redis", "rediss", "redis+unix", "memcached", "memory", "x"]))
    user = draw(st.sampled_from(["", "app"]))
    rest = draw(
        st.sampled_from(["h", "h1,h2:1/0", "[::1]:6379/0?db=1", "/run/a.sock?strategy=jump"])
    )
    url = f"{scheme}://{user}:{secret}@{rest}"
    for _ in range(draw(st.integers(0, 3))):
        # The `@` is never cut out: without it the password stands where hosts do.
        place = draw(st.integers(0, len(url)))
        garbage = draw(GARBAGE)
        url = url[:place] + garbage + url[place:]
    return secret, url


def leaks(secret, text):
    """Say whether four characters in a row of the secret stand in a text, in whatever case."""
    text = text.upper()
    return any(secret[start : start + 4] in text for start in range(len(secret) - 3))


def told(make, *args):
    """Give all that is shown of what a call gives or raises: repr, text, traceback, context."""
    try:
        made = make(*args)
    except ConfigurationError as error:
        # The lines of source that a traceback quotes are this file's, and hold no secret.
        return all_shown(error)
    nodes = made.nodes if isinstance(made, Settings) else (made,)
    shown = [
        made,
        *(part for node in nodes if isinstance(node, Node) for part in (node, node.address)),
    ]
    return "\n".join(f"{one!r}\n{one!s}\n{[one]}" for one in shown)


@given(broken())
@example(("J" * 12, "redis://: JJJJ://JJJJJJJJ@/run/a.sock?strategy=jump"))
def test_no_url_shows_its_password(case):
    """Whatever is wrong with a URL, no error and no repr has four characters of its password."""
    secret, url = case
    entrances = [
        (Node, url),
        (Address.parse, url),
        (parse_node, url),
        (node_list, [url, url]),
        (Settings.from_url, url),
        (Settings.from_env, {"SHARDCACHE_URL": url}),
        (Settings.from_dict, {"nodes": [url], "timeout": 0}),
        (Settings.from_dict, {"nodes": [{"url": url, "weight": 0}]}),
        (Settings.from_dict, {"nodes": "memory://", "failover": url}),
    ]
    for make, given_ in entrances:
        shown = told(make, given_)
        assert not leaks(secret, shown), (make, url, shown)


@given(broken(), st.sampled_from(["strategy", "codec", "on_error", "pool_size"]))
def test_a_url_in_the_wrong_place_is_not_shown(case, name):
    """A URL given as another setting, or as a key, is refused without being quoted."""
    secret, url = case
    for mapping in (
        {"nodes": "memory://", name: url},
        {"nodes": "memory://", url: 1},
        {"nodes": [{"url": "memory://", url: 1}]},
        {"nodes": [{"url": "memory://", "name": url, "weight": 0}]},
    ):
        with pytest.raises(ConfigurationError) as caught:
            Settings.from_dict(mapping)
        assert not leaks(secret, all_shown(caught.value))


@given(SECRETS, st.sampled_from(["{}", "{}\n", "\ud800{}", "{}\x00"]))
def test_secrets_of_the_codec_are_masked(secret, form):
    """Neither a sound nor a refused secret is shown, from whatever source."""
    secret_given = form.format(secret)
    for make, mapping in (
        (Settings.from_dict, {"nodes": "memory://", "secret": secret_given}),
        (Settings.from_dict, {"nodes": "memory://", "secret": [secret_given, 3]}),
        (Settings.from_dict, {"nodes": "memory://", "secret": {secret_given: secret_given}}),
        (Settings.from_dict, {"nodes": "memory://", "codec": f"pickle:secret={secret}"}),
        (Settings.from_url, f"memory://a?secret={secret}"),
        (Settings.from_env, {"SHARDCACHE_URL": "memory://", "SHARDCACHE_SECRET": secret_given}),
    ):
        assert not leaks(secret, told(make, mapping))


# Every setting that is one value, and every option of a node's URL.
SETTINGS = [name for name in PARAMETERS if name not in ("nodes", "lock_nodes", "namespace")]
NODE_OPTIONS = [
    *(("redis", name) for name in ("db", "max_value_bytes", "client_name")),
    *(("rediss", name) for name in TLS_OPTIONS),
    *(("memcacheds", name) for name in (*TLS_OPTIONS, "max_value_bytes")),
    ("memcached", "max_value_bytes"),
    ("pymemcache", "max_value_bytes"),
    ("memory", "max_entries"),
    ("memory", "max_bytes"),
]
# What is in the wrong field may be made of anything; digits are a number there.
MISPLACED = ["hunter2secret", "hunter2 secret", "-31337313373", "3133731337313373133731337"]
TEMPLATES = ["{}", "ketama:profile={}", "ketama:hash={}", "pickle:read_unsigned={}", "{}:x"]


def given_everywhere(name, value):
    """Return the ways in which a setting can be given a value as text, but for the URL's own escapes."""
    quoted = quote(value, safe=":=,")
    return [
        (Settings.from_dict, {"nodes": "memory://", name: value}),
        (Settings.from_url, f"memory://a?{name}={quoted}"),
        (Settings.from_env, {"SHARDCACHE_URL": "memory://", f"SHARDCACHE_{name.upper()}": value}),
        (Settings.from_env, {"SHARDCACHE_URL": f"memory://a?{name}={quoted}"}),
        (Client.from_url, f"memory://a?{name}={quoted}"),
        (AsyncClient.from_url, f"memory://a?{name}={quoted}"),
        (configure, f"memory://a?{name}={quoted}"),
    ]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("value", MISPLACED)
@pytest.mark.parametrize("name", SETTINGS)
def test_no_setting_that_is_refused_is_quoted(monkeypatch, name, value, template):
    """An error names the setting and what it may be, for a secret may stand in the wrong field."""
    # What `configure` accepts must not stay for later tests.
    monkeypatch.setattr("shardcache.decorators._defaults", Defaults())
    text = template.format(value)
    for make, given_ in given_everywhere(name, text):
        try:
            made = make(given_)
        except ConfigurationError as error:
            shown = all_shown(unnamed(error))
            assert value not in shown, shown
            assert quote(value) not in shown, shown
        else:
            assert value not in repr(made) or name in {"strategy", "codec", "client_name"}


def unnamed(error):
    """Return an error without the attribute that holds the name of a plugin as it was given."""
    if isinstance(error, UnknownPluginError):
        error.name = ""
    return error


@pytest.mark.slow
@pytest.mark.parametrize("value", MISPLACED)
@pytest.mark.parametrize(("scheme", "option"), NODE_OPTIONS)
def test_no_option_of_a_node_that_is_refused_is_quoted(scheme, option, value):
    """Neither is the value of an option of a URL, of whatever backend."""
    url = f"{scheme}://h?{option}={quote(value)}"
    for make in (Client, AsyncClient):
        shown = told(make, url)
        assert value not in shown
        assert option in shown or "<" in shown  # else it was taken, as the name of a client may be


@pytest.mark.parametrize(
    "text",
    [
        'timeout = "{}"',
        "timeout = {}",
        'nodes = ["redis://app:{}@h:x"]',
        'nodes = [{{ url = "redis://app:{}@h", weight = 0 }}]',
        'secret = "{}"\nsecret = "{}"',
        'secret = "{}',
        "secret = {}",
        '"{}" 1',
    ],
)
def test_no_file_that_is_refused_is_quoted(tmp_path, text):
    """Nothing that stands in a file is in the error that refuses it, or in what that comes from."""
    path = tmp_path / "shardcache.toml"
    for value in ("hunter2secret", "31337313373"):
        path.write_text('nodes = "memory://"\n' * ("nodes" not in text) + text.format(value, value))
        with pytest.raises(ConfigurationError) as caught:
            Client.from_settings(Settings.load(path))
        assert value not in all_shown(caught.value)
    path.write_bytes(b'secret = "hunter2secret\xff"')
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(path)
    assert "hunter2secret" not in all_shown(caught.value)


@pytest.mark.parametrize("make", [Client, AsyncClient])
def test_no_part_of_a_client_that_is_refused_is_shown(make):
    """A client with a fault leaves no login and no secret in the variables of its frames."""
    url, secret = "redis://app:hunter2secret@h/0", "sixteen-hunter2secret-bytes"
    for settings in (
        {"timeout": 0},
        {"strategy": "kettle"},
        {"codec": "pickle", "secret": "hunter2secret"},
        {"codec": "yaml", "secret": secret},
        {"strategy": "jump:x=1", "secret": secret},
        {"lock_nodes": f"{url}?x=1"},
        {"locks": "nowhere://app:hunter2secret@h"},
        {"locks": "nowhere://app:hunter2secret@h/@"},
    ):
        with pytest.raises(ConfigurationError) as caught:
            make(url, **settings)
        assert "hunter2secret" not in all_shown(caught.value)
    for more in ("?x=1", "?db=x", "?db=1", "?username=a", "?password=hunter2secret"):
        with pytest.raises(ConfigurationError) as caught:
            make(url + more)
        assert "hunter2secret" not in all_shown(caught.value)


def test_no_node_that_is_refused_later_is_shown():
    """Nor does one that is added to a client, or put in the place of its nodes."""
    url = "redis://app:hunter2secret@h:x"

    async def added(change):
        async with AsyncClient("memory://a") as client:
            await change(client)

    with Client("memory://a") as client:
        for change in (lambda one: one.add_node(url), lambda one: one.set_nodes([url])):
            for call in (lambda: change(client), lambda: asyncio.run(added(change))):  # noqa: B023
                with pytest.raises(ConfigurationError) as caught:
                    call()
                assert "hunter2secret" not in all_shown(caught.value)


def test_what_holds_secrets_by_nature():
    """Settings and nodes are shown without them, and hold them in clear for whoever unpacks them."""
    settings = Settings.of(nodes="redis://app:hunter2secret@h", secret="hunter2secret-16")
    (node,) = settings.nodes
    for shown in (settings, node, node.address, [settings], {"node": node}):
        assert "hunter2secret" not in f"{shown!r} {shown!s}"
    assert b"hunter2secret" in pickle.dumps(settings)
    assert "hunter2secret" in str(dataclasses.asdict(settings))
    assert "hunter2secret" in node.url


def test_the_repr_says_that_there_is_a_secret():
    """An operator sees whether a secret is set, and nothing of it."""
    assert "secret='***'" in repr(Settings.of(nodes="memory://", secret="s" * 16))
    assert "secret=None" in repr(Settings.of(nodes="memory://"))


def test_nothing_is_logged(caplog):
    """Settings are read in silence; whoever uses them decides what to log."""
    with caplog.at_level(logging.DEBUG), pytest.raises(ConfigurationError):
        parse_nodes("redis://app:hunter2@h:x")
    Settings.from_url("redis://app:hunter2@h")
    assert not caplog.records


def test_a_url_that_is_no_text_is_a_fault():
    """Bytes of a variable that are no UTF-8 are told as such, and no error of Python's holds the URL."""
    for url in ("redis://\udcffhunter2secret@h", "redis://h/\udcff", "memory://a?x=\udcff"):
        with pytest.raises(ConfigurationError, match="must be UTF-8 text") as caught:
            Settings.from_env({"SHARDCACHE_URL": url})
        assert "hunter2secret" not in all_shown(caught.value)
