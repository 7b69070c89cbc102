"""A lock as its provider is asked for it."""

from __future__ import annotations

import pytest

from shardcache.core.lock_providers import LockScope, NamedLock


@pytest.mark.parametrize(
    ("name", "shown"), [(b"report", "'report'"), (b"\xff\n", r"'\\xff\n'"), ("ü".encode(), "'ü'")]
)
def test_a_name_is_quoted_on_one_line(name, shown):
    """Any bytes may be a name, and an error is one line of text."""
    assert NamedLock(name, LockScope.CALLER, None, name).shown == shown
