"""Under which key the value of a call is kept, and with which tags."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from types import CellType, CodeType
from typing import Any, Final, TypeAlias
from weakref import ref

from shardcache.core.callkeys import UnkeyableError, canonical, digest
from shardcache.core.envelopes import MAX_VERSIONS
from shardcache.core.urls import shown
from shardcache.errors import ConfigurationError, KeyBuildError

# Arguments and functions are the caller's own, hence `Any`.

KeyChoice: TypeAlias = str | Callable[..., str | bytes] | None

log = logging.getLogger("shardcache")

_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How the key of a call is made: what `cached` was told about it."""

    key: KeyChoice = None
    namespace: str | None = None
    version: int | str = 0
    tags: Sequence[str] = ()
    ignore: Sequence[str] = ()
    typed: bool = False

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` listing what is no template, function or name."""
        faults = []
        if not (self.key is None or isinstance(self.key, str) or callable(self.key)):
            faults.append(
                f"key must be a template or a function of the arguments, not {shown(self.key)}"
            )
        for field in ("ignore", "tags"):
            given = getattr(self, field)
            if not (isinstance(given, Iterable) and all(isinstance(each, str) for each in given)):
                faults.append(f"{field} must be strings, not {shown(given)}")
        if faults:
            raise ConfigurationError(*(f"cached: {fault}" for fault in faults))

    def names(self, field: str) -> tuple[str, ...]:
        """Give `ignore` or `tags` as a tuple; one string stands for one."""
        given = getattr(self, field)
        return (given,) if isinstance(given, str) else tuple(given)


class Prefixes:
    """Which functions' values have which prefix, so that no two functions share theirs unnoticed."""

    def __init__(self) -> None:
        self._functions: dict[str, ref[Callable[..., Any]]] = {}

    def claim(self, keys: CallKeys) -> None:
        """Take note of a function's prefix.

        Raise `ConfigurationError` when it is another function's, whose values it would be served.
        Two functions of one name are one that was defined again, unless their code differs, or what
        they close over: that is told in the log.
        """
        known = self._functions.get(keys.prefix)
        other = None if known is None else known()
        self._functions[keys.prefix] = ref(keys.function)
        if other is None or other is keys.function:
            return
        if function_name(other) != keys.name:
            raise ConfigurationError(
                f"cached {keys.name}: the namespace and version {keys.prefix!r} are those of"
                f" {function_name(other)}; give each function its own"
            )
        code, other_code = _code(keys.function), _code(other)
        if keys.name.endswith("<lambda>") and code != other_code:
            raise ConfigurationError(
                f"cached {keys.name}: another lambda has the namespace and version"
                f" {keys.prefix!r}; give each its own"
            )
        is_same_code = _without_lines(code) == _without_lines(other_code)
        if not is_same_code or _closed_over(other) != _closed_over(keys.function):
            log.warning(
                "cached %s: defined more than once, with other code or other variables, and all share"
                " their cached values; give each its own namespace= or version=",
                keys.name,
            )


def function_name(function: Callable[..., Any]) -> str:
    """Give a function's module and name."""
    return f"{function.__module__}:{function.__qualname__}"


def _code(function: Callable[..., Any]) -> object:
    return getattr(function, "__code__", None)


def _without_lines(code: object) -> object:
    """Return code as it is wherever it stands in its file: a line above it makes no other function."""
    if not isinstance(code, CodeType):
        return code
    constants = tuple(map(_without_lines, code.co_consts))
    return code.replace(co_firstlineno=1, co_linetable=b"", co_consts=constants)


def _closed_over(function: Callable[..., Any]) -> list[object]:
    cells = getattr(function, "__closure__", None) or ()
    return [_content(cell) for cell in cells]


def _content(cell: CellType) -> object:
    try:
        return id(cell.cell_contents)
    except ValueError:  # not filled yet
        return None


class CallKeys:
    """The keys and tags of one function's calls.

    `prefix` is in front of each key: the function's namespace and version.
    """

    def __init__(self, function: Callable[..., Any], naming: Naming) -> None:
        self.function = function
        self.name = function_name(function)
        try:
            self._signature = inspect.signature(function)
        except ValueError as error:
            raise ConfigurationError(f"cached {self.name}: {error}") from None
        self._naming = naming
        if function.__name__ == "<lambda>" and not naming.namespace:
            raise ConfigurationError("cached: a lambda has no name; give namespace=…")
        self.prefix = f"{naming.namespace or self.name}:{naming.version}"
        ignored, self._tags = naming.names("ignore"), naming.names("tags")
        self._check(ignored)
        parameters = [
            parameter
            for parameter in self._signature.parameters.values()
            if parameter.name not in ignored
        ]
        self._names = [(parameter.name, parameter.name.encode() + b"=") for parameter in parameters]
        self._simple = not ignored and not any(
            parameter.kind in (*_VARIADIC, inspect.Parameter.KEYWORD_ONLY)
            for parameter in parameters
        )
        self._defaults = tuple(
            parameter.default
            for parameter in parameters
            if parameter.default is not inspect.Parameter.empty
        )
        self._required = len(parameters) - len(self._defaults)

    def key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], generation: str) -> str | bytes:
        """Give the key of a call; raise `KeyBuildError` when none can be made of its arguments."""
        prefix = f"{self.prefix}:{generation}" if generation else self.prefix
        choice = self._naming.key
        if choice is None:
            return f"{prefix}:{digest(self._canonical(args, kwargs))}"
        if isinstance(choice, str):
            return f"{prefix}:{choice.format_map(self._bound(args, kwargs))}"
        made = choice(*args, **kwargs)
        if isinstance(made, str):
            return f"{prefix}:{made}"
        if isinstance(made, bytes):
            return prefix.encode() + b":" + made
        raise KeyBuildError(f"{self.name}: key= gave {shown(made)}, which is no str or bytes")

    def tags(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Sequence[str]:
        """Give the tags of a call's value."""
        if not self._tags:
            return ()
        bound = self._bound(args, kwargs)
        return [template.format_map(bound) for template in self._tags]

    def _canonical(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Give the bytes of the arguments, in the order of the parameters, with defaults applied."""
        given, names = len(args), self._names
        values: Sequence[Any]
        if self._simple and not kwargs and self._required <= given <= len(names):
            values = args + self._defaults[given - self._required :]
        else:
            bound = self._bound(args, kwargs)
            values = [bound[name] for name, _ in names]
        parts: list[bytes] = []
        typed = self._naming.typed
        for (name, label), value in zip(names, values, strict=True):
            try:
                parts += (label, canonical(value, typed=typed))
            except UnkeyableError as error:
                raise self._unkeyable(name, error) from None
        return b"".join(parts)

    def _bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    def _unkeyable(self, name: str, error: UnkeyableError) -> KeyBuildError:
        return KeyBuildError(
            f"{self.name}: no key can be made of the argument {name!r}, {error}; give the"
            f" decorator key=… or ignore=({name!r},), or the type a __cache_key__"
        )

    def _check(self, ignored: Sequence[str]) -> None:
        """Raise `ConfigurationError` for templates and names that the function has nothing for."""
        known = list(self._signature.parameters)
        faults = [f"has {len(self._tags)} tags, and may have {MAX_VERSIONS}"] * (
            len(self._tags) > MAX_VERSIONS
        )
        faults += [
            f"ignore names {name!r}, which is no parameter" for name in ignored if name not in known
        ]
        templates = [*self._tags]
        if isinstance(self._naming.key, str):
            templates.append(self._naming.key)
        for template in templates:
            faults += [
                f"the template {template!r} names {name!r}, which is no parameter"
                for name in _fields(template)
                if name not in known
            ]
        if faults:
            listed = ", ".join(known) or "none"
            raise ConfigurationError(
                *(f"cached {self.name}: {fault} (known: {listed})" for fault in faults)
            )


def _fields(template: str) -> list[str]:
    """Give the names a template begins its fields with: of `{user.id}`, `user`."""
    names = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    return [name.split(".")[0].split("[")[0] for name in names]
