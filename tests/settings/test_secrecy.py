"""No secret is ever shown, however broken the settings that hold it."""

from __future__ import annotations

import logging
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.core.nodes import Address, Node
from shardcache.errors import ConfigurationError
from shardcache.settings import Settings, node_list, parse_node, parse_nodes

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
        chain, link = [], error
        while link is not None:
            chain += [repr(link), str(link), repr(vars(link))]
            link = link.__context__
        # The lines of source that a traceback quotes are this file's, and hold no secret.
        return "\n".join([*chain, *traceback.format_exception(error)])
    nodes = made.nodes if isinstance(made, Settings) else (made,)
    shown = [
        made,
        *(part for node in nodes if isinstance(node, Node) for part in (node, node.address)),
    ]
    return "\n".join(f"{one!r}\n{one!s}\n{[one]}" for one in shown)


@given(broken())
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
    ]
    for make, given_ in entrances:
        shown = told(make, given_)
        assert not leaks(secret, shown), (make, url, shown)


@given(broken(), st.sampled_from(["strategy", "codec", "on_error", "failover", "pool_size"]))
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
        assert not leaks(secret, "".join(traceback.format_exception(caught.value)))


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
