"""The faults of many settings, collected so that one error lists them all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from shardcache.errors import ConfigurationError, TopologyError

NEAR: Final = 0.7  # tells `strateggy` from `strategy`, not `socket_timeout` from `timeout`


class Faults:
    """The faults found so far, each with the place it came from."""

    def __init__(self) -> None:
        self._found: list[str] = []
        self._only_topology = True

    @contextmanager
    def of(self, origin: str) -> Iterator[None]:
        """Catch a `ConfigurationError` raised inside, and add its faults under `origin`."""
        try:
            yield
        except ConfigurationError as error:
            self.add(origin, error)

    def add(self, origin: str, error: ConfigurationError) -> None:
        """Add the faults of `error` under `origin`."""
        self._only_topology &= isinstance(error, TopologyError)
        self._found.extend(within(origin, fault) for fault in error.faults)

    def __bool__(self) -> bool:
        return bool(self._found)

    def report(self) -> None:
        """Raise all faults as one error, if there are any: a `TopologyError` if all were one."""
        if self._found:
            kind = TopologyError if self._only_topology else ConfigurationError
            raise kind(*self._found)


def within(origin: str, rest: str) -> str:
    """Return a place or fault with `origin` before it, unless that is empty."""
    return f"{origin}: {rest}" if origin else rest


def near(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that was probably meant by `name`, if any."""
    from difflib import get_close_matches  # noqa: PLC0415 - only a fault needs it

    return next(iter(get_close_matches(name, known, n=1, cutoff=NEAR)), None)


def unknown(name: object, known: Iterable[str]) -> ConfigurationError:
    """Return the error for an unknown option, listing the known ones."""
    listed = sorted(known)
    meant = near(name, listed) if isinstance(name, str) else None
    hint = f"; did you mean {meant!r}?" if meant else ""
    return ConfigurationError(f"no such option (known: {', '.join(listed)}{hint})")
