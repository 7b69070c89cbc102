"""What a codec promises."""

from __future__ import annotations

from enum import Enum
from typing import Any, Protocol

from shardcache.errors import ConfigurationError, EncodeError

# Values are the callers' own and may be anything: every `Any` here is one.


class Codec(Protocol):
    """Turns values into bytes and back: what comes back equals what went in, type included.

    Exact `bytes`, `str` and `int` values do not come here, save for text that UTF-8 cannot hold
    and ints of hundreds of digits. `name` is the stored key on its node, for codecs that encrypt. A
    client with a secret signs what a codec writes, and verifies it first. A codec that must not read
    what anybody could have written has an attribute `signed_only` that is true.
    """

    @property
    def name(self) -> str:
        """Return what the codec is registered as."""

    @property
    def kind(self) -> int:
        """Return the number stored beside the bytes, the same for ever, to tell codecs apart.

        From 64 to 127, unique among the codecs of one key space; those below are shardcache's own.
        """

    def encode(self, name: bytes, value: Any) -> bytes:
        """Return the bytes of `value`, to be stored as `name`; raise `EncodeError` if it has none."""

    def decode(self, name: bytes, data: bytes) -> Any:
        """Return the value of bytes stored as `name`; raise `DecodeError`, and nothing else.

        The bytes may be anything at all, and no error may hold or quote them. Whatever else is
        raised is taken for a `DecodeError` with that as its cause, which observers are given.
        """


class CodecFactory(Protocol):
    """Makes a codec from its options: what a plugin registers."""

    def __call__(self, **options: Any) -> Codec:  # texts from settings; a secret may be several
        """Make the codec; raise `ConfigurationError` naming an option that is unknown or bad."""


def no_options(codec: str, options: dict[str, Any]) -> None:
    """Raise `ConfigurationError` when a codec that takes no options was given one."""
    if options:
        raise ConfigurationError(*(f"codec {codec!r} has no option {name!r}" for name in options))


def refusal(codec: str, value: object, ways: str) -> EncodeError:
    """Return the error for a value whose type the codec does not take, with the ways out."""
    kind = type(value)
    name = (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    return EncodeError(f"codec {codec!r} cannot store {name}: {ways}{_plain_form(value)}")


def _plain_form(value: object) -> str:
    """Return how to store what a value is a kind of; nothing for other values.

    >>> from http import HTTPMethod
    >>> _plain_form(HTTPMethod.GET), _plain_form(type("Text", (str,), {})()), _plain_form(object())
    ('; or store value.value', '; or store str(value)', '')
    """
    if isinstance(value, Enum):
        return "; or store value.value"
    for kind in (str, int, float, bytes, dict, list, tuple, set):
        if isinstance(value, kind) and type(value).__module__ != "builtins":
            return f"; or store {kind.__name__}(value)"
    return ""
