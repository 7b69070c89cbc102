"""`owner(key)` of each strategy, and of other libraries; the first pass, which fills tables, apart."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Final

from bench.bench import Bench
from bench.rounds import Figure, Figures, Subject
from bench.workload import each, keys_of
from shardcache import Node
from shardcache.plugin.manager import load

COUNTS: Final = (3, 64, 1000)
STRATEGIES: Final = ("rendezvous", "maglev", "ketama", "jump", "modulo")
FIRST: Final = 20_000  # keys of a first pass
SLOW: Final = 64  # nodes: beyond, pymemcache's needs milliseconds a key

_ports = itertools.count(10_000)


def nodes_of(count: int, port: int = 11_211) -> list[Node]:
    """Return nodes that need not exist."""
    return [Node(f"memcached://10.0.{n // 250}.{n % 250}:{port}") for n in range(count)]


def measure(bench: Bench) -> Iterator[tuple[str, Figures]]:
    """Measure placement alone, on keys of bytes."""
    keys = [key.encode() for key in keys_of("any", bench.plan.scaled(FIRST, 1000))]
    for count in COUNTS:
        subjects: dict[str, Subject] = {}
        for name in STRATEGIES:
            placement = load().strategies[name]().build(nodes_of(count))
            for key in keys:
                placement.owner(key)  # a round of less would measure the tables that it fills
            subjects[name] = each(placement.owner, keys)
        if count <= SLOW and bench.attendance.has("pymemcache"):
            from pymemcache.client.rendezvous import RendezvousHash  # noqa: PLC0415 - a peer

            names = [node.name for node in nodes_of(count)]
            subjects["pymemcache"] = each(RendezvousHash(names).get_node, keys)
        if bench.attendance.has("uhashring"):
            from uhashring import HashRing  # noqa: PLC0415 - a peer

            texts = keys_of("any", len(keys))
            names = [node.name for node in nodes_of(count)]
            subjects["uhashring"] = each(HashRing(names).get_node, texts)
        yield f"owner(key), {count:,} nodes", bench.interleave(subjects, calls=len(keys))
    yield (
        "owner(key), first pass over 20,000 keys, 1,000 nodes",
        {name: first_pass(name, 1000, keys, bench.plan.scaled(3, 1)) for name in STRATEGIES[:3]},
    )


def first_pass(strategy: str, count: int, keys: list[bytes], rounds: int) -> Figure:
    """Return the CPU of a key in the first pass after a placement was built, with building it."""
    times = []
    for _ in range(rounds):
        nodes = nodes_of(count, next(_ports))  # others each time: equal nodes may share tables
        began = time.process_time()
        owner = load().strategies[strategy]().build(nodes).owner
        for key in keys:
            owner(key)
        times.append((time.process_time() - began) / len(keys))
    return Figure(min(times))
