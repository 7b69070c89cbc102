"""The exponent of Zipf's law, estimated from how often each key was accessed."""

from __future__ import annotations

import random
from collections import Counter
from itertools import accumulate

import pytest

from shardcache.testing.popularity import coincidence, estimate_alpha, harmonic

KEYS, ACCESSES = 2_000, 40_000


def counts_of(alpha, seed):
    """Return how often each key that was met was accessed."""
    weights = list(accumulate(rank**-alpha for rank in range(1, KEYS + 1)))
    drawn = random.Random(seed).choices(range(KEYS), cum_weights=weights, k=ACCESSES)
    return Counter(drawn).values()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("alpha", [0, 0.5, 0.9, 1.1, 1.6, 2.5])
def test_the_estimate_is_close_to_the_truth(alpha, seed):
    """From flat to steep, although only some of the keys were met."""
    assert estimate_alpha(counts_of(alpha, seed)) == pytest.approx(alpha, abs=0.05)


@pytest.mark.parametrize("counts", [[], [1], [7], [0, 0], [1, 1, 1]])
def test_without_a_pair_on_one_key_all_are_equally_popular(counts):
    """Nothing is divided by zero."""
    assert estimate_alpha(counts) == 0.0


def test_it_has_an_upper_end():
    """Nearly all accesses to one key are no reason for a number without end."""
    assert estimate_alpha([1_000_000, 1, 1]) == 5.0


@pytest.mark.parametrize("exponent", [0, 0.5, 1, 1.1, 2, 5])
@pytest.mark.parametrize("keys", [1, 100, 101, 30_000])
def test_the_sum_is_that_of_its_terms(keys, exponent):
    """To nine digits, whether the tail is added up or integrated."""
    terms = sum(rank**-exponent for rank in range(1, keys + 1))
    assert harmonic(keys, exponent) == pytest.approx(terms, rel=1e-9)


def test_two_accesses_meet_the_same_key_more_often_the_steeper_it_is():
    """From one in so many to nearly always: so the estimate has one solution."""
    chances = [coincidence(KEYS, alpha / 10) for alpha in range(51)]
    assert chances[0] == pytest.approx(1 / KEYS)
    assert chances == sorted(set(chances))
