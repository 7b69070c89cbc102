"""The rig for faults: what it tells from values, and that its rows go red without their rules."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from faults import crippling
from faults.calls import Book
from faults.chaos import Chaos
from faults.crippling import RULES
from faults.findings import at_least, at_most, none, shown, within
from faults.lag import Lag
from faults.players import Worker
from faults.playing import Played, Turn
from faults.rows import ROWS, Guard
from faults.stage import THREADS
from faults.usage import Usage, growth
from faults.values import Step, Traffic, Truth, Wrong, value_of
from shardcache import NodeTimeoutError

LOADTESTS = Path(__file__).parents[2] / "loadtests"


@pytest.fixture
def truth():
    """Return what is known of ten keys, of which each of two workers writes five."""
    return Truth(keys=10, writers=2)


def read(book, value):
    """Read key 3, which gives `value`; return what came of it."""
    return outcome_of(book, "get", value)


def write(book, *, kind="set", stored=True):
    """Write key 3; return what came of it."""
    return outcome_of(book, kind, stored)


def outcome_of(book, kind, answer):
    """Make one call that gives `answer`; return what came of it."""
    with book.begin(Step(kind, 3)) as turn:
        turn.answer = answer
    return book.calls[-1].outcome


def book_of(truth, **options):
    """Return the book of a worker whose keys are all on one node."""
    return Book(truth, [0] * truth.keys, **options)


class TestValues:
    """What a reader can tell from a value."""

    def test_a_value_of_another_key_is_mixed_up(self, truth):
        """A whole value under another key is another user's."""
        assert truth.judge(3, 0, value_of(4, 0, 1)) is Wrong.MIXED

    @pytest.mark.parametrize(
        "value",
        [value_of(3, 1, 7)[:-1], value_of(3, 1, 7) + "x", value_of(3, 1, 7)[5:], "", 7, b"x"],
        ids=repr,
    )
    def test_a_part_of_a_value_is_torn(self, truth, value):
        """Whatever is not exactly what a writer makes is torn."""
        assert truth.judge(3, 0, value) is Wrong.TORN

    def test_a_value_from_before_an_acknowledged_write_is_older(self, truth):
        """A read must find what was acknowledged before it began, or newer."""
        book = book_of(truth)
        assert write(book) == "set done"
        assert write(book) == "set done"
        assert read(book, value_of(3, 1, 1)) == Wrong.OLDER
        assert read(book, value_of(3, 1, 2)) == "hit"
        assert read(book, value_of(3, 1, 3)) == "hit"

    def test_a_write_that_was_not_acknowledged_makes_nothing_older(self, truth):
        """Its value may be there or not."""
        book = book_of(truth)
        write(book)
        assert write(book, stored=False) == "set not done"
        assert read(book, value_of(3, 1, 1)) == "hit"
        assert read(book, value_of(3, 1, 2)) == "hit"

    def test_after_an_acknowledged_delete_all_before_is_older(self, truth):
        """Also a write that had timed out."""
        book = book_of(truth)
        write(book, stored=False)
        assert write(book, kind="delete") == "delete done"
        assert read(book, value_of(3, 1, 1)) == Wrong.OLDER
        assert read(book, None) == "miss"

    def test_a_read_is_judged_by_what_was_acknowledged_before_it_began(self, truth):
        """A write that is acknowledged meanwhile asks nothing of it."""
        book = book_of(truth)
        write(book)
        with book.begin(Step("get", 3)) as turn:
            write(book)
            turn.answer = value_of(3, 1, 1)
        assert book.calls[-1].outcome == "hit"

    def test_traffic_writes_only_its_own_keys(self, truth):
        """Nine in ten calls read any key."""
        traffic = Traffic(truth, worker=1, seed=5)
        steps = [traffic.next() for _ in range(2000)]
        written = {step.number for step in steps if step.kind != "get"}
        assert written == {1, 3, 5, 7, 9}
        assert 0.87 < sum(step.kind == "get" for step in steps) / len(steps) < 0.93


class TestErrors:
    """Which exceptions are documented."""

    @pytest.mark.parametrize(
        ("raises", "error", "leaked"),
        [
            (True, NodeTimeoutError("late"), 0),
            (False, NodeTimeoutError("late"), 1),
            (True, KeyError("late"), 1),
            (False, RecursionError(), 1),
        ],
    )
    def test_only_those_of_nodes_and_only_when_they_were_asked_for(
        self, truth, raises, error, leaked
    ):
        """Under `on_error="miss"` every exception is a leak."""
        book = book_of(truth, raises=raises)
        with book.begin(Step("get", 1)):
            raise error
        assert book.tally["leaked"] == leaked

    def test_what_is_no_error_goes_on(self, truth):
        """A call that is interrupted or cancelled is nobody's figure."""
        book = book_of(truth)
        with pytest.raises(KeyboardInterrupt), book.begin(Step("get", 1)):
            raise KeyboardInterrupt
        assert not book.calls


class TestVerdicts:
    """When a row held, when it missed, and when it says nothing."""

    @staticmethod
    def played(*findings, lag=0.0, error=None):
        """Return a row with these findings."""
        turn = Turn(ROWS[0], THREADS, "memcached")
        return Played(turn, findings, error, Lag(0.0, lag), 1, 1.0)

    def test_a_missed_time_is_void_on_a_busy_machine(self):
        """More than 20 ms of lag explain it, whoever measured them."""
        late = within("p99", 0.2, 0.1)
        assert self.played(late).verdict == "MISSED"
        assert self.played(late, lag=0.03).verdict == "VOID"

    def test_so_is_a_time_that_held(self):
        """It is played again as well."""
        assert self.played(within("p99", 0.05, 0.1), lag=0.03).verdict == "VOID"

    def test_a_count_is_never_void(self):
        """A wrong value is wrong on any machine."""
        wrong = none("torn", 1)
        assert self.played(wrong, lag=0.03).verdict == "MISSED"
        assert self.played(within("p99", 0.05, 0.1), wrong, lag=0.03).verdict == "MISSED"
        assert self.played(none("torn", 0), lag=0.03).verdict == "held"

    def test_seconds_are_never_void(self):
        """No lag of milliseconds explains them."""
        assert self.played(within("back", 7.0, 6.0), lag=0.03).verdict == "MISSED"

    def test_what_never_happened_is_missed(self):
        """Whatever the limit."""
        assert not within("back", None, 6.0).held

    def test_a_row_that_failed_is_missed(self):
        """Whatever it had found before."""
        assert self.played(none("torn", 0), error="it broke").verdict == "MISSED"

    def test_limits_belong_to_what_holds(self):
        """Both ways."""
        assert at_most("opens", 6, 6).held
        assert not at_most("opens", 7, 6).held
        assert at_least("hits", 50, 50, "%").held
        assert not at_least("hits", 49.9, 50, "%").held
        assert shown("calls", "7").verdict == "shown"


class TestGuards:
    """Rows without the rules that they guard: they must miss."""

    @staticmethod
    def verdict(*findings, lag=0.0, error=None):
        """Return the verdict on a row without a rule, which must miss the figure `back`."""
        turn = Turn(ROWS[0], THREADS, "memcached", Guard("return", "back", THREADS))
        played = Played(turn, findings, error, Lag(0.0, lag), 1, 1.0)
        assert played.good is (played.verdict == "misses")
        return played.verdict

    def test_the_figure_must_be_missed(self):
        """A row that holds without its rule says nothing."""
        assert self.verdict(within("back", None, 6.0)) == "misses"
        assert self.verdict(within("back", 1.0, 6.0)) == "HOLDS"

    def test_another_figure_that_is_missed_shows_nothing(self):
        """Nor does an error that ended the row."""
        held = within("back", 1.0, 6.0)
        assert self.verdict(held, none("torn", 1)) == "HOLDS"
        assert self.verdict(error="it broke") == "HOLDS"

    def test_a_time_is_void_on_a_busy_machine(self):
        """That it is missed as well."""
        assert self.verdict(within("back", 0.2, 0.1), lag=0.03) == "VOID"
        assert self.verdict(none("back", 1), within("p99", 0.2, 0.1), lag=0.03) == "misses"

    def test_each_rule_is_guarded_by_a_row(self):
        """But for the one whose effect is rare."""
        guarded = {guard.rule for row in ROWS for guard in row.guards}
        assert guarded == set(RULES) - {"quarantine"}

    def test_what_is_switched_off_is_there(self):
        """A name that has moved would be set where no call looks, and the row would hold."""
        tree = ast.parse(Path(crippling.__file__).read_text(encoding="utf-8"))
        replaced = {
            ast.unparse(target)
            for each in ast.walk(tree)
            if isinstance(each, ast.Assign)
            for whole in each.targets
            for target in (whole.elts if isinstance(whole, ast.Tuple) else [whole])
            if isinstance(target, ast.Attribute)
        }
        names = {name for name in replaced if name.partition(".")[0] in vars(crippling)}
        assert len(names) > 30
        for name in names:
            owner, _, attribute = name.rpartition(".")
            assert hasattr(eval(owner, vars(crippling)), attribute), name

    def test_the_page_names_the_rows_of_each_rule(self):
        """And has a line for each rule."""
        page = (LOADTESTS / "README.md").read_text(encoding="utf-8")
        table = page.partition("| `--without` |")[2].partition("\n\n")[0]
        lines = re.findall(r"^\| `([a-z-]+)` \|.*\| (.*) \|$", table, re.MULTILINE)
        assert {rule for rule, _ in lines} == set(RULES)
        for rule, rows in lines:
            guards = {row.name for row in ROWS for guard in row.guards if guard.rule == rule}
            assert rule == "quarantine" or set(rows.split(", ")) == guards

    @pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.name}: {row.fault}")
    def test_a_guard_is_played_as_the_row_is(self, row):
        """By one of its crews, on servers of its kinds, in its short form only if it has one."""
        for guard in row.guards:
            assert guard.crew in row.crews
            assert guard.kind in row.kinds
            assert row.quick or not guard.quick


def test_a_worker_that_fails_is_no_silence():
    """Who calls no more would find no fault."""

    def fail():
        raise LookupError("no such key")

    with pytest.raises(LookupError, match="no such key"):
        Worker(fail).end()


def test_growth_is_the_slope_of_all_samples():
    """One MiB in ten seconds is six a minute."""
    samples = [Usage(at, 0.0, 0, 0, 0, 50 + at / 10) for at in range(30)]
    assert growth(samples) == pytest.approx(6.0)


def test_chaos_is_drawn_by_its_seed_and_ends_with_its_block():
    """One seed plants the same faults in the same order; none goes on after the block."""

    def planted(seed):
        order = []

        def plant(name):
            return lambda chance, wait: (order.append((name, chance.random())), wait(0.001))

        with Chaos({name: [plant(name)] for name in "abc"}, seed, (0.0, 0.001)):
            deadline = time.monotonic() + 20
            while len(order) < 10 and time.monotonic() < deadline:
                time.sleep(0.001)
        return order[:10]

    assert planted(7) == planted(7) != planted(8)


def test_what_goes_wrong_in_chaos_is_raised():
    """A fault that could not be planted would make a soak look well."""

    def fail(_chance: Random, _wait: object) -> None:
        raise OSError("no server")

    with (
        pytest.raises(OSError, match="no server"),
        Chaos({"fail": [fail]}, 1, (0.0, 0.0)) as chaos,
    ):
        chaos._thread.join(20)


class TestCommand:
    """What the command can be told."""

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["A3"], "no row A3 (known: A1, A2,"),
            (["A1", "--quick"], "nothing of that can be played"),
            (["A1", "--client", "fibres"], "nothing of that can be played"),
            (["A1", "--without", "luck"], "invalid choice: 'luck'"),
            (["A1", "--jobs", "2"], "add --quick"),
            (["A2", "--rules"], "nothing of that can be played"),
            (["soak", "--seed", "x"], "invalid int value"),
        ],
        ids=repr,
    )
    def test_what_cannot_be_is_refused(self, words, says):
        """The status is 2, and the message says what is known."""
        done = run(*words)
        assert done.returncode == 2
        assert says in done.stderr


def run(*words):
    """Run the command."""
    return subprocess.run(
        [sys.executable, "-m", "faults", *words],
        cwd=LOADTESTS,
        env={**os.environ, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.mark.servers
@pytest.mark.slow
class TestRows:
    """A row on real servers, with its rule and without; `tox -e faults-quick` plays many."""

    @pytest.fixture
    def play(self, tmp_path):
        """Return a function that plays rows; it returns the exit status and the verdicts."""

        def played(*words):
            file = tmp_path / "figures.json"
            done = run(*words, "--quick", "--json", str(file))
            assert file.exists(), done.stderr + done.stdout
            rows = json.loads(file.read_text())
            return done.returncode, [row["verdict"] for row in rows], done.stdout

        return played

    def test_it_holds(self, play):
        """On two kinds of servers at a time."""
        status, verdicts, _ = play("C5", "--jobs", "2")
        assert (status, verdicts) == (0, ["held", "held"])

    def test_without_its_rule_it_misses(self, play):
        """Then the status is that of a fault."""
        status, verdicts, table = play("C5", "--without", "closed-loops")
        assert (status, verdicts) == (1, ["MISSED", "MISSED"])
        assert "exit status" in table

    def test_the_rule_is_switched_off_for_it(self, play):
        """Then the miss is what was asked for."""
        status, verdicts, table = play("C5", "--rules")
        assert (status, verdicts) == (0, ["misses"])
        assert "closed-loops" in table


@pytest.mark.servers
@pytest.mark.slow
def test_a_soak_ends_in_time_and_counts_what_is_wrong(tmp_path):
    """Faults are planted, nobody reads a wrong value, and the figures are written."""
    file = tmp_path / "soak.json"
    done = run("soak", "--seconds", "12", "--seed", "2", "--json", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    lived = json.loads(file.read_text())
    assert sum(lived["planted"].values()) > 1
    asked = [f for each in lived["findings"].values() for f in each if f["asked"]]
    assert [finding["measured"] for finding in asked] == ["0"] * 8
