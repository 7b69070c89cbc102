"""How many connections a client has to a node."""

from __future__ import annotations

from typing import NamedTuple


class PoolUse(NamedTuple):
    """The connections of one client to one node at a moment.

    `open` are all of them, `busy` those with a call in progress. At most `size` can be open; `None`
    for asyncio, where each event loop has one, which serves any number of calls at once.
    """

    open: int
    busy: int
    size: int | None = None
