"""The runner of Django's own tests loses none of them in silence."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parent / "django_suite" / "run.py"


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch):
    """Return the runner, with a named exception, a named skip and two tests that pass."""
    spec = importlib.util.spec_from_file_location("django_suite_run", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "NAMED", {"Tests.test_named": "a reason"})
    monkeypatch.setattr(module, "SKIPPED", {"Tests.test_cull": "a reason"})
    monkeypatch.setattr(module, "PASSED", {"5.2": 2})
    return module


def outcome(suite, **changed):
    """Return the outcome of a good run, with some parts changed."""
    parts = {
        "servers": "mixed",
        "calls": "sync",
        "seconds": 1.0,
        "passed": ["Tests.test_a", "Tests.test_b"],
        "failed": {"Tests.test_named": "AssertionError"},
        "skipped": {"Tests.test_cull": "no culling"},
        "output": "",
        "unused": [],
    }
    return suite.Outcome(**{**parts, **changed})


def test_a_good_run_prints_its_counts(suite, capsys):
    """With the reason of each named exception."""
    assert suite.report("5.2.9", outcome(suite)) is True
    assert capsys.readouterr().out == (
        "django 5.2.9 over mixed, sync: 2 passed, 1 skipped, 1 named exceptions (1 s)\n"
        "  Tests.test_named: a reason\n"
    )


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"failed": {"Tests.test_a": "AssertionError"}}, "Tests.test_a failed:\nAssertionError"),
        ({"skipped": {"Tests.test_b": "no reason"}}, "Tests.test_b was skipped: no reason"),
        ({"passed": ["Tests.test_a", "Tests.test_named"]}, "Tests.test_named passed"),
        ({"passed": ["Tests.test_a"]}, "1 tests passed, not 2"),
        ({"passed": [], "output": "ImportError"}, "no test ran:\nImportError"),
        ({"unused": ["127.0.0.1:1"]}, "node 127.0.0.1:1 was not used"),
    ],
)
def test_what_is_not_as_it_should_be_is_a_fault(suite, capsys, changed, fault):
    """It is printed, and fails the run."""
    assert suite.report("5.2.9", outcome(suite, **changed)) is False
    assert f"FAULT {fault}" in capsys.readouterr().out
