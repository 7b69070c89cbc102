"""Configurations that fail, and all that is shown of them: texts, logs, warnings, local variables."""

from __future__ import annotations

import logging
import traceback
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from faults.loops import Loop
from faults.players import Part
from shardcache import AsyncClient, Client, Settings

RIG: Final = Path(__file__).parents[1]  # whose own variables hold the secrets
USER: Final = "appQXZJ"
PASSWORD: Final = "hunter2QXZJ"
KEY: Final = "the key of all signatures QXZJ"
SECRETS: Final = (USER, PASSWORD, KEY)
LOGIN: Final = f"{USER}:{PASSWORD}@"
NOWHERE: Final = f"redis://{LOGIN}no-such-host.invalid"

# Nodes and options may be anything, as they are wrong, hence `Any`.


class Addresses(NamedTuple):
    """Where the servers listen: a Redis without a password, one with another, a memcached, nobody."""

    plain: str
    locked: str
    memcached: str
    nobody: str


class Failing(NamedTuple):
    """A configuration: its nodes and options."""

    nodes: Any
    options: Mapping[str, Any] = MappingProxyType({})


def configurations(at: Addresses) -> dict[str, Failing]:
    """Return configurations that fail, at once or with the first calls, by what is wrong."""
    url = f"redis://{LOGIN}{at.plain}"
    return {
        "no host": Failing(f"redis://{LOGIN}"),
        "a port too high": Failing(f"redis://{LOGIN}h:99999"),
        "a port that is no number": Failing(f"redis://{LOGIN}h:x"),
        "a database that is no number": Failing(f"{url}?db=x"),
        "an option twice": Failing(f"{url}?db=1&db=1"),
        "an unknown option": Failing(f"{url}?colour=1"),
        "an address that does not end": Failing(f"redis://{LOGIN}[::1"),
        "an escape that is none": Failing(f"redis://{USER}:{PASSWORD}%zz@h"),
        "an unknown scheme": Failing(f"reddis://{LOGIN}h"),
        "memcached with a login": Failing(f"memcached://{LOGIN}h"),
        "a space": Failing(f"redis://{LOGIN} h"),
        "one node twice": Failing([url, url]),
        "a weight of zero": Failing(url, {"nodes": [{"url": url, "weight": 0}]}),
        "a URL as a strategy": Failing(url, {"strategy": url}),
        "a URL as a codec": Failing(url, {"codec": url}),
        "a URL as a size": Failing(url, {"pool_size": url}),
        "a URL as a timeout": Failing(url, {"timeout": url}),
        "a URL as on_error": Failing(url, {"on_error": url}),
        "a URL as failover": Failing(url, {"failover": url}),
        "an unknown lock service": Failing(url, {"locks": f"etcd://{LOGIN}h"}),
        "a secret that is short": Failing(url, {"secret": PASSWORD}),
        "a secret that is no text": Failing(url, {"secret": [KEY, 3]}),
        "a secret in a codec": Failing(url, {"codec": f"pickle:secret={KEY}"}),
        "pickle without a secret": Failing(url, {"codec": "pickle"}),
        "a wrong password": Failing(f"redis://{LOGIN}{at.locked}", {"secret": KEY}),
        "no password": Failing(f"redis://{at.locked}", {"secret": KEY}),
        "a password too many": Failing(f"redis://:{PASSWORD}@{at.plain}", {"secret": KEY}),
        "no such user": Failing(url, {"secret": KEY}),
        "no such database": Failing(f"redis://{at.plain}?db=99", {"secret": KEY}),
        "nobody there": Failing(f"redis://{LOGIN}{at.nobody}", {"secret": KEY}),
        "no such host": Failing(NOWHERE, {"secret": KEY}),
        "no such socket": Failing(f"redis+unix://{LOGIN}/nowhere/s", {"secret": KEY}),
        "TLS to a plain port": Failing(f"rediss://{LOGIN}{at.plain}", {"secret": KEY}),
        "redis:// to memcached": Failing(f"redis://{LOGIN}{at.memcached}", {"secret": KEY}),
        "memcached:// to Redis": Failing(f"memcached://{at.plain}", {"secret": KEY}),
    }


class Shown(logging.Handler):
    """All that is shown: lines of logs with their traces, warnings, errors with their variables."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self._texts.append(self.format(record))
        if record.exc_info and record.exc_info[1] is not None:
            self.add_error(record.exc_info[1])

    def add(self, *things: object) -> None:
        """Keep what things look like."""
        self._texts += [f"{thing!r}\n{thing!s}" for thing in things]

    def add_error(self, error: BaseException) -> None:
        """Keep an error and its whole chain, as a log or an error reporter shows them."""
        self._texts.append("".join(traceback.format_exception(error)))
        for link in _chain(error):
            self.add(link, link.args, vars(link))
            for frame, _ in traceback.walk_tb(link.__traceback__):
                if RIG not in Path(frame.f_code.co_filename).parents:
                    self._texts += map(_look, frame.f_locals.values())

    def secrets(self) -> set[str]:
        """Return the secrets that are among it."""
        return {secret for secret in SECRETS if any(secret in text for text in self._texts)}


def _look(variable: object) -> str:
    """Return what a variable looks like; an object that is half made may not tell."""
    try:
        return repr(variable)
    except Exception as error:  # noqa: BLE001 - as an error reporter does
        return f"{type(error).__name__}: {error}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its causes and contexts, and the errors that it holds, each once."""
    seen: list[BaseException] = []
    pending: list[object] = [error]
    while pending:
        link = pending.pop()
        if not isinstance(link, BaseException) or link in seen:
            continue
        seen.append(link)
        yield link
        pending += [link.__cause__, link.__context__, *getattr(link, "exceptions", ())]
        for name in ("failed", "errors"):
            pending += getattr(link, name, {}).values()


class Told(NamedTuple):
    """What came of all configurations: how many failed, and which showed a secret."""

    failed: int
    shown: list[str]


class Misconfigured(ABC):
    """Opens a client with each configuration, and calls it."""

    def __init__(self, part: Part) -> None:
        self._timeout = part.timeout
        self._at = Addresses(*part.urls)

    def notices(self) -> bool:
        """Return whether a secret that is shown is noticed, wherever that is."""
        shown = Shown()
        shown.add_error(ValueError(f"no {PASSWORD}"))
        shown.add({"secret": KEY})
        return shown.secrets() == {PASSWORD, KEY}

    def fail_all(self) -> Told:
        """Fail with each configuration; return what was shown of secrets."""
        failed, leaks = 0, []
        for name, each in configurations(self._at).items():
            shown = Shown()
            failed += self._fail(each, shown)
            if shown.secrets():
                leaks.append(name)
        return Told(failed, leaks)

    def _fail(self, each: Failing, shown: Shown) -> bool:
        """Open a client and call it; return whether anything failed."""
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            log = logging.getLogger("shardcache")
            log.setLevel(logging.DEBUG)
            log.propagate = False
            log.addHandler(shown)
            try:
                errors = [
                    *self._errors_of(lambda: Settings.from_dict(self._settings(each))),
                    *self._errors_of(lambda: self._call_all(each, shown)),
                ]
            finally:
                log.removeHandler(shown)
        shown.add(*(warning.message for warning in told))
        for error in errors:
            shown.add_error(error)
        return bool(errors)

    def _settings(self, each: Failing) -> dict[str, Any]:
        return {"nodes": each.nodes, **each.options}

    def _call_all(self, each: Failing, shown: Shown) -> None:
        options = {"timeout": self._timeout, "on_error": "raise", **self._settings(each)}
        client = self._open(options.pop("nodes"), options)
        shown.add(client, client.nodes)
        errors: list[Exception] = []
        for call in (
            lambda: client.get("k"),
            lambda: client.get_many(["k", "l"]),
            lambda: client.set("k", {"a": 1}),
            client.check,
            lambda: client.lock("k").acquire(wait=0),
        ):
            errors += self._errors_of(lambda call=call: self._await(call))
        shown.add(self._await(client.ping), self._await(client.stats), client.counters())
        self._await(self._close(client))
        if errors:
            raise ExceptionGroup("calls failed", errors)

    @staticmethod
    def _errors_of(act: Callable[[], object]) -> list[Exception]:
        try:
            act()
        except Exception as error:  # noqa: BLE001 - what is shown of it is looked at
            return [error]
        return []

    @abstractmethod
    def _open(self, nodes: Any, options: dict[str, Any]) -> Any: ...

    @abstractmethod
    def _close(self, client: Any) -> Callable[[], Any]: ...

    @abstractmethod
    def _await(self, call: Callable[[], Any]) -> Any: ...


class ThreadMisconfigured(Misconfigured):
    """With the blocking client."""

    def _open(self, nodes: Any, options: dict[str, Any]) -> Client:
        return Client(nodes, **options)

    def _close(self, client: Client) -> Callable[[], Any]:
        return client.close

    def _await(self, call: Callable[[], Any]) -> Any:
        return call()


class TaskMisconfigured(Misconfigured):
    """With the asyncio client."""

    def __init__(self, part: Part) -> None:
        self._loop = Loop()
        super().__init__(part)

    def _open(self, nodes: Any, options: dict[str, Any]) -> AsyncClient:
        return AsyncClient(nodes, **options)

    def _close(self, client: AsyncClient) -> Callable[[], Any]:
        return client.aclose

    def _await(self, call: Callable[[], Any]) -> Any:
        return self._loop.run(call)
