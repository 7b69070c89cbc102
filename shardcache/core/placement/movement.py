"""Which keys move when nodes or the strategy change."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, Literal, NamedTuple

from shardcache.core.placement.strategy import HashRanges, Measurable, Placement

SAMPLE: Final = 10_000  # keys: the standard error of a share is at most half a percentage point
# Hashes, about a second's worth. Beyond it only every nth range of the hash space is looked at.
EFFORT: Final = 16_000_000

# An estimate takes some milliseconds, with a standard error of at most one percentage point. Its
# effort is counted in hashes too; looking up one place costs about `LOOKUP` hashes besides.
QUICK_SAMPLE: Final = 2_500  # keys
QUICK_EFFORT: Final = 100_000
LOOKUP: Final = 10

Basis = Literal["key space", "sample", "keys"]


def sample_keys(count: int = SAMPLE) -> Sequence[bytes]:
    """Return `count` keys that represent the whole key space: the same keys every time."""
    return [b"sample:%d" % number for number in range(count)]


class Movement(NamedTuple):
    """Where keys live before and after a change, by the names of nodes.

    `flows` maps (node before, node after) to a count, and includes the keys that stay. If `basis` is
    `key space`, every place in the hash space is counted, and shares are exact. If it is `sample`, a
    sample of the key space is counted. If it is `keys`, the caller's keys are counted.
    """

    basis: Basis
    flows: Mapping[tuple[str, str], int]

    @classmethod
    def between(
        cls, before: Placement, after: Placement, keys: Iterable[bytes] | None = None
    ) -> Movement:
        """Return which of `keys`, or of the key space, move between two placements.

        The key space is measured exactly if both placements are ranges of the same hash space.
        Otherwise, or if that would take seconds (many nodes), a fixed sample is measured.
        """
        if keys is not None:
            return cls("keys", _flows_of(keys, before, after))
        old, new = _hash_ranges(before), _hash_ranges(after)
        if old is None or new is None or old.space != new.space:
            return cls("sample", _flows_of(sample_keys(), before, after))
        return cls._of_ranges(old, new)

    @classmethod
    def estimate(cls, before: Placement, after: Placement) -> Movement:
        """Return within milliseconds an estimate of which keys move between two placements.

        It is exact if that takes no longer; otherwise a sample is measured.
        """
        old, new = _hash_ranges(before), _hash_ranges(after)
        if old is None or new is None or old.space != new.space:
            return cls("sample", _flows_of(sample_keys(QUICK_SAMPLE), before, after))
        if sum(len(each.ends) * (each.cost + LOOKUP) for each in (old, new)) <= QUICK_EFFORT:
            return cls._of_ranges(old, new)
        return cls("sample", _flows_of_places(old, new))

    @classmethod
    def _of_ranges(cls, before: HashRanges, after: HashRanges) -> Movement:
        effort = len(before.ends) * before.cost + len(after.ends) * after.cost
        step = -(-effort // EFFORT)
        flows: Counter[tuple[str, str]] = Counter()
        for length, old, new in islice(_overlaps(before.ends, after.ends), 0, None, step):
            flows[before.owner(old).name, after.owner(new).name] += length
        return cls("key space" if step == 1 else "sample", +flows)

    @property
    def total(self) -> int:
        """Return how many keys, or places in the hash space, were counted."""
        return sum(self.flows.values())

    @property
    def moving(self) -> int:
        """Return how many of them change node."""
        return sum(count for (old, new), count in self.flows.items() if old != new)

    @property
    def moved(self) -> float:
        """Return the share, 0 to 1, that changes node."""
        return self.moving / self.total if self.flows else 0.0

    @property
    def before(self) -> Mapping[str, float]:
        """Return each node's share before the change; a node without keys is left out."""
        return self._shares(0)

    @property
    def after(self) -> Mapping[str, float]:
        """Return each node's share after the change; a node without keys is left out."""
        return self._shares(1)

    def _shares(self, end: int) -> Mapping[str, float]:
        counts: Counter[str] = Counter()
        for flow, count in self.flows.items():
            counts[flow[end]] += count
        total = self.total
        return {name: count / total for name, count in sorted(counts.items())}


def shares(placement: Placement, keys: Iterable[bytes] | None = None) -> Mapping[str, float]:
    """Return each node's share, 0 to 1, of `keys` or of the key space."""
    return Movement.between(placement, placement, keys).after


def _flows_of(
    keys: Iterable[bytes], before: Placement, after: Placement
) -> Counter[tuple[str, str]]:
    old, new = before.owner, after.owner
    return Counter((old(key).name, new(key).name) for key in keys)


def _flows_of_places(before: HashRanges, after: HashRanges) -> Counter[tuple[str, str]]:
    """Return the flows of places spread evenly over the hash space."""
    size = before.ends[-1]
    count = max(1, QUICK_EFFORT // (before.cost + after.cost + 2 * LOOKUP))
    places = ((2 * number + 1) * size // (2 * count) for number in range(count))
    return Counter((_owner_of(before, place), _owner_of(after, place)) for place in places)


def _owner_of(hash_ranges: HashRanges, place: int) -> str:
    slots = len(hash_ranges.ends) == hash_ranges.ends[-1]  # each range is one place long
    return hash_ranges.owner(place if slots else bisect_right(hash_ranges.ends, place)).name


def _hash_ranges(placement: Placement) -> HashRanges | None:
    return placement.hash_ranges() if isinstance(placement, Measurable) else None


def _overlaps(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yield the overlaps of two partitions of one space: length, and the index in each."""
    start = old = new = 0
    while start < before[-1]:
        end = min(before[old], after[new])
        yield end - start, old, new
        old += before[old] == end
        new += after[new] == end
        start = end
