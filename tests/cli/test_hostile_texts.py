"""No text of a key, a value, a node or a server acts on a terminal."""

from __future__ import annotations

import json
import os

import pytest

from shardcache import Client
from shardcache.cli.terminal import escaped

TEXTS = {
    "escape sequence": "\x1b]0;owned\x07\x1b[2J",
    "line end": "one\r\nerror: forged",
    "markup": "[red]x[/]",
    "closing markup": "[/x]",
    "link": "[link=http://evil]x[/link]",
    "emoji code": ":warning:",
    "bidirectional": "a\u202eb\u2066c",
    "control of 8 bits": "\x9b31m",
    "surrogate": os.fsdecode(b"\xff\xfe"),
    "line separator": "a\u2028b",
    "zero width": "a\u200bb",
}

JOINED = {
    "all that acts": "".join(text for text in TEXTS.values() if not text.isprintable()),
    "all that acts but surrogates": "".join(  # which no key may hold
        text for name, text in TEXTS.items() if not text.isprintable() and name != "surrogate"
    ),
    "markup": "[red]x[/red] [link=http://evil]x :warning:",
    "closing markup": "[/x]",
}


def harmless(*shown):
    """Return whether what was shown holds only printable letters and line ends."""
    return all(letter.isprintable() or letter == "\n" for text in shown for letter in text)


def config(tmp_path, *nodes):
    """Write a file of settings, of nodes given as tables of URL and name."""
    tables = "".join(
        f"[[nodes]]\nurl = {json.dumps(url)}\nname = {json.dumps(name)}\n" for url, name in nodes
    )
    path = tmp_path / "shardcache.toml"
    path.write_text(tables, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_is_shown_as_it_is_but_for_what_would_act(text):
    """Printable letters stay, all others become escapes."""
    assert harmless(escaped(text))
    assert escaped("naïve [red] 漢字 :-)") == "naïve [red] 漢字 :-)"


@pytest.mark.parametrize("text", JOINED.values(), ids=JOINED)
def test_keys(typed, text):
    """Every command that names a key names it harmlessly, markup as it was typed."""
    for words in (["get", text], ["where", text], ["delete", text], ["set", text, "v"]):
        _, out, errors = typed(*words, "--url", "memory://a,b")
        assert harmless(out, errors)
        if text.isprintable() and words[0] in {"get", "where", "set"}:
            assert text in out + errors


@pytest.mark.parametrize("text", JOINED.values(), ids=JOINED)
def test_values(typed, memcached_servers, text):
    """A value that is printed does nothing, alone or within another."""
    url = memcached_servers[0].url
    stored = text.encode("utf-8", "replace").decode()  # no codec takes a surrogate
    with Client(url) as client:
        client.set("text", stored)
        client.set("list", [stored, {stored: stored}])
        client.set("bytes", stored.encode())
    for key in ("text", "list", "bytes"):
        for more in ([], ["--json"]):
            status, out, errors = typed("get", key, "--url", url, *more)
            assert (status, harmless(out, errors)) == (0, True)
            assert "\nerror: forged" not in out
    assert json.loads(typed("get", "text", "--url", url, "--json")[1])["value"] == stored


def test_a_value_is_written_as_it_is_to_a_file(typed, on_terminal, memcached_servers):
    """`get --raw` writes the very text, but not to a terminal."""
    url = memcached_servers[0].url
    with Client(url) as client:
        client.set("k", TEXTS["escape sequence"])
    assert typed("get", "k", "--raw", "--url", url)[:2] == (0, TEXTS["escape sequence"])
    assert "error: --raw writes to a file" in "\n".join(
        on_terminal("get", "k", "--raw", "--url", url)
    )


@pytest.mark.parametrize("name", ["[red]x[/]", "[/x]", ":warning:", "[link=http://evil]x"])
def test_names_of_nodes(typed, tmp_path, name):
    """Tables and errors show a node's name as it is written."""
    path = config(tmp_path, ("memcached://127.0.0.1:1", name), ("memcached://127.0.0.1:2", "b"))
    for command in (["nodes"], ["ping"], ["stats"], ["where", "k"], ["plan", "--remove", "b"]):
        _, out, errors = typed(*command, "--config", path)
        assert name in out
        assert harmless(out, errors)
    for command in (["plan", "--remove", "\x1b[2J"], ["delete", *"abcdefghijklmnop"]):
        _, out, errors = typed(*command, "--config", path)
        assert name in errors
        assert harmless(out, errors)


@pytest.mark.slow
@pytest.mark.parametrize("text", [b"[/x]", b"[red]x", b"\x1b[2J\x07", b"\xe2\x80\xae", b"\xff"])
def test_figures_and_errors_of_servers(typed, make_liar, text):
    """What a server says of itself, or for an error, does nothing."""
    url = make_liar(
        b"SERVER_ERROR " + text + b"\r\n",
        b"STAT version " + text + b"\r\nSTAT get_hits " + text + b"\r\nEND\r\n",
    )
    for words in (["ping"], ["stats"], ["get", "k"], ["set", "k", "v"], ["delete", "k"]):
        for more in ([], ["--json"]):
            _, out, errors = typed(*words, *more, "--url", url)
            assert harmless(out, errors)
    _, out, _ = typed(
        "stats", "--url", make_liar(b"VERSION 1\r\n", b"SERVER_ERROR " + text + b"\r\n")
    )
    assert harmless(out)


@pytest.mark.slow
@pytest.mark.parametrize("text", [b"[/x]", b"[red]x", b"\x1b[2J\x07", b"\xe2\x80\xae", b"\xff"])
def test_commands_of_operators(typed, make_liar, text):
    """Nor do checks, figures that are watched, and what empties a node."""
    refusing = make_liar(b"SERVER_ERROR " + text + b"\r\n", b"SERVER_ERROR " + text + b"\r\n")
    figures = b"".join(
        b"STAT %b %b\r\n" % (name, text) for name in (b"version", b"bytes", b"uptime")
    )
    notification = make_liar(b"HD\r\n", figures + b"END\r\n")
    for url in (refusing, notification):
        name = url.rpartition("/")[2]
        for words in (
            ["check"],
            ["stats", "--watch", "0.1", "--count", "2"],
            ["flush", name, "--yes"],
            ["flush", text.decode("latin-1"), "--yes"],
        ):
            for more in ([], ["--json"]):
                _, out, errors = typed(*words, *more, "--url", url)
                assert harmless(out, errors), words


@pytest.mark.slow
@pytest.mark.parametrize("text", [b"[/x]", b"[red]x", b"\x1b[2J\x07", b"\xe2\x80\xae", b"\xff"])
def test_figures_that_are_watched_on_a_terminal(on_terminal, make_liar, text):
    """A terminal shows them as text, within what it draws itself."""
    url = make_liar(b"SERVER_ERROR " + text + b"\r\n", b"STAT curr_items " + text + b"\r\nEND\r\n")
    shown = "\n".join(on_terminal("stats", "--watch", "0.1", "--count", "2", "--url", url))
    assert "\x07" not in shown
    assert "\u202e" not in shown
    if text.isascii() and text.decode().isprintable():
        assert text.decode() in shown


@pytest.mark.parametrize("text", JOINED.values(), ids=JOINED)
def test_mistakes(typed, text):
    """An error quotes harmlessly what was typed."""
    mistakes = (
        [text],
        ["get", "k", text],
        ["get", "k", f"--{text}"],
        ["get", "k", "--url", text],
        ["get", "k", "--config", text],
        ["plan", "--weight", text, "--url", "memory://a"],
        ["plan", "--strategy", text, "--url", "memory://a"],
        ["set", "k", text, "--parse", "--url", "memory://a"],
        ["set", "k", "v", "--ttl", text, "--url", "memory://a"],
    )
    for words in mistakes:
        status, out, errors = typed(*words)
        assert (status, harmless(out, errors)) == (2, True)
        assert "\nerror: forged" not in errors
