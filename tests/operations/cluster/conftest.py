"""The fixture of the tests of a cluster."""

from __future__ import annotations

import pytest

from operations.harness import Harness, closing


@pytest.fixture
def make_harness():
    """Return a maker of harnesses, in which nothing goes on at the end."""
    yield from closing(Harness)
