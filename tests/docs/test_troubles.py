"""The texts of errors that the page on troubles quotes are those that a program gets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shardcache import Client, ConfigurationError

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "find-out-what-is-wrong.md"


def coroutine_function(client: Client) -> None:
    """Decorate an `async def` by the blocking client."""

    async def f() -> None: ...

    client.cached(ttl=5)(f)


def two_functions(client: Client) -> None:
    """Give two functions one namespace."""
    client.cached(ttl=5, namespace="x")(abs)
    client.cached(ttl=5, namespace="x")(len)


# By the text on the page: what raises it.
FAULTS = {
    "no nodes are named: set SHARDCACHE_URL": lambda _: Client.from_env(),
    "did you mean 'SHARDCACHE_TIMEOUT'?": lambda _: Client.from_env(default="memory://a"),
    "no such backend for the URL scheme": lambda _: Client("memcachd://a"),
    "is a setting of the client, not of a node": lambda _: Client(["memory://a?timeout=1"]),
    "a secret does not belong in a URL": lambda _: Client.from_url(f"memory://a?secret={'x' * 16}"),
    "codec 'pickle' needs a secret": lambda _: Client("memory://a", codec="pickle"),
    "two nodes are called": lambda _: Client(["memory://a", "memory://a"]),
    "there is no ttl, and the client has no default_ttl": lambda client: client.cached()(abs),
    "a lambda has no name": lambda client: client.cached(ttl=5)(lambda: 1),
    "give each function its own namespace": two_functions,
    "an async def needs an AsyncClient": coroutine_function,
    "this client's keys carry no generation": lambda client: client.clear(),
}


def test_the_page_has_these_texts():
    """Each row is tested, and each test has its row."""
    section = PAGE.read_text(encoding="utf-8").partition("## Errors at the start\n")[2]
    assert re.findall(r"^\| `([^`]+)` \|", section, flags=re.MULTILINE) == list(FAULTS)


@pytest.mark.parametrize("text", FAULTS)
def test_a_text_is_what_the_program_gets(text, monkeypatch):
    """A reader who searches the page for an error finds it."""
    monkeypatch.delenv("SHARDCACHE_URL", raising=False)
    if "TIMEOUT" in text:
        monkeypatch.setenv("SHARDCACHE_TIMEOUTT", "1")
    with Client("memory://a") as client, pytest.raises(ConfigurationError, match=re.escape(text)):
        FAULTS[text](client)
