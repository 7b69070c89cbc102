"""URLs split into their parts, and values quoted in errors without their secrets.

No error of this module quotes the URL: if one part is malformed, any other may be the password.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from shardcache.errors import ConfigurationError

MAX_SHOWN: Final = 60  # characters of a text that an error quotes
MAX_SHOWN_INT: Final = 10**18  # Python refuses to print a number of many thousand digits
MISPLACED_AT: Final = (
    "one '@' stands before the hosts; within a user name, password, path or option it is written"
    " %40 (and '/' %2F, '?' %3F)"
)

# Bytes that are not UTF-8, in a variable or on a command line, arrive as surrogates.
_has_surrogate = re.compile("[\ud800-\udfff]").search
_has_blank = re.compile(r"[\s\x00-\x1f\x7f]").search
_scheme = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*").fullmatch


@dataclass(frozen=True, slots=True, repr=False)
class Parts:
    """The parts of a URL, still percent-encoded; the scheme is in lower case.

    `user` is the text before the `@`, or `None`. `hosts` are separated by commas in the URL. `path`
    begins with its slash. `fields` are the query's, as `name=value`.
    """

    scheme: str
    user: str | None
    hosts: tuple[str, ...]
    path: str
    fields: tuple[str, ...]

    def alone(self, host: str, fields: tuple[str, ...]) -> str:
        """Return the same URL with this one `host` and these `fields`."""
        user = "" if self.user is None else f"{self.user}@"
        query = f"?{'&'.join(fields)}" if fields else ""
        return f"{self.scheme}://{user}{host}{self.path}{query}"


def split_url(url: object) -> Parts:
    """Split a URL into its parts; raise `ConfigurationError` if it is malformed.

    `urllib.parse.urlsplit` is not used: it drops line ends silently, allows one host only, and
    quotes the password in some of its errors.

    >>> split_url("redis://app:hunter2@h1,h2:6380/0?db=1").hosts
    ('h1', 'h2:6380')
    """
    if not isinstance(url, str):
        raise ConfigurationError(f"a URL must be text, not {type(url).__name__}")
    scheme, separator, rest = url.partition("://")
    located, _, query = rest.partition("?")
    authority, slash, path = located.partition("/")
    user, at, hosts = authority.rpartition("@")
    wrong = {
        "a URL holds no blanks or controls (a blank is written %20)": _has_blank(url),
        "a URL must be UTF-8 text (other bytes are written %FF)": _has_surrogate(url),
        "a URL needs a scheme, as in memcached://10.0.0.1:11211": (
            not separator or not _scheme(scheme)
        ),
        "a '#' in a URL is written %23": "#" in url,
        MISPLACED_AT: "@" in user + path + query,
        "several URLs go in a list, not in one text": "://" in located,
    }
    faults = [fault for fault, found in wrong.items() if found]
    if faults:
        raise ConfigurationError(*faults)
    return Parts(
        scheme=scheme.lower(),
        user=user if at else None,
        hosts=tuple(hosts.split(",")),
        path=slash + path,
        fields=tuple(field for field in query.split("&") if field),
    )


def unquote(text: str) -> str:
    """Return a part of a URL with its percent-escapes decoded; `+` stays as it is."""
    data = unquote_to_bytes(text)
    if not _is_utf8(data):
        raise ConfigurationError("the percent-escapes of a URL are not UTF-8")
    return data.decode()


def _is_utf8(data: bytes) -> bool:
    # A separate function, because an error raised in the `except` would hold the bytes.
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def parse_fields(fields: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield the name and value of each field of a query, decoded."""
    for field in fields:
        name, _, value = field.partition("=")
        yield unquote(name), unquote(value)


def redact(value: object) -> str:
    """Return a value as an error may quote it: nothing of a text that may hold a password.

    >>> print(redact(-1), redact("abc"), redact("redis://app:hunter2@h"), redact([1]))
    -1 'abc' a URL list
    """
    if isinstance(value, str):
        if "@" in value or "://" in value:
            return "a URL"
        return repr(value if len(value) <= MAX_SHOWN else value[: MAX_SHOWN - 1] + "…")
    if isinstance(value, int) and not -MAX_SHOWN_INT < value < MAX_SHOWN_INT:
        return "so large a number"
    if value is None or isinstance(value, (int, float)):
        return repr(value)
    return type(value).__name__
