"""The asyncio client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from shardcache.backends.base import AsyncBackend, BackendFactory
from shardcache.clients.base import ClientBase
from shardcache.core.commands import When
from shardcache.core.lifetimes import DEFAULT, TTL
from shardcache.core.nodes import Node
from shardcache.core.topology import Topology, TopologyChange
from shardcache.errors import NodeError
from shardcache.io.asyncio import AsyncIO
from shardcache.operations import many, single, whole
from shardcache.operations.cluster import Key
from shardcache.operations.whole import NodeStats
from shardcache.settings import node_list, parse_node

# Values and defaults are the caller's own objects, hence `Any`.


class AsyncClient(ClientBase[AsyncBackend]):
    """One key space over many cache nodes, for tasks that await. Safe between tasks and loops.

    `Client` is its twin, with the same calls, results and errors.

    >>> import asyncio
    >>> async def main() -> str:
    ...     async with AsyncClient("memory://a,b,c") as client:
    ...         await client.set("greeting", "hello", ttl=60)
    ...         return await client.get("greeting")
    >>> asyncio.run(main())
    'hello'
    """

    async def get(self, key: Key, default: Any = None) -> Any:
        """Give the value of `key`, or `default`; a stored `None` is a hit."""
        return await single.get(self._cluster, key, default)

    async def get_many(self, keys: Iterable[Key]) -> dict[Key, Any]:
        """Give a dict of the keys found, under the caller's own keys; all nodes asked at once.

        What failed is absent; under `on_error="raise"` a `PartialFailureError` has `.found` and
        `.failed`.
        """
        return await many.get_many(self._cluster, keys)

    async def set(self, key: Key, value: Any, ttl: TTL = DEFAULT) -> bool:
        """Store `value` for `ttl` seconds; say whether it was stored.

        A `ttl` of `None` means no expiry, zero or less deletes the key, left out it is
        `default_ttl`. Raise `EncodeError` for a value that the codec does not take.
        """
        return await single.store(self._cluster, key, value, ttl, When.ALWAYS)

    async def set_many(self, mapping: Mapping[Key, Any], ttl: TTL = DEFAULT) -> list[Key]:
        """Store every item for `ttl` seconds; give the keys that could not be stored.

        Under `on_error="raise"` a `PartialFailureError` has `.succeeded` and `.failed`.
        """
        return await many.set_many(self._cluster, mapping, ttl)

    async def add(self, key: Key, value: Any, ttl: TTL = DEFAULT) -> bool:
        """Store `value` unless the key is there; say whether it was stored."""
        return await single.store(self._cluster, key, value, ttl, When.ABSENT)

    async def replace(self, key: Key, value: Any, ttl: TTL = DEFAULT) -> bool:
        """Store `value` if the key is there; say whether it was stored."""
        return await single.store(self._cluster, key, value, ttl, When.PRESENT)

    async def delete(self, key: Key) -> bool:
        """Remove `key`; say whether it was there."""
        return await single.delete(self._cluster, key)

    async def delete_many(self, keys: Iterable[Key]) -> int:
        """Remove every key, all nodes asked at once; give how many were there.

        Under `on_error="raise"` a `PartialFailureError` has `.succeeded` and `.failed`.
        """
        return await many.delete_many(self._cluster, keys)

    async def touch(self, key: Key, ttl: TTL) -> bool:
        """Give `key` a new expiry in `ttl` seconds; say whether it was there."""
        return await single.touch(self._cluster, key, ttl)

    async def incr(
        self, key: Key, delta: int = 1, initial: int | None = None, ttl: TTL = DEFAULT
    ) -> int | None:
        """Add `delta` to a counter; give its new value.

        A missing counter gives `None`, or is made with `initial` and `ttl` when there is one; an
        existing one keeps its expiry. Raise `NotACounterError` when the value is not a whole number
        from 0 to 2**63 - 1 or would pass that.
        """
        return await single.incr(self._cluster, key, delta, initial, ttl)

    async def decr(
        self, key: Key, delta: int = 1, initial: int | None = None, ttl: TTL = DEFAULT
    ) -> int | None:
        """Subtract `delta` from a counter, which stops at 0; give its new value. Else as `incr`."""
        return await single.decr(self._cluster, key, delta, initial, ttl)

    async def gets(self, key: Key, default: Any = None) -> tuple[Any, Hashable | None]:
        """Give `(value, token)`, the token for `cas`; `(default, None)` when there is none."""
        return await single.gets(self._cluster, key, default)

    async def cas(self, key: Key, value: Any, token: Hashable, ttl: TTL = DEFAULT) -> bool | None:
        """Store `value` if nobody changed the key since `gets` gave `token`.

        `True` when stored, `False` when it was changed meanwhile, `None` when it is gone.
        """
        return await single.cas(self._cluster, key, value, token, ttl)

    async def ping(self) -> dict[str, float | NodeError]:
        """Give, by node name, the seconds that a sign of life took, or the error in its place."""
        return await whole.ping(self._cluster)

    async def stats(self) -> dict[str, NodeStats]:
        """Give, by node name, the server's figures (or its error) and this client's counters."""
        return await whole.stats(self._cluster)

    async def flush_all(self) -> bool:
        """Empty every node, for all who use it; say whether all did. Nothing else calls this."""
        return await whole.flush_all(self._cluster)

    async def add_node(self, node: str | Node) -> TopologyChange:
        """Take one more node in; calls in flight finish on the old topology."""
        return await self._swap(lambda topology: topology.adding(parse_node(node)))

    async def remove_node(self, name: str) -> TopologyChange:
        """Let the node called `name` go; calls in flight finish on the old topology."""
        return await self._swap(lambda topology: topology.removing(name))

    async def set_nodes(self, nodes: str | Node | Iterable[str | Node]) -> TopologyChange:
        """Use exactly these nodes from now on; connections to those that stay are kept."""
        return await self._swap(lambda topology: topology.replaced(node_list(nodes)))

    async def aclose(self) -> None:
        """Close all connections. Idempotent; the client then raises `ClientClosedError`."""
        await asyncio.gather(*(backend.aclose() for backend in self._retire_all()))
        await self._io.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _swap(self, decide: Callable[[Topology], Topology]) -> TopologyChange:
        change, retired = self._changed(decide)
        self._announce(change)
        await asyncio.gather(*(backend.aclose() for backend in retired))
        return change

    def _make_io(self) -> AsyncIO:
        self._io = AsyncIO()
        return self._io

    def _make_backend(self, factory: BackendFactory, node: Node) -> AsyncBackend:
        return factory.asyncio(node, self._options)
