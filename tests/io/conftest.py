"""The fixture of all tests of the ports."""

from __future__ import annotations

import threading
import time

import pytest


@pytest.fixture(autouse=True)
def no_threads_left():
    """Fail a test that leaves threads behind."""
    before = threading.active_count()
    yield
    end = time.monotonic() + 5.0
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() <= before
