"""One call at a time: large batches, names that hang, rights that are taken away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from faults.actors import acting
from faults.findings import Finding, at_least, at_most, none, shown, within
from faults.lag import Lag
from faults.scenes.common import BACK
from faults.stage import Play, Stage

KIB: Final = 1024
TIMEOUT: Final = 0.2  # seconds
SOON: Final = 1.0  # seconds until a restarted server is used
OVER: Final = 0.020  # seconds by which a call may outlast its timeout
ROOM: Final = {"memcached": ("-m", "256"), "redis": ()}  # for large values


@contextmanager
def _calling(stage: Stage, count: int = 1, **options: Any) -> Iterator[Play]:
    with stage.play(count, subject=_subject(stage), filled=False, **options) as play:
        play.meter.reset()
        yield play
        play.lags.append(Lag(play.meter.worst))


def _subject(stage: Stage) -> str:
    return f"faults.single:{'Thread' if stage.crew.blocking else 'Task'}Single"


def slowly_read(stage: Stage) -> Iterator[Finding]:
    """Read more than there is time for, while there is always data to read (batch deadline)."""
    keys, size = 1600, 100 * KIB
    arguments = ROOM[stage.kind]
    with _calling(stage, 4, timeout=TIMEOUT, arguments=arguments) as play:
        play.actor.tell("fill", keys, size)
        play.actor.tell("slow_parsers", 0.0005)
        found, wrong, seconds = play.actor.tell("read_many", keys, size)
    yield at_most("values that came in time", found, keys - 1)
    yield none("wrong values", wrong)
    yield within("whole call", seconds, TIMEOUT + OVER)


def cut_in_a_batch(stage: Stage) -> Iterator[Finding]:
    """Stall the reply to a large batch; what has arrived is kept (part of a batch)."""
    keys, size, arrived = 324, 20 * KIB, 3_000_000
    arguments = ROOM[stage.kind]
    timeout = stage.seconds(TIMEOUT, 1.0)
    with _calling(stage, proxied=True, timeout=timeout, arguments=arguments) as play:
        play.actor.tell("fill", keys, size)
        play.proxies[0].cut_after(arrived, "stall")
        found, wrong, _ = play.actor.tell("read_many", keys, size)
    whole = arrived // size
    yield at_least("values kept", found, whole - 1)
    yield shown("of what had arrived", f"{100 * found / whole:.0f} %")
    yield none("wrong values", wrong)


def names_hang(stage: Stage) -> Iterator[Finding]:
    """Restart a server whose address is known, while names are not looked up any more."""
    with stage.serve(1) as (server,):
        part = stage.part((server.url.replace("127.0.0.1", "localhost"),), timeout=TIMEOUT)
        with acting(_subject(stage), part) as actor:
            first = actor.tell("await_store", BACK)
            actor.tell("hang_names", 2 * BACK)
            server.kill()
            server.restart()
            again = actor.tell("await_store", BACK)
    yield within("stored first after", first, BACK)
    yield within("stored again after the restart", again, SOON)


def rights_taken(stage: Stage) -> Iterator[Finding]:
    """Take away the right to write, then ask for a password."""
    with _calling(stage, timeout=stage.seconds(TIMEOUT, 2.0)) as play:
        (server,) = play.servers
        play.actor.tell("set", "old")
        server.ask(b"ACL SETUSER default -set\r\n", b"+OK\r\n")
        stored = [play.actor.tell("set", "new") for _ in range(20)]
        old = play.actor.tell("get")
        told = len(play.actor.tell("lines"))
        server.ask(b"ACL SETUSER default +set\r\n", b"+OK\r\n")
        server.ask(b"CONFIG SET requirepass hunter2\r\n", b"+OK\r\n")
        server.ask(b"AUTH hunter2\r\nCLIENT KILL TYPE normal SKIPME yes\r\n", b"+OK\r\n")
        read = [play.actor.tell("get") for _ in range(20)]
        lines = play.actor.tell("lines")
    yield none("writes that were refused and said to be done", sum(stored))
    yield none("old values read after a refused write", old is not None)
    yield at_least("lines about the right", told, 1)
    yield at_most("lines about the right", told, 1)
    yield none("reads without the password that found something", sum(v is not None for v in read))
    yield at_least("lines about the password", len(lines) - told, 1)
    yield at_most("lines about the password", len(lines) - told, 2)
    yield none("lines with a password", sum("hunter" in line for line in lines))
