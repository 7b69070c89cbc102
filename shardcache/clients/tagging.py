"""The option `tags`: names, templates, and functions that return names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from shardcache.core.cache_policy import can_take, describe_function, is_coroutine_function
from shardcache.core.urls import redact
from shardcache.core.values.envelopes import MAX_VERSIONS
from shardcache.errors import ConfigurationError, KeyBuildError
from shardcache.operations.cluster.routing import Key

# What a function of tags returns: names, or one name.
Names: TypeAlias = Key | Iterable[Key]
# Of `cached`: a template, a function of the arguments, or one of the arguments and the result.
Tag: TypeAlias = (
    str | Callable[[Mapping[str, Any]], Names] | Callable[[Mapping[str, Any], Any], Names]
)
TagChoice: TypeAlias = Tag | Sequence[Tag]
# Of `get_or_set`: a name, or a function of the result.
DirectTag: TypeAlias = Key | Callable[[Any], Names]
DirectTagChoice: TypeAlias = DirectTag | Sequence[DirectTag]


def as_tuple(tags: Any) -> tuple[Any, ...]:  # a union with callables, which types cannot tell apart
    """Return the option `tags` as a tuple: one name or function stands for itself."""
    return (tags,) if isinstance(tags, (str, bytes)) or callable(tags) else tuple(tags)


def faults_of_tags(tags: Any) -> Iterator[str]:  # as above
    """Yield what is wrong with the `tags` of a cached function."""
    if not _is_choice(tags):
        yield f"tags must be templates or functions, not {redact(tags)}"
        return
    for tag in as_tuple(tags):
        if isinstance(tag, str):
            continue
        if not callable(tag):
            yield f"tags must be templates or functions, not {redact(tag)}"
        elif is_coroutine_function(tag):
            yield _not_plain(tag)
        elif not (can_take(tag, 1) or can_take(tag, 2)):
            yield (
                "a function of tags must take one argument, the arguments of the call, or two, these"
                f" and the result, and {describe_function(tag)} does not"
            )


def _is_choice(tags: Any) -> bool:  # as above
    return isinstance(tags, (str, bytes, Iterable)) or callable(tags)


def _not_plain(function: Callable[..., Any]) -> str:
    return f"tags must be plain functions, not the async def {describe_function(function)}"


def depends_on_result(tag: Any) -> bool:  # as above
    """Return whether a tag is a function of the result: one that needs more than the arguments."""
    return callable(tag) and not can_take(tag, 1)


def name_list(names: object, function: str) -> list[Key]:
    """Return the names that a function of tags has returned.

    Raise `KeyBuildError` for what is no name; `function` is the function whose values are tagged.
    """
    found: list[Any] = [names]
    if not isinstance(names, (str, bytes)) and isinstance(names, Iterable):
        found = list(names)
    for name in found:
        if not isinstance(name, (str, bytes)):
            raise KeyBuildError(
                f"{function}: a function of tags returned {redact(name)}, not names"
            )
    return found


def direct_tags(
    tags: DirectTagChoice,
) -> tuple[Sequence[Key], Callable[[Any], Sequence[Key]] | None]:
    """Return the tags of a call of `get_or_set`: the names, and a function of those of the result.

    Raise `ValueError` for more names than an envelope holds, `ConfigurationError` for what is no tag.
    """
    if not _is_choice(tags):
        raise ConfigurationError(f"get_or_set: tags must be names or functions, not {redact(tags)}")
    chosen = as_tuple(tags)
    names = [tag for tag in chosen if not callable(tag)]
    functions = [tag for tag in chosen if callable(tag)]
    for function in functions:
        if is_coroutine_function(function):
            raise ConfigurationError(f"get_or_set: {_not_plain(function)}")
    if len(names) > MAX_VERSIONS:
        raise ValueError(f"get_or_set: {len(names)} tags; the limit is {MAX_VERSIONS}")
    if not functions:
        return names, None

    def result_tags(result: Any) -> Sequence[Key]:
        return [name for each in functions for name in name_list(each(result), "get_or_set")]

    return names, result_tags
