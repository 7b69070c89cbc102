"""The handlers of a backend by command, and the one rule for a command without a handler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn, TypeVar

from shardcache.errors import UnsupportedError

H = TypeVar("H")


class Handlers(dict[type, H]):
    """Functions by the type of the command that each handles; `backend` names it in errors.

    `ways_out` tells by command what to do about one without a handler.

    A new command has its value in `core.commands`, a capability in `core.capabilities`, a handler
    in each backend that supports it, and a test in the contract, `testing.contract`. A handler has
    all that its backend needs: a wire's encodes the command and returns the reply to expect.
    Backends without a handler need no change: they raise `UnsupportedError`.

    A command about callers' values is also listed by its kind in `core.writes`, if it writes, in
    `core.key_accesses`, and in `failover` and `moves` of `operations.cluster`.

    >>> from shardcache.core.commands import Get, Ping
    >>> handlers = Handlers("mine")
    >>> @handlers.handles(Ping)
    ... def ping(command):
    ...     return True
    >>> handlers[Ping](Ping()), handlers.supports == {Ping}
    (True, True)
    >>> handlers[Get]
    Traceback (most recent call last):
        ...
    shardcache.errors.UnsupportedError: mine nodes do not support Get
    """

    def __init__(self, backend: str, ways_out: Mapping[type, str] | None = None) -> None:
        super().__init__()
        self._backend = backend
        self._ways_out = ways_out or {}

    def handles(self, command: type) -> Callable[[H], H]:
        """Return a decorator that registers a function as the handler of `command`."""

        def register(handler: H) -> H:
            self[command] = handler
            return handler

        return register

    @property
    def supports(self) -> frozenset[type]:
        """Return the commands that have a handler."""
        return frozenset(self)

    def __missing__(self, command: type) -> NoReturn:
        way_out = f": {self._ways_out[command]}" if command in self._ways_out else ""
        raise UnsupportedError(f"{self._backend} nodes do not support {command.__name__}{way_out}")
