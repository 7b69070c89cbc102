"""The applications of docs/examples under load: what is changed of them, and what is counted."""

from __future__ import annotations

import json
import sys
import urllib.request

import pytest

from app import examples
from app.examples import EXAMPLES, counted_source, serving
from app.serving import DependencyMissingError


def ask(url):
    """Return the JSON of a page."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_report_expires_soon_and_counts_its_runs(name):
    """Nothing else of the example is changed."""
    example = EXAMPLES[name]
    original = (examples.DOCS / example.folder / example.file).read_text(encoding="utf-8")
    changed = counted_source(name, 2.0)
    compile(changed, example.file, "exec")
    before, after = original.splitlines(), changed.splitlines()
    assert [line for line in before if line not in after] == [
        line for line in before if line.startswith("@cached(ttl=30, ")
    ]
    added = [line for line in after if line not in before]
    assert [line.partition("(")[0].strip() for line in added] == [
        "from app.ledger import append_run",
        "@cached",
        "append_run",
    ]


def test_an_example_that_has_changed_is_named(monkeypatch, tmp_path):
    """Else the run would judge a report that never expires."""
    (tmp_path / "flask").mkdir()
    (tmp_path / "flask" / "main.py").write_text("import time\n")
    monkeypatch.setattr(examples, "DOCS", tmp_path)
    with pytest.raises(ValueError, match=r"flask/main\.py has not one '@cached\(ttl=30, stale=60"):
        counted_source("Flask", 2.0)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_missing_framework_names_its_group(name, monkeypatch):
    """Nothing is started."""
    package = EXAMPLES[name].needed[0]
    monkeypatch.setitem(sys.modules, package, None)
    with (
        pytest.raises(DependencyMissingError, match=rf"no {package} .*pip install --group load"),
        serving(name, ["memory://a"], ttl=2),
    ):
        pass


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_served_over_nodes_of_both_kinds(name, memcached_servers, redis_servers):
    """By two processes, from the clone; each run of the report's function is in the ledger."""
    for package in EXAMPLES[name].needed:
        pytest.importorskip(package, reason=f"{package} comes with: pip install --group load")
    urls = [memcached_servers[0].url, redis_servers[0].url, memcached_servers[1].url]
    with serving(name, urls, ttl=60) as served:
        numbers = [1, 2, 1, 2]
        assert [ask(f"{served.url}/reports/{each}")["number"] for each in numbers] == numbers
        assert [run.page for run in served.runs()] == [name, name]
        assert ask(f"{served.url}/healthz")["ejected"] == []
    assert not served.ledger.parent.exists()
