"""Pickles, signed, for values that no other codec takes."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, ClassVar, Final

from shardcache.core.codecs.base import Secret, refusal
from shardcache.errors import ConfigurationError, DecodeError

DIGEST_SIZE: Final = 32  # bytes of HMAC-SHA256; fixed here, never chosen by what is stored
MIN_SECRET: Final = 16  # bytes
PROTOCOL: Final = 5
_BOOLEANS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

# Values are the callers' own, and options are whatever was given: every `Any` here is one.


class SignedPickle:
    """A pickle behind an HMAC-SHA256 over key, codec and payload, checked before it is parsed.

    `secret` is the key of the signature, at least 16 bytes; of several the first signs and any
    verifies, so that secrets can be changed. `read_unsigned` also reads the pickles that other
    clients left. Whoever can write to the cache can forge those, and a forged pickle runs code: it
    is for the days of a switch between trusted programs, and off.
    """

    name: ClassVar[str] = "pickle"
    kind: ClassVar[int] = 34

    def __init__(
        self, *, secret: Secret | None = None, read_unsigned: str | bool = False, **options: Any
    ) -> None:
        faults = [
            *(f"codec 'pickle' has no option {name!r}" for name in options),
            *_secret_faults(secret),
            *_boolean_faults(read_unsigned),
        ]
        if faults:
            raise ConfigurationError(*faults)
        # Prepared once: a copy of a keyed HMAC costs a third of a new one.
        self._signers = [hmac.new(_bytes(one), b"pickle:", hashlib.sha256) for one in _each(secret)]
        self._read_unsigned = _BOOLEANS[str(read_unsigned).lower()]

    def encode(self, name: bytes, value: Any) -> bytes:
        """Give signature and pickle of `value`, good for `name` alone."""
        import pickle  # noqa: PLC0415 - few programs use it

        try:
            pickled = pickle.dumps(value, PROTOCOL)
        except Exception as error:
            raise refusal(self.name, value, f"pickling it raised {type(error).__name__}") from error
        return _signature(self._signers[0], name, pickled) + pickled

    def decode(self, name: bytes, data: bytes) -> Any:
        """Give the value, if one of the secrets signed it for `name`."""
        signature, pickled = data[:DIGEST_SIZE], data[DIGEST_SIZE:]
        for signer in self._signers:
            if hmac.compare_digest(signature, _signature(signer, name, pickled)):
                return _unpickled(pickled)
        raise DecodeError("the signature of a pickle does not match")

    def decode_foreign_pickle(self, data: bytes) -> Any:
        """Give the value of another client's pickle, if told to trust such."""
        if not self._read_unsigned:
            raise DecodeError("a pickle of another client, and read_unsigned is off")
        return _unpickled(data)

    def __repr__(self) -> str:
        return "<codec pickle>"


def _signature(signer: hmac.HMAC, name: bytes, pickled: bytes) -> bytes:
    machine = signer.copy()
    # With its length in front, so that no byte can move from the name to the pickle.
    machine.update(len(name).to_bytes(8, "big") + name)
    machine.update(pickled)
    return machine.digest()


def _unpickled(pickled: bytes) -> Any:
    import pickle  # noqa: PLC0415 - as above

    try:
        return pickle.loads(pickled)  # noqa: S301 - signed, or explicitly trusted
    except Exception as error:  # noqa: BLE001 - a pickle can raise anything at all
        fault = type(error).__name__
    # Raised out here, for the first error may quote the value and would be the context.
    raise DecodeError(f"a pickle cannot be read ({fault})")


def _each(secret: Any) -> list[Any]:
    if isinstance(secret, (str, bytes)):
        return [secret]
    return list(secret)


def _bytes(secret: str | bytes) -> bytes:
    return secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else secret


def _secret_faults(secret: Any) -> list[str]:
    if secret is None:
        return ["codec 'pickle' needs a secret: an unsigned pickle runs code"]
    if not isinstance(secret, (str, bytes, list, tuple)):
        return [
            f"codec 'pickle': secret is text, bytes or a list of them, not {type(secret).__name__}"
        ]
    secrets = _each(secret)
    if not all(isinstance(one, (str, bytes)) for one in secrets):
        return ["codec 'pickle': each secret is text or bytes"]
    if not secrets or any(len(_bytes(one)) < MIN_SECRET for one in secrets):
        return [f"codec 'pickle': a secret has at least {MIN_SECRET} bytes"]
    return []


def _boolean_faults(given: Any) -> list[str]:
    if str(given).lower() in _BOOLEANS:
        return []
    return ["codec 'pickle': read_unsigned is true or false"]
