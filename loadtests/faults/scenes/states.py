"""The states of a Redis, and what each means to a client."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from faults.actors import Actor, acting
from faults.findings import Finding
from faults.scenes.common import BACK
from faults.stage import Stage
from faults.states import Met
from shardcache.testing.servers import Server

CALL: Final = 1.0  # seconds
HOLD: Final = 1.2  # seconds of a state, in which a node that is left out is probed some times
STEP: Final = 0.3  # seconds until a server that has been told to change has changed

Meaning: TypeAlias = Literal["left out", "misconfigured", "locked out", "refused", "a cluster"]

# What a call gives that meets a state, what becomes of the node, and what its operator is told.
MEANINGS: Final[dict[Meaning, str]] = {
    "left out": "NodeUnavailableError, out, back",
    "misconfigured": "NodeRefusedError, asked, 1 line, check fails",
    "locked out": "NodeUnavailableError, out, 1 line, check fails",
    "refused": "NodeRefusedError, asked",
    "a cluster": "ConfigurationError, asked",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A state: what a Redis is told to come into it and out of it, and the call that meets it.

    `holding` is a command that is not answered while the state lasts.
    """

    name: str
    meaning: Meaning
    act: str = "set"
    began: Sequence[bytes] = ()
    ended: Sequence[bytes] = ()
    arguments: Sequence[str] = ()
    login: str = ""
    holding: bytes = b""


REPLICA: Final = b"REPLICAOF 127.0.0.1 1"
MASTER: Final = b"REPLICAOF NO ONE"

STATES: Final = (
    State(name="READONLY", meaning="left out", began=[REPLICA], ended=[MASTER]),
    State(
        name="MASTERDOWN",
        meaning="left out",
        act="get",
        began=[b"CONFIG SET replica-serve-stale-data no", REPLICA],
        ended=[MASTER],
    ),
    State(
        name="BUSY",
        meaning="left out",
        began=[b"CONFIG SET lua-time-limit 1"],
        holding=b'EVAL "while true do end" 0',
        ended=[b"SCRIPT KILL"],
    ),
    State(
        name="LOADING",
        meaning="left out",
        arguments=("--enable-debug-command", "yes"),
        began=[
            b"DEBUG POPULATE 2000 loaded 100",
            b"CONFIG SET key-load-delay 5000 loading-process-events-interval-bytes 1024",
        ],
        holding=b"DEBUG RELOAD",
        ended=[b"CONFIG SET key-load-delay 0"],
    ),
    State(
        name="CLUSTERDOWN",
        meaning="left out",
        arguments=("--cluster-enabled", "yes"),
        ended=[b"CLUSTER ADDSLOTSRANGE 0 16383"],
    ),
    State(
        name="NOPERM",
        meaning="misconfigured",
        began=[b"ACL SETUSER default -set"],
        ended=[b"ACL SETUSER default +set"],
    ),
    State(name="NOAUTH", meaning="misconfigured", arguments=("--requirepass", "another")),
    State(
        name="WRONGPASS",
        meaning="locked out",
        arguments=("--requirepass", "another"),
        login=":wrong@",
    ),
    State(
        name="no EVAL",
        meaning="misconfigured",
        act="gets",
        arguments=("--rename-command", "EVAL", ""),
    ),
    State(
        name="OOM",
        meaning="refused",
        began=[b"CONFIG SET maxmemory 1"],
        ended=[b"CONFIG SET maxmemory 0"],
    ),
    State(name="WRONGTYPE", meaning="refused", act="list", began=[b"LPUSH state:list a"]),
    State(
        name="CROSSSLOT",
        meaning="a cluster",
        act="get_many",
        arguments=("--cluster-enabled", "yes"),
        began=[b"CLUSTER ADDSLOTSRANGE 0 16383"],
    ),
)


def met(stage: Stage) -> Iterator[Finding]:
    """Meet each state of a real Redis, from 7.0 (A13)."""
    subject = f"faults.states:{'Thread' if stage.crew.blocking else 'Task'}States"
    with acting(subject, stage.part((), timeout=CALL)) as actor:
        for state in STATES:
            with stage.serve(1, state.arguments) as (server,):
                told = _meet(actor, server, state)
            asked = MEANINGS[state.meaning]
            yield Finding(state.name, asked, told, told == asked)


def _meet(actor: Actor, server: Server, state: State) -> str:
    actor.tell("open", server.url.replace("://", f"://{state.login}"))
    with ExitStack() as stack:
        for request in state.began:
            _tell(server, request)
        if state.holding:
            connection = socket.create_connection((server.host, server.port))
            stack.enter_context(connection).sendall(state.holding + b"\r\n")
        time.sleep(STEP)
        told: Met = actor.tell("meet", state.act, HOLD)
        for request in state.ended:
            _tell(server, request)
    words = [*told.errors, "out" if told.out else "asked"]
    if state.meaning == "left out":
        words.append("back" if actor.tell("wait_closed", BACK) is not None else "never back")
    if state.meaning in ("misconfigured", "locked out"):
        words.append("1 line" if told.lines == 1 else f"{told.lines} lines")
        words.append("check fails" if told.check_fails else "check holds")
    return ", ".join(words)


def _tell(server: Server, request: bytes) -> None:
    server.ask(request + b"\r\n", b"")
