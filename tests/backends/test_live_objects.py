"""Live objects are counted right, whatever the garbage collector does meanwhile."""

from __future__ import annotations

import gc

from shardcache.backends.live_objects import LiveObjects


class Counted:
    """An object that can be counted."""


class Cycle:
    """Holds a counted object, in a cycle: when the collector finds it, that one counts no more."""

    def __init__(self, live):
        self.itself = self
        self.live = live
        self.counted = Counted()
        live.add(self.counted)

    def __del__(self):
        self.live.discard(self.counted)


def test_garbage_is_collected_while_objects_are_listed():
    """The collector may then change what is listed: with pairs, Python 3.11 raises."""
    live = LiveObjects()
    held = [Counted() for _ in range(200)]
    for each in held:
        live.add(each)
    before = gc.get_threshold()
    gc.freeze()  # what other tests have left would take the collector seconds
    try:
        for _ in range(20):
            gc.disable()
            gc.collect()  # so that the next one comes while the list is made
            for _ in range(3):
                Cycle(live)
            gc.set_threshold(gc.get_count()[0] + 50)
            gc.enable()
            live.remove_dead()
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
        gc.enable()
    gc.collect()
    assert live.count() == live.count_with_dead() == len(held)
