"""Values of 4 KiB to 1 MB, in and out, against the best way to move them through a socket.

In a fresh process each copy of a megabyte maps its pages anew, so page faults are counted in one.
"""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any, Final

from bench import blocking
from bench.bench import Bench
from bench.machine import run_servers
from bench.peers import Client, makers_of
from bench.rounds import Figure, Figures, Plan, Subject, run_interleaved
from bench.workload import TTL, each
from shardcache import Client as Shardcache
from shardcache.testing.servers import Server

SIZES: Final = {"4 KiB": 4096, "100 KiB": 102_400, "1 MB": 1_000_000}
KEYS: Final = [f"large:{number}" for number in range(8)]
CALLS: Final = 100


class RawValues:
    """A socket for each server, which move values of a size as well as sockets can.

    Each key has its server, as for a client: eight values on one server would stay in the processor's
    caches, and those of eight servers do not.
    """

    def __init__(self, kind: str, addresses: Sequence[tuple[str, int]], size: int) -> None:
        self._sockets = [socket.create_connection(address) for address in addresses]
        self._value = b"v" * size
        self._buffer = bytearray(size + 200)
        if kind == "memcached":
            self._read = b"mg raw v\r\n"
            self._write = b"ms raw %d\r\n" % size
        else:
            self._read = b"*2\r\n$3\r\nGET\r\n$3\r\nraw\r\n"
            self._write = b"*3\r\n$3\r\nSET\r\n$3\r\nraw\r\n$%d\r\n" % size
        for place, connection in enumerate(self._sockets):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.set(place)
        self._sockets[0].sendall(self._read)
        self._reply = 0  # the length of a reply: what a read stops at
        while self._reply < size + 2:
            self._reply += len(self._sockets[0].recv(1 << 20))

    def get(self, place: int) -> None:
        """Read the value of a server into a buffer that is there already."""
        connection = self._sockets[place]
        connection.sendall(self._read)
        connection.recv_into(self._buffer, self._reply, socket.MSG_WAITALL)

    def set(self, place: int) -> None:
        """Write the value from where it is."""
        connection = self._sockets[place]
        parts = [self._write, self._value, b"\r\n"]
        sent = connection.sendmsg(parts)
        rest = memoryview(b"".join(parts))[sent:] if sent < sum(map(len, parts)) else b""
        connection.sendall(rest)
        connection.recv(100)

    def places(self) -> range:
        """Return what its calls take: the place of each server."""
        return range(len(self._sockets))

    def close(self) -> None:
        """Close all connections."""
        for connection in self._sockets:
            connection.close()


def measure(bench: Bench) -> Iterator[tuple[str, Figures]]:
    """Measure reads and writes of each size; those of 100 KiB and 1 MB in a fresh process as well."""
    for kind, makers in blocking.MAKERS.items():
        with run_servers(kind) as servers:
            for title, size in SIZES.items():
                value = b"v" * size
                with ExitStack() as stack:
                    raw = RawValues(kind, _addresses(servers), size)
                    stack.callback(raw.close)
                    clients = []
                    for maker in makers_of(makers, bench.attendance):
                        with bench.attendance.noting(f"{maker.name}, {title}"):
                            client = maker.make(servers)
                            stack.callback(client.release)
                            _check(client, value)
                            clients.append(client)
                    for operation in ("get", "set"):
                        able = [
                            client
                            for client in clients
                            if not _stalls(bench, client, operation, title)
                        ]
                        subjects = _subjects(operation, raw, able, value)
                        figures = bench.interleave(subjects, calls=CALLS)
                        yield f"{operation} {title}, 8 {kind}", figures
                if size > 10_000:
                    yield from _measure_fresh(bench, kind, servers, title, size)


def _subjects(
    operation: str, raw: RawValues, clients: Sequence[Client], value: bytes
) -> dict[str, Subject]:
    if operation == "get":
        return {
            "raw": each(raw.get, raw.places()),
            **{client.name: each(client.calls["get"], KEYS) for client in clients},
        }
    columns = (KEYS, [value] * len(KEYS), [TTL] * len(KEYS))
    return {
        "raw": each(raw.set, raw.places()),
        **{client.name: each(client.calls["set"], *columns) for client in clients},
    }


def _stalls(bench: Bench, client: Client, operation: str, title: str) -> bool:
    """Return whether a client takes seconds for such a call; it is left out then, with the reason."""
    stalls = (client.name, operation) == ("meta-memcache", "get") and title != "4 KiB"
    if stalls:
        bench.attendance.left_out[f"{client.name}, {operation} {title}"] = blocking.STALLS
    return stalls


def _check(client: Client, value: bytes) -> None:
    for key in KEYS:
        client.calls["set"](key, value, TTL)
    if client.calls["get"](KEYS[0]) != value:
        raise AssertionError("it does not read what it wrote")


def _addresses(servers: Sequence[Server]) -> list[tuple[str, int]]:
    return [(server.host, server.port) for server in servers]


def _measure_fresh(
    bench: Bench, kind: str, servers: Sequence[Server], title: str, size: int
) -> Iterator[tuple[str, Figures]]:
    plan = bench.plan
    order = {
        "urls": [server.url for server in servers],
        "raw": [kind, _addresses(servers), size],
        "plan": [plan.rounds, plan.scaled(30, 3), plan.seconds / 2, plan.slice],
    }
    done = subprocess.run(
        [sys.executable, "-m", "bench.large", json.dumps(order)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    for operation, figures in json.loads(done.stdout).items():
        yield (
            f"{operation} {title}, 8 {kind}, fresh process",
            {name: Figure(*found) for name, found in figures["times"].items()},
        )
        yield (
            f"{operation} {title}, 8 {kind}, page faults",
            {name: Figure(count, unit="faults") for name, count in figures["faults"].items()},
        )


def _play(order: dict[str, Any]) -> dict[str, Any]:
    """Measure ours and the socket in this process, which has done nothing else."""
    rounds, calls, seconds, slice_ = order["plan"]
    plan = Plan(rounds=rounds, calls=calls, seconds=seconds, slice=slice_)
    kind, addresses, size = order["raw"]
    value = b"v" * size
    found: dict[str, Any] = {}
    with (
        Shardcache(order["urls"], timeout=10) as ours,
        closing(RawValues(kind, [tuple(each) for each in addresses], size)) as raw,
    ):
        for operation in ("set", "get"):
            subjects = {"raw": each(getattr(raw, operation), raw.places())}
            columns = (KEYS, [value] * len(KEYS)) if operation == "set" else (KEYS,)
            subjects["shardcache"] = each(getattr(ours, operation), *columns)
            found[operation] = {
                "faults": {name: _faults(subject, calls) for name, subject in subjects.items()},
                "times": {
                    name: [figure.value, figure.cpu, figure.spread]
                    for name, figure in run_interleaved(subjects, plan).items()
                },
            }
    return found


def _faults(subject: Callable[[int], object], calls: int) -> float:
    """Return the page faults of a call, once it has been made a few times."""
    subject(3 * len(KEYS))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    subject(calls)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / calls


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_play(json.loads(sys.argv[1]))))
