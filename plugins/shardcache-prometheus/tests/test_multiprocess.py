"""prometheus_client's multiprocess mode: each worker writes, any process can be asked for all."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from prometheus_client.parser import text_string_to_metric_families

# Like gunicorn with `preload`: the client is there before the workers are forked.
PROGRAM = """
import os, sys
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
    assert samples[operations, node, "getmany", "miss"] == 2
    errors = samples[operations, node, "error", "get"]
    assert samples["shardcache_operation_duration_seconds_count", node, "get"] == 20 + errors
    assert samples["shardcache_circuit_open", node] == 1
    assert samples["shardcache_ejections_total", node] == 1
    assert samples["shardcache_pool_size", node] == 3 * 32
