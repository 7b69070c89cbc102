"""Counts of a program's traffic, and the profile that they give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from shardcache.core.events import KeysAccessed
from shardcache.testing.popularity import estimate_alpha
from shardcache.testing.profiles import UNITS, Profile

ValueT = TypeVar("ValueT")
NumberT = TypeVar("NumberT", int, float)

MAX_ENTRIES: Final = 20  # of sizes, and of times to live
QUANTILES: Final = 4  # entries that stand for all the rarer ones
SHARE_DIGITS: Final = 4
_HALVINGS: Final = 40

# A batch counts as its single operations.
_SINGLE: Final = {"get_many": "get", "set_many": "set", "delete_many": "delete"}
_STORES: Final = frozenset({"set", "add", "replace", "cas"})


class Traffic:
    """Counts of operations and of the keys they touched.

    A key is known by a hash only. Keys that were never found are not counted as keys, because their
    number has no bound. At most `max_keys` distinct keys are tracked; accesses to others count in
    everything except popularity.
    """

    def __init__(self, max_keys: int) -> None:
        self.max_keys = max_keys
        self.touched: Counter[int] = Counter()  # accesses by the hash of the key
        self.valued: Counter[int] = Counter()  # accesses that read or wrote a value
        self.read: Counter[int] = Counter()  # accesses that read one
        self.overflowed = False  # whether there were more keys than are tracked
        self.operations: Counter[str] = Counter()  # keys touched by operation
        self.key_bytes = 0
        self.misses = 0
        self.sizes: Counter[int] = Counter()
        self.ttls: Counter[float | None] = Counter()
        self.batches = 0  # calls to a node that read many keys
        self.batched = 0  # the keys in them
        self.batch_nodes: set[str] = set()

    @property
    def accesses(self) -> int:
        """Return how many accesses to keys there were."""
        return self.operations.total()

    def add(self, event: KeysAccessed, hashes: Sequence[int]) -> None:
        """Count an event, with a hash of each of its keys."""
        operation = _SINGLE.get(event.operation, event.operation)
        count = len(event.keys)
        self.operations[operation] += count
        self.key_bytes += sum(map(len, event.keys))
        for size in event.sizes:
            if size is not None:
                self.sizes[round_size(size)] += 1
            elif operation == "get":
                self.misses += 1
        if operation in _STORES:
            self.ttls[round_ttl(event.ttl)] += count
        if event.operation == "get_many":
            self.batches += 1
            self.batched += count
            self.batch_nodes.add(event.node.name)
        reads = operation == "get"
        stored = (self.touched, self.valued)
        found = (*stored, self.read)
        for each, size in zip(hashes, event.sizes, strict=True):
            if size is not None:
                self._track(each, found if reads else stored)
            elif not reads:
                self._track(each, (self.touched,))

    def _track(self, key: int, counts: Sequence[Counter[int]]) -> None:
        if key not in self.touched and len(self.touched) >= self.max_keys:
            self.overflowed = True
            return
        for count in counts:
            count[key] += 1

    def copy(self) -> Traffic:
        """Return a copy of these counts, which no later event changes."""
        twin = Traffic(self.max_keys)
        for name, value in vars(self).items():
            setattr(twin, name, value if isinstance(value, int) else value.copy())
        return twin

    def profile(self, name: str, seconds: float) -> Profile:
        """Return the profile of at least one access, recorded over `seconds`.

        Only a `get` that found a value counts for popularity, unless there was none. Only keys with
        values are counted, unless there are none. The size of a key is that of its name on the node,
        with its namespace.
        """
        gets = self.operations["get"]
        known = self.valued or self.touched
        return Profile(
            name=name,
            source=self._source(seconds),
            keys=max(1, len(known)),
            alpha=estimate_alpha((self.read or known).values(), len(known)),
            key_size=max(1, round(self.key_bytes / self.accesses)),
            sizes=_shares(_condense(self.sizes, round_size)) or [(0, 1.0)],
            ttls=self._lifetimes() or [(None, 1.0)],
            mix=dict(_shares(self.operations.items())),
            batch=self._batch(),
            batch_share=_ratio(self.batched, gets),
            miss_ratio=_ratio(self.misses, gets),
        )

    def _batch(self) -> int:
        if not self.batches:
            return 0
        return whole_batch(self.batched / self.batches, len(self.batch_nodes))

    def _lifetimes(self) -> list[tuple[float | None, float]]:
        finite = Counter({ttl: count for ttl, count in self.ttls.items() if ttl is not None})
        entries: list[tuple[float | None, int]] = [*_condense(finite, _round_seconds)]
        if None in self.ttls:
            entries.append((None, self.ttls[None]))
        return _shares(entries)

    def _source(self, seconds: float) -> str:
        notes = [
            f"recorded: {self.accesses:,} accesses to keys in {seconds:.3g} s",
            "keys are as long as on the nodes, with their namespace",
        ]
        if self.overflowed:
            notes.append(
                f"there are at least {self.max_keys:,} keys, of which no more were tracked"
            )
        if not self.sizes:
            notes.append("no value was read or written, so sizes are unknown")
        if not self.ttls:
            notes.append("nothing was written, so times to live are unknown")
        return "; ".join(notes)


def round_size(size: float) -> int:
    """Return a size to two significant digits.

    >>> round_size(1936), round_size(7)
    (1900, 7)
    """
    whole = round(size)
    return whole if whole < 100 else round(whole, 2 - len(str(whole)))


def round_ttl(ttl: float | None) -> float | None:
    """Return a time to live to two significant digits of its largest unit.

    >>> round_ttl(86_400), round_ttl(6_510), round_ttl(None)
    (86400.0, 6480.0, None)
    """
    return None if ttl is None else _round_seconds(ttl)


def _round_seconds(ttl: float) -> float:
    unit = next((seconds for seconds in UNITS.values() if ttl >= seconds), 1.0)
    return float(f"{ttl / unit:.2g}") * unit


def _ratio(part: int, whole: int) -> float:
    return round(part / whole, SHARE_DIGITS) if whole else 0.0


def _shares(counts: Iterable[tuple[ValueT, int]]) -> list[tuple[ValueT, float]]:
    """Return the share of each value, rounded to a few digits whose sum is 1.

    What rounding takes away goes to the values that lost most.
    """
    entries = list(counts)
    total = sum(count for _, count in entries)
    whole = 10**SHARE_DIGITS
    units = [count * whole // total for _, count in entries]
    by_loss = sorted(range(len(entries)), key=lambda place: -(entries[place][1] * whole % total))
    for place in by_loss[: whole - sum(units)]:
        units[place] += 1
    return [(value, unit / whole) for (value, _), unit in zip(entries, units, strict=True) if unit]


def _condense(
    counts: Counter[NumberT], rounded: Callable[[float], NumberT]
) -> list[tuple[NumberT, int]]:
    """Return the most frequent values with their counts, and quantiles that stand for the rest."""
    ranked = counts.most_common()
    if len(ranked) <= MAX_ENTRIES:
        return ranked
    exact = MAX_ENTRIES - QUANTILES
    return ranked[:exact] + _quantiles(sorted(ranked[exact:]), rounded)


def _quantiles(
    entries: Sequence[tuple[NumberT, int]], rounded: Callable[[float], NumberT]
) -> list[tuple[NumberT, int]]:
    """Return the mean of each of a few groups of about equal frequency, from low to high."""
    total = sum(count for _, count in entries)
    groups: list[list[tuple[NumberT, int]]] = [[] for _ in range(QUANTILES)]
    below = 0
    for value, count in entries:
        groups[int(QUANTILES * (below + count / 2) / total)].append((value, count))
        below += count
    return [_mean(group, rounded) for group in groups if group]


def _mean(
    entries: Sequence[tuple[NumberT, int]], rounded: Callable[[float], NumberT]
) -> tuple[NumberT, int]:
    total = sum(count for _, count in entries)
    return rounded(sum(value * count for value, count in entries) / total), total


def whole_batch(keys: float, nodes: int) -> int:
    """Return the size of a batch of which `keys`, on average, reach each node that it asks.

    A batch of k keys asks `n(1 - (1 - 1/n)^k)` of n nodes.

    >>> whole_batch(24, 1), whole_batch(8.0, 3), whole_batch(1.0, 3)
    (24, 24, 1)
    """
    low, high = 1.0, keys * nodes
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        asked = nodes * (1 - (1 - 1 / nodes) ** middle)
        if middle / asked < keys:
            low = middle
        else:
            high = middle
    return round(high)
