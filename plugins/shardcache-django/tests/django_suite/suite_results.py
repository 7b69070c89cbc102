"""A runner of Django's tests that writes which of them passed, failed and were skipped."""

from __future__ import annotations

import json
import os
import unittest
from pathlib import Path
from typing import Any

from django.test.runner import DiscoverRunner


def name_of(test: unittest.TestCase) -> str:
    """Return the class and the method of a test, also of one of its parts."""
    whole = getattr(test, "test_case", test)
    return ".".join(whole.id().split(".")[-2:])


class Result(unittest.TextTestResult):
    """A result that keeps the names of the tests that passed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.passed: list[str] = []

    def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802 - unittest's name
        """Keep the name."""
        super().addSuccess(test)
        self.passed.append(name_of(test))


class Runner(DiscoverRunner):
    """Django's own runner."""

    def get_resultclass(self) -> type[Result]:
        """Return the class that keeps the names."""
        return Result

    def suite_result(self, suite: Any, result: Result, **kwargs: Any) -> Any:
        """Write the names."""
        told = {
            "passed": result.passed,
            "failed": {name_of(test): text for test, text in result.failures + result.errors},
            "skipped": {name_of(test): reason for test, reason in result.skipped},
        }
        Path(os.environ["SUITE_RESULTS"]).write_text(json.dumps(told), encoding="utf-8")
        return super().suite_result(suite, result, **kwargs)
