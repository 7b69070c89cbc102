"""The random numbers of the ports."""

from __future__ import annotations

import os
import random

import pytest

from shardcache.io.asyncio import AsyncIO
from shardcache.io.blocking import BlockingIO


@pytest.mark.parametrize("port", [BlockingIO, AsyncIO])
def test_the_program_s_own_numbers_stay_as_it_seeded_them(port):
    """A prober draws at any moment: a seeded program or test must not notice."""
    before = random.getstate()
    assert len({port.random() for _ in range(100)}) == 100
    assert random.getstate() == before


def test_forked_children_draw_numbers_of_their_own():
    """Otherwise all workers would probe a node at the same moment."""
    drawn = set()
    for _ in range(3):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.write(writing, str(BlockingIO.random()).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            drawn.add(pipe.read())
        assert os.waitpid(child, 0)[1] == 0
    assert len(drawn) == 3
