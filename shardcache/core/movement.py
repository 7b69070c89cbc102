"""What moves when nodes come, leave, or are spread in another way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from shardcache.core.strategy import Placement

SAMPLE: Final = 20_000  # keys; the standard error of a share is then at most 0.4 points


def sample_keys(count: int = SAMPLE) -> Sequence[bytes]:
    """Give `count` keys that stand for the whole key space: the same ones every time."""
    return [b"sample:%d" % number for number in range(count)]


@dataclass(frozen=True, slots=True)
class Movement:
    """Where keys live before and after a change, by the names of nodes.

    `keys` is how many were looked at, `moved_keys` how many changed their node; `before` and
    `after` are each node's share of them, 0 to 1; `flows` counts keys by (from, to).
    """

    keys: int
    moved_keys: int
    before: Mapping[str, float]
    after: Mapping[str, float]
    flows: Mapping[tuple[str, str], int]

    @property
    def moved(self) -> float:
        """Give the share of the keys, 0 to 1, that changed their node."""
        return self.moved_keys / self.keys if self.keys else 0.0

    @classmethod
    def between(
        cls, before: Placement, after: Placement, keys: Iterable[bytes] | None = None
    ) -> Movement:
        """Give what moves between two placements, of `keys` or of a sample of the key space."""
        asked = list(sample_keys() if keys is None else keys)
        flows = Counter((before.owner(key).name, after.owner(key).name) for key in asked)
        sources: Counter[str] = Counter()
        targets: Counter[str] = Counter()
        for (source, target), count in flows.items():
            sources[source] += count
            targets[target] += count
        return cls(
            keys=len(asked),
            moved_keys=sum(count for (old, new), count in flows.items() if old != new),
            before=_shares(sources, len(asked)),
            after=_shares(targets, len(asked)),
            flows={flow: count for flow, count in flows.items() if flow[0] != flow[1]},
        )


def shares(placement: Placement, keys: Iterable[bytes] | None = None) -> Mapping[str, float]:
    """Give each node's share, 0 to 1, of `keys` or of a sample of the key space."""
    counts = Counter(
        placement.owner(key).name for key in (sample_keys() if keys is None else keys)
    )
    return _shares(counts, counts.total())


def _shares(counts: Counter[str], total: int) -> Mapping[str, float]:
    return {name: count / total for name, count in sorted(counts.items())} if total else {}
