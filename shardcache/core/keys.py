"""What a key is called on every node."""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

from shardcache.core.reserved import ESCAPED, HASHED, RESERVED
from shardcache.errors import ConfigurationError, InvalidKeyError

MAX_PLAIN: Final = 250  # bytes, the most that memcached takes as a key
PLAIN: Final = bytes(range(0x21, 0x7F))

_like_a_namespace = re.compile(rb"([1-9][0-9]{0,8}):").match


def is_plain(name: bytes) -> bool:
    """Return whether every server takes the name as it is: printable ASCII, no blank, 250 bytes."""
    # To delete what is plain and see what is left beats every regular expression tried.
    return len(name) <= MAX_PLAIN and not name.translate(None, PLAIN)


def hashed(name: bytes) -> bytes:
    """Return the short plain name that stands for one no server takes: 128 bits of BLAKE2b.

    >>> hashed(b"two words")
    b'~sc:h:0a74d9f8dc440af6bd63bbaf0c17cc5d'
    """
    return HASHED + blake2b(name, digest_size=16).hexdigest().encode()


def encode(key: str | bytes) -> bytes:
    """Return the caller's key as bytes; raise `InvalidKeyError` for what is none."""
    try:
        if isinstance(key, str):
            raw = str.encode(key)
        elif isinstance(key, bytes):
            raw = bytes(key)  # the same object, unless of a subclass
        else:
            raise InvalidKeyError(f"a key must be str or bytes, not {type(key).__name__}")
    except UnicodeEncodeError as error:
        raise InvalidKeyError(f"a key's text is not valid Unicode: {error.reason}") from None
    if not raw:
        raise InvalidKeyError("a key must not be empty")
    return raw


class KeySpace:
    """The names of one namespace: `encode` a caller's key, and `canonical` is its name on a node.

    A namespace stands in front with its length, so that `a:b` + `c` and `a` + `b:c` are two. Keys
    without a namespace keep their name, unless it could be taken for one of another namespace
    or for one of ours: those are escaped.

    >>> KeySpace("shop").canonical(b"cart:7"), KeySpace().canonical(b"cart:7")
    (b'4:shop:cart:7', b'cart:7')
    >>> KeySpace().canonical(b"4:shop:cart:7")
    b'~sc:k:4:shop:cart:7'
    """

    __slots__ = ("canonical", "encode", "namespace")

    def __init__(self, namespace: str | bytes = "") -> None:
        self.namespace: bytes = _namespace(namespace)
        self.encode: Callable[[str | bytes], bytes] = encode
        self.canonical: Callable[[bytes], bytes] = _namer(self.namespace)

    def __repr__(self) -> str:
        return f"<KeySpace {self.namespace!r}>"


def _namespace(given: str | bytes) -> bytes:
    try:
        return given.encode() if isinstance(given, str) else bytes(given)
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"the namespace is not valid Unicode: {error.reason}") from None


def _namer(namespace: bytes) -> Callable[[bytes], bytes]:
    if not namespace:
        return _named_alone
    prefix = _prefix(namespace)

    def named(raw: bytes) -> bytes:
        return prefix + raw

    return named


def _prefix(namespace: bytes) -> bytes:
    return b"%d:%s:" % (len(namespace), namespace)


def _named_alone(raw: bytes) -> bytes:
    """Return the name of a key without a namespace: nearly always the key itself."""
    # Most keys begin with a letter, and cost one comparison: digits are below, "~" is above.
    if b":" < raw < b"~":
        return raw
    if raw.startswith(RESERVED) or _has_namespace(raw):
        return ESCAPED + raw
    return raw


def _has_namespace(raw: bytes) -> bool:
    """Return whether the key reads like a name in some namespace, as `4:shop:cart` does."""
    length = _like_a_namespace(raw)
    if length is None:
        return False
    end = length.end() + int(length[1])
    return raw[end : end + 1] == b":"
