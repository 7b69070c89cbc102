"""Pictures and tables that compare how a fault is met."""

from __future__ import annotations

import json
from pathlib import Path

import comparisons
import pytest
from pages import SUFFIX

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {
    "node-stopped": "explanation/what-happens-when.md",
    "node-killed": "how-to/keep-keys-cacheable-when-a-node-dies.md",
    "node-added": "how-to/add-a-node.md",
}
FIGURES = {
    "before": {"hit_rate": 0.98, "loads": 0.0, "p99": 0.001},
    "during": {"hit_rate": 0.653, "loads": 1234.0, "p99": 0.0012},
    "after": {"hit_rate": 0.97, "loads": 20.0, "p99": 0.001},
}


def run(scenario, way, **changed):
    """Return a run of three seconds, as a report has it."""
    point = {"hit_rate": 0.9, "loads": 3, "p99": 0.002}
    return {
        "scenario": scenario,
        "servers": "memcached",
        "users": 20,
        "title": f"{scenario}{way.suffix}",
        "failover": way.failover,
        "warm_for": way.warm_for,
        "held": True,
        "seconds": 3.0,
        "fault": [1.0],
        "repaired": [2.0],
        "outcome": FIGURES,
        "series": [{"second": second, **point} for second in range(3)],
        **changed,
    }


def test_a_table_has_a_row_for_each_way():
    """With the rates, the calls of the source and the times that a reader compares."""
    figures = [
        {"label": comparisons.label(run("node-killed", way)), **FIGURES}
        for way in comparisons.COMPARED["node-killed"]
    ]
    assert comparisons.table(figures).splitlines()[2:] == [
        "| before | 98.0% | 0 | 1 ms |",
        *(f"| `{label}` | 65.3% | 1234 | 1.2 ms |" for label in ('"miss"', '"next"', "Gutter")),
    ]


@pytest.mark.slow  # where matplotlib is
@pytest.mark.parametrize("scenario", comparisons.COMPARED)
def test_the_runs_of_a_scenario_become_one_picture(scenario, tmp_path):
    """Each way that is in the directory of reports is in it, and its figures are kept beside it."""
    for way in comparisons.COMPARED[scenario]:
        file = tmp_path / f"{scenario}-memcached{way.suffix}{SUFFIX}"
        file.write_text(json.dumps(run(scenario, way)), encoding="utf-8")
    runs = comparisons.read(tmp_path, scenario, "memcached")
    labels = [comparisons.label(one) for one in runs]
    assert len(set(labels)) == len(comparisons.COMPARED[scenario])
    comparisons.write(tmp_path / "drawn", runs)
    assert (tmp_path / "drawn" / f"{scenario}.svg").read_text("utf-8").startswith("<?xml")
    kept = json.loads((tmp_path / "drawn" / comparisons.FIGURES).read_text("utf-8"))
    assert [one["label"] for one in kept[scenario]] == labels


@pytest.mark.parametrize("servers", ["memcached", "redis"])
@pytest.mark.parametrize("scenario", comparisons.COMPARED)
def test_the_docs_show_the_figures_of_their_pictures(scenario, servers):
    """Picture and table are of the same runs, and every verdict of these held."""
    page = (DOCS / PAGES[scenario]).read_text(encoding="utf-8")
    drawn = DOCS / "images" / "nodes" / servers
    kept = json.loads((drawn / comparisons.FIGURES).read_text("utf-8"))[scenario]
    assert (drawn / f"{scenario}.svg").exists()
    assert f"](../images/nodes/{servers}/{scenario}.svg)" in page
    assert comparisons.table(kept) in page
    assert all(run["held"] for run in kept)
