"""The contract of a backend: the same calls give the same results, whatever the server.

Subclass it where pytest collects, and name the node to use::

    class TestMyBackend(BackendContract):
        @pytest.fixture
        def url(self):
            with running_server() as address:  # empty at the start of each test
                yield f"mine://{address}"
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from shardcache.testing.contract.ages import AgeContract, KeepContract
from shardcache.testing.contract.counters import CounterContract, SignedCounterContract
from shardcache.testing.contract.expiry import ExpiryContract
from shardcache.testing.contract.keys import KeyContract
from shardcache.testing.contract.lists import ListContract
from shardcache.testing.contract.locks import LockContract
from shardcache.testing.contract.node import NodeContract
from shardcache.testing.contract.recomputes import RecomputeContract
from shardcache.testing.contract.values import ValueContract
from shardcache.testing.driving import Mode, make_client


class BackendContract(
    KeyContract,
    ValueContract,
    CounterContract,
    SignedCounterContract,
    ExpiryContract,
    AgeContract,
    KeepContract,
    RecomputeContract,
    ListContract,
    LockContract,
    NodeContract,
):
    """What every backend does alike, through the blocking and the asyncio client."""


def _count_at_once(mode: Mode, url: str, count: Callable[[Any], object]) -> Any:
    """Have four clients count fifty times each; return what the counter has then."""
    clients = [make_client(mode, url, on_error="raise", timeout=10) for _ in range(4)]

    def repeat(client: Any) -> None:
        for _ in range(50):
            count(client)

    with ThreadPoolExecutor(len(clients)) as pool:
        list(pool.map(repeat, clients))  # raises what a thread raised
    reached = clients[0].get("race")
    for client in clients:
        client.close()
    return reached


class ServerContract(BackendContract):
    """The contract of a node that several clients share: every node but an in-process one."""

    def test_concurrent_counting_is_exact(self, mode: Mode, url: str) -> None:
        """Clients that create one counter at once lose no count."""
        assert _count_at_once(mode, url, lambda client: client.incr("race", 1, initial=1)) == 200

    @pytest.mark.usefixtures("count_below_zero")
    def test_concurrent_counting_below_zero_is_exact(self, mode: Mode, url: str) -> None:
        """Clients that count up and down across zero lose no count."""

        def count(client: Any) -> None:
            assert client.decr("race", 3, initial=-3, floor=None) is not None
            assert client.incr("race", 2, floor=None) is not None

        assert _count_at_once(mode, url, count) == -200

    def test_namespaces_are_separate(self, mode: Mode, url: str) -> None:
        """Clients with two namespaces share no key, even if the joined names are equal."""
        one = make_client(mode, url, namespace="a", on_error="raise", timeout=5)
        other = make_client(mode, url, namespace="a:b", on_error="raise", timeout=5)
        one.set("b:c", "one")
        assert other.get("c") is None
        other.set("c", "other")
        assert one.get("b:c") == "one"
        one.close()
        other.close()
