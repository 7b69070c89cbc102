"""Every query of the dashboard, and of the guide's alerts, finds what a real scrape has."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import urllib.request
from importlib import resources
from pathlib import Path

import promql_parser
import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families
from shardcache_prometheus import PrometheusObserver

from shardcache import Client

GUIDE = Path(__file__).parents[3] / "docs" / "how-to" / "monitor.md"
OWN = {"job", "instance"}  # Prometheus adds them to what it scrapes
VARIABLES = {"$__rate_interval": "5m", "$job": ".*", "$instance": ".*", "$node": ".*"}


def dashboard():
    """Return the dashboard."""
    file = resources.files("shardcache_prometheus") / "dashboard.json"
    return json.loads(file.read_text(encoding="utf-8"))


def queries():
    """Return each query of the dashboard and of the guide, as Prometheus gets it."""
    found = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    for name, value in VARIABLES.items():
        found = [query.replace(name, value) for query in found]
    alerts = re.findall(r"^ +(?:- )?expr: (.+)$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(alerts) >= 5
    return [*found, *(alert.strip("'") for alert in alerts)]


def parts(query):
    """Return the selectors of a query, and the labels that it groups by."""
    selectors, grouped = [], set()

    def visit(part):
        if isinstance(part, promql_parser.VectorSelector):
            selectors.append(part)
        elif isinstance(part, promql_parser.AggregateExpr) and part.modifier is not None:
            grouped.update(part.modifier.labels)

    promql_parser.walk(promql_parser.parse(query), visit)
    return selectors, grouped


def matches(matcher, value):
    """Return whether a label's value is what a matcher asks for."""
    if matcher.op == promql_parser.MatchOp.Equal:
        return value == matcher.value
    assert matcher.op == promql_parser.MatchOp.Re
    return value is not None and re.fullmatch(matcher.value, value) is not None


@pytest.fixture(scope="module")
def scraped(servers):
    """Return the samples of a real scrape, after traffic on real servers and the death of one."""
    registry = CollectorRegistry()
    urls = [server.url for server in servers]
    observer = PrometheusObserver(registry=registry)
    with Client(urls, observers=[observer]) as client, Client(urls, codec="json") as other:
        keys = [f"key:{number}" for number in range(50)]
        client.set_many(dict.fromkeys(keys, 1))
        client.get_many([*keys, *(f"missing:{number}" for number in range(50))])
        other.set("k", [1])
        assert client.get("k") is None
        compute_twice(client)
        with contextlib.suppress(ZeroDivisionError):
            client.get_or_set("broken", lambda: 1 / 0, ttl=60)
        servers[0].kill()
        for _ in range(3):
            client.get_many(keys)
        assert client.ejected
        text = scrape(registry)
        servers[0].restart()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def compute_twice(client):
    """Have one thread join the recompute of another."""
    computing, finish = threading.Event(), threading.Event()

    def compute():
        computing.set()
        assert finish.wait(20)

    first = threading.Thread(target=client.get_or_set, args=("report", compute, 60))
    first.start()
    assert computing.wait(20)
    threading.Timer(0.2, finish.set).start()
    client.get_or_set("report", compute, 60)
    first.join()


def scrape(registry):
    """Return what a registry serves over HTTP."""
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as page:
        text = page.read().decode()
    server.shutdown()
    server.server_close()
    thread.join()
    return text


def test_every_query_finds_samples(scraped):
    """Of each metric that it names, with each label that it asks for or groups by."""
    for query in queries():
        selectors, grouped = parts(query)
        labels = set(OWN)
        for selector in selectors:
            wanted = [each for each in selector.matchers.matchers if each.name not in OWN]
            found = [
                sample.labels
                for sample in scraped
                if sample.name == selector.name
                and all(matches(each, sample.labels.get(each.name)) for each in wanted)
            ]
            assert found, f"nothing is {selector.prettify()} in {query}"
            labels |= found[0].keys()
        assert selectors, query
        assert grouped <= labels, query


def test_legends_name_labels_that_the_query_keeps():
    """A legend of another label would be empty."""
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            legend = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert (
                legend <= set(re.findall(r"by \(([^)]*)\)", target["expr"])[0].split(", "))
                if legend
                else True
            )


def test_panels_do_not_overlap():
    """Each has its own place, and a number of its own."""
    places = set()
    panels = dashboard()["panels"]
    for panel in panels:
        grid = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & places
        places |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)
