"""How the results of a function are stored: by which codec, and with which type they come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from shardcache.core.codecs import Codec, ValueFormat
from shardcache.core.own_types.choice import declare, declared_by
from shardcache.core.own_types.declared import DeclaredType
from shardcache.core.urls import redact
from shardcache.errors import ConfigurationError

CodecChoice: TypeAlias = str | Codec | ValueFormat
# A type, as an annotation has it, or `True`. No type of Python 3.11 describes all annotations.
Returns: TypeAlias = Any


class ResultFormat(NamedTuple):
    """The codec of a function's results, and their declared type; `None` is the client's codec, or no type."""

    codec: CodecChoice | None = None
    declared: DeclaredType | None = None


class ResultOptions(NamedTuple):
    """The options `codec` and `returns` of a cached function, or of `get_or_set`.

    `returns` is a type, `True` for the one that the function's annotation names, or `None`.
    """

    codec: CodecChoice | None = None
    returns: Returns = None

    @property
    def are_default(self) -> bool:
        """Return whether results are stored as all other values of the client are."""
        return self.codec is None and self.returns is None

    def of(self, function: Callable[..., Any]) -> ResultOptions:
        """Return the options for a function: its annotation in place of `returns=True`.

        Raise `ConfigurationError` if it has none that can be resolved.
        """
        return self._replace(returns=declared_by(function)) if self.returns is True else self

    def format(self) -> ResultFormat:
        """Return what the options stand for; raise `ConfigurationError` if they cannot be met."""
        return ResultFormat(self.codec, None if self.returns is None else declare(self.returns))


def check_codec(choice: object) -> None:
    """Raise `ConfigurationError` for what is neither a codec's name nor a codec."""
    if not isinstance(choice, str) and not all(
        hasattr(choice, name) for name in ("name", "encode", "decode")
    ):
        raise ConfigurationError(
            f"codec must be the name of a codec, a codec or a value format, not {redact(choice)}"
        )


def item_type(returns: Returns, call: str) -> Returns:
    """Return the declared type of one value; raise `ConfigurationError` for `True`."""
    if returns is True:
        raise ConfigurationError(
            f"{call}: returns must be the type of one value, and True stands for the annotation, which is"
            " that of the mapping"
        )
    return returns
