"""URLs, cut into their parts and shown without their secrets.

No error of this module quotes the URL: where a part is malformed, any other may be the password.
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

# As of bytes in a variable or on a command line that are no UTF-8.
_has_surrogate = re.compile("[\ud800-\udfff]").search
_has_blank = re.compile(r"[\s\x00-\x1f\x7f]").search
_scheme = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*").fullmatch


@dataclass(frozen=True, slots=True, repr=False)
class Parts:
    """A URL in its parts, each still percent-encoded; the scheme is in lower case.

    `user` is what stands before the `@`, or `None`; `hosts` stood between commas; `path` begins
    with its slash; `fields` are those of the query, as `name=value`.
    """

    scheme: str
    user: str | None
    hosts: tuple[str, ...]
    path: str
    fields: tuple[str, ...]

    def alone(self, host: str, fields: tuple[str, ...]) -> str:
        """Return the URL that has this one `host` and these `fields`, and is otherwise the same."""
        user = "" if self.user is None else f"{self.user}@"
        query = f"?{'&'.join(fields)}" if fields else ""
        return f"{self.scheme}://{user}{host}{self.path}{query}"


def cut(url: object) -> Parts:
    """Cut a URL into its parts; raise `ConfigurationError` when it is not made like one.

    Not `urllib.parse.urlsplit`: that one drops line ends in silence, knows one host only, and
    quotes the password in some of its errors.

    >>> cut("redis://app:hunter2@h1,h2:6380/0?db=1").hosts
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
        "a URL holds what is no text (bytes that are no UTF-8 are written %FF)": _has_surrogate(
            url
        ),
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


def decoded(text: str) -> str:
    """Return a part of a URL without its percent-escapes; `+` stays what it is."""
    data = unquote_to_bytes(text)
    if not _is_utf8(data):
        raise ConfigurationError("the percent-escapes of a URL are no UTF-8")
    return data.decode()


def _is_utf8(data: bytes) -> bool:
    # Apart from its caller, whose error would otherwise hold the bytes as its context.
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def options(fields: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Return the name and value of each field of a query, decoded."""
    for field in fields:
        name, _, value = field.partition("=")
        yield decoded(name), decoded(value)


def shown(value: object) -> str:
    """Return what an error may quote of a value: nothing of a text that may hold a password.

    >>> print(shown(-1), shown("abc"), shown("redis://app:hunter2@h"), shown([1]))
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
