"""Which plugins there are: our own, those of installed distributions, those of this program."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy

from shardcache.backends.base import BackendFactory
from shardcache.backends.locking import ProcessLock
from shardcache.core.codecs import CodecFactory
from shardcache.core.strategy import StrategyFactory
from shardcache.core.topology import TopologyChange
from shardcache.errors import ConfigurationError
from shardcache.plugin import hookspecs
from shardcache.plugin.commands import CliCommand
from shardcache.plugin.registry import Registry
from shardcache.settings import Settings

if TYPE_CHECKING:  # loaded with the first client: it takes longer than all the rest
    from importlib.metadata import EntryPoint

BLOCKED_VARIABLE = "SHARDCACHE_PLUGINS"
BUILTIN = "shardcache"


class PluginInfo(NamedTuple):
    """A plugin as the operator sees it; `offers` are texts such as `strategy ketama`."""

    name: str
    distribution: str
    offers: tuple[str, ...]


class Plugins:
    """The plugins of one process, loaded, with the registries they filled."""

    def __init__(self, blocked: Iterable[str] = ()) -> None:
        # Not at the top: with our own backends come sockets, TLS and event loops, and importing the
        # package is not yet using it.
        from importlib.metadata import entry_points  # noqa: PLC0415

        from shardcache.plugin import builtin  # noqa: PLC0415

        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self.strategies: Registry[StrategyFactory] = Registry("strategy")
        self.backends: Registry[BackendFactory] = Registry("backend for the URL scheme")
        self.codecs: Registry[CodecFactory] = Registry("codec")
        self.commands: Registry[CliCommand] = Registry("command")
        self.blocked = frozenset(blocked)
        self._described: list[PluginInfo] = []
        self.add(builtin, BUILTIN, BUILTIN)
        for point in sorted(entry_points(group=hookspecs.PROJECT), key=lambda point: point.name):
            if point.name not in self.blocked:
                self.add(_loaded(point), point.name, _distribution(point))

    def add(self, plugin: object, name: str, distribution: str) -> None:
        """Take in a plugin, a module or object with hook implementations, under a name.

        Raise `ConfigurationError` naming the plugin and its distribution when it is faulty.
        """
        try:
            self._manager.register(plugin, name)
            self._manager.check_pending()
        except (ValueError, pluggy.PluginValidationError) as error:
            raise ConfigurationError(f"plugin {name!r} of {distribution}: {error}") from error
        offers = self._fill(plugin, distribution)
        self._described.append(PluginInfo(name, distribution, tuple(offers)))

    def _fill(self, plugin: object, distribution: str) -> Iterator[str]:
        """Let `plugin` alone fill the registries; give what it added to them."""
        others = [other for other in self._manager.get_plugins() if other is not plugin]
        hooks: tuple[tuple[str, str, Registry[Any]], ...] = (  # of four kinds of entry
            ("strategy", "shardcache_register_strategies", self.strategies),
            ("backend", "shardcache_register_backends", self.backends),
            ("codec", "shardcache_register_codecs", self.codecs),
            ("command", "shardcache_add_commands", self.commands),
        )
        for kind, hook, registry in hooks:
            before = set(registry)
            with registry.offered_by(distribution):
                self._manager.subset_hook_caller(hook, others)(registry=registry)
            yield from (f"{kind} {name}" for name in registry if name not in before)

    def observers(self, settings: Settings) -> tuple[object, ...]:
        """Give the observers that plugins want a client of `settings` to have."""
        offered = self._manager.hook.shardcache_observers(settings=settings)
        return tuple(observer for observers in offered for observer in observers)

    def topology_changed(self, change: TopologyChange) -> None:
        """Tell every plugin of a change of nodes."""
        self._manager.hook.shardcache_topology_changed(change=change)

    @property
    def described(self) -> tuple[PluginInfo, ...]:
        """Give every plugin with what it offers, our own first."""
        return tuple(self._described)


# A plugin that makes a client as it is imported, or a finalizer that does so meanwhile, gets the
# plugins that can be had by then, and does not wait for itself. Nobody else gets those.
_loading = ProcessLock()
_within: ContextVar[bool] = ContextVar("shardcache_loading", default=False)
_whole: dict[str, Plugins] = {}  # one at most, by the choice it was loaded for


def load() -> Plugins:
    """Give this process's plugins, found and loaded at the first call.

    `SHARDCACHE_PLUGINS=-name,-other` keeps the plugins of those names out.
    """
    choice = os.environ.get(BLOCKED_VARIABLE, "")
    plugins = _whole.get(choice)
    if plugins is not None:
        return plugins
    with _loading.own():
        plugins = _whole.get(choice)
        if plugins is None:
            plugins = _loaded_now(choice)
        return plugins


def _loaded_now(choice: str) -> Plugins:
    if _within.get():
        return Plugins(_blocked(choice))
    token = _within.set(True)
    try:
        plugins = Plugins(_blocked(choice))
    finally:
        _within.reset(token)
    _whole.clear()
    _whole[choice] = plugins
    return plugins


def _blocked(choice: str) -> frozenset[str]:
    """Read `-name,-other`; raise `ConfigurationError` for a word of another form."""
    words = [word.strip() for word in choice.split(",") if word.strip()]
    wrong = [word for word in words if not word.startswith("-") or word in ("-", f"-{BUILTIN}")]
    if wrong:
        raise ConfigurationError(
            f"{BLOCKED_VARIABLE}: {', '.join(map(repr, wrong))}: write -name to keep a plugin out"
        )
    return frozenset(word[1:] for word in words)


def _loaded(point: EntryPoint) -> object:
    try:
        return point.load()
    except Exception as error:
        raise ConfigurationError(
            f"plugin {point.name!r} of {_distribution(point)} cannot be loaded: {error!r}"
            f" ({BLOCKED_VARIABLE}=-{point.name} keeps it out)"
        ) from error


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unknown distribution"
