"""From a caller's key to its canonical name: the same on every node."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Final

from shardcache.core.reserved_keys import ESCAPED, HASHED, RESERVED
from shardcache.errors import ConfigurationError, InvalidKeyError

MAX_PLAIN: Final = 250  # bytes: memcached's limit for a key
PLAIN: Final = bytes(range(0x21, 0x7F))

_like_a_namespace = re.compile(rb"([1-9][0-9]{0,8}):").match


def is_plain(name: bytes) -> bool:
    """Return whether every server takes the name as it is: printable ASCII, no blank, 250 bytes."""
    # Deleting all plain bytes and looking at the rest beats every regular expression tried.
    return len(name) <= MAX_PLAIN and not name.translate(None, PLAIN)


def hash_name(name: bytes) -> bytes:
    """Return a short plain name in place of one that servers refuse: 128 bits of BLAKE2b.

    >>> hash_name(b"two words")
    b'~sc:h:0a74d9f8dc440af6bd63bbaf0c17cc5d'
    """
    return HASHED + blake2b(name, digest_size=16).hexdigest().encode()


def encode(key: str | bytes) -> bytes:
    """Return the caller's key as bytes; raise `InvalidKeyError` if it is not a valid key."""
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


def check_keys(call: str, keys: object) -> None:
    """Raise `TypeError` for what is no list of keys; text would be a list of its letters.

    >>> check_keys("get_many", "user:7")
    Traceback (most recent call last):
    TypeError: get_many: keys must be a list, not str; write [key] for a single one
    """
    if isinstance(keys, (str, bytes, bytearray)) or not isinstance(keys, Iterable):
        raise TypeError(
            f"{call}: keys must be a list, not {type(keys).__name__}; write [key] for a single one"
        )


def check_items(call: str, items: object) -> None:
    """Raise `TypeError` for what is no mapping from key to value.

    >>> check_items("set_many", [("user:7", "Ada")])
    Traceback (most recent call last):
    TypeError: set_many: must be a mapping from key to value, not list
    """
    if not hasattr(items, "keys"):  # as `dict` tells a mapping from pairs
        raise TypeError(f"{call}: must be a mapping from key to value, not {type(items).__name__}")


def caller_key(name: bytes) -> bytes:
    """Return the caller's key in a canonical name: the bytes that most strategies hash.

    >>> caller_key(b"4:shop:cart:7"), caller_key(b"~sc:k:4:shop:cart:7"), caller_key(b"cart:7")
    (b'cart:7', b'4:shop:cart:7', b'cart:7')
    """
    if name.startswith(ESCAPED):
        return name.removeprefix(ESCAPED)
    end = _end_of_namespace(name)
    return name if end is None else name[end:]


class KeySpace:
    """The names of one namespace: `encode` a caller's key, then `canonical` gives its name on nodes.

    The namespace and its length stand before the key, so that `a:b` + `c` and `a` + `b:c` differ.
    Keys without a namespace keep their name. They are escaped if they look like a name in a
    namespace, or like one of shardcache's own keys.

    >>> KeySpace("shop").canonical(b"cart:7"), KeySpace().canonical(b"cart:7")
    (b'4:shop:cart:7', b'cart:7')
    >>> KeySpace().canonical(b"4:shop:cart:7")
    b'~sc:k:4:shop:cart:7'

    `raw` is the way back, from a canonical name to the bytes of the caller's key.

    >>> KeySpace("shop").raw(b"4:shop:cart:7"), KeySpace().raw(b"~sc:k:4:shop:cart:7")
    (b'cart:7', b'4:shop:cart:7')
    """

    __slots__ = ("_prefix", "canonical", "encode", "namespace")

    def __init__(self, namespace: str | bytes = "") -> None:
        self.namespace: bytes = _namespace(namespace)
        self.encode: Callable[[str | bytes], bytes] = encode
        self.canonical: Callable[[bytes], bytes] = _canonical_for(self.namespace)
        self._prefix = _prefix(self.namespace) if self.namespace else ESCAPED

    def encode_all(self, keys: Sequence[str | bytes]) -> tuple[list[bytes], list[bytes]]:
        """Return what `encode` returns for each of many keys, and what `canonical` does.

        The usual keys take no Python call each.

        >>> KeySpace("shop").encode_all(["cart:7", b"cart:8"])
        ([b'cart:7', b'cart:8'], [b'4:shop:cart:7', b'4:shop:cart:8'])
        """
        try:
            raws = list(map(str.encode, keys))  # type: ignore[arg-type]  # bytes are caught
        except (TypeError, UnicodeEncodeError):
            raws = list(map(encode, keys))
        # As `_without_namespace` has it; no key is empty then.
        if not self.namespace and raws and min(raws) > b":" and max(raws) < b"~":
            return raws, raws
        if not all(raws):
            raws = list(map(encode, keys))  # which raises
        if self.namespace:
            prefix = self._prefix
            return raws, [prefix + raw for raw in raws]
        return raws, list(map(_without_namespace, raws))

    def raw(self, name: bytes) -> bytes:
        """Return the encoded key of a canonical name.

        >>> KeySpace("shop").raw(b"4:shop:cart:7"), KeySpace().raw(b"~sc:k:4:shop:cart:7")
        (b'cart:7', b'4:shop:cart:7')
        """
        return name.removeprefix(self._prefix)

    def original(self, name: bytes) -> bytes | None:
        """Return the caller's key of a canonical name; `None` if that is no name of this namespace.

        >>> KeySpace("shop").original(b"4:shop:cart:7"), KeySpace().original(b"4:shop:cart:7")
        (b'cart:7', None)
        """
        raw = self.raw(name)
        return raw if raw and self.canonical(raw) == name else None

    def __repr__(self) -> str:
        return f"<KeySpace {self.namespace!r}>"


def _namespace(text: str | bytes) -> bytes:
    try:
        return text.encode() if isinstance(text, str) else bytes(text)
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"the namespace is not valid Unicode: {error.reason}") from None


def _canonical_for(namespace: bytes) -> Callable[[bytes], bytes]:
    if not namespace:
        return _without_namespace
    prefix = _prefix(namespace)

    def canonical(raw: bytes) -> bytes:
        return prefix + raw

    return canonical


def _prefix(namespace: bytes) -> bytes:
    return b"%d:%s:" % (len(namespace), namespace)


def _without_namespace(raw: bytes) -> bytes:
    """Return the name of a key without a namespace: nearly always the key itself."""
    # Most keys begin with a letter and take one comparison: digits are below, "~" is above.
    if b":" < raw < b"~":
        return raw
    if raw.startswith(RESERVED) or _end_of_namespace(raw) is not None:
        return ESCAPED + raw
    return raw


def _end_of_namespace(raw: bytes) -> int | None:
    """Return where the key begins in what looks like a name in a namespace, as `4:shop:cart` does."""
    length = _like_a_namespace(raw)
    if length is None:
        return None
    end = length.end() + int(length[1])
    return end + 1 if raw[end : end + 1] == b":" else None
