"""Pickle, for values that no other codec takes."""

from __future__ import annotations

from typing import Any, Final

from shardcache.core.codecs.base import no_options, refusal
from shardcache.errors import DecodeError

PROTOCOL: Final = 5


class Pickle:
    """Any value that pickle takes. Reading a pickle runs code, so a client needs a secret to use it.

    The client signs what it stores, and verifies it before it is decoded here.
    """

    name = "pickle"
    kind = 34
    signed_only = True

    def __init__(self, **options: Any) -> None:  # refused whatever they are
        no_options(self.name, options)

    def encode(self, name: bytes, value: Any) -> bytes:  # noqa: ARG002 - the same under any name
        """Return the pickle of `value`; raise `EncodeError` if pickling fails."""
        import pickle  # noqa: PLC0415 - few programs use it

        try:
            return pickle.dumps(value, PROTOCOL)
        except Exception as error:
            raise refusal(self.name, value, f"pickling it raised {type(error).__name__}") from error

    def decode(self, name: bytes, data: bytes) -> Any:  # noqa: ARG002 - the same under any name
        """Return the value of a trusted pickle; raise `DecodeError` if it cannot be read."""
        return unpickle(data)

    def __repr__(self) -> str:
        return "<codec pickle>"


def unpickle(pickled: bytes) -> Any:  # a value may be anything
    """Return the value of a pickle, which may run code; raise `DecodeError` if that fails."""
    import pickle  # noqa: PLC0415 - as above

    try:
        return pickle.loads(pickled)  # noqa: S301 - signed, or explicitly trusted
    except Exception as error:  # noqa: BLE001 - a pickle can raise anything at all
        fault = type(error).__name__
    # Raised here because the first error may quote the value, and would be the context.
    raise DecodeError(f"a pickle cannot be read ({fault})")
