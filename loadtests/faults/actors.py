"""A player in its own process, which takes orders over a pipe."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any, Final

from faults.crippling import cripple
from faults.players import Part
from shardcache.testing import servers

# Not forked: the process under test has nothing of what this one has loaded and opened.
_processes: Final = multiprocessing.get_context("spawn")

LAST_SECONDS: Final = 3.0  # for a process to end by itself

# Orders and answers are of any type, hence `Any`.


class ActorError(Exception):
    """An action of the player raised."""


class Actor:
    """The process of a player. `subject` is its class as `module:Class`."""

    def __init__(self, subject: str, part: Part) -> None:
        self._pipe, theirs = _processes.Pipe()
        self._process = _processes.Process(target=play, args=(subject, part, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._paused = False
        self._answer()

    @property
    def pid(self) -> int:
        """Return the process id."""
        number = self._process.pid
        assert number is not None  # it was started
        return number

    def tell(self, method: str, *arguments: Any) -> Any:
        """Call a method of the player; return its result, or raise `ActorError`."""
        self._pipe.send((method, arguments))
        return self._answer()

    def _answer(self) -> Any:
        failed, answer = self._pipe.recv()
        if failed:
            raise ActorError(answer)
        return answer

    def pause(self) -> None:
        """Stop it where it is (SIGSTOP)."""
        # Should this process end now, that one would not notice.
        servers._workspace().remember(self.pid)
        os.kill(self.pid, signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        """Resume it (SIGCONT)."""
        servers._workspace().forget(self.pid)
        os.kill(self.pid, signal.SIGCONT)
        self._paused = False

    def close(self) -> None:
        """End it, by force if it does not end by itself."""
        if self._paused:
            self.resume()
        with suppress(OSError):
            self._pipe.close()
        self._process.join(LAST_SECONDS)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()


@contextmanager
def acting(subject: str, part: Part) -> Iterator[Actor]:
    """Start a player's process; end it with the block."""
    actor = Actor(subject, part)
    try:
        yield actor
    finally:
        actor.close()


def play(subject: str, part: Part, pipe: Connection) -> None:
    """Run in that process: carry out orders until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other end closes the pipe then
    with suppress(EOFError, OSError):
        player = _answer(pipe, lambda: _make(subject, part), show=lambda _: None)
        while True:
            method, arguments = pipe.recv()
            _answer(pipe, lambda: getattr(player, method)(*arguments))  # noqa: B023 - called at once
    # Its threads may wait for a server that has been stopped.
    os._exit(0)


def _make(subject: str, part: Part) -> Any:
    cripple(part.without)
    module, _, name = subject.partition(":")
    return getattr(import_module(module), name)(part)


def _answer(
    pipe: Connection, act: Callable[[], Any], show: Callable[[Any], Any] = lambda result: result
) -> Any:
    """Send the result of an action, or its error; return it."""
    try:
        result = act()
    except Exception as error:  # noqa: BLE001 - reported to the other end
        pipe.send((True, f"{type(error).__name__}: {error}"))
        return None
    pipe.send((False, show(result)))
    return result
