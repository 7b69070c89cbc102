"""How a cached function's values are kept, shared and refreshed: the options of `cached`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal, TypeAlias, TypedDict

from shardcache.core.leases import LockPolicy
from shardcache.core.lifetimes import (
    DEFAULT,
    MAX_SECONDS,
    Default,
    positive_seconds,
    seconds_or_zero,
)
from shardcache.core.numeric import real
from shardcache.core.urls import redact
from shardcache.errors import ConfigurationError

Span: TypeAlias = float | timedelta
# The arguments of a call of a cached function, by name, with defaults applied.
Arguments: TypeAlias = Mapping[str, Any]
# A function computes the ttl from the result, or from the result and the arguments.
CachedTTL: TypeAlias = (
    Span | Callable[[Any], Span | None] | Callable[[Any, Arguments], Span | None] | None
)
Condition: TypeAlias = Callable[[Any], bool] | Callable[[Any, Arguments], bool]
LockChoice: TypeAlias = bool | Literal["shard", "local"] | LockPolicy
OnTimeout: TypeAlias = Literal["compute", "stale", "raise"]
Refresh: TypeAlias = Literal["auto", "inline", "background"]
OnCancel: TypeAlias = Literal["cancel", "finish"]

_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "on_timeout": ("compute", "stale", "raise"),
    "refresh": ("auto", "inline", "background"),
    "on_error": ("compute", "raise"),
    "on_uncacheable": ("return", "raise"),
    "on_cancel": ("cancel", "finish"),
}
# Fields that are lengths of time, each with the function that reads one; some may be `None`.
_LENGTHS: Final[dict[str, Callable[[object, float], float]]] = {
    "wait": seconds_or_zero,
    "stale": seconds_or_zero,
    "stale_if_error": seconds_or_zero,
    "error_backoff": seconds_or_zero,
    "error_ttl": positive_seconds,
    "none_ttl": positive_seconds,
    "ttl": seconds_or_zero,
}
_MAY_BE_NONE: Final = ("stale_if_error", "none_ttl", "ttl")

_CACHED_OPTIONS: Final = (
    "ttl",
    "policy",
    "key",
    "namespace",
    "version",
    "tags",
    "ignore",
    "typed",
    "codec",
    "returns",
)
_DIRECT_OPTIONS: Final = ("factory", "ttl", "tags", "codec", "returns")
# The calls that take options, each with those that are not fields of `CachePolicy`.
_OTHER_OPTIONS: Final[dict[str, tuple[str, ...]]] = {
    "cached": _CACHED_OPTIONS,
    "cached_many": _CACHED_OPTIONS,
    "get_or_set": ("key", *_DIRECT_OPTIONS),
    "get_or_set_many": ("keys", *_DIRECT_OPTIONS),
}
_OF_MANY: Final = ("cached_many", "get_or_set_many")
_OWN_NAME: Final = "CachePolicy: "  # before the faults of a policy that was created by itself


class PolicyOptions(TypedDict, total=False):
    """The fields of `CachePolicy` except `ttl`, as keyword arguments."""

    lock: LockChoice
    wait: Span
    on_timeout: OnTimeout
    stale: Span
    stale_if_error: Span | None
    error_backoff: Span
    early: float
    refresh: Refresh
    jitter: float
    cache_none: bool
    none_ttl: Span | None
    condition: Condition | None
    cache_errors: type[Exception] | tuple[type[Exception], ...]
    error_ttl: Span
    on_error: Literal["compute", "raise"]
    on_uncacheable: Literal["return", "raise"]
    on_cancel: OnCancel
    coalesce: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """Limit how many callers recompute a value, and how old a served value may be.

    Lengths of time are seconds or a `timedelta`, and are kept as seconds.

    `ttl`: the maximum age of a fresh value. A function computes it from each result; if it needs a
    second argument, it gets the arguments of the call as well, a mapping by name with defaults
    applied. `None` means no expiry, 0 means do not keep, `DEFAULT` means the client's `default_ttl`.
    `jitter`: each value's ttl is shortened by a random share of up to this, so that values stored
    together do not expire together.

    `lock`: the scope within which one caller recomputes. `False` or `"local"`: this process.
    `"shard"`: all clients of the key's own node. `True` or a `LockPolicy`: all clients of a majority
    of the lock nodes. `wait`: how long a caller waits for another caller's value. `on_timeout`: what
    it does then: `"compute"`, `"stale"` (serve the old value if there is one) or `"raise"`
    `RecomputeTimeoutError`. `coalesce=False` lets every caller in this process recompute.

    `stale`: how long after its ttl a value may be served while one caller refreshes it.
    `stale_if_error` (default: as `stale`): how long after its ttl a value may be served if the
    recompute fails; the next attempt comes after `error_backoff` seconds. `early`: the β of XFetch.
    Above zero, one caller refreshes a value before its ttl ends, earlier if a recompute takes
    longer. `refresh`: where a refresh runs. `"inline"`: in the call that was chosen. `"background"`:
    in a task, or in one of a few threads. `"auto"`: in the background for tasks; inline for threads,
    and for functions with ignored arguments, which often end with their request.

    `cache_none`: whether `None` is kept, for `none_ttl` if that is set. `condition`: a function, as
    `ttl`; if it returns a false value, the result is returned but not kept. `cache_errors`: types of
    exceptions that are kept and raised again for `error_ttl` seconds, if they survive storing
    unchanged. `on_error`: when a cache node fails, `"compute"` the value or `"raise"` the `NodeError`.
    `on_uncacheable`: `"return"` a result that cannot be stored, uncached and with a line in the log,
    or `"raise"` `UncacheableResultError`, as `get_or_set` does by default. `on_cancel`: what becomes of
    a recompute whose last caller was cancelled (in asyncio; threads are not): `"cancel"` it, or
    `"finish"` it and store the value, within the `max_hold` of the lock (60 s unless `lock` says
    otherwise). An inline refresh ends with its caller.
    """

    ttl: CachedTTL | Default
    lock: LockChoice = False
    wait: Span = 6.0
    on_timeout: OnTimeout = "compute"
    stale: Span = 0.0
    stale_if_error: Span | None = None
    error_backoff: Span = 5.0
    early: float = 0.0
    refresh: Refresh = "auto"
    jitter: float = 0.1
    cache_none: bool = True
    none_ttl: Span | None = None
    condition: Condition | None = None
    cache_errors: type[Exception] | tuple[type[Exception], ...] = ()
    error_ttl: Span = 1.0
    on_error: Literal["compute", "raise"] = "compute"
    on_uncacheable: Literal["return", "raise"] = "return"
    on_cancel: OnCancel = "cancel"
    coalesce: bool = True
    # The options whose functions take the arguments as well.
    takes_arguments: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Convert lengths of time to seconds; raise `ConfigurationError` listing every fault."""
        faults = [*self._convert_lengths(), *self._unknown_choices(), *self._bad_values()]
        if faults:
            raise ConfigurationError(*(f"{_OWN_NAME}{fault}" for fault in faults))
        # A function that can be called with the result alone is: other parameters have defaults.
        functions = ((name, getattr(self, name)) for name in ("condition", "ttl"))
        takes = (name for name, each in functions if callable(each) and not can_take(each, 1))
        object.__setattr__(self, "takes_arguments", tuple(takes))
        for name in ("jitter", "early"):
            object.__setattr__(self, name, real(getattr(self, name)))

    @property
    def locking(self) -> LockPolicy:
        """Return the policy of the lock, or of the lease on the key's own node."""
        return self.lock if isinstance(self.lock, LockPolicy) else DEFAULT_LOCK

    @property
    def quorum(self) -> bool:
        """Return whether a majority of lock nodes decides which caller recomputes."""
        return self.lock is True or isinstance(self.lock, LockPolicy)

    @property
    def error_kinds(self) -> tuple[type[Exception], ...]:
        """Return the types of exceptions that are kept."""
        kinds = self.cache_errors
        return (kinds,) if isinstance(kinds, type) else tuple(kinds)

    @property
    def ages(self) -> bool:
        """Return whether values are stored with their age, besides the node's own expiry."""
        return bool(self.served_after or self.early)

    @property
    def served_after(self) -> float:
        """Return for how many seconds after its ttl a value may still be served."""
        return max(self.seconds("stale"), self.served_after_error)

    @property
    def served_after_error(self) -> float:
        """Return for how many seconds after its ttl a value may be served in place of an error."""
        return self.seconds("stale" if self.stale_if_error is None else "stale_if_error")

    def seconds(self, name: str) -> float:
        """Return a field that is a length of time, in seconds since `__post_init__`."""
        length: float = getattr(self, name)
        return length

    def _convert_lengths(self) -> Iterator[str]:
        for name, seconds in _LENGTHS.items():
            value = getattr(self, name)
            if name == "ttl" and (callable(value) or value is DEFAULT):
                continue
            if value is None and name in _MAY_BE_NONE:
                continue
            try:
                object.__setattr__(self, name, seconds(value, MAX_SECONDS))
            except ConfigurationError as error:
                yield f"{name} {error.faults[0]}"

    def _unknown_choices(self) -> Iterator[str]:
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                yield f"{name} must be {_either(known)}, not {redact(value)}"
        if not isinstance(self.lock, (bool, LockPolicy)) and self.lock not in ("shard", "local"):
            yield f"lock must be True, False, 'shard', 'local' or a LockPolicy, not {redact(self.lock)}"

    def _bad_values(self) -> Iterator[str]:
        if not _within(self.jitter, 0.0, 1.0, open_end=True):
            yield f"jitter must be from 0 up to 1, not {redact(self.jitter)}"
        if not _within(self.early, 0.0, 1000.0):
            yield f"early must be from 0 to 1000, not {redact(self.early)}"
        if self.condition is not None:
            yield from _faults_of_function("condition", self.condition)
        if callable(self.ttl):
            yield from _faults_of_function("ttl", self.ttl)
        kinds = self.cache_errors
        for kind in kinds if isinstance(kinds, Iterable) else (kinds,):
            if not (isinstance(kind, type) and issubclass(kind, Exception)):
                yield f"cache_errors must be types of exceptions, not {redact(kind)}"


DEFAULT_LOCK: Final = LockPolicy()


def apply_jitter(ttl: float, jitter: float, chance: float) -> float:
    """Return a ttl shortened by a random share, never lengthened; `chance` is 0 up to 1.

    >>> apply_jitter(100.0, 0.1, 0.0), apply_jitter(100.0, 0.1, 0.5)
    (100.0, 95.0)
    """
    return ttl * (1 - jitter * chance)


def lifetime_of(
    policy: CachePolicy,
    result: Any,  # anything
    arguments: Callable[[], Arguments] = dict,
) -> float | None:
    """Return for how many seconds a result stays fresh: 0 to not keep it, `None` for no expiry.

    `arguments` returns the arguments of the call, for the policy's functions that take them.
    """

    def ask(name: str, function: Callable[..., Any]) -> Any:
        return function(result, arguments()) if name in policy.takes_arguments else function(result)

    if result is None:
        if not policy.cache_none:
            return 0.0
        if policy.none_ttl is not None:
            return policy.seconds("none_ttl")
    if policy.condition is not None and not ask("condition", policy.condition):
        return 0.0
    ttl = policy.ttl
    if not callable(ttl):
        return None if ttl is None else policy.seconds("ttl")
    span = ask("ttl", ttl)
    if span is None:
        return None
    seconds = span.total_seconds() if isinstance(span, timedelta) else float(span)
    if math.isnan(seconds):
        raise ValueError("ttl returned NaN")
    return min(max(0.0, seconds), float(MAX_SECONDS))


def cached_policy(
    policy: CachePolicy | None,
    seconds: Span | Default | None,
    ttl: CachedTTL | Default,
    options: PolicyOptions,
    decorator: str,
) -> CachePolicy:
    """Return the policy of a decorator: the one that was passed, or one of the single options.

    `decorator` is how it is written, as `client.cached`. Raise `ConfigurationError` for both: it would
    not be clear which of them holds.
    """
    call = _call_of(decorator)
    check_options(options, call)
    resolved = resolve_ttl(seconds, ttl, decorator)
    if policy is None:
        return policy_of(call, resolved, options)
    if not isinstance(policy, CachePolicy):
        raise ConfigurationError(f"{call}: policy must be a CachePolicy, not {redact(policy)}")
    given = [*(() if resolved is DEFAULT else ("ttl",)), *options]
    if given:
        raise ConfigurationError(
            f"{call}: {' and '.join(given)} cannot be given with a policy, which has all options; pass"
            " dataclasses.replace(policy, …)"
        )
    if call in _OF_MANY:
        faults = _faults_of_many({"lock": policy.lock, "cache_errors": policy.cache_errors})
        if faults:
            raise ConfigurationError(*(f"{call}: {fault}" for fault in faults.values()))
    return policy


def policy_of(call: str, ttl: CachedTTL | Default, options: PolicyOptions) -> CachePolicy:
    """Return the policy that the options of a call make; they are known.

    Raise `ConfigurationError` listing every fault by the name of the call.
    """
    wrong = _faults_of_many(options) if call in _OF_MANY else {}
    faults = [*wrong.values()]
    try:
        if not wrong:
            return CachePolicy(ttl=ttl, **options)
        CachePolicy(ttl=ttl, **{name: each for name, each in options.items() if name not in wrong})  # type: ignore[arg-type]  # they are options still
    except ConfigurationError as error:
        faults += [fault.removeprefix(_OWN_NAME) for fault in error.faults]
    raise ConfigurationError(*(f"{call}: {fault}" for fault in faults))


def _faults_of_many(options: Mapping[str, Any]) -> dict[str, str]:
    """Return what makes no sense for many keys, by the name of the option."""
    faults = {}
    lock = options.get("lock", False)
    if lock is not False and lock not in ("local", "shard"):
        faults["lock"] = (
            f"lock must be False, 'local' or 'shard', not {redact(lock)}: a lock on a majority of nodes"
            " for each key would cost hundreds of commands; 'shard' lets one process recompute each key"
            " as well, as long as the key's own node answers"
        )
    if options.get("cache_errors"):
        faults["cache_errors"] = (
            "cache_errors is not for many keys: an exception concerns all keys of its call, and a kept"
            " one would fail every later call for any of them; leave out the keys that have no value"
        )
    return faults


def check_options(options: PolicyOptions, call: str) -> None:
    """Raise `TypeError` for an unknown option of a call, naming those known."""
    fields, others = PolicyOptions.__annotations__, _OTHER_OPTIONS[call]
    for name in options:
        if name not in fields and name not in others:
            known = ", ".join(sorted({*fields, *others}))
            raise TypeError(
                f"{call}() got an unexpected keyword argument {name!r} (known: {known})"
            )


def _call_of(decorator: str) -> str:
    """Return the name of a decorator without the client that it belongs to."""
    return decorator.rpartition(".")[2]


def not_a_factory(call: str, factory: object) -> TypeError:
    """Return the error of a call that was passed a value, or a coroutine, in place of a function."""
    return TypeError(
        f"{call}: factory must be a function, not {type(factory).__name__}: pass the function without"
        " calling it, or lambda: value"
    )


def resolve_ttl(
    seconds: Span | Default | None, ttl: CachedTTL | Default, decorator: str
) -> CachedTTL | Default:
    """Return the ttl of a decorator, passed by position or by name.

    A function passed by position is the function to cache: the decorator was written without
    parentheses. Raise `ConfigurationError` for that, and for a ttl passed both ways.
    """
    if seconds is DEFAULT:
        return ttl
    if callable(seconds) or hasattr(seconds, "__get__"):  # a class method is not callable
        raise ConfigurationError(
            f"{_call_of(decorator)}: {describe_function(seconds)} was given in place of a ttl; write"
            f" @{decorator}(ttl=…), with parentheses (a function that computes the ttl of a result is"
            " given by name)"
        )
    if ttl is not DEFAULT:
        raise ConfigurationError(
            f"{_call_of(decorator)}: ttl is given twice, {redact(seconds)} and {redact(ttl)}"
        )
    return seconds


def describe_function(function: Any) -> str:
    """Return how an error names a function, a class, or a value passed in place of a function.

    >>> print(describe_function(len), describe_function(int), describe_function(7))
    len() class int 7
    """
    inner = getattr(function, "__func__", function)  # of a class method or a static one
    name = getattr(inner, "__qualname__", None)
    if not isinstance(name, str):
        return redact(function)
    return f"class {name}" if isinstance(inner, type) else f"{name}()"


def _faults_of_function(name: str, function: Any) -> Iterator[str]:
    """Yield why a policy's field cannot be called with a result."""
    if not callable(function):
        yield f"{name} must be a function of the result, not {redact(function)}"
        return
    if is_coroutine_function(function):
        yield (
            f"{name} must be a plain function of the result, not the async def"
            f" {describe_function(function)}"
        )
        return
    if not (can_take(function, 1) or can_take(function, 2)):
        yield (
            f"{name} must take one argument, the result, or two, the result and the arguments of the"
            f" call, and {describe_function(function)} does not"
        )


def is_coroutine_function(function: Any) -> bool:
    """Return whether a function, or an object that is called, must be awaited."""
    return any(map(inspect.iscoroutinefunction, (function, type(function).__call__)))


def can_take(function: Callable[..., Any], count: int) -> bool:
    """Return whether a function can be called with `count` arguments, as far as is known."""
    try:
        # The wrapper is what gets called, and it may take less than the wrapped function.
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):  # not every built-in has one
        return True
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def _within(value: Any, low: float, high: float, *, open_end: bool = False) -> bool:
    number = real(value)
    return number is not None and low <= number <= high and not (open_end and number == high)


def _either(words: Iterable[str]) -> str:
    *most, last = map(repr, words)
    return f"{', '.join(most)} or {last}"
