"""Values of a declared type to payloads and back: through built-in values, validated when read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from shardcache.core.commands import Payload
from shardcache.core.own_types.declared import DeclaredType, Form
from shardcache.core.own_types.differences import first_difference
from shardcache.core.values.formats import CheckedFormat, CodecFormat
from shardcache.core.values.other_clients import InflateBudget
from shardcache.errors import DecodeError, EncodeError

# Values may be anything: every `Any` here is one.


class InvalidValueError(DecodeError):
    """A stored value was decoded, and is not of the declared type: another version's, as a rule."""


class TypedFormat:
    """Values of a declared type, in a form of built-in values that another format stores.

    Its payloads are those of the other format: a reader that does not know the type gets the built-in
    values.
    """

    __slots__ = ("_declared", "_dumps", "_inner", "_load")

    bytes_flags: Final[frozenset[int]] = frozenset()

    def __init__(
        self, inner: CodecFormat | CheckedFormat, declared: DeclaredType, form: Form
    ) -> None:
        self._inner = inner
        self._declared = declared
        self._dumps, self._load = form

    @property
    def name(self) -> str:
        """Return the name of the other format."""
        return self._inner.name

    def encode(self, name: bytes, value: Any, seconds: float | None = None) -> Payload:  # noqa: ARG002
        """Return the payload of a value; raise `EncodeError` as `encode_result` does."""
        payload, _ = self.encode_result(name, value)
        return payload

    def encode_result(self, name: bytes, value: Any) -> tuple[Payload, Any]:
        """Return the payload of a value, and the value as it is read from that.

        Raise `EncodeError` if it cannot be stored, or would be read as another value.
        """
        for dump in self._dumps:
            try:
                payload = self._inner.encode(name, self._dumped(dump, value))
                return payload, self._read_back(name, payload, value)
            except EncodeError as error:
                failure = error
        raise failure

    def decode(self, name: bytes, payload: Payload, budget: InflateBudget | None = None) -> Any:
        """Return the value of a payload; raise `InvalidValueError` if it is not of the type."""
        stored = self._inner.decode(name, payload, budget)
        try:
            return self._load(stored)
        except Exception as error:  # noqa: BLE001 - validators are the user's code
            fault = self._fault(error)
        # Raised here because the first error may quote the value, and would be the context.
        raise InvalidValueError(fault)

    def _dumped(self, dump: Callable[[Any], Any], value: Any) -> Any:
        try:
            return dump(value)
        except Exception as error:
            raise EncodeError(f"the result is {self._fault(error)}") from error

    def _read_back(self, name: bytes, payload: Payload, value: Any) -> Any:
        try:
            twin = self.decode(name, payload)
        except DecodeError as error:
            raise EncodeError(f"the result is {error}") from error
        try:
            difference = first_difference(value, twin)
        except Exception as error:  # comparing is the user's code too
            raise EncodeError(
                f"the result cannot be compared with what is read back: {type(error).__name__}"
            ) from error
        if difference is not None:
            raise EncodeError(f"the result would be read back with {difference}")
        return twin

    def _fault(self, error: Exception) -> str:
        return f"not a valid {self._declared.name}: {self._declared.explain(error)}"
