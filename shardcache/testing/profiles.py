"""Traffic profiles: how many keys, how popular, which operations, how large the values."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias, TypeVar

from shardcache.core.lifetimes import MAX_SECONDS
from shardcache.core.urls import redact
from shardcache.errors import ConfigurationError
from shardcache.settings.faults import within

KeyT = TypeVar("KeyT")

OPERATIONS: Final = ("get", "set", "add", "replace", "cas", "delete", "touch", "incr")
NEVER: Final = "never"
UNITS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}

MAX_COUNT: Final = 1e15
MAX_SHARE: Final = 1e12
_NEAR_ONE: Final = 1e-9  # shares whose sum is this close to 1 are kept as written
_LINE: Final = 4  # pairs that are written on one line

_duration = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([dhms])").fullmatch

Faults: TypeAlias = Iterator[str]
Check: TypeAlias = Callable[[object], Faults]
# Fields as they come from a file: of any type until they are checked.
Fields: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A traffic profile: what a load test must know to act like a program.

    `keys` is the number of distinct keys, `alpha` the Zipf exponent of their popularity (0 when all
    are equally popular), `key_size` the mean bytes of a key. `sizes` are bytes of values, `ttls`
    seconds until they expire (`None` for never), each with its share. `mix` is the share of each
    operation among the keys touched; a `get` counts the same alone and in a batch. `batch` is how
    many keys a `get_many` typically asks for (0: there is none), and `batch_share` the share of the
    `get` keys that are read so. `miss_ratio` is the share of the `get` keys that are missing.
    `source` says where the profile comes from.

    Shares are normalised to a sum of 1 and sorted, the largest first. Raise `ConfigurationError`
    listing every invalid field.

    >>> profile = Profile(
    ...     name="shop", keys=10_000, alpha=1.07, key_size=17, sizes=[(20, 1), (1936, 3)],
    ...     ttls=[(6480, 1)], mix={"get": 82, "set": 18}, miss_ratio=0.2,
    ... )
    >>> profile.sizes, profile.mix["get"]
    (((1936, 0.75), (20, 0.25)), 0.82)
    """

    name: str
    keys: int
    alpha: float
    key_size: int
    sizes: Sequence[tuple[int, float]]
    ttls: Sequence[tuple[float | None, float]]
    mix: Mapping[str, float] = field(hash=False)
    batch: int = 0
    batch_share: float = 0.0
    miss_ratio: float
    source: str = ""

    def __post_init__(self) -> None:
        """Check every field, and normalise the shares."""
        faults = list(_faults({each.name: getattr(self, each.name) for each in fields(self)}))
        if faults:
            raise ConfigurationError(*faults)
        for name in ("alpha", "batch_share", "miss_ratio"):
            object.__setattr__(self, name, float(getattr(self, name)))
        ttls = [(_seconds(ttl), share) for ttl, share in self.ttls]
        object.__setattr__(self, "sizes", _normalise(self.sizes))
        object.__setattr__(self, "ttls", _normalise(ttls))
        object.__setattr__(self, "mix", MappingProxyType(dict(_normalise(self.mix.items()))))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Profile:
        """Return the profile in a TOML file; raise `ConfigurationError` that names the file.

        A time to live is a number of seconds or text such as `20s`, `10m`, `1.8h`, `4d`, `never`.
        Without a `name`, the profile has that of the file.
        """
        path = Path(path)
        values = {"name": path.stem, **_read_table(path)}
        faults = [within(str(path), fault) for fault in (*_name_faults(values), *_faults(values))]
        if faults:
            raise ConfigurationError(*faults)
        return cls(**values)

    def dumps(self) -> str:
        """Return the profile as TOML; `load` returns an equal one."""
        lines = [
            f"name = {_quote(self.name)}",
            f"source = {_quote(self.source)}",
            f"keys = {self.keys}",
            f"alpha = {self.alpha!r}",
            f"miss_ratio = {self.miss_ratio!r}",
            f"key_size = {self.key_size}",
            f"sizes = {_format_pairs([(str(size), share) for size, share in self.sizes])}",
            f"ttls = {_format_pairs([(_format_ttl(ttl), share) for ttl, share in self.ttls])}",
            f"batch = {self.batch}",
            f"batch_share = {self.batch_share!r}",
            "",
            "[mix]",
            *(f"{operation} = {share!r}" for operation, share in self.mix.items()),
        ]
        return "\n".join(lines) + "\n"


# Checking.


def _name_faults(values: Fields) -> Faults:
    """Yield the faults in the names of a file's fields."""
    known = [each.name for each in fields(Profile)]
    for name in values:
        if name not in known:
            yield f"no field {redact(name)} (known: {', '.join(known)})"
    for each in fields(Profile):
        if each.default is MISSING and each.name not in values:
            yield f"{each.name} is missing"


def _faults(values: Fields) -> Faults:
    """Yield the faults of the given fields."""
    for name, check in _CHECKS.items():
        if name in values:
            yield from (f"{name} {fault}" for fault in check(values[name]))
    share = values.get("batch_share", 0)
    if values.get("batch", 0) == 0 and 0 < _number(share) <= 1:
        yield f"batch_share is {share}, but batch is 0"


def _check_text(value: object) -> Faults:
    if not isinstance(value, str):
        yield f"must be text, not {redact(value)}"
    elif any("\ud800" <= character <= "\udfff" for character in value):
        yield "is not valid Unicode"


def _check_count(least: int) -> Check:
    def check(value: object) -> Faults:
        if type(value) is not int or not least <= value <= MAX_COUNT:
            yield f"must be a whole number from {least} to {MAX_COUNT:g}, not {redact(value)}"

    return check


def _check_number(bounds: str, *, most: float = math.inf) -> Check:
    def check(value: object) -> Faults:
        if not 0 <= _number(value) <= most:
            yield f"must be a number {bounds}, not {redact(value)}"

    return check


def _check_ttl(value: object) -> Faults:
    seconds = _seconds(value)
    if seconds is not None and not 0 < seconds <= MAX_SECONDS:
        examples = "20s, 10m, 1.8h, 4d or never"
        yield f"must be above zero and at most ten years, such as {examples}, not {redact(value)}"


def _check_pairs(check: Check) -> Check:
    def check_pairs(value: object) -> Faults:
        pairs = list(value) if isinstance(value, (list, tuple)) else None
        if pairs is None or not all(map(_is_pair, pairs)):
            yield f"must be pairs of a value and its share, not {redact(value)}"
            return
        for place, (each, share) in enumerate(pairs):
            yield from (f"[{place}] {fault}" for fault in check(each))
            yield from (f"[{place}] share {fault}" for fault in _check_share(share))
        yield from _check_sum([share for _, share in pairs])

    return check_pairs


def _check_mix(value: object) -> Faults:
    if not isinstance(value, Mapping):
        yield f"must be a table of operations and their shares, not {redact(value)}"
        return
    for operation, share in value.items():
        if operation not in OPERATIONS:
            yield f"has no operation {redact(operation)} (known: {', '.join(OPERATIONS)})"
        yield from (f"share of {redact(operation)} {fault}" for fault in _check_share(share))
    yield from _check_sum(list(value.values()))


def _check_sum(shares: Sequence[object]) -> Faults:
    if not shares:
        yield "must not be empty"
    elif all(_number(share) == 0 for share in shares):
        yield "must have a share above zero"


def _is_pair(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2


_check_share = _check_number(f"from 0 to {MAX_SHARE:g}", most=MAX_SHARE)
_check_ratio = _check_number("from 0 to 1", most=1.0)

_CHECKS: Final[Mapping[str, Check]] = {
    "name": _check_text,
    "keys": _check_count(1),
    "alpha": _check_number("of at least 0"),
    "key_size": _check_count(1),
    "sizes": _check_pairs(_check_count(0)),
    "ttls": _check_pairs(_check_ttl),
    "mix": _check_mix,
    "batch": _check_count(0),
    "batch_share": _check_ratio,
    "miss_ratio": _check_ratio,
    "source": _check_text,
}


def _number(value: object) -> float:
    """Return a finite number as it is, and NaN, which no bounds contain, for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        return value if math.isfinite(value) else math.nan
    except OverflowError:  # an int beyond all floats
        return math.nan


def _seconds(ttl: object) -> float | None:
    """Return a time to live in seconds, `None` for never, NaN for anything else."""
    if ttl is None or ttl == NEVER:
        return None
    if not isinstance(ttl, str):
        return float(_number(ttl))
    parts = _duration(ttl)
    return math.nan if parts is None else float(parts[1]) * UNITS[parts[2]]


def _normalise(pairs: Iterable[tuple[KeyT, float]]) -> tuple[tuple[KeyT, float], ...]:
    """Return each value once, with shares whose sum is 1, the largest first."""
    merged: dict[KeyT, float] = {}
    for value, share in pairs:
        merged[value] = merged.get(value, 0.0) + share
    total = math.fsum(merged.values())
    if abs(total - 1) <= _NEAR_ONE:  # normalising twice changes nothing
        total = 1.0
    shares = [(value, share / total) for value, share in merged.items()]
    return tuple(sorted(shares, key=lambda pair: (-pair[1], str(pair[0]))))


# Reading and writing.


def _read_table(path: Path) -> dict[str, Any]:  # of any type, until it is checked
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: is not UTF-8") from error
    except ValueError as error:  # also for an int with too many digits
        raise ConfigurationError(f"{path}: is not TOML: {error}") from error


def _quote(text: str) -> str:
    """Return text as a TOML string: as in JSON, with one more character escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _format_pairs(pairs: Sequence[tuple[str, float]]) -> str:
    formatted = [f"[{value}, {share!r}]" for value, share in pairs]
    if len(formatted) <= _LINE:
        return f"[{', '.join(formatted)}]"
    return "[\n" + "".join(f"    {pair},\n" for pair in formatted) + "]"


def _format_ttl(ttl: float | None) -> str:
    """Return a time to live in the largest unit that is exact."""
    if ttl is None:
        return f'"{NEVER}"'
    for unit, seconds in UNITS.items():
        text = f"{ttl / seconds:g}{unit}"
        if ttl >= seconds and _seconds(text) == ttl:
            return f'"{text}"'
    return repr(ttl)
