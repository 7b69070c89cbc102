"""Each command belongs to one set of capabilities, so that no node is asked for what it lacks."""

from __future__ import annotations

from itertools import combinations
from typing import get_args

from shardcache.core.capabilities import (
    AGES,
    CAS,
    COMPARE,
    DATES,
    EVERYTHING,
    KEEPING,
    LISTS,
    LOCKS,
    PLAIN,
    STUBS,
    Trait,
    commands_with,
)
from shardcache.core.commands import (
    Cas,
    CasKeep,
    Command,
    Get,
    GetMany,
    Incr,
    IncrSigned,
    Set,
    SetMany,
    Touch,
)

SETS = (PLAIN, CAS, STUBS, LOCKS, COMPARE, AGES, KEEPING, LISTS, DATES)


def test_every_command_is_in_one_set():
    """A new command must be put into one."""
    assert frozenset(get_args(Command)) == EVERYTHING
    for one, other in combinations(SETS, 2):
        assert not one & other


def test_traits_select_commands():
    """All that are asked for, and none of those that are not wanted."""
    assert commands_with(Trait.NONE) == EVERYTHING
    assert commands_with(Trait.READS, without=Trait.LOOKS) == {Get, GetMany}
    assert commands_with(Trait.WRITES | Trait.CHANGES) == {Touch, Incr, IncrSigned}


def test_what_may_be_sent_again_does_no_harm():
    """Neither a count, nor a store that may replace something newer."""
    assert not commands_with(Trait.IDEMPOTENT) & {Set, SetMany, Cas, CasKeep, Incr, IncrSigned}
