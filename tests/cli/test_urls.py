"""Nodes of several URLs, and of several kinds, in one call."""

from __future__ import annotations

import json

import pytest

from shardcache import ConfigurationError
from shardcache.settings import Settings

WORDS = {
    "where": ["where", "k"],
    "nodes": ["nodes"],
    "ping": ["ping"],
    "stats": ["stats"],
    "get": ["get", "k"],
    "set": ["set", "k", "v"],
    "delete": ["delete", "k"],
    "plan": ["plan", "--weight", "c=2"],
}


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_every_command_takes_several_urls(typed, words):
    """The option is repeated, or holds several URLs with blanks between them."""
    urls = ("memory://a,b", "memory://c")
    repeated = typed(*words, "--json", "--url", urls[0], "--url", urls[1])
    assert repeated[0] == (1 if words[0] in {"get", "delete"} else 0)
    assert repeated[2] == ""
    if words[0] not in {"ping", "get", "delete"}:
        assert "c" in repeated[1]
        assert repeated == typed(*words, "--json", "--url", "  ".join(urls))


def test_kinds_are_mixed(typed, memcached_servers, redis_servers):
    """memcached, Redis and memory are one key space, by option and by `SHARDCACHE_URL`."""
    urls = [memcached_servers[0].url, redis_servers[0].url, "memory://m"]
    status, out, _ = typed("ping", "--json", *(word for url in urls for word in ("--url", url)))
    assert (status, len(json.loads(out))) == (0, 3)
    status, out, _ = typed("nodes", "--json", SHARDCACHE_URL=" ".join(urls))
    kinds = [node["address"].partition("://")[0] for node in json.loads(out)["nodes"]]
    assert (status, kinds) == (0, ["memcached", "redis", "memory"])


def test_settings_of_several_urls():
    """A setting stands in any of the URLs; two that differ are a fault, told by their places."""
    urls = ["memory://a?strategy=jump", "memory://b?timeout=2&strategy=jump"]
    settings = Settings.from_urls(urls)
    assert [node.name for node in settings.nodes] == ["a", "b"]
    assert (settings.strategy, settings.timeout.call) == ("jump", 2.0)
    with pytest.raises(ConfigurationError, match=r"URL 2: \?timeout=: differs from URL 1"):
        Settings.from_urls(["memory://a?timeout=1", "memory://b?timeout=2"])
    with pytest.raises(ConfigurationError, match="URL 2: a URL needs a scheme"):
        Settings.from_urls(["memory://a", "secret@b"])
