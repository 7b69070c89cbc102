"""Observers that call the client they observe, and observers that are coroutines."""

from __future__ import annotations

import asyncio
import warnings

import pytest

from shardcache import AsyncClient, Client, ConfigurationError, Observer
from shardcache.testing.driving import MODES, make_client


class Curious(Observer):
    """Notes each call, and calls a client meanwhile."""

    def __init__(self):
        self.client = None
        self.events = []

    def call_finished(self, event):
        """Note it, and ask the client once more."""
        self.events.append(event.command)
        if self.client is not None:
            self.client.get("other")


def test_an_observer_is_not_told_of_its_own_calls():
    """One call is one event, whatever the observer calls meanwhile."""
    observer = Curious()
    client = Client("memory://a", observers=[observer])
    observer.client = client
    client.set("k", 1)
    client.get("k")
    assert observer.events == ["set", "get"]
    assert client.observer_errors == 0


def test_observers_of_two_clients_do_not_call_each_other_for_ever():
    """Each client's call is told once."""
    observers = Curious(), Curious()
    clients = [Client("memory://a", observers=[observer]) for observer in observers]
    observers[0].client, observers[1].client = clients[1], clients[0]
    clients[0].get("k")
    assert [observer.events for observer in observers] == [["get"], ["get"]]


def test_an_observer_that_raises_hears_of_the_next_call():
    """What an observer raises leaves nothing behind that would keep it from hearing."""

    class Broken(Curious):
        def call_finished(self, event):
            super().call_finished(event)
            raise RuntimeError

    observer = Broken()
    client = Client("memory://a", observers=[observer])
    observer.client = client
    client.get("k")
    client.get("k")
    assert observer.events == ["get", "get"]
    assert client.observer_errors == 2


async def test_calls_of_a_task_that_an_observer_starts_are_reported():
    """The task is no part of the observer."""
    tasks = []

    class Starting(Curious):
        def call_finished(self, event):
            self.events.append(event.command)
            if event.command == "set":
                tasks.append(asyncio.get_running_loop().create_task(client.get("other")))

    observer = Starting()
    async with AsyncClient("memory://a", observers=[observer]) as client:
        await client.set("k", 1)
        await asyncio.gather(*tasks)
    assert observer.events == ["set", "get"]


@pytest.mark.parametrize("mode", MODES)
def test_an_observer_with_an_async_method_is_refused(mode):
    """It would never be awaited; the error names the method."""

    class Awaited:
        async def call_finished(self, event):
            """Never run."""

        async def node_failed(self, event):
            """Never run."""

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConfigurationError, match=r"Awaited\.call_finished is async") as raised:
            make_client(mode, "memory://a", observers=[Awaited()])
    assert len(raised.value.faults) == 2
