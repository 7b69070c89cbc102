"""What the adapters of frameworks pass to a client, from URLs and options."""

from __future__ import annotations

import pytest

from shardcache import ConfigurationError
from shardcache.core.values.signing import MIN_SECRET
from shardcache.settings.adapters import OPTIONS, derive_secret, merge_arguments, read_urls

URLS = ["memory://a?strategy=jump&connect_timeout=2", "memory://b"]


def test_only_what_urls_say_is_returned():
    """A default would override an option of the adapter."""
    given = read_urls(URLS)
    assert sorted(given) == ["nodes", "strategy", "timeout"]
    assert given["timeout"].connect == 2


def test_an_option_overrides_a_url():
    """It is nearer to the code."""
    assert merge_arguments(URLS, {"strategy": "maglev"})["strategy"] == "maglev"


def test_a_connect_timeout_is_an_option_too():
    """A client takes it as a part of `timeout` alone."""
    merged = merge_arguments(URLS, {"connect_timeout": 1, "timeout": 3})
    assert (merged["timeout"].call, merged["timeout"].connect) == (3, 1)
    assert "connect_timeout" not in merged
    assert {"connect_timeout", "observers"} < OPTIONS


@pytest.mark.parametrize(
    ("options", "codec"),
    [({"secret": "x"}, "pickle"), ({"secret": "x", "codec": "json"}, "json"), ({}, None)],
)
def test_a_secret_is_for_pickles_unless_a_codec_is_named(options: dict[str, object], codec: str):
    """Any object is stored where it can be signed."""
    assert merge_arguments(URLS, options).get("codec") == codec


def test_a_short_secret_is_derived(caplog: pytest.LogCaptureFixture):
    """A long one is used as it is, so that other clients read the values."""
    long = b"x" * MIN_SECRET
    assert merge_arguments(URLS, {"secret": [long]})["secret"] == [long]
    assert caplog.messages == []
    assert merge_arguments(URLS, {"secret": ["y?", long]})["secret"] == [derive_secret("y?"), long]
    (message,) = caplog.messages
    assert "secret: shorter than 16 bytes" in message
    assert "y?" not in message


@pytest.mark.parametrize("url", [5, b"memory://a", {"memory://a"}])
def test_what_is_no_url_is_named(url: object):
    """With its type."""
    with pytest.raises(ConfigurationError, match="url: must be a URL or a list of URLs, not "):
        merge_arguments(url, {})
