"""The keys and tags under which the values of a function's calls are stored."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from shardcache.clients.fingerprints import Fingerprint
from shardcache.clients.tagging import (
    TagChoice,
    as_tuple,
    depends_on_result,
    faults_of_tags,
    name_list,
)
from shardcache.core.key_building.arguments import UnkeyableError, canonical, digest
from shardcache.core.key_building.templates import Template
from shardcache.core.placement.nodes import MEMORY
from shardcache.core.urls import redact
from shardcache.core.values.envelopes import MAX_VERSIONS
from shardcache.errors import ConfigurationError, KeyBuildError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.routing import Key

# Arguments and functions are the caller's own, hence `Any`.

KeyChoice: TypeAlias = str | Callable[..., str | bytes] | None

_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
# Only the first part of a namespace may begin like a version; others are marked, so that the end of
# the namespace is known.
_BEGINS_A_VERSION: Final = tuple("0123456789-")
_LIKE_A_VERSION: Final = (*_BEGINS_A_VERSION, "=", "%")
# Variables that Python adds to methods of a class, and of a generic class.
_OF_CLASSES: Final = ("__class__", "__classdict__", ".type_params")
# The module of a program's main file, and of the same file in a spawned process.
_MAIN: Final = ("__main__", "__mp_main__", None)

# What follows the prefix is kept for calls whose arguments are all of these exact types: two that are
# equal have the same bytes. A subclass or an enum may equal one of them and yet be another argument.
_KEPT_TYPES: Final[frozenset[type]] = frozenset({str, int, bytes, type(None)})
_NUMBERS: Final[frozenset[type]] = frozenset(
    {bool, float}
)  # as above, unless `typed`; but templates write them otherwise
_MOST_KEPT: Final = 1024
_KEPT_BYTES: Final = 1024  # of one call's arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySpec:
    """How to build the keys of a function: the arguments of `cached` that concern them."""

    key: KeyChoice = None
    namespace: str | None = None
    version: int | str = 0
    tags: TagChoice = ()
    ignore: Sequence[str] = ()
    typed: bool = False

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` listing every field of a wrong type."""
        faults = []
        if not (self.key is None or isinstance(self.key, str) or callable(self.key)):
            faults.append(
                f"key must be a template or a function of the arguments, not {redact(self.key)}"
            )
        if not (self.namespace is None or isinstance(self.namespace, str)):
            faults.append(f"namespace must be a string, not {redact(self.namespace)}")
        ignore = self.ignore
        if not (isinstance(ignore, Iterable) and all(isinstance(each, str) for each in ignore)):
            faults.append(f"ignore must be strings, not {redact(ignore)}")
        faults += faults_of_tags(self.tags)
        if isinstance(self.tags, Iterator):  # it was exhausted just now
            faults.append("tags must be a sequence, not an iterator")
        if faults:
            raise ConfigurationError(*(f"cached: {fault}" for fault in faults))

    @property
    def ignored(self) -> tuple[str, ...]:
        """Return the names of `ignore`; one string stands for one name."""
        return (self.ignore,) if isinstance(self.ignore, str) else tuple(self.ignore)


def function_name(function: Callable[..., Any]) -> str:
    """Return a function's module and name."""
    return f"{function.__module__}:{function.__qualname__}"


def prefix_of(namespace: str, version: int | str) -> str:
    """Return the prefix of a function's keys; no two pairs of namespace and version have the same.

    A part of the namespace that looks like a version is marked by `%`. A version that does not begin
    with a digit is marked by `=`.

    >>> prefix_of("shop:prices", 2), prefix_of("user:0:admin", 0), prefix_of("shop", "beta")
    ('shop:prices:2', 'user:%0:admin:0', 'shop:=beta')
    """
    first, *others = namespace.split(":")
    marked = (f"%{each}" if each.startswith(_LIKE_A_VERSION) else each for each in others)
    text = str(version)
    for character in "%:@":
        text = text.replace(character, f"%{ord(character):02X}")
    marked_version = text if text.startswith(_BEGINS_A_VERSION) else f"={text}"
    return ":".join((first, *marked, marked_version))


class KeyBuilder:
    """The keys and tags of one function's calls.

    Each key begins with `prefix`: the function's namespace and version. It `is_anonymous` when that
    names no program: a function of another program could then have the same. `has_result_tags` is
    whether some tags depend on the result.
    """

    def __init__(self, function: Callable[..., Any], key_spec: KeySpec) -> None:
        self.function = function
        self.name = function_name(function)
        self.fingerprint = Fingerprint(function)
        self._key_spec = key_spec
        self._arguments = _arguments(function, self.name)
        module = _module(function)
        self.is_anonymous = not key_spec.namespace and module in _MAIN
        namespace = key_spec.namespace or f"{module}:{function.__qualname__}"
        self.prefix = prefix_of(namespace, key_spec.version)
        ignored = key_spec.ignored
        choice = key_spec.key
        faults: list[str] = []
        self._template = _template(choice, faults) if isinstance(choice, str) else None
        chosen = as_tuple(key_spec.tags)
        self._result_tags = [tag for tag in chosen if depends_on_result(tag)]
        self.has_result_tags = bool(self._result_tags)
        self._tags = [
            _template(tag, faults) if isinstance(tag, str) else tag
            for tag in chosen
            if tag not in self._result_tags
        ]
        faults += self._faults(ignored)
        if faults:
            raise ConfigurationError(*(f"cached {self.name}: {fault}" for fault in faults))
        self.has_tags = bool(self._tags)
        self._kept: dict[tuple[Any, ...], str] = {}
        self._kept_types = self._types_to_keep()
        self._labels = [
            (place, name, name.encode() + b"=")
            for place, name in enumerate(self._arguments.names)
            if name not in ignored
        ]

    def refuse_if_anonymous(self, cluster: Cluster) -> None:
        """Raise `ConfigurationError` if a function of another program could have the same keys there."""
        if self.is_anonymous and any(
            node.address.scheme != MEMORY for node in cluster.topology.nodes
        ):
            raise ConfigurationError(
                f"cached {self.name}: the function is of the main program, which has no name, and"
                " another program's function on these nodes would be served its values; give it a"
                " namespace=…, or start the program by its module, as in python -m shop.web"
            )

    def key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], generation: str) -> str | bytes:
        """Return the key of a call; raise `KeyBuildError` if its arguments do not make one."""
        prefix = f"{self.prefix}@{generation}" if generation else self.prefix
        choice = self._key_spec.key
        if choice is None or self._template is not None:
            return f"{prefix}:{self._suffix(args, kwargs)}"
        built: object = self._arguments.call(choice, args, kwargs)  # type: ignore[arg-type]  # no str
        if isinstance(built, str):
            return f"{prefix}:{built}"
        if isinstance(built, bytes):
            return prefix.encode() + b":" + built
        raise KeyBuildError(f"{self.name}: key= returned {redact(built)}, not str or bytes")

    def _suffix(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """Return what stands for the arguments of a call in its key, as it was built for an equal call.

        To look it up takes 0.12 µs, to build it 1.4; with arguments by name 0.34 and 3.8.
        """
        types = self._kept_types
        if types is None:
            return self._build_suffix(args, kwargs)
        for value in args:
            if type(value) not in types:
                return self._build_suffix(args, kwargs)
        call = args
        if kwargs:
            for value in kwargs.values():
                if type(value) not in types:
                    return self._build_suffix(args, kwargs)
            call = (args, *kwargs.items())  # equal to no call by position: no argument is a tuple
        suffix = self._kept.get(call)
        if suffix is None:
            suffix = self._build_suffix(args, kwargs)
            if sum(map(sys.getsizeof, (*args, *kwargs.values()))) <= _KEPT_BYTES:
                if len(self._kept) >= _MOST_KEPT:
                    self._kept.clear()
                self._kept[call] = suffix
        return suffix

    def _build_suffix(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        if self._template is None:
            return digest(self._canonical(args, kwargs))
        try:
            return self._template.key(self._arguments.by_name(args, kwargs))
        except UnkeyableError as error:
            raise self._unkeyable(error) from error.__cause__

    def _types_to_keep(self) -> frozenset[type] | None:
        """Return the types of the arguments of calls that are kept; `None` if a default may change."""
        if not self._arguments.default_types <= _KEPT_TYPES | _NUMBERS:
            return None
        mixes_numbers = self._template is None and not self._key_spec.typed
        return _KEPT_TYPES | _NUMBERS if mixes_numbers else _KEPT_TYPES

    def arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the arguments of a call by name, with defaults applied; for a wrapper as they were passed."""
        values = self._arguments.values(args, kwargs)
        if values is None:
            return self._arguments.as_passed(args, kwargs)[1]
        return dict(zip(self._arguments.names, values, strict=True))

    def tags(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Sequence[Key]:
        """Return the tags of a call's value, without those that depend on it."""
        if not self._tags:
            return ()
        named = self._arguments.by_name(args, kwargs)
        found: list[Key] = []
        try:
            for tag in self._tags:
                found += (
                    [tag.tag(named)]
                    if isinstance(tag, Template)
                    else name_list(tag(named), self.name)
                )
        except UnkeyableError as error:
            raise self._unkeyable(error) from error.__cause__
        if len(found) > MAX_VERSIONS:
            raise KeyBuildError(f"{self.name}: {len(found)} tags; the limit is {MAX_VERSIONS}")
        return found

    def result_tags(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any
    ) -> Sequence[Key]:
        """Return the tags that depend on the result of a call."""
        arguments = self.arguments(args, kwargs)
        return [
            name
            for function in self._result_tags
            for name in name_list(function(arguments, result), self.name)
        ]

    def _canonical(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Return the bytes of the arguments, in the order of the parameters, with defaults applied."""
        values = self._arguments.values(args, kwargs)
        if values is None:
            return self._encode_as_passed(args, kwargs)
        parts: list[bytes] = []
        typed = self._key_spec.typed
        for place, name, label in self._labels:
            try:
                parts += (label, canonical(values[place], typed=typed))
            except UnkeyableError as error:
                raise self._unkeyable_argument(name, error) from None
        return b"".join(parts)

    def _encode_as_passed(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Return the bytes of a wrapper's arguments as they were passed: it may pass on other ones.

        The names are those of the wrapped function where they fit. Defaults are left out: if the wrapper
        inserts an argument, they belong to other parameters.
        """
        mark, arguments = self._arguments.as_passed(args, kwargs)
        ignored = self._key_spec.ignored
        parts: list[bytes] = []
        typed = self._key_spec.typed
        for name, value in arguments.items():
            if name in ignored:
                continue
            try:
                parts += (mark, name.encode(), b"=", canonical(value, typed=typed))
            except UnkeyableError as error:
                raise self._unkeyable_argument(name, error) from None
        return b"".join(parts)

    def _unkeyable_argument(self, name: str, error: UnkeyableError) -> KeyBuildError:
        return KeyBuildError(
            f"{self.name}: no key can be made of the argument {name!r}, {error}; give the"
            f" decorator key=… or ignore=({name!r},), or the type a __cache_key__"
        )

    def _unkeyable(self, error: UnkeyableError) -> KeyBuildError:
        return KeyBuildError(f"{self.name}: {error}")

    def _faults(self, ignored: Sequence[str]) -> Iterable[str]:
        """Yield the faults of tags, `ignore`, templates and the function's name."""
        arguments = self._arguments
        known = f"(known: {', '.join(arguments.names) or 'none'})"
        if len(self._tags) > MAX_VERSIONS:
            yield f"has {len(self._tags)} tags; the limit is {MAX_VERSIONS}"
        for name in ignored:
            if name not in arguments.own:
                yield (
                    f"ignore names {name!r}, which is a parameter of what the function wraps, and the"
                    " wrapper may pass another argument for it; put cached below the wrapper"
                    if name in arguments.names
                    else f"ignore names {name!r}, which is not a parameter {known}"
                )
        templates = [tag for tag in self._tags if isinstance(tag, Template)]
        if self._template is not None:
            templates.append(self._template)
        for template in templates:
            for name in sorted(template.names.difference(arguments.names)):
                yield f"the template {template.text!r} names {name!r}, which is not a parameter {known}"
        if self._template is not None:
            for name in arguments.names:
                if name not in self._template.names and name not in ignored:
                    yield (
                        f"the template {self._template.text!r} leaves out the parameter {name!r}: name"
                        f" it, or ignore it by ignore=({name!r},)"
                    )
        yield from self._faults_of_name()

    def _faults_of_name(self) -> Iterable[str]:
        if self._key_spec.namespace:
            return
        inner = inspect.unwrap(self.function)
        if getattr(inner, "__name__", "") == "<lambda>":
            yield "a lambda has no name; give namespace=…"
        elif self._key_spec.key is None and _is_closure(inner):
            yield (
                "it is defined inside another function, and the variables it closes over are not part of its"
                " keys: pass them as arguments, and give namespace=… or key=…"
            )


def _is_closure(function: Any) -> bool:
    """Return whether a function was defined inside another one, whose variables it may use."""
    if "<locals>" in getattr(function, "__qualname__", ""):
        return True
    # A function that is declared global inside another has no such name, but may have such variables.
    variables = getattr(getattr(function, "__code__", None), "co_freevars", ())
    types = (each.__name__ for each in getattr(function, "__type_params__", ()))
    return bool({*variables}.difference(types, _OF_CLASSES))


class _Arguments:
    """How the calls of one function are bound to its parameters.

    `names` are the names of all parameters, `own` those of the function itself. A wrapper with
    `*args, **kwargs` shows the parameters of the function it wraps, and may pass on other arguments.
    """

    def __init__(self, own: inspect.Signature, visible: inspect.Signature) -> None:
        self.own = tuple(own.parameters)
        self._is_wrapper = _takes_anything(own) and _begin_alike(own, visible)
        self._own = own
        self._signature = visible if self._is_wrapper else own
        parameters = self._signature.parameters.values()
        self.names = tuple(self._signature.parameters)
        self._is_simple = not self._is_wrapper and not any(
            parameter.kind in (*_VARIADIC, inspect.Parameter.KEYWORD_ONLY)
            for parameter in parameters
        )
        self._defaults = tuple(
            parameter.default
            for parameter in parameters
            if parameter.default is not inspect.Parameter.empty
        )
        self._required = len(self.names) - len(self._defaults)
        self.default_types = {type(each) for each in self._defaults}

    def values(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Sequence[Any] | None:
        """Return the values of all parameters, defaults applied; `None` for a wrapper, which may change them."""
        count = len(args)
        if self._is_simple and not kwargs and self._required <= count <= len(self.names):
            return args + self._defaults[count - self._required :]
        if self._is_wrapper:
            return None
        return tuple(self._bound(args, kwargs).arguments.values())

    def by_name(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the values by parameter name, for a wrapper by the names it shows."""
        values = self.values(args, kwargs)
        if values is None:
            return self._bound(args, kwargs).arguments
        return dict(zip(self.names, values, strict=True))

    def as_passed(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[bytes, Mapping[str, Any]]:
        """Return a mark and the arguments by name, without defaults.

        The names are the shown ones if the arguments fit them, else the wrapper's own; the mark tells which.
        """
        try:
            return b"", self._signature.bind(*args, **kwargs).arguments
        except TypeError:
            return b"*", self._own.bind(*args, **kwargs).arguments

    def call(
        self, function: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> object:
        """Call `function` with the same arguments in the order of the parameters, defaults applied."""
        if self._is_wrapper:
            return function(*args, **kwargs)
        if self._is_simple:
            return function(*(self.values(args, kwargs) or ()))
        bound = self._bound(args, kwargs)
        return function(*bound.args, **bound.kwargs)

    def _bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound


def _takes_anything(own: inspect.Signature) -> bool:
    return [each.kind for each in own.parameters.values()][-2:] == [*_VARIADIC]


def _begin_alike(own: inspect.Signature, visible: inspect.Signature) -> bool:
    """Return whether a wrapper's own parameters, without the last two, are the first ones it shows."""
    first = tuple(own.parameters)[:-2]
    return own != visible and tuple(visible.parameters)[: len(first)] == first


def _arguments(function: Callable[..., Any], name: str) -> _Arguments:
    try:
        visible = inspect.signature(function)
    except ValueError as error:
        raise ConfigurationError(f"cached {name}: {error}") from None
    try:
        own = inspect.signature(function, follow_wrapped=False)
    except ValueError:  # a cached function has no signature, and passes on all arguments
        own = visible
    return _Arguments(own, visible)


def _template(text: str, faults: list[str]) -> Template:
    try:
        return Template(text)
    except ValueError as error:
        faults.append(f"the template {text!r} cannot be read: {error}")
        return Template("")


def _module(function: Callable[..., Any]) -> str | None:
    """Return the module of a function; for a program started by `python -m`, the module's real name."""
    module: str | None = function.__module__
    if module in _MAIN:
        spec = getattr(inspect.unwrap(function), "__globals__", {}).get("__spec__")
        named = getattr(spec, "name", None)
        return named if isinstance(named, str) and named not in _MAIN else module
    return module
