"""`-m "not servers"` runs the tests that need no server, on a machine that has none."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Each starts pytest, which imports Hypothesis and much else.
pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[1]
SETTINGS = """\
[pytest]
pythonpath = {tests}
addopts = --import-mode=importlib --strict-markers -p no:cacheprovider -p no:xdist
markers =
    servers: starts a server
"""
EXAMPLES = """\
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from shardcache.testing.servers import start_memcached

@pytest.fixture
def urls(redis_servers):
    return redis_servers

@pytest.fixture(params=["memory", "memcached"])
def by_name(request):
    return request.param == "memory" or request.getfixturevalue(f"{request.param}_servers")

def test_plain(): pass
def test_asks(make_memcached): make_memcached()
def test_asks_through_another(urls): assert urls
def test_asks_by_name(by_name): assert by_name
def test_starts_one_itself(): start_memcached().stop()

@given(st.integers())
def test_property(number): print("property tried")

class Machine(RuleBasedStateMachine):
    @rule()
    def step(self): print("machine stepped")

TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=200, stateful_step_count=1, deadline=None)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return what runs tests below our `conftest.py`, and returns all that pytest printed."""
    directory = tmp_path_factory.mktemp("marked")
    (directory / "pytest.ini").write_text(SETTINGS.format(tests=TESTS))
    shutil.copy(TESTS / "conftest.py", directory)
    (directory / "test_examples.py").write_text(EXAMPLES)

    def run(*arguments, **environment):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *arguments],
            cwd=directory,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    return run


def test_what_starts_servers_is_left_out(run):
    """By the fixtures it depends on, by those it asks for, or as a failure that says why."""
    output = run("-v", "-m", "not servers", "-k", "plain or ask or starts", PATH="")
    outcomes = dict(re.findall(r"::test_(\S+) (PASSED|FAILED|SKIPPED)", output))
    assert outcomes == {
        "plain": "PASSED",
        "asks_by_name[memory]": "PASSED",
        "asks_by_name[memcached]": "SKIPPED",
        "starts_one_itself": "FAILED",
    }
    assert "starts memcached, but is not marked `servers`" in output


def test_what_starts_servers_is_selected(run):
    """`-m servers` is the other half."""
    output = run("-m", "servers", "--collect-only", "-q")
    assert re.findall(r"::test_(\S+)", output) == ["asks", "asks_through_another"]


@pytest.mark.parametrize(
    ("arguments", "environment", "properties", "steps"),
    [
        ((), {}, 100, 200),
        (("--hypothesis-profile", "dev"), {}, 10, 20),
        ((), {"HYPOTHESIS_PROFILE": "dev"}, 10, 20),
    ],
    ids=["default", "option", "environment"],
)
def test_a_profile_says_how_many_examples_are_tried(run, arguments, environment, properties, steps):
    """State machines state numbers of their own, and are scaled with the others."""
    output = run("-s", "-k", "property or Machine", *arguments, **environment)
    assert output.count("property tried") == properties
    assert output.count("machine stepped") == steps


def test_a_part_of_our_own_runs_without_servers():
    """The contract of all backends, of which some need servers: as a user without servers runs it."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [
            *command,
            "-m",
            "not servers and not slow",
            "-k",
            "delete",
            "tests/backends/test_contract.py",
        ],
        cwd=TESTS.parent,
        env={**os.environ, "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"[1-9]\d* passed, [1-9]\d* deselected", done.stdout)
