"""A thread is at work nearly always, so that a signal is most likely to come while it is."""

import threading
import time

from locust import events


def _work():
    while True:
        until = time.perf_counter() + 0.02
        while time.perf_counter() < until:
            pass
        time.sleep(0.0001)


@events.test_start.add_listener
def _start(**_):
    for _number in range(3):
        threading.Thread(target=_work, daemon=True).start()
