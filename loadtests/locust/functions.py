"""The expensive functions of a run, cached in the ways that are compared."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from shardcache import Client

PAGES: Final = 50
PAGE_SECONDS: Final = 0.01
PAGE_TTL: Final = 60.0
SECONDS: Final = 0.2  # that the hot value takes to compute
BY_HAND: Final = "hot:by-hand"
PARTS: Final = 6  # of a run: so often the hot value expires

Told = Callable[[str], None]


class Functions:
    """Pages with a lock, and one hot value: with `cached(lock=True)`, and cached by hand.

    `tell` is called with `locked` or `by hand` whenever the hot value is computed.
    """

    def __init__(self, client: Client, seconds: float, tell: Told) -> None:
        self._client = client
        self._ttl = ttl_of_hot_value(seconds)
        self._tell = tell

        @client.cached(PAGE_TTL, key="page:{number}", namespace="pages", lock=True)
        def page(number: int) -> dict[str, int]:
            time.sleep(PAGE_SECONDS)
            return {"number": number}

        @client.cached(self._ttl, key="hot", namespace="hot", lock=True)
        def locked() -> float:
            return self._computed("locked")

        self.page = page
        self.locked = locked
        self._nodes: dict[str | bytes, str] = {}

    def node_of(self, key: str | bytes) -> str:
        """Return the name of the node that holds a key, looked up once."""
        if key not in self._nodes:
            self._nodes[key] = self._client.node_for(key).name
        return self._nodes[key]

    def by_hand(self) -> float:
        """Return the hot value as people cache it without a lock: get it, else compute and set."""
        value: float | None = self._client.get(BY_HAND)
        if value is None:
            value = self._computed("by hand")
            self._client.set(BY_HAND, value, self._ttl)
        return value

    def forget(self) -> None:
        """Delete every key that the functions may have written."""
        self.locked.invalidate()
        for number in range(PAGES):
            self.page.invalidate(number)
        self._client.delete(BY_HAND)

    def _computed(self, how: str) -> float:
        self._tell(how)
        time.sleep(SECONDS)
        return time.time()


def ttl_of_hot_value(seconds: float) -> float:
    """Return the ttl of the hot value in a run of `seconds`: whole seconds, for memcached.

    It is 2 at least: memcached may let a value go a second early, and one with a ttl of 1 at once.

    >>> ttl_of_hot_value(30), ttl_of_hot_value(4)
    (5.0, 2.0)
    """
    return float(max(2, round(seconds / PARTS)))
