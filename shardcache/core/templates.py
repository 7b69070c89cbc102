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

from shardcache.core.arguments import UnkeyableError, zone_name
from shardcache.core.recognized import equal_form, same_as, type_name

# Arguments are the caller's own and of any type, hence `Any`.

_formatter: Final = Formatter()
_address: Final = re.compile(r" at 0x[0-9a-fA-F]{6}")


@dataclass(frozen=True, slots=True)
class Field:
    """One `{…}` of a template, with the text in front of it.

    `follows` is the first character of the text behind it, empty where the next field stands there,
    `None` behind the last field.
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
        """Yield the names of all arguments, with those in the format: `{number:{width}}` has two."""
        yield self.name
        for _, name, _, _ in _formatter.parse(self.form):
            if name is not None:
                yield _first(name)

    def value(self, arguments: Mapping[str, Any]) -> Any:
        """Return what the field stands for; its attributes and items are the caller's own."""
        if self.expression in arguments:
            return arguments[self.expression]
        return _formatter.get_field(self.expression, (), arguments)[0]

    def text(self, value: Any, arguments: Mapping[str, Any]) -> str:
        """Return the text of the field's value; raise `UnkeyableError` if it has none of its own."""
        if not self.form and self.conversion is None:
            return plain_text(value)
        if self.conversion is not None:
            value = _converted(value, self.conversion)
        elif _teller(value) is None and not _says_how(value):
            plain_text(value)
        form = _formatter.vformat(self.form, (), arguments) if "{" in self.form else self.form
        text = format(value, form)
        if _address.search(text) and type(value) is not str:
            raise UnkeyableError(f"{_of_type(value)}, whose text holds an address in memory")
        return text


class Template:
    """A template, checked: the text of its fields is that of values which have one.

    Two calls whose fields differ never have one key: see `key`.

    >>> price = Template("price:{article}:{currency}")
    >>> price.key({"article": 7, "currency": "EUR"}), sorted(price.names)
    ('price:7:EUR', ['article', 'currency'])
    """

    def __init__(self, template: str) -> None:
        """Read it; raise `ValueError` if it cannot be read."""
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
        """Return the text with the arguments in it.

        A field has its length in front where its end could not be told otherwise: its text holds the
        character that follows it, or begins with `%` as those lengths do, or another field follows. The
        strings `None`, `True` and `False`, which are not those values, have `%=4%` in front.

        >>> Template("{a}:{b}").key({"a": "x:y", "b": "z"})
        '%3%x:y:z'
        """
        return self._filled(arguments, _marked)

    def tag(self, arguments: Mapping[str, Any]) -> str:
        """Return the text with the arguments in it as they are, so that it can be told by hand."""
        return self._filled(arguments, _as_it_is)

    def _filled(self, arguments: Mapping[str, Any], mark: Callable[[Field, Any, str], str]) -> str:
        parts: list[str] = []
        for field in self._fields:
            try:
                value = field.value(arguments)
                text = field.text(value, arguments)
            except UnkeyableError as error:
                raise UnkeyableError(
                    f"the field {_shown(field)} of the template {self.text!r}: {error}; {_WAYS_OUT}"
                ) from None
            except Exception as error:  # whatever the caller's attributes, items and formats raise
                raise UnkeyableError(
                    f"the field {_shown(field)} of the template {self.text!r} failed:"
                    f" {type_name(type(error))}"
                ) from error
            parts += (field.before, mark(field, value, text))
        parts.append(self._after)
        return "".join(parts)


def plain_text(value: Any) -> str:
    """Return the text that a value is known by; raise `UnkeyableError` if it has none of its own.

    A number, a date, a UUID and an enum have one. Of a class's `__str__` nobody knows what it leaves
    out; nor of a subclass of `str` or `int`.
    """
    kind = type(value)
    teller = _teller(value)
    if teller is not None:
        return teller(value)
    if issubclass(kind, Enum):
        if issubclass(kind, (str, int)):
            return plain_text(value._value_)
        return f"{kind.__qualname__}.{value._name_ or value._value_}"
    equal = equal_form(value)
    if equal is not NotImplemented:
        return plain_text(equal)
    raise UnkeyableError(f"{_of_type(value)}, whose text may not tell it from others")


def _teller(value: object) -> Callable[[Any], str] | None:
    return _TEXTS.get(type(value)) or _STAND_INS.get(same_as(value) or "")


def _moment(value: datetime | time) -> str:
    zone = zone_name(value.tzinfo)
    named = f"[{zone}]" if zone and not _is_unnamed(value.tzinfo) else ""
    return f"{value}{named}{'/1' if value.fold else ''}"


def _is_unnamed(zone: tzinfo | None) -> bool:
    """Return whether a zone is no more than its offset, which the text shows already."""
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
    datetime: _moment,
    time: _moment,
    timedelta: str,
}
_STAND_INS: Final[dict[str, Callable[[Any], str]]] = {
    type_name(kind): teller for kind, teller in _TEXTS.items()
}
_WAYS_OUT: Final = (
    "name an attribute or an item that tells it from others, as in {user.id}, or write {…!s} if its"
    " str() does"
)


def _says_how(value: Any) -> bool:
    """Return whether a class has a `__format__` of its own, for a format that is given."""
    owner = next(each for each in type(value).__mro__ if "__format__" in vars(each))
    return owner.__module__ not in {"builtins", "datetime", "enum"}


def _converted(value: Any, conversion: str) -> Any:
    """Return the text that was asked for by `!s`, `!r` or `!a`, if it is not Python's address."""
    kind: Any = type(value)
    has_repr = kind.__repr__ is not object.__repr__
    has_text = has_repr or kind.__str__ is not object.__str__
    if not (has_text if conversion == "s" else has_repr):
        raise UnkeyableError(f"{_of_type(value)}, whose text is its address in memory")
    text = _formatter.convert_field(value, conversion)
    if _address.search(text) and kind is not str:
        raise UnkeyableError(f"{_of_type(value)}, whose text holds an address in memory")
    return text


def _marked(field: Field, value: Any, text: str) -> str:
    """Return the text, with its length in front where its end could not be told otherwise."""
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
    """Return the first character between a field and the next; `None` where no field comes."""
    between = ""
    for literal, expression, _, _ in parts:
        between += literal
        if expression is not None:
            return between[:1]
    return None


def _first(expression: str) -> str:
    return expression.split(".", maxsplit=1)[0].split("[", maxsplit=1)[0]


def _shown(field: Field) -> str:
    return "{" + field.expression + "}"


def _of_type(value: object) -> str:
    return f"a value of type {type_name(type(value))}"
