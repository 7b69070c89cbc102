"""The contract of a backend: the same calls give the same results, whatever the server.

Subclass it where pytest collects, and name the node to use::

    class TestMyBackend(BackendContract):
        @pytest.fixture
        def url(self):
            with running_server() as address:  # empty at the start of each test
                yield f"mine://{address}"
"""

from __future__ import annotations

import threading
from typing import Any

from shardcache.testing.contract.counters import CounterContract
from shardcache.testing.contract.expiry import ExpiryContract
from shardcache.testing.contract.keys import KeyContract
from shardcache.testing.contract.locks import LockContract
from shardcache.testing.contract.node import NodeContract
from shardcache.testing.contract.recomputes import RecomputeContract
from shardcache.testing.contract.values import ValueContract
from shardcache.testing.driving import Mode, make_client


class BackendContract(
    KeyContract,
    ValueContract,
    CounterContract,
    ExpiryContract,
    RecomputeContract,
    LockContract,
    NodeContract,
):
    """What every backend does alike, through the blocking and the asyncio client."""


class ServerContract(BackendContract):
    """The contract of a node that several clients share: every node but an in-process one."""

    def test_concurrent_counting_is_exact(self, mode: Mode, url: str) -> None:
        """Clients that create one counter at once lose no count."""
        clients = [make_client(mode, url, on_error="raise", timeout=10) for _ in range(4)]

        def count(client: Any) -> None:
            for _ in range(50):
                client.incr("race", 1, initial=1)

        threads = [threading.Thread(target=count, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert clients[0].get("race") == 200
        for client in clients:
            client.close()

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
