"""Signatures: who knows a secret wrote these bytes, for this key and purpose, and for how long."""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from shardcache.errors import ConfigurationError, DecodeError

DIGEST_SIZE: Final = 32  # bytes of HMAC-SHA256; fixed here, never chosen by what is stored
MIN_SECRET: Final = 16  # bytes

# For so long after its end a value is believed still: a server may keep it that long, for it counts
# whole seconds, and clocks differ.
LEEWAY: Final = 1.0  # seconds

_ENDS: Final = struct.Struct("!d")  # time of day in seconds; behind the digest, and signed
_FRONT: Final = DIGEST_SIZE + _ENDS.size
_NEVER: Final = float("inf")
_DOMAIN: Final = b"shardcache"


class Scope(NamedTuple):
    """What a signature is good for, beside its bytes.

    `kind` says what they are. `name` is the key on its node, in which a namespace stands with its
    length; `codec` is of values that a codec wrote.
    """

    purpose: bytes
    kind: int
    codec: str
    name: bytes


class Signer:
    """Signs with the first of several secrets, and verifies what any of them signed."""

    __slots__ = ("_keyed",)

    def __init__(self, secrets: Sequence[bytes]) -> None:
        """Prepare them; raise `ConfigurationError` for one that could be guessed."""
        if any(len(each) < MIN_SECRET for each in secrets):
            raise ConfigurationError(
                f"secret: must have at least {MIN_SECRET} bytes, each of several"
            )
        # Prepared once: a copy of a keyed HMAC costs a third of a new one.
        self._keyed = [hmac.new(each, _DOMAIN, hashlib.sha256) for each in secrets]

    def sign(self, scope: Scope, data: bytes, ends: float | None) -> bytes:
        """Return `data` behind a signature; from `ends`, a time of day in seconds, it is void."""
        signed = _ENDS.pack(_NEVER if ends is None else ends)
        return _digest(self._keyed[0], scope, signed, data) + signed + data

    def verify(self, scope: Scope, signed: bytes, now: float) -> bytes:
        """Return what was signed; raise `DecodeError` when that was elsewhere, or is over at `now`."""
        digest, life, data = signed[:DIGEST_SIZE], signed[DIGEST_SIZE:_FRONT], signed[_FRONT:]
        for keyed in self._keyed:
            if hmac.compare_digest(digest, _digest(keyed, scope, life, data)):
                (ends,) = _ENDS.unpack(life)
                if now > ends + LEEWAY:
                    raise DecodeError("signed for a time that is over")
                return data
        raise DecodeError(
            "the signature does not match: of another secret, key or purpose, or altered"
        )


def _digest(keyed: hmac.HMAC, scope: Scope, life: bytes, data: bytes) -> bytes:
    machine = keyed.copy()
    machine.update(_front(scope))
    machine.update(life)
    machine.update(data)
    return machine.digest()


def _front(scope: Scope) -> bytes:
    """Return what is signed before the bytes, each part behind its length: none runs into another."""
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
