"""A URL is split into its parts, or refused without being quoted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.core.urls import parse_fields, redact, split_url, unquote
from shardcache.errors import ConfigurationError

UNRESERVED = st.text("abcXYZ019-._~%+!$'()*;", max_size=8)
WORDS = st.text("abcxyz019", min_size=1, max_size=8)


@given(
    scheme=WORDS.map("x".__add__),
    user=st.none() | UNRESERVED,
    hosts=st.lists(WORDS, min_size=1, max_size=4),
    path=st.none() | UNRESERVED,
    fields=st.lists(WORDS, max_size=3),
)
def test_the_parts_of_a_url_come_back(scheme, user, hosts, path, fields):
    """As written; the query's fields and the hosts one by one."""
    url = f"{scheme}://"
    url += "" if user is None else f"{user}@"
    url += ",".join(hosts)
    url += "" if path is None else f"/{path}"
    url += f"?{'&'.join(fields)}" if fields else ""

    parts = split_url(url)

    assert parts.scheme == scheme
    assert parts.user == user
    assert parts.hosts == tuple(hosts)
    assert parts.path == ("" if path is None else f"/{path}")
    assert parts.fields == tuple(fields)
    assert split_url(parts.alone(",".join(hosts), parts.fields)) == parts


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        (None, "a URL must be text, not NoneType"),
        (b"memory://", "a URL must be text, not bytes"),
        ("", "needs a scheme"),
        ("10.0.0.1:11211", "needs a scheme"),
        ("://h", "needs a scheme"),
        ("6://h", "needs a scheme"),
        ("memcached://h\n", "holds no blanks"),
        ("memcached://a, b", "holds no blanks"),
        ("memcached://h#1", "'#' in a URL is written %23"),
        ("redis://u:p@ss@h", "written %40"),
        ("redis://u:p/s@h", "written %40"),
        ("redis://u:p?s@h", "written %40"),
        ("memcached://a,redis://b", "several URLs go in a list"),
    ],
)
def test_a_malformed_url_is_refused(url, fault):
    """With the reason and the way out."""
    with pytest.raises(ConfigurationError, match=fault):
        split_url(url)


def test_all_faults_of_a_url_are_one_error():
    """Several faults of one URL come in one error."""
    with pytest.raises(ConfigurationError) as caught:
        split_url("redis://u:p@s@h #1,redis://h")
    assert len(caught.value.faults) == 4


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_percent_escapes_round_trip(text):
    """Any text can be written with percent-escapes and comes back the same."""
    written = "".join(f"%{byte:02x}" for byte in text.encode())
    assert unquote(written) == text
    assert list(parse_fields((f"{written}={written}",))) == [(text, text)]


def test_plus_is_a_plus():
    """A `+` of a password or a path is not read as a blank, as it is in forms."""
    assert unquote("a+b%2Bc") == "a+b+c"


def test_escapes_that_are_no_utf8_are_refused():
    """A password never silently becomes another one with replacement characters."""
    with pytest.raises(ConfigurationError, match="not UTF-8") as caught:
        unquote("%ff")
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("next", "'next'"),
        ("x" * 200, repr("x" * 59 + "…")),
        ("redis://h", "a URL"),
        ("u:p@h", "a URL"),
        (True, "True"),
        (None, "None"),
        (0.5, "0.5"),
        pytest.param(10**5000, "so large a number", id="huge"),
        pytest.param(-(10**5000), "so large a number", id="-huge"),
        (b"hunter2", "bytes"),
        ({"password": "hunter2"}, "dict"),
    ],
)
def test_errors_quote_only_what_is_harmless(value, text):
    """Short texts and numbers are quoted; what may hold a password is only called by its kind."""
    assert redact(value) == text
