"""prometheus_client's multiprocess mode: each worker writes, any process can be asked for all."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

BOUNDS = ("0.0005", "0.001", "1.0", "+Inf")

# Like gunicorn with `preload`: the client is there before the workers are forked.
PROGRAM = """
import os, sys, time
from prometheus_client import CollectorRegistry, generate_latest, multiprocess
from shardcache import Client
from shardcache_prometheus import PrometheusObserver

url, pid = sys.argv[1], int(sys.argv[2])
client = Client(url, observers=[PrometheusObserver()])
client.set("k", 1)
finish, wait = os.pipe()[::-1]
for last in (False, True):
    done, tell = os.pipe()
    if os.fork() == 0:
        for _ in range(10):
            client.get("k")
        client.get_many(["k", "l"])
        if last:
            os.kill(pid, 9)
            while not client.ejected:
                client.get("k")
        time.sleep(0.2)  # then the next call writes all of them
        client.get_many(["l"])
        os.write(tell, b"1")
        os.read(wait, 1)
        os._exit(0)
    os.read(done, 1)
registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
sys.stdout.write(generate_latest(registry).decode())
os.write(finish, b"12")
os.wait(), os.wait()
"""


def test_workers_count_together(servers, tmp_path):
    """Counters and connections are sums; a circuit is open if it is in any live process."""
    server = servers[0]
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM), encoding="utf-8")
    directory = tmp_path / "metrics"
    directory.mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", program, server.url, str(server.pid)],
        env={"PROMETHEUS_MULTIPROC_DIR": str(directory)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    server.restart()
    assert done.returncode == 0, done.stderr
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(done.stdout)
        for sample in family.samples
    }
    node = server.url.partition("://")[2]
    operations = "shardcache_operations_total"
    assert samples[operations, node, "ok", "set"] == 1
    assert samples[operations, node, "get", "hit"] == 20
    assert samples[operations, node, "getmany", "hit"] == 2
    assert (
        samples[operations, node, "getmany", "miss"] == 3
    )  # the last child's second one is refused
    errors = samples[operations, node, "error", "get"]
    assert samples["shardcache_operation_duration_seconds_count", node, "get"] == 20 + errors
    assert samples["shardcache_circuit_open", node] == 1
    assert samples["shardcache_ejections_total", node] == 1
    assert samples["shardcache_pool_size", node] == 3 * 32


# Calls at times that a test decides, on no node at all.
CALLS = """
import os, sys
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from shardcache import CallFinished, Node
from shardcache_prometheus import PrometheusObserver

observer, node = PrometheusObserver(), Node("memory://a")

def call(started):
    observer.call_finished(CallFinished("get", node, 0.001, None, 1, 0, 1, started))
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    labels = {"operation": "get", "result": "hit", "node": "a"}
    print(registry.get_sample_value("shardcache_operations_total", labels))

call(1000.0)
call(1000.05)
call(1000.08)
call(1000.2)
call(1000.25)
sys.stdout.flush()
if os.fork():
    os.wait()
"""


def test_calls_are_written_ten_times_a_second(tmp_path):
    """Many at once, the last ones at the end; a forked child has not made the calls of its parent."""
    done = subprocess.run(
        [sys.executable, "-c", CALLS],
        env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1.0", "1.0", "1.0", "4.0", "4.0"]
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(tmp_path))
    labels = {"operation": "get", "node": "a"}
    seconds = "shardcache_operation_duration_seconds"
    assert (
        registry.get_sample_value("shardcache_operations_total", {**labels, "result": "hit"}) == 5
    )
    assert registry.get_sample_value(f"{seconds}_count", labels) == 5
    assert registry.get_sample_value(f"{seconds}_sum", labels) == pytest.approx(0.005)
    bounds = {
        le: registry.get_sample_value(f"{seconds}_bucket", {**labels, "le": le}) for le in BOUNDS
    }
    assert bounds == {"0.0005": 0, "0.001": 5, "1.0": 5, "+Inf": 5}
