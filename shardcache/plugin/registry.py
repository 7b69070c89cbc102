"""A registry: entries by name, with the distribution that offered each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from shardcache.errors import ConfigurationError, UnknownPluginError

T = TypeVar("T")


class Registry(Generic[T]):
    """The entries of one kind that plugins registered, by name.

    >>> registry: Registry[int] = Registry("number")
    >>> registry.register("one", 1)
    >>> registry["one"]
    1
    >>> registry["two"]
    Traceback (most recent call last):
    shardcache.errors.UnknownPluginError: no such number (known: one)
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}
        self._origins: dict[str, str] = {}
        self._offering = "this program"

    def register(self, name: str, entry: T) -> None:
        """Register `entry` as `name`; raise `ConfigurationError` naming both owners of a taken name."""
        if name in self._entries:
            raise ConfigurationError(
                f"{self.kind} {name!r} is offered by both {self._origins[name]}"
                f" and {self._offering}"
            )
        self._entries[name] = entry
        self._origins[name] = self._offering

    @contextmanager
    def offered_by(self, origin: str) -> Iterator[None]:
        """Record `origin`, a distribution's name, as the source of all entries registered inside."""
        before, self._offering = self._offering, origin
        try:
            yield
        finally:
            self._offering = before

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            raise UnknownPluginError(self.kind, name, self._entries)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def origin(self, name: str) -> str:
        """Return the distribution that offered `name`."""
        self[name]
        return self._origins[name]
