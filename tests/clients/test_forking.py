"""A child that is forked while another thread is at work waits for nothing which that thread holds."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager

import pytest

from shardcache import Client, decorators
from shardcache.clients.swallowed import SwallowedErrors
from shardcache.core.placement.topology import Topology
from shardcache.errors import NodeTimeoutError
from shardcache.plugin import manager

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


@contextmanager
def held_up(monkeypatch, owner, name):
    """Give an event that is set when another thread has come to a function, and stays in it."""
    reached, over, original = threading.Event(), threading.Event(), getattr(owner, name)
    parent = os.getpid()

    def slow(*args, **kwargs):
        reached.set()
        if os.getpid() == parent:
            assert over.wait(10)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, slow)
    try:
        yield reached
    finally:
        over.set()


def ends_in_child(act):
    """Say whether a forked child comes to the end of something, and does not wait for ever."""
    if (child := os.fork()) == 0:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    until = time.monotonic() + 5.0
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.01)
    return ended[1] == 0


def check(monkeypatch, owner, name, work, act):
    """Fork while a thread does some work and is held up in a function, and act in the child."""
    with held_up(monkeypatch, owner, name) as reached:
        thread = threading.Thread(target=work)
        thread.start()
        try:
            assert reached.wait(10)
            assert ends_in_child(act)
        finally:
            monkeypatch.undo()
    thread.join(10)


def test_while_plugins_are_loaded(monkeypatch):
    """The child loads them itself."""
    monkeypatch.setenv(manager.PLUGINS_VARIABLE, "-nobody")  # no client was made with it yet

    def make():
        Client("memory://a").close()

    check(monkeypatch, manager, "_load_all", make, make)


def test_while_the_nodes_of_a_client_are_changed(monkeypatch):
    """The child can close the client that it has inherited."""
    client = Client("memory://a,b")
    check(monkeypatch, Topology, "adding", lambda: client.add_node("memory://c"), client.close)
    client.close()


def test_while_an_error_is_noted():
    """The child reads its own errors as misses."""
    swallowed = SwallowedErrors()
    noted, over = threading.Event(), threading.Event()

    class LateError(NodeTimeoutError):
        """An error whose text takes its time."""

        def __str__(self):
            noted.set()
            assert over.wait(10)
            return super().__str__()

    thread = threading.Thread(target=lambda: swallowed.note(LateError("did not answer", "a")))
    thread.start()
    try:
        assert noted.wait(10)
        assert ends_in_child(lambda: swallowed.note(NodeTimeoutError("did not answer", "b")))
    finally:
        over.set()
    thread.join(10)


def test_while_the_default_client_is_made(monkeypatch):
    """The child makes its own."""
    defaults = decorators.Defaults()

    def make():
        defaults.client().close()

    monkeypatch.setenv("SHARDCACHE_URL", "memory://a")
    check(monkeypatch, decorators.Settings, "from_env", make, make)
