"""The contract of lock providers shows their author what a provider raises, although no caller sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import lock_service

TESTS = """
import pytest
from lock_service import TellingService, running
from shardcache.testing.locks import LockProviderContract

class TestFailing(LockProviderContract):
    @pytest.fixture
    def settings(self):
        service = TellingService()
        service.failing = {%r}
        with running(service) as url:
            yield {"locks": url}
"""

TEST = "each_name_is_a_lock_of_its_own"  # one that takes locks and releases them, without a wait


@pytest.mark.parametrize("call", ["remaining", "end", "release", "close"])
def test_an_error_that_the_client_hides_fails_the_contract(tmp_path, call):
    """With the provider's own traceback."""
    path = tmp_path / "test_failing.py"
    path.write_text(TESTS % call, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", TEST, path],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": str(Path(lock_service.__file__).parent),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert f"the provider raised in {call}, which its protocol does not know" in done.stdout
    assert f"no space left for {call}" in done.stdout
