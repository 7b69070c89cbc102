"""Keys and tags written as templates over the arguments of a call: `"price:{article}:{currency}"`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from string import Formatter
from typing import Any, Final
from uuid import UUID

from shardcache.core.key_building.arguments import UnkeyableError, zone_name
from shardcache.core.key_building.third_party import equal_builtin, standard_type, type_name

# Arguments are the caller's own and of any type, hence `Any`.

_formatter: Final = Formatter()
_address: Final = re.compile(r" at 0x[0-9a-fA-F]{6}")


@dataclass(frozen=True, slots=True)
class Field:
    """One `{…}` of a template, with the text before it.

    `follows` is the first character of the text after it, empty if the next field comes at once,
    `None` if no field follows.
    """

    before: str
    expression: str
    conversion: str | None
    form: str
    follows: str | None

    @property
    def name(self) -> str:
        """Return the name of the argument: of `{user.id}`, `user`."""
        return _first(self.expression)

    def names(self) -> Iterator[str]:
        """Yield the names of all arguments, the format's too: `{number:{width}}` has two."""
        yield self.name
        for _, name, _, _ in _formatter.parse(self.form):
            if name is not None:
                yield _first(name)

    def value(self, arguments: Mapping[str, Any]) -> Any:
        """Return the field's value, looking up its attributes and items."""
        if self.expression in arguments:
            return arguments[self.expression]
        return _formatter.get_field(self.expression, (), arguments)[0]

    def text(self, value: Any, arguments: Mapping[str, Any]) -> str:
        """Return the text of the field's value; raise `UnkeyableError` if no text identifies it."""
        if not self.form and self.conversion is None:
            return plain_text(value)
        if self.conversion is not None:
            value = _convert(value, self.conversion)
        elif _text_function(value) is None and not _has_own_format(value):
            plain_text(value)
        form = _formatter.vformat(self.form, (), arguments) if "{" in self.form else self.form
        text = format(value, form)
        if _address.search(text) and type(value) is not str:
            raise UnkeyableError(f"{_of_type(value)}, whose text holds an address in memory")
        return text


class Template:
    """A template for keys and tags. Calls whose fields differ never share a key: see `key`.

    >>> price = Template("price:{article}:{currency}")
    >>> price.key({"article": 7, "currency": "EUR"}), sorted(price.names)
    ('price:7:EUR', ['article', 'currency'])
    """

    def __init__(self, template: str) -> None:
        """Parse the template; raise `ValueError` if that fails."""
        parts = list(_formatter.parse(template))
        self.text = template
        self._fields: list[Field] = []
        before = ""
        for place, (literal, expression, form, conversion) in enumerate(parts):
            before += literal
            if expression is None:
                continue
            field = Field(
                before, expression, conversion, form or "", _following(parts[place + 1 :])
            )
            self._fields.append(field)
            before = ""
        self._after = before
        self.names = frozenset(name for field in self._fields for name in field.names())

    def key(self, arguments: Mapping[str, Any]) -> str:
        """Return the text with the arguments filled in.

        A field's length stands before it if its end would be unclear: its text holds the character
        that follows, or begins with `%` as the lengths do, or another field follows. `%=4%` or `%=5%`
        stands before the strings `None`, `True` and `False`, which are not those values.

        >>> Template("{a}:{b}").key({"a": "x:y", "b": "z"})
        '%3%x:y:z'
        """
        return self._fill(arguments, _with_length)

    def tag(self, arguments: Mapping[str, Any]) -> str:
        """Return the text with the arguments as they are, so that a person can write the tag."""
        return self._fill(arguments, _as_it_is)

    def _fill(self, arguments: Mapping[str, Any], mark: Callable[[Field, Any, str], str]) -> str:
        parts: list[str] = []
        for field in self._fields:
            try:
                value = field.value(arguments)
                text = field.text(value, arguments)
            except UnkeyableError as error:
                raise UnkeyableError(
                    f"the field {_in_braces(field)} of the template {self.text!r}: {error}; {_WAYS_OUT}"
                ) from None
            except Exception as error:  # the caller's attributes, items and formats raise anything
                raise UnkeyableError(
                    f"the field {_in_braces(field)} of the template {self.text!r} failed:"
                    f" {type_name(type(error))}"
                ) from error
            parts += (field.before, mark(field, value, text))
        parts.append(self._after)
        return "".join(parts)


def plain_text(value: Any) -> str:
    """Return the text that identifies a value; raise `UnkeyableError` if there is none.

    A number, a date, a UUID and an enum have one. The `__str__` of another class may leave
    something out, and so may that of a subclass of `str` or `int`.
    """
    kind = type(value)
    to_text = _text_function(value)
    if to_text is not None:
        return to_text(value)
    if issubclass(kind, Enum):
        if issubclass(kind, (str, int)):
            return plain_text(value._value_)
        return f"{kind.__qualname__}.{value._name_ or value._value_}"
    equal = equal_builtin(value)
    if equal is not NotImplemented:
        return plain_text(equal)
    raise UnkeyableError(f"{_of_type(value)}, whose text may be the same for another value")


def _text_function(value: object) -> Callable[[Any], str] | None:
    return _TEXTS.get(type(value)) or _STAND_INS.get(standard_type(value) or "")


def _time_text(value: datetime | time) -> str:
    zone = zone_name(value.tzinfo)
    suffix = f"[{zone}]" if zone and not _is_unnamed(value.tzinfo) else ""
    return f"{value}{suffix}{'/1' if value.fold else ''}"


def _is_unnamed(zone: tzinfo | None) -> bool:
    """Return whether a zone is only an offset, which the text already shows."""
    if type(zone) is not timezone:
        return False
    return zone.tzname(None) == timezone(zone.utcoffset(None)).tzname(None)


def _itself(value: str) -> str:
    return value


_TEXTS: Final[dict[type, Callable[[Any], str]]] = {
    str: _itself,
    int: str,
    bool: str,
    type(None): str,
    float: str,
    Decimal: str,
    UUID: str,
    date: str,
    datetime: _time_text,
    time: _time_text,
    timedelta: str,
}
_STAND_INS: Final[dict[str, Callable[[Any], str]]] = {
    type_name(kind): to_text for kind, to_text in _TEXTS.items()
}
_WAYS_OUT: Final = (
    "name an attribute or an item that identifies it, as in {user.id}, or write {…!s} if its"
    " str() does"
)


def _has_own_format(value: Any) -> bool:
    """Return whether the value's class defines its own `__format__`."""
    owner = next(each for each in type(value).__mro__ if "__format__" in vars(each))
    return owner.__module__ not in {"builtins", "datetime", "enum"}


def _convert(value: Any, conversion: str) -> Any:
    """Return the text for `!s`, `!r` or `!a`; raise `UnkeyableError` if it holds an address."""
    kind: Any = type(value)
    has_repr = kind.__repr__ is not object.__repr__
    has_text = has_repr or kind.__str__ is not object.__str__
    if not (has_text if conversion == "s" else has_repr):
        raise UnkeyableError(f"{_of_type(value)}, whose text is its address in memory")
    text = _formatter.convert_field(value, conversion)
    if _address.search(text) and kind is not str:
        raise UnkeyableError(f"{_of_type(value)}, whose text holds an address in memory")
    return text


def _with_length(field: Field, value: Any, text: str) -> str:
    """Return the text, after its length if its end would be unclear."""
    follows = field.follows
    if follows is None:
        is_clear = True
    elif follows:
        is_clear = follows not in text and (text != "" or follows != "%")
    else:
        is_clear = False
    if text in _NOT_TEXT and type(value) is str:
        return f"%={len(text)}%{text}"
    if is_clear and text[:1] != "%":
        return text
    return f"%{len(text)}%{text}"


_NOT_TEXT: Final = frozenset({"None", "True", "False"})


def _as_it_is(_field: Field, _value: Any, text: str) -> str:
    return text


def _following(parts: list[tuple[str, str | None, str | None, str | None]]) -> str | None:
    """Return the first character between a field and the next; `None` if no field follows."""
    between = ""
    for literal, expression, _, _ in parts:
        between += literal
        if expression is not None:
            return between[:1]
    return None


def _first(expression: str) -> str:
    return expression.split(".", maxsplit=1)[0].split("[", maxsplit=1)[0]


def _in_braces(field: Field) -> str:
    return "{" + field.expression + "}"


def _of_type(value: object) -> str:
    return f"a value of type {type_name(type(value))}"
