"""JSON, for caches that programs in other languages read."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from shardcache.core.codecs.base import no_options, refusal
from shardcache.errors import DecodeError, EncodeError

_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_WAYS: Final = "convert it to what JSON has, or use the codec 'msgpack'"


class Json:
    """JSON in UTF-8, of exactly the types that JSON gives back: no tuples, no keys but `str`."""

    name: ClassVar[str] = "json"
    kind: ClassVar[int] = 33

    def __init__(self, **options: Any) -> None:  # refused whatever they are
        no_options(self.name, options)

    def encode(self, name: bytes, value: Any) -> bytes:  # noqa: ARG002 - the same under any name
        """Return the JSON of `value`; raise `EncodeError` for what would come back as another type."""
        import json  # noqa: PLC0415 - few programs use it

        try:
            _check(value)
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            return text.encode()
        except RecursionError:
            raise EncodeError("nested too deeply for the codec 'json'") from None
        except UnicodeEncodeError:
            raise EncodeError(f"text that UTF-8 cannot hold: {_WAYS}") from None
        except ValueError:
            raise EncodeError(
                f"NaN, an infinity or an int of thousands of digits: {_WAYS}"
            ) from None

    def decode(self, name: bytes, data: bytes) -> Any:  # noqa: ARG002 - the same under any name
        """Return the value of a JSON text."""
        import json  # noqa: PLC0415 - as above

        try:
            return json.loads(data.decode(), parse_constant=_refused)
        except (ValueError, RecursionError):
            pass  # it holds the text, and would be the context of an error raised here
        raise DecodeError("not JSON in UTF-8")

    def __repr__(self) -> str:
        return "<codec json>"


def _check(value: Any) -> None:  # any value, until seen to be of JSON's types
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise refusal("json", key, f"as a key; {_WAYS}")
            if type(item) not in _SCALARS:
                _check(item)
    elif kind is list:
        for item in value:
            if type(item) not in _SCALARS:
                _check(item)
    elif kind not in _SCALARS:
        raise refusal("json", value, _WAYS)


def _refused(constant: str) -> Any:  # nothing comes back
    raise ValueError(constant)
