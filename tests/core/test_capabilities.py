"""Each command belongs to one set of capabilities, so that no node is asked for what it lacks."""

from __future__ import annotations

from itertools import combinations
from typing import get_args

from shardcache.core.capabilities import CAS, COMPARE, EVERYTHING, LOCKS, PLAIN, STUBS
from shardcache.core.commands import Command


def test_every_command_is_in_one_set():
    """A new command must be put into one."""
    assert frozenset(get_args(Command)) == EVERYTHING
    for one, other in combinations([PLAIN, CAS, STUBS, LOCKS, COMPARE], 2):
        assert not one & other
