"""Signatures: a client with a secret wrote these bytes, for this key, purpose and time."""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from shardcache.errors import ConfigurationError, DecodeError

DIGEST_SIZE: Final = 32  # bytes of HMAC-SHA256; fixed here, never chosen by stored bytes
MIN_SECRET: Final = 16  # bytes

# For how many seconds after its end a signature is still accepted. A server that counts whole
# seconds may keep a value that long, and clocks differ.
LEEWAY: Final = 1.0

_ENDS: Final = struct.Struct("!d")  # time of day in seconds; after the digest, and signed
_HEADER_SIZE: Final = DIGEST_SIZE + _ENDS.size
_NEVER: Final = float("inf")
_DOMAIN: Final = b"shardcache"


class Scope(NamedTuple):
    """What a signature covers besides the bytes: it is valid for this scope only.

    `kind` is the kind of the bytes. `name` is the canonical key, namespace included. `codec` is the
    codec's name, empty for values that no codec wrote.
    """

    purpose: bytes
    kind: int
    codec: str
    name: bytes


class Signer:
    """Signs with the first of several secrets, and accepts signatures by any of them."""

    __slots__ = ("_keyed",)

    def __init__(self, secrets: Sequence[bytes]) -> None:
        """Prepare the secrets; raise `ConfigurationError` if one is short enough to be guessed."""
        if any(len(each) < MIN_SECRET for each in secrets):
            raise ConfigurationError(
                f"secret: must have at least {MIN_SECRET} bytes, each of several"
            )
        # Prepared once: copying a keyed HMAC takes a third of the time of making one.
        self._keyed = [hmac.new(each, _DOMAIN, hashlib.sha256) for each in secrets]

    def sign(self, scope: Scope, data: bytes, ends: float | None) -> bytes:
        """Return `data` after its signature, which is valid until `ends`, a time of day in seconds."""
        signed = _ENDS.pack(_NEVER if ends is None else ends)
        return _digest(self._keyed[0], scope, signed, data) + signed + data

    def verify(self, scope: Scope, signed: bytes, now: float) -> bytes:
        """Return the signed bytes; raise `DecodeError` for another scope, or if they ended before `now`."""
        digest, end = signed[:DIGEST_SIZE], signed[DIGEST_SIZE:_HEADER_SIZE]
        data = signed[_HEADER_SIZE:]
        for keyed in self._keyed:
            if hmac.compare_digest(digest, _digest(keyed, scope, end, data)):
                (ends,) = _ENDS.unpack(end)
                if now > ends + LEEWAY:
                    raise DecodeError("the signature has expired")
                return data
        raise DecodeError(
            "the signature does not match: made with another secret, for another key or purpose, or altered"
        )


def signed_data(signed: bytes) -> bytes:
    """Return the bytes that a signature covers, without verifying it."""
    return signed[_HEADER_SIZE:]


def _digest(keyed: hmac.HMAC, scope: Scope, end: bytes, data: bytes) -> bytes:
    machine = keyed.copy()
    machine.update(_encode_scope(scope))
    machine.update(end)
    machine.update(data)
    return machine.digest()


def _encode_scope(scope: Scope) -> bytes:
    """Return the scope as bytes, each part after its length, so that no two scopes are equal."""
    purpose, kind, codec, name = scope
    text = codec.encode()
    return b"%d:%b%d,%d:%b%d:%b" % (
        len(purpose),
        purpose,
        kind,
        len(text),
        text,
        len(name),
        name,
    )
