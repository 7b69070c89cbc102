"""JSON, for caches that programs in other languages read too."""

from __future__ import annotations

from typing import Any, Final

from shardcache.core.codecs.base import OWN_TYPES, no_options, refusal
from shardcache.errors import DecodeError, EncodeError

_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_CONVERT: Final = "convert it to what JSON has, or use the codec 'msgpack'"
_WAYS: Final = f"convert it to what JSON has, {OWN_TYPES}, or use the codec 'msgpack'"


class Json:
    """JSON in UTF-8, for exactly the types that JSON returns: no tuples, and `str` keys only."""

    name = "json"
    kind = 33

    def __init__(self, **options: Any) -> None:  # refused whatever they are
        no_options(self.name, options)

    def encode(self, name: bytes, value: Any) -> bytes:  # noqa: ARG002 - the same under any name
        """Return the JSON of `value`; raise `EncodeError` if it would come back as another type."""
        import json  # noqa: PLC0415 - few programs use it

        try:
            _check(value)
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            return text.encode()
        except RecursionError:
            raise EncodeError("nested too deeply for the codec 'json'") from None
        except UnicodeEncodeError:
            raise EncodeError(f"text that UTF-8 cannot hold: {_CONVERT}") from None
        except ValueError:
            raise EncodeError(
                f"NaN, an infinity or an int of thousands of digits: {_CONVERT}"
            ) from None

    def decode(self, name: bytes, data: bytes) -> Any:  # noqa: ARG002 - the same under any name
        """Return the value of a JSON text."""
        import json  # noqa: PLC0415 - as above

        try:
            return json.loads(data.decode(), parse_constant=_refuse)
        except (ValueError, RecursionError):
            pass  # this error holds the text, and would be the context of one raised here
        raise DecodeError("not JSON in UTF-8")

    def __repr__(self) -> str:
        return "<codec json>"


def _check(value: Any) -> None:  # any value: its type is checked here
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise refusal("json", key, f"as a key; {_CONVERT}")
            if type(item) not in _SCALARS:
                _check(item)
    elif kind is list:
        for item in value:
            if type(item) not in _SCALARS:
                _check(item)
    elif kind not in _SCALARS:
        raise refusal("json", value, _WAYS)


def _refuse(constant: str) -> Any:  # it always raises
    raise ValueError(constant)
