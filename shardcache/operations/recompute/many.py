"""Many cached values at once: each is read, recomputed and stored as one alone is, in lockstep.

One fan-out reads all values, one claims those that are missing, one stores them; in between the
factory is called once, with the missing keys that this caller leads. Each key has its own flight,
claim and lifetime, so an invalidation or a failed node concerns its own keys alone.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, ClassVar, Final, TypeAlias

from shardcache.core.cache_policy import describe_function
from shardcache.core.keys import check_keys
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.observing import report
from shardcache.operations.recompute import cached_value
from shardcache.operations.recompute.lockstep import Lockstep, Operation
from shardcache.operations.recompute.outcomes import ABSENT, NO_VALUE, AbsentError
from shardcache.operations.recompute.request import Request

# Items, values and functions are the caller's own, hence `Any`.
Factory: TypeAlias = Callable[[list[Any]], Any]

_NOTHING: Final = (ABSENT, NO_VALUE)


class ItemRequest(Request):
    """One call for the value of one of many items; the factory of all is `source`."""

    __slots__ = ("item", "source")

    absent: ClassVar[Any] = ABSENT

    item: Any
    source: Factory

    @property
    def function(self) -> str:
        """The function's name in the log."""
        return self.counters.name or f"get_or_set_many with {describe_function(self.source)}"

    def stand_for(self, item: Any, source: Factory) -> None:
        """Be the request for an item, of whose value `source` is the factory."""
        self.item, self.source = item, source
        self.factory = lambda: item


MakeRequest: TypeAlias = Callable[[Cluster, Any], ItemRequest]


def get(
    cluster: Cluster, items: Iterable[Any], make_request: MakeRequest, factory: Factory
) -> Coroutine[Any, Any, dict[Any, Any]]:
    """Return the values of items: the stored ones, and the results of recomputes.

    Items that the factory leaves out are absent. `make_request` returns the request for an item on
    a cluster.
    """
    if type(items) is not list:
        check_keys("get_or_set_many", items)
    wanted = list(items)
    requests: dict[bytes, ItemRequest] = {}
    work = partial(_get, cluster, wanted, make_request, factory, requests)
    if not cluster.observes_operations:
        return work()

    def hits(_: object) -> int:
        return sum(not request.missed for request in requests.values())

    return report(cluster, "cached_many", len(wanted), work, hits)


async def _get(
    cluster: Cluster,
    items: Iterable[Any],
    make_request: MakeRequest,
    factory: Factory,
    requests: dict[bytes, ItemRequest],
) -> dict[Any, Any]:
    return await each(cluster, items, make_request, factory, cached_value.get, requests)


async def each(  # noqa: PLR0913, PLR0917 - what is done, and for whom
    cluster: Cluster,
    items: Iterable[Any],
    make_request: MakeRequest,
    factory: Factory,
    operation: Callable[[ItemRequest], Coroutine[Any, Any, Any]],
    requests: dict[bytes, ItemRequest] | None = None,
) -> dict[Any, Any]:
    """Run an operation for each item, in lockstep; return the results by item, without absent ones.

    Items of equal keys share one. If operations fail, raise the error of the first.
    """
    requests = {} if requests is None else requests
    lockstep = Lockstep(cluster, factory)
    names: dict[Any, bytes] = {}
    for item in items:
        request = make_request(lockstep.stand_in, item)
        request.stand_for(item, factory)
        requests.setdefault(request.name, request)
        names[item] = request.name
    operations = await lockstep.run([partial(operation, request) for request in requests.values()])
    ended = dict(zip(requests, map(_outcome, operations), strict=True))
    return {
        item: ended[name]
        for item, name in names.items()
        if not any(ended[name] is x for x in _NOTHING)
    }


def _outcome(operation: Operation[Any]) -> Any:
    return ABSENT if isinstance(operation.error, AbsentError) else operation.outcome()
