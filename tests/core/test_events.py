"""Events reach the observers that listen for them, and nothing that an observer does breaks a call."""

from __future__ import annotations

import contextvars
from typing import get_args

import pytest

from shardcache import Client, ConfigurationError, DecodeError, Node, NodeUnavailableError, Observer
from shardcache.core.events import (
    METHODS,
    CallDetoured,
    CallFinished,
    ClientCreated,
    ComputeFinished,
    DecodeFailed,
    DeletesOverflowed,
    DeletesReplayed,
    Event,
    KeysAccessed,
    LeaseLost,
    LockProviderFailed,
    NodeEjected,
    NodeFailed,
    NodeRestored,
    Observers,
    OldNodesRead,
    OperationFinished,
    ShadowCompared,
    StaleServed,
    StampedePrevented,
    TopologyChanged,
    WarmUpEnded,
    _notifications,
    check_observers,
)
from shardcache.core.placement.topology import Topology, TopologyChange
from shardcache.strategies.jump import Jump

NODE = Node("memory://a")
REFUSED = NodeUnavailableError("refused")
TOPOLOGY = Topology([NODE], Jump())
EVENTS = [
    CallFinished("get", NODE, 0.001),
    OperationFinished("get", 1, 1, 0.001),
    KeysAccessed("get", NODE, [b"k"], [1]),
    NodeFailed(NODE, REFUSED, swallowed=True),
    DecodeFailed(NODE, b"k", DecodeError("not JSON")),
    NodeEjected(NODE, REFUSED),
    NodeRestored(NODE, 1.0),
    DeletesReplayed(NODE, 3, flushed=False),
    DeletesOverflowed(NODE, 10_000),
    CallDetoured("get", NODE, Node("memory://b"), 1),
    ComputeFinished(b"k", 0.1, None, stored=True),
    StampedePrevented(b"k", "joined", 0.1),
    StaleServed(b"k"),
    LeaseLost(b"report", 2.0),
    LockProviderFailed(b"report", "release", OSError()),
    ShadowCompared(b"k", "differs", NODE, NODE),
    TopologyChanged(TopologyChange(TOPOLOGY, TOPOLOGY)),
    OldNodesRead(3, 2, 1),
    WarmUpEnded(3, 2, 1),
    ClientCreated(Client("memory://a")),
]


class Listener:
    """An observer of ejections and failures, which keeps what it heard."""

    def __init__(self):
        self.heard = []

    def node_ejected(self, event):
        """Keep the event."""
        self.heard.append(event)

    def node_failed(self, event):
        """Keep the event."""
        self.heard.append(event)


class Failing(Observer):
    """An observer that raises."""

    def node_ejected(self, event):
        """Fail."""
        raise ValueError(event)


def test_every_kind_of_event_has_a_method():
    """The tests below cover a new event as well."""
    assert list(METHODS) == list(get_args(Event)) == [type(event) for event in EVENTS]
    assert all(hasattr(Observer, method) for method in METHODS.values())


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_reaches_its_own_method(event):
    """An observer of all kinds hears each by one method; the base class handles none."""
    heard = []
    methods = {method: lambda _, event: heard.append(event) for method in METHODS.values()}
    observers = Observers([type("All", (Observer,), methods)()])
    observers.notify(event)
    assert heard == [event]
    assert observers.heard == set(METHODS)
    getattr(Observer(), METHODS[type(event)])(event)
    assert Observers([Observer()]).heard == frozenset()


def test_any_object_may_listen():
    """For the kinds that it has methods for, also as attributes of the object alone."""
    listener, alone = Listener(), type("Alone", (), {})()
    alone.lease_lost = listener.heard.append
    observers = Observers([listener, alone])
    assert observers.heard == {NodeEjected, NodeFailed, LeaseLost}
    for event in EVENTS:
        observers.notify(event)
    assert {type(event) for event in listener.heard} == observers.heard
    assert len(listener.heard) == 3


def test_observers_are_true_when_there_are_any():
    """A `get` without observers pays for one truth test."""
    assert not Observers()
    assert Observers([Observer()])


def test_an_exception_is_counted_and_stops_no_observer():
    """The next observer hears the event, and the caller goes on."""
    listener = Listener()
    observers = Observers([Failing(), listener, Failing()])
    observers.notify(EVENTS[5])
    assert listener.heard == [EVENTS[5]]
    assert observers.errors == 2


def test_an_interruption_is_the_callers():
    """A `KeyboardInterrupt` is not an observer's error; later events are heard all the same."""

    class Interrupted(Listener):
        def node_ejected(self, event):
            super().node_ejected(event)
            raise KeyboardInterrupt

    listener = Interrupted()
    observers = Observers([listener])
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            observers.notify(EVENTS[5])
    assert len(listener.heard) == 2
    assert observers.errors == 0


class Calling(Listener):
    """An observer whose handling of an ejection causes a failure, of some client."""

    def __init__(self):
        super().__init__()
        self.client = None
        self.later = None

    def node_ejected(self, event):
        """Cause a failure now, and remember how to cause one later."""
        super().node_ejected(event)
        self.client.notify(EVENTS[3])
        self.later = contextvars.copy_context()


def test_an_event_that_an_observer_causes_is_dropped():
    """By its own client's observers, for that would never end; another client's hear it."""
    calling, other = Calling(), Listener()
    observers = calling.client = Observers([calling])
    observers.notify(EVENTS[5])
    assert calling.heard == [EVENTS[5]]
    calling.client = Observers([other])
    observers.notify(EVENTS[5])
    assert other.heard == [EVENTS[3]]


def test_an_observer_that_never_calls_the_client_is_not_guarded():
    """Its exceptions are counted all the same; one observer beside it that may call guards both."""

    class Quiet(Calling):
        calls_client = False

        def node_failed(self, event):
            super().node_failed(event)
            raise ValueError

    quiet = Quiet()
    observers = quiet.client = Observers([quiet])
    observers.notify(EVENTS[5])
    assert quiet.heard == [EVENTS[5], EVENTS[3]]
    assert observers.errors == 1
    guarded = Quiet()
    observers = guarded.client = Observers([guarded, Listener()])
    observers.notify(EVENTS[5])
    assert guarded.heard == [EVENTS[5]]


def test_what_an_observer_started_is_heard_when_the_event_is_over():
    """A task that outlives the notification runs in its context, and is not part of it."""
    calling = Calling()
    observers = calling.client = Observers([calling])
    observers.notify(EVENTS[5])
    calling.later.run(observers.notify, EVENTS[3])
    assert calling.heard == [EVENTS[5], EVENTS[3]]


def test_nothing_is_kept_of_an_event_that_is_over():
    """A thread or task that calls for years notifies in the context that it began with."""
    Observers([Failing(), Listener()]).notify(EVENTS[5])
    assert _notifications.get() == ()


def test_what_hears_nothing_is_refused():
    """A class in place of its object would lose each event without a word."""

    class Deaf:
        """Has no method of an observer."""

    with pytest.raises(ConfigurationError) as caught:
        Observers([Observer(), Listener, Deaf(), "x"])
    assert caught.value.faults == (
        "observer Listener is a class: pass an object of it, as in observers=[Listener()]",
        "observer Deaf has no method of an observer: see shardcache.Observer",
        "observer str has no method of an observer: see shardcache.Observer",
    )


def test_async_methods_are_refused():
    """They would never be awaited; each is named."""

    class Waiting:
        async def node_ejected(self, event):
            """Do nothing."""

        async def lease_lost(self, event):
            """Do nothing."""

    with pytest.raises(ConfigurationError) as caught:
        Observers([Observer(), Waiting()])
    assert [fault.split(":")[0] for fault in caught.value.faults] == [
        "observer Waiting.node_ejected is async",
        "observer Waiting.lease_lost is async",
    ]


@pytest.mark.parametrize("observers", [7, None, "me", {"me": 1}], ids=repr)
def test_observers_are_a_list(observers):
    """One by itself is the likeliest mistake."""
    kind = type(observers).__name__
    with pytest.raises(ConfigurationError, match=f"^observers: must be a list of .*, not {kind}$"):
        check_observers(observers)
    check_observers([Observer()])
