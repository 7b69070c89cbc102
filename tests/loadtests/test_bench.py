"""The benchmark measures what its goals name, tells who is left out, and judges a figure by its bounds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import rounds
from bench.goals import GOALS, Goal, Sense
from bench.peers import PEERS, Attendance, Peer
from bench.rounds import Figure, Plan, run_interleaved

ROOT = Path(__file__).parents[2]
PLAN = Plan(rounds=4, calls=100, seconds=60, slice=60)


def run(*words):
    """Run the benchmark as tox does; return its output."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", *words],
        cwd=ROOT / "loadtests",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.timeout(300)
def test_the_short_form_measures_every_goal(tmp_path):
    """Each case and subject that a goal names is there, unless a peer is left out with a reason."""
    file = tmp_path / "bench.json"
    table = tmp_path / "goals.md"
    output = run("--quick", "--json", file, "--markdown", table, "--svg", tmp_path)
    found = json.loads(file.read_text(encoding="utf-8"))
    assert len(found["goals"]) == len(GOALS)
    whole = set(found["left_out"]).isdisjoint(PEERS)
    for goal, row in zip(GOALS, found["goals"], strict=True):
        assert goal.subject in found["cases"][goal.case], goal
        assert row["now"] is not None or not whole, goal
    for name, reason in found["left_out"].items():
        assert reason
        assert f"left out: {name}" in output
    assert set(found["left_out"]) <= {*PEERS, "meta-memcache, get_many(1,000)"}
    assert len(table.read_text(encoding="utf-8").splitlines()) == len(GOALS) + 2
    assert (tmp_path / "blocking-memcached.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert found["cases"]["get, 8 memcached"]["shardcache"]["cpu"] > 0


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.timeout(300)
def test_growth_is_drawn(tmp_path):
    """A picture for each kind of growth, and all points as JSON."""
    run("--quick", "--growth", tmp_path)
    points = json.loads((tmp_path / "growth.json").read_text(encoding="utf-8"))
    for name, picture in points.items():
        drawn = (tmp_path / f"growth-{name}.svg").read_text(encoding="utf-8")
        assert drawn.startswith("<?xml")
        assert all(subject in drawn for subject in picture["curves"])
        for curve in picture["curves"].values():
            assert all(value > 0 for _, value in curve)


def test_every_peer_is_installed_by_the_group():
    """But for those that the package brings; what has no wheel is left out by the same Python version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*project["dependency-groups"]["bench"], *project["project"]["dependencies"]]
    named = {re.match(r"[\w.-]+", text)[0]: text for text in wanted}
    for peer in PEERS.values():
        _, _, marker = named[peer.distribution].partition("; ")
        last = re.fullmatch(r"python_version < '3\.(\d+)'", marker)
        assert peer.wheels_until == (last and (3, int(last[1]) - 1))


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        (Peer("none", "no_such_module"), "none cannot be imported: No module named"),
        (Peer("none", "no_such_module", (3, 10)), "none has no wheel for Python 3."),
        (Peer("pytest", "pytest"), None),
    ],
)
def test_a_peer_is_left_out_with_its_reason(peer, reason):
    """Whether it is not installed or cannot be."""
    why = peer.why_missing()
    assert why is None if reason is None else why.startswith(reason)


def test_a_peer_that_fails_is_left_out():
    """With what it raised; the others go on."""
    attendance = Attendance()
    with attendance.noting("cache"):
        raise OSError("no route")
    with attendance.noting("other"):
        pass
    assert attendance.left_out == {"cache": "OSError: no route"}


RESULTS = {
    "get": {
        "shardcache": Figure(10e-6, cpu=4e-6),
        "raw": Figure(8e-6, cpu=2e-6),
        "one": Figure(40e-6),
        "two": Figure(20e-6),
    },
    "faults": {"shardcache": Figure(3, unit="faults")},
}


@pytest.mark.parametrize(
    ("goal", "measured", "verdict"),
    [
        (Goal("w", "get", "shardcache", Sense.OVER, ("raw",), 1.25, 1.2), 1.25, "held"),
        (Goal("w", "get", "shardcache", Sense.OVER, ("raw",), 1.3, 1.25), 1.25, "stretch"),
        (Goal("w", "get", "shardcache", Sense.OVER, ("raw",), 1.0, 0.9), 1.25, "missed by 25%"),
        (Goal("w", "get", "shardcache", Sense.OVER, ("raw",), 1.0, cpu=True), 2, "missed by 100%"),
        (Goal("w", "get", "shardcache", Sense.FASTER, ("one", "two"), 2), 2, "held"),
        (Goal("w", "get", "shardcache", Sense.FASTER, ("one", "two"), 3), 2, "missed by 50%"),
        (Goal("w", "get", "shardcache", Sense.FASTER, ("one", "none"), 3), 4, "held"),
        (Goal("w", "get", "shardcache", Sense.ABOVE, ("raw",), 3), 2, "held"),
        (Goal("w", "get", "shardcache", Sense.ABOVE, ("raw",), 1), 2, "missed by 100%"),
        (Goal("w", "get", "shardcache", Sense.OVER, ("none",), 3), None, "not measured"),
        (Goal("w", "none", "shardcache", Sense.FIGURE, (), 3), None, "not measured"),
        (Goal("w", "get", "shardcache", Sense.FIGURE, unit=(1e-6, "µs")), 10, "–"),
        (Goal("w", "faults", "shardcache", Sense.FIGURE, (), 0), 3, "missed by 3"),
    ],
)
def test_a_figure_is_judged_by_its_bounds(goal, measured, verdict):
    """Against the best base that took part; the stretch counts before the reach."""
    now = goal.measured(RESULTS)
    assert (now if now is None else pytest.approx(now)) == measured
    assert goal.verdict(RESULTS) == verdict


def test_subjects_take_turns():
    """A B A B, after each has warmed up; a round has a multiple of the step."""
    order = []
    subjects = {name: lambda calls, name=name: order.append((name, calls)) for name in "ab"}
    run_interleaved(subjects, PLAN, calls=100, step=30)
    assert order[-8:] == [("a", 90), ("b", 90)] * 4
    assert order[:3] == [("a", 30), ("a", 30), ("a", 90)]


def test_a_slow_subject_makes_fewer_calls(monkeypatch):
    """As many as fit into its slice, and one at least; its best round counts, and how the others differ."""
    clock = {"wall": 0.0, "cpu": 0.0}
    fake = SimpleNamespace(perf_counter=lambda: clock["wall"], process_time=lambda: clock["cpu"])
    monkeypatch.setattr(rounds, "time", fake)
    counts = []
    seconds = iter([2, 2, 2, 5, 2, 3, 5])

    def subject(calls):
        counts.append(calls)
        clock["wall"] += next(seconds) * calls
        clock["cpu"] += calls

    plan = Plan(rounds=4, calls=100, seconds=60, slice=1)
    figure = run_interleaved({"slow": subject}, plan)["slow"]
    assert set(counts) == {1}
    assert figure == Figure(2, cpu=1, spread=1.0)
