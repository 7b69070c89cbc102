"""The plugin of shardcache itself, which uses the same hooks as all others."""

from __future__ import annotations

from functools import partial
from typing import Any

from shardcache.backends.base import BackendFactory
from shardcache.backends.memcached import Memcached
from shardcache.backends.memory import Memory
from shardcache.backends.pymemcache import Pymemcache
from shardcache.backends.redis import Redis
from shardcache.core import codecs
from shardcache.core.codecs import CodecFactory
from shardcache.core.lock_providers import LockProviderFactory
from shardcache.core.placement.strategy import Strategy, StrategyFactory
from shardcache.operations.locks.redlock import RedlockFactory
from shardcache.plugin.hookspecs import hookimpl
from shardcache.plugin.registry import Registry
from shardcache.settings import REDLOCK
from shardcache.strategies.rendezvous import Rendezvous


@hookimpl
def shardcache_register_strategies(registry: Registry[StrategyFactory]) -> None:
    """Register the seven strategies of the package."""
    registry.register("rendezvous", Rendezvous)
    for name in ("ketama", "maglev", "jump", "pymemcache", "modulo", "crc16"):
        registry.register(name, partial(_make_other_strategy, name))


def _make_other_strategy(name: str, /, **options: Any) -> Strategy:  # as a strategy takes them
    """Make a strategy that most clients do not have."""
    # They load with the first of them, so that other programs start faster.
    from shardcache.strategies import (  # noqa: PLC0415
        crc16,
        jump,
        ketama,
        maglev,
        modulo,
        pymemcache,
    )

    factories: dict[str, StrategyFactory] = {
        "ketama": ketama.Ketama,
        "maglev": maglev.Maglev,
        "jump": jump.Jump,
        "pymemcache": pymemcache.Pymemcache,
        "modulo": modulo.Modulo,
        "crc16": crc16.Crc16,
    }
    return factories[name](**options)


@hookimpl
def shardcache_register_backends(registry: Registry[BackendFactory]) -> None:
    """Register the package's backends by URL scheme; none loads its library before its first use."""
    registry.register("memory", Memory())
    for scheme in ("memcached", "memcacheds", "memcached+unix"):
        registry.register(scheme, Memcached())
    for scheme in ("redis", "rediss", "redis+unix"):
        registry.register(scheme, Redis())

    registry.register("pymemcache", Pymemcache())


@hookimpl
def shardcache_register_lock_providers(registry: Registry[LockProviderFactory]) -> None:
    """Register the package's lock: over a majority of the client's own nodes."""
    registry.register(REDLOCK, RedlockFactory())


@hookimpl
def shardcache_register_codecs(registry: Registry[CodecFactory]) -> None:
    """Register the four codecs of the package."""
    registry.register("msgpack", codecs.Msgpack)
    registry.register("json", codecs.Json)
    registry.register("raw", codecs.Raw)
    registry.register("pickle", codecs.Pickle)
