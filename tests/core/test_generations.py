"""Which generation is the current one, whatever some nodes answer or leave unanswered."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.core.generations import (
    FIRST,
    current_generation,
    is_decided,
    next_generation,
    parse_generation,
)
from shardcache.core.leases import quorum
from shardcache.core.values.flags import MARK_FLAGS, RAW_FLAGS

WALL = 1_700_000_000.0
DAY = 24 * 3600.0
NAMES = ["1", "2", "3"]
# A number of nodes, always odd, and the answers of some of them.
POLLS = st.sampled_from([1, 3, 5]).flatmap(
    lambda nodes: st.tuples(
        st.just(nodes), st.lists(st.sampled_from([FIRST, *NAMES]), max_size=nodes)
    )
)


def began(wall, chance=0):
    """Return the name of a generation that began at a time of day."""
    return next_generation([FIRST], [], wall, chance.to_bytes(2, "big"))


def stored(name, flags=MARK_FLAGS):
    """Return the payload in which a node keeps a generation."""
    return flags, name.encode()


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (stored(began(WALL)), began(WALL)),
        (stored(began(WALL + DAY)), began(WALL + DAY)),
        (stored(began(WALL + DAY + 0.001)), FIRST),
        (stored("f" * 16), FIRST),
        (stored(began(WALL), RAW_FLAGS), FIRST),
        (stored(began(WALL).upper()), FIRST),
        (stored(began(WALL)[1:]), FIRST),
        (stored(began(WALL) + "0"), FIRST),
        (stored(began(WALL) + "\n"), FIRST),
        (stored(""), FIRST),
        (None, FIRST),
    ],
)
def test_impossible_names_are_no_generation(payload, name):
    """What is no name, and what is more than a day ahead of this process's clock."""
    assert parse_generation(payload, WALL) == name


@given(POLLS)
def test_the_current_generation_is_the_newest_that_a_majority_may_have(poll):
    """If the silent nodes have it too."""
    nodes, answers = poll
    silent = nodes - len(answers)
    held = [
        name
        for name in answers
        if sum(other >= name for other in answers) + silent >= quorum(nodes)
    ]
    assert current_generation(answers, nodes) == max(held, default=FIRST)


@given(POLLS)
def test_it_is_decided_when_the_silent_nodes_cannot_change_it(poll):
    """Whatever they have, also a generation newer than all that is known."""
    nodes, answers = poll
    silent = nodes - len(answers)
    possible = {
        current_generation([*answers, *rest], nodes)
        for rest in product([FIRST, *NAMES, "4"], repeat=silent)
    }
    assert is_decided(answers, nodes) == (len(possible) == 1)


KNOWN = st.lists(st.just(FIRST) | st.floats(0, WALL + DAY).map(began), min_size=1, max_size=4)


@given(KNOWN, KNOWN, st.floats(0, 2 * WALL), st.binary(min_size=2, max_size=2))
def test_the_next_generation_is_after_all_others(known, answers, wall, chance):
    """After all that are known and all plausible answers, and not before its own beginning."""
    name = next_generation(known, answers, wall, chance)
    plausible = [each for each in answers if each <= began(wall + DAY / 2)]
    assert all(name > each for each in [*known, *plausible])
    assert name[:12] >= began(wall)[:12]
    assert len(name) == 16
    assert parse_generation(stored(name), wall + 3 * WALL) == name


def test_a_planted_answer_is_not_followed():
    """One that is far ahead would take the next generation beyond what others accept."""
    planted, late = began(WALL + DAY), began(WALL + DAY / 2)
    assert next_generation([FIRST], [planted], WALL, bytes(2)) == began(WALL)
    assert next_generation([FIRST], [late], WALL, bytes(2)) == f"{int(late, 16) + 1:016x}"
    assert next_generation([planted], [], WALL, bytes(2)) > planted


def test_chance_tells_generations_of_one_moment_apart():
    """By two bytes; any further ones are left out."""
    assert began(WALL, 7) != began(WALL, 8)
    assert next_generation([FIRST], [], WALL, b"\x00\x07\xff") == began(WALL, 7)
