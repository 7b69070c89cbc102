"""What moves when nodes come, leave, or are spread in another way."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, Literal, NamedTuple

from shardcache.core.strategy import HashRanges, Measurable, Placement

SAMPLE: Final = 10_000  # keys: the standard error of a share is then at most half a point
EFFORT: Final = (
    16_000_000  # hashes, about a second: beyond it only every so many runs are looked at
)

# An estimate takes some milliseconds, and its standard error is one point at most. Its effort is in
# hashes as well; to look at one place costs as much as some of them, whatever the strategy.
QUICK_SAMPLE: Final = 2_500  # keys
QUICK_EFFORT: Final = 100_000
LOOK: Final = 10

Basis = Literal["key space", "sample", "keys"]


def sample_keys(count: int = SAMPLE) -> Sequence[bytes]:
    """Return `count` keys that stand for the whole key space: the same ones every time."""
    return [b"sample:%d" % number for number in range(count)]


class Movement(NamedTuple):
    """Where keys live before and after a change, by the names of nodes.

    `flows` says how much goes from which node to which, what stays included. It counts keys, unless
    `basis` is `key space`: then it counts places in the space of hashes, all of them, and the
    shares are exact. A `sample` is of the key space; `keys` are those that the caller gave.
    """

    basis: Basis
    flows: Mapping[tuple[str, str], int]

    @classmethod
    def between(
        cls, before: Placement, after: Placement, keys: Iterable[bytes] | None = None
    ) -> Movement:
        """Return what moves between two placements, of `keys` or of the key space.

        The key space is measured exactly where both placements are runs of one space, and by a
        fixed sample otherwise, or where exactness would take seconds (many nodes).
        """
        if keys is not None:
            return cls("keys", _flows_of(keys, before, after))
        old, new = _runs(before), _runs(after)
        if old is None or new is None or old.space != new.space:
            return cls("sample", _flows_of(sample_keys(), before, after))
        return cls._of_runs(old, new)

    @classmethod
    def estimate(cls, before: Placement, after: Placement) -> Movement:
        """Return about what moves between two placements, within milliseconds.

        It is exact where that takes no longer, and of a sample otherwise.
        """
        old, new = _runs(before), _runs(after)
        if old is None or new is None or old.space != new.space:
            return cls("sample", _flows_of(sample_keys(QUICK_SAMPLE), before, after))
        if len(old.ends) * (old.cost + LOOK) + len(new.ends) * (new.cost + LOOK) <= QUICK_EFFORT:
            return cls._of_runs(old, new)
        return cls("sample", _flows_of_places(old, new))

    @classmethod
    def _of_runs(cls, before: HashRanges, after: HashRanges) -> Movement:
        effort = len(before.ends) * before.cost + len(after.ends) * after.cost
        step = -(-effort // EFFORT)
        flows: Counter[tuple[str, str]] = Counter()
        for length, old, new in islice(_overlaps(before.ends, after.ends), 0, None, step):
            flows[before.owner(old).name, after.owner(new).name] += length
        return cls("key space" if step == 1 else "sample", +flows)

    @property
    def total(self) -> int:
        """Return how many keys, or places of the key space, were looked at."""
        return sum(self.flows.values())

    @property
    def moving(self) -> int:
        """Return how many of them change their node."""
        return sum(count for (old, new), count in self.flows.items() if old != new)

    @property
    def moved(self) -> float:
        """Return the share, 0 to 1, that changes its node."""
        return self.moving / self.total if self.flows else 0.0

    @property
    def before(self) -> Mapping[str, float]:
        """Return each node's share before the change; a node that holds nothing is not there."""
        return self._shares(0)

    @property
    def after(self) -> Mapping[str, float]:
        """Return each node's share after the change; a node that holds nothing is not there."""
        return self._shares(1)

    def _shares(self, end: int) -> Mapping[str, float]:
        held: Counter[str] = Counter()
        for flow, count in self.flows.items():
            held[flow[end]] += count
        total = self.total
        return {name: count / total for name, count in sorted(held.items())}


def shares(placement: Placement, keys: Iterable[bytes] | None = None) -> Mapping[str, float]:
    """Return each node's share, 0 to 1, of `keys` or of the key space."""
    return Movement.between(placement, placement, keys).after


def _flows_of(
    keys: Iterable[bytes], before: Placement, after: Placement
) -> Counter[tuple[str, str]]:
    old, new = before.owner, after.owner
    return Counter((old(key).name, new(key).name) for key in keys)


def _flows_of_places(before: HashRanges, after: HashRanges) -> Counter[tuple[str, str]]:
    """Return where places, spread evenly over the space, live before and after."""
    size = before.ends[-1]
    count = max(1, QUICK_EFFORT // (before.cost + after.cost + 2 * LOOK))
    places = ((2 * number + 1) * size // (2 * count) for number in range(count))
    return Counter((_owner_of(before, place), _owner_of(after, place)) for place in places)


def _owner_of(hash_ranges: HashRanges, place: int) -> str:
    slots = len(hash_ranges.ends) == hash_ranges.ends[-1]  # each run is one place long
    return hash_ranges.owner(place if slots else bisect_right(hash_ranges.ends, place)).name


def _runs(placement: Placement) -> HashRanges | None:
    return placement.hash_ranges() if isinstance(placement, Measurable) else None


def _overlaps(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Return the pieces that two cuts of one space make: length, index in each cut."""
    start = old = new = 0
    while start < before[-1]:
        end = min(before[old], after[new])
        yield end - start, old, new
        old += before[old] == end
        new += after[new] == end
        start = end
