"""Which keys and values the next call of a profile's traffic has."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Generic, TypeVar

from shardcache.testing import Profile

T = TypeVar("T")

NAMESPACE: Final = "loadtest"
PREFIX: Final = f"{len(NAMESPACE)}:{NAMESPACE}:"  # what the namespace adds to a key on its node

# Spaces of keys, so that the misses of a run are only those that its profile has: values that are
# read and written, keys that are never written, keys that are only deleted, and counters.
VALUES, ABSENT, DELETED, COUNTERS = "v", "x", "d", "n"
NEVER_WRITTEN: Final = 1_000_000_000
PREPARING: Final = 15.0  # seconds that values may be older than their run
TRIES: Final = 50  # for each key of a batch: a profile of few keys may not have enough


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of the traffic: its kind in the profile's words, and its keys."""

    kind: str
    keys: Sequence[str]


class Choice(Generic[T]):
    """Things with shares: a random one, or always the same one for a number."""

    __slots__ = ("_bounds", "_things")

    def __init__(self, shares: Sequence[tuple[T, float]]) -> None:
        self._things = [thing for thing, _ in shares]
        self._bounds = list(accumulate(share for _, share in shares))

    def at(self, place: float) -> T:
        """Return the thing at `place`, from 0 to 1, when all lie side by side."""
        found = bisect_right(self._bounds, place * self._bounds[-1])
        return self._things[min(found, len(self._things) - 1)]


class Keys:
    """The keys of a profile: how each is called, how large its value is, how long it lives.

    The rank of a key is its place in the order of popularity, from 1. Everything about a key
    follows from its rank, so that all processes agree without a word.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._sizes = Choice(profile.sizes)
        self._ttls = Choice(profile.ttls)
        self._width = max(1, profile.key_size - len(PREFIX))

    def key(self, space: str, rank: int) -> str:
        """Return the key of a rank, as long as the profile's keys are if its number has room."""
        # Digits in front are the ones that differ, and a fixed pad keeps equal lengths.
        return f"{space}{rank}".ljust(self._width, ".")

    def value(self, key: str, rank: int) -> bytes:
        """Return the value of a key: its name repeated, so that a wrong value shows."""
        size = self._sizes.at(_spread(rank, 1))
        stem = key.encode() + b"|"
        return (stem * (size // len(stem) + 1))[:size]

    def ttl(self, rank: int) -> float | None:
        """Return the seconds that a key's value lives; `None` without expiry."""
        return self._ttls.at(_spread(rank, 2))

    def rank(self, key: str) -> int:
        """Return the rank from which a key was built."""
        return int(key[1:].rstrip("."))

    def expires_within(self, rank: int, seconds: float) -> bool:
        """Return whether a value may expire in a run of `seconds`, or while it is prepared."""
        ttl = self.ttl(rank)
        return ttl is not None and ttl <= seconds + PREPARING

    def values(self) -> Sequence[str]:
        """Return the keys that are read and written, the most popular first."""
        return [self.key(VALUES, rank) for rank in range(1, self.profile.keys + 1)]

    def all_written(self) -> Sequence[str]:
        """Return every key that a run of this profile may have written."""
        ranks = range(1, self.profile.keys + 1)
        return [self.key(space, rank) for space in (VALUES, DELETED, COUNTERS) for rank in ranks]


class Traffic:
    """An endless sequence of calls with the mix, popularity and misses of a profile.

    Popularity is Zipf's: the key of rank r is chosen with a weight of 1 / r^alpha. `seed` tells one
    process from another.
    """

    def __init__(self, keys: Keys, seed: int) -> None:
        self._keys = keys
        self._random = random.Random(seed)
        self._kinds = Choice(list(calls_of(keys.profile).items()))
        weights = (rank**-keys.profile.alpha for rank in range(1, keys.profile.keys + 1))
        self._popularity = list(accumulate(weights))
        self._owed_misses = self._random.random()

    def draw(self) -> Operation:
        """Return the next call."""
        kind = self._kinds.at(self._random.random())
        if kind == "get_many":
            return Operation(kind, self._batch())
        if kind == "get":
            return Operation(kind, [self._read()])
        space = {"delete": DELETED, "incr": COUNTERS}.get(kind, VALUES)
        return Operation(kind, [self._keys.key(space, self._rank())])

    def _batch(self) -> Sequence[str]:
        """Return keys to be read at once, all distinct: a batch asks for each key once."""
        size = self._keys.profile.batch
        keys = {self._absent_key(): None for _ in range(size) if self._misses()}
        for _ in range(TRIES * size):
            if len(keys) == size:
                break
            keys[self._keys.key(VALUES, self._rank())] = None
        return list(keys)

    def _read(self) -> str:
        """Return a key to read: a stored one, or a missing one as often as the profile says."""
        return self._absent_key() if self._misses() else self._keys.key(VALUES, self._rank())

    def _misses(self) -> bool:
        """Return whether the next read is to miss."""
        # Taken in turn, not by chance: a share by chance would swing by more than a point.
        self._owed_misses += self._keys.profile.miss_ratio
        if self._owed_misses < 1:
            return False
        self._owed_misses -= 1
        return True

    def _absent_key(self) -> str:
        return self._keys.key(ABSENT, self._random.randrange(NEVER_WRITTEN))

    def _rank(self) -> int:
        return bisect_right(self._popularity, self._random.random() * self._popularity[-1]) + 1


def calls_of(profile: Profile) -> Mapping[str, float]:
    """Return the frequency of each kind of call; the profile's mix counts keys, not calls.

    A `cas` reads its key first, and that read is one of the profile's.

    >>> from shardcache.testing import Profile
    >>> profile = Profile(
    ...     name="p", keys=10, alpha=1, key_size=20, sizes=((9, 1),), ttls=((None, 1),),
    ...     mix={"get": 0.8, "set": 0.2}, batch=4, batch_share=0.5, miss_ratio=0, source="",
    ... )
    >>> calls_of(profile)
    {'get': 0.4, 'set': 0.2, 'get_many': 0.1}
    """
    others = {kind: share for kind, share in profile.mix.items() if kind != "get"}
    reads = profile.mix.get("get", 0.0) - others.get("cas", 0.0)
    if reads <= 0:
        return others
    if profile.batch <= 1 or profile.batch_share == 0:
        return {"get": reads, **others}
    alone, together = 1 - profile.batch_share, profile.batch_share / profile.batch
    return {"get": reads * alone, **others, "get_many": reads * together}


def _spread(rank: int, salt: int) -> float:
    """Return a number from 0 to 1 that looks random and follows from the rank: Knuth's hash."""
    return ((rank + salt * 0x85EBCA6B) * 0x9E3779B1 % (1 << 32)) / (1 << 32)
