"""The plugins of a process: the package's own, installed ones, and those the program adds."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy

from shardcache.backends.base import BackendFactory
from shardcache.backends.locking import ProcessLock
from shardcache.core.codecs import CodecFactory
from shardcache.core.lock_providers import LockProviderFactory
from shardcache.core.placement.strategy import StrategyFactory
from shardcache.core.placement.topology import TopologyChange
from shardcache.errors import ConfigurationError
from shardcache.plugin import hookspecs
from shardcache.plugin.commands import CliCommand
from shardcache.plugin.registry import Registry
from shardcache.settings import Settings

if TYPE_CHECKING:  # imported with the first client: it takes longer than everything else
    from importlib.metadata import EntryPoint

PLUGINS_VARIABLE = "SHARDCACHE_PLUGINS"
BUILTIN = "shardcache"
NO_PLUGIN = "none"


class PluginInfo(NamedTuple):
    """A plugin as operators see it; `offers` are texts such as `strategy ketama`."""

    name: str
    distribution: str
    offers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PluginFilter:
    """Which installed plugins to load: the `allowed` ones or all, except the `blocked` ones."""

    allowed: frozenset[str] | None = None
    blocked: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> PluginFilter:
        """Read `none`, `name,other` or `-name,-other`; raise `ConfigurationError` for anything else.

        >>> PluginFilter.parse("-name").admits("other"), PluginFilter.parse("none").admits("other")
        (True, False)
        """
        words = [word.strip() for word in text.split(",") if word.strip()]
        if not words:
            return cls()
        if words == [NO_PLUGIN]:
            return cls(allowed=frozenset())
        names = frozenset(word.removeprefix("-") for word in words)
        wrong = sorted(name for name in names if not name or "*" in name or name == NO_PLUGIN)
        blocking = [word.startswith("-") for word in words]
        if wrong or any(blocking) is not all(blocking):
            raise ConfigurationError(
                f"{PLUGINS_VARIABLE}: write name,other to load these plugins alone, -name,-other to load"
                f" all but these, or {NO_PLUGIN} to load none"
            )
        return cls(blocked=names) if all(blocking) else cls(allowed=names)

    def admits(self, name: str) -> bool:
        """Return whether a plugin with this name should be loaded."""
        return name not in self.blocked and (self.allowed is None or name in self.allowed)

    @property
    def admits_none(self) -> bool:
        """Return whether no plugin should be loaded, whatever is installed."""
        return self.allowed == frozenset()

    def check(self, installed: Iterable[str]) -> None:
        """Raise `ConfigurationError` if an allowed name belongs to no installed plugin."""
        known = sorted(installed)
        if self.allowed and not self.allowed.issubset(known):
            found = ", ".join(sorted(self.allowed.intersection(known))) or "none"
            raise ConfigurationError(
                f"{PLUGINS_VARIABLE}: names a plugin that is not installed (installed of those: {found};"
                f" known: {', '.join(known) or 'none'})"
            )


class Plugins:
    """The loaded plugins of one process, and the registries that they filled."""

    def __init__(self, chosen: PluginFilter = PluginFilter()) -> None:
        # Imported here because the built-in backends bring sockets, TLS and event loops, which a
        # program that only imports the package does not need.
        from shardcache.plugin import builtin  # noqa: PLC0415

        self._chosen = chosen
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self.strategies: Registry[StrategyFactory] = Registry("strategy")
        self.backends: Registry[BackendFactory] = Registry("backend for the URL scheme")
        self.codecs: Registry[CodecFactory] = Registry("codec")
        self.lock_providers: Registry[LockProviderFactory] = Registry("lock provider")
        self.commands: Registry[CliCommand] = Registry("command")
        self._infos: list[PluginInfo] = []
        self.add(builtin, BUILTIN, BUILTIN)
        if chosen.admits_none:  # to look for plugins takes a tenth of a first client's time
            return
        points = _installed()
        chosen.check(point.name for point in points)
        for point in points:
            if not chosen.admits(point.name):
                continue
            self._check_name(point.name, _distribution(point))  # before its code runs
            self.add(_load(point), point.name, _distribution(point))

    @property
    def blocked(self) -> frozenset[str]:
        """Return the names of installed plugins that were not loaded."""
        return frozenset(
            point.name for point in _installed() if not self._chosen.admits(point.name)
        )

    def add(self, plugin: object, name: str, distribution: str) -> None:
        """Add a plugin under a name: a module or object with hook implementations.

        Raise `ConfigurationError` naming the plugin and its distribution if it is faulty.
        """
        self._check_name(name, distribution)
        if self._manager.is_registered(plugin):
            other = self._manager.get_name(plugin)
            raise ConfigurationError(
                f"plugin {name!r} of {distribution}: it is already loaded as {other!r}"
            )
        try:
            self._manager.register(plugin, name)
            self._manager.check_pending()
        except (ValueError, pluggy.PluginValidationError) as error:
            raise ConfigurationError(f"plugin {name!r} of {distribution}: {error}") from error
        offers = self._fill(plugin, distribution)
        self._infos.append(PluginInfo(name, distribution, tuple(offers)))

    def _check_name(self, name: str, distribution: str) -> None:
        """Raise `ConfigurationError` if another plugin has this name."""
        for info in self._infos:
            if info.name == name:
                raise ConfigurationError(
                    f"plugin {name!r} of {distribution}: {info.distribution} has a plugin of this name"
                    f" ({PLUGINS_VARIABLE}=-{name} blocks installed plugins of this name)"
                )

    def _fill(self, plugin: object, distribution: str) -> Iterator[str]:
        """Let `plugin` alone fill the registries; yield what it added."""
        others = [other for other in self._manager.get_plugins() if other is not plugin]
        hooks: tuple[tuple[str, str, Registry[Any]], ...] = (  # of five kinds of entry
            ("strategy", "shardcache_register_strategies", self.strategies),
            ("backend", "shardcache_register_backends", self.backends),
            ("codec", "shardcache_register_codecs", self.codecs),
            ("locks", "shardcache_register_lock_providers", self.lock_providers),
            ("command", "shardcache_add_commands", self.commands),
        )
        for kind, hook, registry in hooks:
            before = set(registry)
            with registry.offered_by(distribution):
                self._manager.subset_hook_caller(hook, others)(registry=registry)
            yield from (f"{kind} {name}" for name in registry if name not in before)

    def observers(self, settings: Settings) -> tuple[object, ...]:
        """Return the observers that plugins provide for a client with these `settings`."""
        provided = self._manager.hook.shardcache_observers(settings=settings)
        return tuple(observer for observers in provided for observer in observers)

    def topology_changed(self, change: TopologyChange) -> None:
        """Notify every plugin of a change of nodes."""
        self._manager.hook.shardcache_topology_changed(change=change)

    @property
    def infos(self) -> tuple[PluginInfo, ...]:
        """Return every plugin with what it offers, the built-in one first."""
        return tuple(self._infos)


# A plugin that makes a client while it is imported, or a finalizer that runs meanwhile, gets the
# plugins that are loaded so far, instead of waiting for itself. Other callers wait for all.
_loading = ProcessLock()
_in_progress: ContextVar[bool] = ContextVar("shardcache_loading", default=False)
_loaded: dict[str, Plugins] = {}  # at most one, by the value of the variable it was loaded for


def load() -> Plugins:
    """Return this process's plugins, found and loaded at the first call.

    Any installed distribution may have a plugin, which is imported here. `SHARDCACHE_PLUGINS=none`
    loads none, `name,other` only these, `-name,-other` all but these.
    """
    variable = os.environ.get(PLUGINS_VARIABLE, "")
    plugins = _loaded.get(variable)
    if plugins is not None:
        return plugins
    with _loading.current():
        plugins = _loaded.get(variable)
        if plugins is None:
            plugins = _load_all(variable)
        return plugins


def _load_all(variable: str) -> Plugins:
    if _in_progress.get():
        return Plugins(PluginFilter.parse(variable))
    token = _in_progress.set(True)
    try:
        plugins = Plugins(PluginFilter.parse(variable))
    finally:
        _in_progress.reset(token)
    _loaded.clear()
    _loaded[variable] = plugins
    return plugins


def _installed() -> list[EntryPoint]:
    """Return the entry points of all installed plugins, in the order of their names."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - see the imports

    return sorted(entry_points(group=hookspecs.PROJECT), key=lambda point: point.name)


def _load(point: EntryPoint) -> object:
    try:
        return point.load()
    except Exception as error:
        raise ConfigurationError(
            f"plugin {point.name!r} of {_distribution(point)} cannot be loaded: {error!r}"
            f" ({PLUGINS_VARIABLE}=-{point.name} blocks it)"
        ) from error


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unknown distribution"
