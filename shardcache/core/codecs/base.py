"""What a codec author implements."""

from __future__ import annotations

from enum import Enum
from typing import Any, Final, Protocol

from shardcache.core.commands import Payload
from shardcache.errors import ConfigurationError, EncodeError

# How an error tells the way out for values of a caller's own types.
OWN_TYPES: Final = "declare the type of a cached result with returns=…"

# Values may be anything: every `Any` here is one.


class Codec(Protocol):
    """Turns values into bytes and back; a value comes back equal and of the same type.

    A codec is not asked for exact `bytes`, `str` and `int` values, except for text that UTF-8 cannot
    hold and ints of hundreds of digits. `name` is the key as stored on its node, for codecs that
    encrypt. A client with a secret signs the codec's bytes, and verifies them before it decodes
    them. If decoding untrusted bytes is dangerous, set the attribute `signed_only` to true.
    """

    @property
    def name(self) -> str:
        """Return the name under which the codec is registered."""

    @property
    def kind(self) -> int:
        """Return the number stored with the bytes, which tells codecs apart and never changes.

        It is from 64 to 127, and unique among the codecs of one key space. Lower numbers are
        reserved for shardcache.
        """

    def encode(self, name: bytes, value: Any) -> bytes:
        """Return the bytes of `value`, to be stored as `name`; raise `EncodeError` if that fails."""

    def decode(self, name: bytes, data: bytes) -> Any:
        """Return the value of bytes stored as `name`; raise `DecodeError`, and nothing else.

        The bytes may be anything at all, and no error may hold or quote them. Any other exception
        becomes the cause of a `DecodeError`, which observers receive.
        """


class ValueFormat(Protocol):
    """Turns every value into a payload and back, `str`, `bytes` and `int` included.

    It is what a client can use in place of a codec, for what a codec cannot do: a serialiser that
    must see every value, compression or encryption of all of them. A payload is `(flags, data)`;
    the flags say what the data is (`core.values.flags`), and must be a value's: `kind << SHIFT` with a kind
    from 64 to 127, or those of plain text, bytes and whole numbers. Servers count only whole numbers
    under `INTEGER_FLAGS`.

    A format may wrap another one, such as `CodecFormat(codec)`, the default (`core.values.formats`):
    it stores the inner flags with its own data, and passes on payloads with flags that are not its
    own. Signatures and envelopes go around the payload, and need nothing from the format. Like a
    codec it may have an attribute `signed_only`. It has no attribute `kind`.
    """

    @property
    def name(self) -> str:
        """Return the name that a signature covers: another format does not read this one's data."""

    def encode(self, name: bytes, value: Any) -> Payload:
        """Return the payload of `value`, to be stored as `name`; raise `EncodeError` if that fails."""

    def decode(self, name: bytes, payload: Payload) -> Any:
        """Return the value of a payload stored as `name`; raise `DecodeError`, and nothing else.

        The payload may hold any flags and bytes, and no error may hold or quote them.
        """


class CodecFactory(Protocol):
    """Makes a codec from its options: what a plugin registers."""

    def __call__(self, **options: Any) -> Codec:  # texts from settings, or natural types
        """Make the codec; raise `ConfigurationError` naming an unknown or bad option."""


def no_options(codec: str, options: dict[str, Any]) -> None:
    """Raise `ConfigurationError` if there are options, for a codec that takes none."""
    if options:
        raise ConfigurationError(*(f"codec {codec!r} has no option {name!r}" for name in options))


def refusal(codec: str, value: object, ways: str) -> EncodeError:
    """Return the error for a value of a type that the codec does not take, with the ways out."""
    kind = type(value)
    name = (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    return EncodeError(f"codec {codec!r} cannot store {name}: {ways}{_hint(value)}")


def _hint(value: object) -> str:
    """Return how to store an enum, or a value of a subclass; nothing for other values.

    >>> from http import HTTPMethod
    >>> _hint(HTTPMethod.GET), _hint(type("Text", (str,), {})()), _hint(object())
    ('; or store value.value', '; or store str(value)', '')
    """
    if isinstance(value, Enum):
        return "; or store value.value"
    for kind in (str, int, float, bytes, dict, list, tuple, set):
        if isinstance(value, kind) and type(value).__module__ != "builtins":
            return f"; or store {kind.__name__}(value)"
    return ""
