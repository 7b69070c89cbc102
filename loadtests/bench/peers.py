"""The clients and caches that shardcache is compared with, and why one of them is left out."""

from __future__ import annotations

import importlib
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Peer:
    """A distribution, the module to import, and the last Python that it has wheels for."""

    distribution: str
    module: str
    wheels_until: tuple[int, int] | None = None

    def why_missing(self) -> str | None:
        """Return why it cannot be imported; `None` if it can."""
        try:
            importlib.import_module(self.module)
        except Exception as error:  # noqa: BLE001 - whatever it does, the reason is printed
            if self.wheels_until and sys.version_info[:2] > self.wheels_until:
                return f"{self.distribution} has no wheel for Python {platform.python_version()}"
            return f"{self.distribution} cannot be imported: {error}"
        return None


PEERS: Final[Mapping[str, Peer]] = {
    "pymemcache": Peer("pymemcache", "pymemcache"),
    "pylibmc": Peer("pylibmc", "pylibmc", wheels_until=(3, 11)),
    "python-memcached": Peer("python-memcached", "memcache"),
    "meta-memcache": Peer("meta-memcache", "meta_memcache"),
    "aiomcache": Peer("aiomcache", "aiomcache"),
    "emcache": Peer("emcache", "emcache"),
    "redis-py": Peer("redis", "redis.asyncio"),
    "coredis": Peer("coredis", "coredis"),
    "valkey-glide": Peer("valkey-glide", "glide"),
    "valkey-glide-sync": Peer("valkey-glide-sync", "glide_sync"),
    "django-redis": Peer("django-redis", "django_redis"),
    "dogpile.cache": Peer("dogpile.cache", "dogpile.cache"),
    "cashews": Peer("cashews", "cashews"),
    "aiocache": Peer("aiocache", "aiocache"),
    "uhashring": Peer("uhashring", "uhashring"),
}


@dataclass(slots=True)
class Attendance:
    """Which peers take part, and the reasons of those that do not."""

    left_out: dict[str, str] = field(default_factory=dict)

    def check_all(self) -> None:
        """Note every peer that cannot be imported."""
        for name, peer in PEERS.items():
            if (reason := peer.why_missing()) is not None:
                self.left_out[name] = reason

    def has(self, peer: str) -> bool:
        """Return whether a peer can be imported."""
        return peer not in self.left_out

    @contextmanager
    def noting(self, name: str) -> Iterator[None]:
        """Leave a subject out if the block fails, with the reason."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a peer may raise anything
            self.left_out[name] = f"{type(error).__name__}: {error}"


@dataclass(frozen=True, slots=True)
class Maker:
    """A subject: its name, how to make its calls over some servers, and the peer that it needs."""

    name: str
    make: Callable[..., Any]
    peer: str | None = None


def makers_of(makers: Sequence[Maker], attendance: Attendance) -> list[Maker]:
    """Return the makers whose peers are there."""
    return [each for each in makers if each.peer is None or attendance.has(each.peer)]


@dataclass(frozen=True, slots=True)
class Client:
    """A client under test: its calls by operation, and how to close it."""

    name: str
    calls: Mapping[str, Callable[..., Any]]
    close: Callable[[], Any] = lambda: None

    def release(self) -> None:
        """Close the client; what a peer raises at its end is no one's result."""
        with suppress(Exception):
            self.close()
