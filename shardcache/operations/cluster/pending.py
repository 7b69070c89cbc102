"""The keys that are to be deleted on one node, because writes of them failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from shardcache.core.commands import Command, Reply
from shardcache.core.writes import Repair, written_keys

MOST: Final = 10_000  # keys of one node


class _Entry(NamedTuple):
    """When a write of a key last failed, by the prober's clock, and how that is repaired."""

    since: float
    repair: Repair


class Noted(NamedTuple):
    """Whether a write has failed, and whether its key was the first for which there was no room."""

    failed: bool
    overflowed: bool


class PendingDeletes:
    """The keys of one node whose writes failed, by their names on the node.

    At most `MOST` of them are kept; `lost` counts the failed writes of further keys. It is true
    while it has keys.

    It is read and changed without a lock, which an interrupt could leave locked: each step is one
    atomic operation of a dict. A key that is noted while it is forgotten may be deleted once more.
    """

    __slots__ = ("_entries", "lost")

    def __init__(self) -> None:
        self._entries: dict[bytes, _Entry] = {}
        self.lost = 0

    def __len__(self) -> int:
        return len(self._entries)

    def note(self, command: Command, reply: Reply, now: float) -> Noted:
        """Note the keys whose write has failed, and those that were written after a failed write."""
        failed = overflowed = False
        for key, repair in written_keys(command, reply):
            known = self._entries.get(key)
            if repair is None:
                if known is not None and known.repair is Repair.IF_WRITTEN:
                    self._entries[key] = known._replace(repair=Repair.ALWAYS)
                continue
            failed = True
            if known is not None:
                self._entries[key] = _Entry(now, max(known.repair, repair))
            elif len(self._entries) < MOST:
                self._entries[key] = _Entry(now, repair)
            else:
                first, self.lost = not self.lost, self.lost + 1  # no other thread comes in between
                overflowed = overflowed or first
        return Noted(failed, overflowed)

    def add(self, others: PendingDeletes) -> None:
        """Add the keys of another record of the same node."""
        for key, entry in others._entries.copy().items():
            known = self._entries.get(key)
            if known is not None:
                since, repair = max(known.since, entry.since), max(known.repair, entry.repair)
                self._entries[key] = _Entry(since, repair)
            elif len(self._entries) < MOST:
                self._entries[key] = entry
            else:
                self.lost += 1
        self.lost += others.lost

    def keys_until(self, moment: float) -> list[bytes]:
        """Return the keys whose last failed write was at `moment` or before."""
        # Not the dict's items: building pairs may collect garbage, and so change the dict.
        entries = ((key, self._entries.get(key)) for key in list(self._entries))
        return [key for key, entry in entries if entry is not None and entry.since <= moment]

    def settle(self, moment: float) -> list[bytes]:
        """Return the keys to be deleted on a node that was not ejected; forget all others.

        Only keys whose write failed by `moment`: none of those writes can land any more.
        """
        keys = self.keys_until(moment)
        return [key for key in keys if not self._forget(key, moment, Repair.IF_WRITTEN)]

    def discard(self, keys: Sequence[bytes], moment: float) -> None:
        """Forget keys that have been deleted, unless a write of them has failed since `moment`."""
        for key in keys:
            self._forget(key, moment, Repair.ALWAYS)

    def _forget(self, key: bytes, moment: float, most: Repair) -> bool:
        """Forget a key whose last failed write was by `moment` and needs no repair beyond `most`.

        Return whether it was forgotten.
        """
        entry = self._entries.pop(key, None)
        if entry is None or (entry.since <= moment and entry.repair <= most):
            return True
        self._entries.setdefault(key, entry)
        return False
