"""Each check of a verdict holds where it should, and is missed where it should be."""

from __future__ import annotations

import pytest
from figures import Figures
from scenarios import SCENARIOS, Timeline, Variant, scenario_named
from verdicts import BY_HAND, LOCKED, RULES, Record, held, judge

from app.examples import EXAMPLES
from shardcache import ConfigurationError
from shardcache.testing import Profile

SECONDS = 30.0
TARGET, OTHER = "a:1", "b:1"
PROFILE = Profile(
    name="test",
    keys=100,
    alpha=1.0,
    key_size=20,
    sizes=((9, 1.0),),
    ttls=((None, 1.0),),
    mix={"get": 1.0},
    miss_ratio=0.1,
)


def calm(down: float = 99.0, up: float = 99.0) -> Figures:
    """Return the figures of a run in which all went well: ten calls a second to each node.

    From `down` to `up`, if at all, the target of the fault serves nothing.
    """
    figures = Figures()
    for tenth in range(10, 300):
        moment = tenth / 10
        for node in (TARGET, OTHER):
            figures.call(moment, node, 0.001)
            figures.count(moment, "", "made")
            serves = tenth % 10 and (node == OTHER or not down <= moment < up)
            figures.count(moment, node, "hits" if serves else "misses")
        figures.lag(moment, 0.002)
    return figures


def record(scenario: str, figures: Figures, **changed: object) -> Record:
    """Return the record of a run with these figures."""
    given = {
        "servers": "memcached",
        "profile": PROFILE,
        "timeline": Timeline(SECONDS, spawned=1.0),
        "users": 20,
        "rate": 20.0,
        "target": TARGET,
    }
    return Record(scenario=scenario, figures=figures, **{**given, **changed})


def out_and_back(up: float = 21.0) -> Figures:
    """Return the figures of a run in which the fault's node is ejected, and serves again."""
    figures = calm(10.0, up)
    figures.event(10.2, "ejected", TARGET)
    return figures


def stampeding(figures: Figures) -> Figures:
    """Let the hot value expire three times: computed once with the lock, five times by hand."""
    for moment in (2.0, 7.0, 12.0):
        figures.event(moment, LOCKED)
        for number in range(5):
            figures.event(moment + number / 100, BY_HAND)
    return figures


def visited(figures: Figures, *, recomputes: int = 1) -> Figures:
    """Let visitors ask each example all the time, and its report expire three times."""
    for name in EXAMPLES:
        for tenth in range(10, 300):
            figures.call(tenth / 10, name, 0.001)
        for moment in (2.0, 7.0, 12.0):
            for number in range(recomputes):
                figures.event(moment + number / 100, LOCKED, name)
    return figures


GOOD = {
    "steady": lambda: record("steady", calm()),
    "stampede": lambda: record("stampede", stampeding(calm())),
    "app": lambda: record("app", stampeding(calm())),
    "examples": lambda: record("examples", visited(calm())),
    "node-killed": lambda: record("node-killed", out_and_back()),
    "node-stopped": lambda: record("node-stopped", out_and_back()),
    "node-added": lambda: record("node-added", calm(), moved=0.26, ideal=0.25),
    "slow-node": lambda: record("slow-node", calm()),
}


def missed(judged: Record) -> list[str]:
    """Return what was missed."""
    return [check.what for check in judge(judged) if check.held is False]


def test_every_scenario_has_its_rule():
    """None is without a verdict."""
    assert RULES.keys() == SCENARIOS.keys() == GOOD.keys()


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_good_run_holds(name):
    """A run in which all goes well has nothing missed."""
    assert missed(GOOD[name]()) == []


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("what", ["errors", "wrong", "hung"])
def test_no_scenario_bears_an_error_or_a_wrong_value(name, what):
    """One call of thousands is enough."""
    bad = GOOD[name]()
    bad.figures.count(5, OTHER, what)
    assert len(missed(bad)) == 1


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_scenario_bears_a_lost_worker(name):
    """A worker that ended early is named."""
    good = GOOD[name]()
    bad = record(name, good.figures, moved=good.moved, ideal=good.ideal, lost=["worker w1"])
    (check,) = [check for check in judge(bad) if check.held is False]
    assert (check.what, check.measured) == ("no worker lost", "worker w1")


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_run_that_was_stopped_proves_nothing(name):
    """Whatever its figures are until then."""
    good = GOOD[name]()
    bad = record(name, good.figures, moved=good.moved, ideal=good.ideal, stopped=12.3)
    assert missed(bad) == ["the run went to its end"]


def test_a_hit_rate_two_points_below_is_missed():
    """The hit rate has to be the profile's, neither less nor more."""
    for what in ("hits", "misses"):
        bad = GOOD["steady"]()
        bad.figures.count(5, OTHER, what, 150)
        assert missed(bad) == ["hit rate within 1 point of the profile's 90.0%"]


def test_a_run_that_reads_nothing_has_no_hit_rate():
    """No figures are no success."""
    assert "hit rate within 1 point of the profile's 90.0%" in missed(record("steady", Figures()))


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda figures: figures.count(5, OTHER, "not stored"), "no writes that were not stored"),
        (lambda figures: figures.event(5, "ejected", OTHER), "no nodes ejected"),
    ],
)
def test_a_steady_run_stores_everything_on_every_node(spoil, what):
    """A write that was dropped and a node left out for a moment are told."""
    bad = GOOD["steady"]()
    spoil(bad.figures)
    assert missed(bad) == [what]


@pytest.mark.parametrize("name", ["stampede", "app"])
def test_two_recomputes_at_once_are_a_stampede(name):
    """One more than one is missed; so is a value that never expired, and a crowd that is none."""
    bad = GOOD[name]()
    bad.figures.event(7.05, LOCKED)
    assert missed(bad) == ["1 recompute for each time the value was missing, with the lock"]
    once = Figures()
    once.event(2, LOCKED)
    once.event(2, BY_HAND)
    assert missed(record(name, once)) == [
        "the value was missing at least twice, and at most 8 times",
        "by hand, more than 1: there was a stampede to prevent",
    ]
    assert len(missed(record(name, Figures()))) == 3


@pytest.mark.parametrize("name", ["stampede", "app"])
def test_a_value_that_is_missing_all_the_time_is_missed(name):
    """As if it were not stored: each recompute is alone, and there are far too many."""
    bad = GOOD[name]()
    for number in range(20):
        bad.figures.event(5.5 + number, LOCKED)
    assert missed(bad) == ["the value was missing at least twice, and at most 8 times"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example_is_judged_by_itself(name):
    """Its recomputes, its failed requests, and whether there were any."""
    bad = GOOD["examples"]()
    bad.figures.event(7.05, LOCKED, name)
    assert missed(bad) == [
        f"{name}: 1 recompute for each time the value was missing, with the lock"
    ]
    failed = GOOD["examples"]()
    failed.figures.count(5, name, "errors", 2)
    assert missed(failed) == ["no errors that reached a caller", f"{name}: no request failed"]
    (row,) = [check for check in judge(failed) if check.what == f"{name}: no request failed"]
    assert row.measured == "2 of 290"


def test_examples_without_visitors_have_shown_nothing():
    """No requests, and so no expiries."""
    assert len(missed(record("examples", Figures()))) == 3 * len(EXAMPLES)


@pytest.mark.parametrize("name", ["node-killed", "node-stopped"])
def test_a_node_that_is_out_slows_no_caller(name):
    """Calls to the others and to itself, and calls that could not be made, are each judged."""
    slow = GOOD[name]()
    for _ in range(20):
        slow.figures.call(12, OTHER, 0.1)
    assert [what[:27] for what in missed(slow)] == ["p99 of calls for the other "]
    waiting = GOOD[name]()
    for _ in range(20):
        waiting.figures.call(15, TARGET, 0.1)
    assert [what[:30] for what in missed(waiting)] == ["p99 of calls for the node itse"]
    late = GOOD[name]()
    late.figures.count(12, "", "not made", 30)
    assert missed(late) == ["calls made of those that were due: at least 97%"]


@pytest.mark.parametrize("name", ["node-killed", "node-stopped"])
def test_a_node_must_be_left_out_and_asked_again(name):
    """Never ejected, never asked again, and asked again too late are all missed."""
    assert missed(record(name, calm())) == ["the node is ejected"]
    early = record(name, out_and_back())
    early.figures.events[:] = [early.figures.events[0]._replace(moment=3.0)]
    assert missed(early) == ["the node is ejected"]
    for up in (27.0, 99.0):
        late = record(name, out_and_back(up))
        assert missed(late) == ["the node serves hits within 6 s of its return"]
    assert missed(record(name, out_and_back(26.0))) == []


def test_a_slow_node_is_not_left_out_and_slows_no_other():
    """Being slow is no reason to be ejected."""
    bad = GOOD["slow-node"]()
    bad.figures.event(12, "ejected", TARGET)
    assert missed(bad) == ["no node is ejected for being slow"]
    slow = GOOD["slow-node"]()
    for _ in range(20):
        slow.figures.call(12, OTHER, 0.1)
    assert len(missed(slow)) == 1


def test_an_added_node_takes_its_share_and_no_more():
    """More than the ideal and 2 points, or nothing at all, is missed."""
    for moved, holds in ((0.25, True), (0.269, True), (0.28, False), (0.75, False), (0.0, False)):
        judged = record("node-added", calm(), moved=moved, ideal=0.25)
        assert held(judge(judged)) is holds
    unasked = record("node-added", calm(), moved=0.25, ideal=0.25, target="c:1")
    assert missed(unasked) == ["the new node is asked"]


@pytest.mark.parametrize("failover", ["next", "gutter"])
def test_with_a_failover_no_key_is_loaded_twice(failover):
    """While the node is out, its stand-in has what was loaded; before and after, others may load."""
    for moment, missing in ((15, ["no key loaded twice while its node is out"]), (5, []), (25, [])):
        judged = record("node-killed", out_and_back(), variant=Variant(failover))
        judged.figures.count(moment, TARGET, "loads again")
        assert missed(judged) == missing


def test_without_a_failover_calls_of_the_source_are_shown():
    """They are what a node that is out costs, and no verdict."""
    judged = record("node-killed", out_and_back())
    judged.figures.count(15, TARGET, "loads", 70)
    judged.figures.count(15, TARGET, "loads again", 60)
    (shown,) = (check for check in judge(judged) if check.what.startswith("calls of the source"))
    assert (shown.measured, shown.held) == ("70, 60 of them for a key that had been loaded", None)


def test_a_warm_up_keeps_the_hit_rate():
    """More than a point below that of the time before is missed; without a warm-up it is shown."""
    for more, warm_for, holds in ((1, 600.0, True), (40, 600.0, False), (40, 0.0, True)):
        variant = Variant(warm_for=warm_for)
        judged = record("node-added", calm(), moved=0.25, ideal=0.25, variant=variant)
        judged.figures.count(12, TARGET, "misses", more)
        assert held(judge(judged)) is holds


def test_a_busy_machine_measures_no_time():
    """Where this process itself woke up late before the fault, times are void, counts are not."""
    busy = GOOD["node-stopped"]()
    for tenth in range(20, 90):
        busy.figures.lag(tenth / 10, 0.05)
    for _ in range(20):
        busy.figures.call(12, OTHER, 0.1)
    busy.figures.count(5, OTHER, "errors")
    assert missed(busy) == ["no errors that reached a caller"]
    void = [check for check in judge(busy) if "void" in check.measured]
    assert len(void) == 3
    assert all(check.held is None for check in void)


def test_lateness_that_the_fault_itself_brings_does_not_void_it():
    """A hub that stands still while a node is stopped is what the verdict is there to see."""
    bad = GOOD["node-stopped"]()
    for tenth in range(100, 200):
        bad.figures.lag(tenth / 10, 0.5)
    for _ in range(20):
        bad.figures.call(12, OTHER, 0.5)
    assert len(missed(bad)) == 1


def test_an_unknown_scenario_names_those_there_are():
    """A name that is none is answered with all names."""
    with pytest.raises(ConfigurationError, match=r"no scenario 'kettle' \(known: steady, stampede"):
        scenario_named("kettle")
