"""No bytes of a stranger do more harm than an error that is documented, in bounded time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from fuzz.inputs import INPUTS
from fuzz.targets import TARGETS

CORPUS = Path(__file__).with_name("corpus")
EXAMPLES = 200  # of each target; `tox -e fuzz` runs for longer
FILES = sorted(CORPUS.glob("*/*.bin"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_corpus(path):
    """What once failed, and what is known to be worst, does no harm."""
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_a_short_run(name):
    """Nor do a few inputs by chance."""

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(INPUTS[name])
    def run(data):
        TARGETS[name](data)

    run()


def test_every_target_has_inputs_and_a_corpus():
    """A new target has both."""
    assert set(TARGETS) == set(INPUTS) == {path.parent.name for path in FILES}


def test_the_long_run(tmp_path):
    """`tox -e fuzz` runs each target for as long as it is told."""
    run = Path(__file__).with_name("run.py")
    done = subprocess.run(
        [sys.executable, run, "--seconds", "0.1", "arguments"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "arguments: " in done.stdout
