"""Live objects are counted right, whatever the garbage collector does meanwhile."""

from __future__ import annotations

import gc

from shardcache.backends.transport.pool import LiveObjects, Slot


class Mortal:
    """Holds a place, in a cycle: the collector finds it, and its place counts no more."""

    def __init__(self, living):
        self.itself = self
        self.living = living
        self.place = Slot()
        living.add(self.place)

    def __del__(self):
        self.living.discard(self.place)


def test_garbage_collected_while_the_living_are_listed():
    """What the collector finds then may change what is listed: with pairs, Python 3.11 raises."""
    living = LiveObjects()
    held = [Slot() for _ in range(200)]
    for place in held:
        living.add(place)
    before = gc.get_threshold()
    try:
        for _ in range(20):
            gc.disable()
            gc.collect()  # so that the next one comes while the list is made
            for _ in range(3):
                Mortal(living)
            gc.set_threshold(gc.get_count()[0] + 50)
            gc.enable()
            living.remove_dead()
    finally:
        gc.set_threshold(*before)
        gc.enable()
    gc.collect()
    assert living.count() == living.count_with_dead() == len(held)
