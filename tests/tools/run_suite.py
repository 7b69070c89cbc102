"""Run a framework's own tests against an adapter, and return their outcomes.

The tests are in a copy outside the repository (`fetch_source.py`), with some files of ours.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

SECONDS = 300


class Outcome(NamedTuple):
    """How many tests passed, and the names of those that did not; `output` is what pytest printed."""

    passed: int
    skipped: set[str]
    failed: set[str]
    output: str


def run_suite(folder: Path, tests: str = ".", **environment: str) -> Outcome:
    """Run the tests below `folder` with pytest alone, without its plugins and our settings."""
    (folder / "pytest.ini").touch()
    report = folder / "report.xml"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--junitxml={report}",
            tests,
        ],
        cwd=folder,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    output = done.stdout + done.stderr
    if not report.exists():
        raise RuntimeError(f"pytest ran no tests:\n{output}")
    cases = ET.parse(report).findall(".//testcase")
    skipped = {_name(case) for case in cases if case.find("skipped") is not None}
    failed = {
        _name(case)
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    }
    return Outcome(len(cases) - len(skipped) - len(failed), skipped, failed, output)


def _name(case: ET.Element) -> str:
    """Return a test as `module::function` or `Class::function`."""
    return f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
