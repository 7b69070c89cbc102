"""The settings of a client, as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from os import PathLike
from typing import TYPE_CHECKING, Any, Final, Self

from shardcache.core.placement.nodes import Node
from shardcache.core.placement.url_warnings import PLAIN_SCHEMES
from shardcache.core.secrecy import takes_secrets
from shardcache.core.timeouts import OnError, OnOverflow, TimeoutPolicy
from shardcache.core.urls import split_url
from shardcache.core.values.other_clients import ReadUnsigned
from shardcache.errors import ConfigurationError
from shardcache.settings.faults import Faults, within
from shardcache.settings.gutter import Failover, Gutter
from shardcache.settings.parameters import PARAMETERS, REDLOCK
from shardcache.settings.shadow import Shadow
from shardcache.settings.sources import (
    Collected,
    from_environment,
    from_file,
    from_table,
    from_url,
    from_urls,
)

if TYPE_CHECKING:  # loaded with the first node that speaks TLS
    import ssl

NO_LOCK_NODES: Final = (
    "lock_nodes are for locks='redlock': the URL of locks names the servers of another service"
)
NOT_SPARE: Final = "no spare node, as it is one of `nodes`: name nodes that keep nothing else"
NO_TLS_NODE: Final = "no node uses TLS: write rediss:// or memcacheds:// for the nodes that do"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """The checked settings of a client, with durations in seconds.

    Make one with `load`, `from_url`, `from_env` or `from_dict`; each raises one
    `ConfigurationError` that lists every fault with its place. `strategy` and `codec` are names
    with their options, as in `ketama:profile=twemproxy`; whether they are registered is not
    checked here.

    >>> Settings.from_url("memory://a,b?default_ttl=300").default_ttl
    300.0
    """

    nodes: tuple[Node, ...]
    strategy: str = "rendezvous"
    codec: str = "msgpack"
    secret: tuple[bytes, ...] | None = None
    read_unsigned: ReadUnsigned = False
    read_compressed: bool = False
    namespace: str = ""
    default_ttl: float | None = None
    timeout: TimeoutPolicy = field(default_factory=TimeoutPolicy)
    on_error: OnError = "miss"
    on_overflow: OnOverflow = "warn"
    failover: Failover = "miss"
    pool_size: int = 32
    clearable: bool = False
    locks: str = REDLOCK
    lock_nodes: tuple[Node, ...] | None = None
    ssl_context: ssl.SSLContext | None = None
    shadow: Shadow | None = None

    @classmethod
    @takes_secrets
    def of(cls, **settings: object) -> Self:
        """Return the settings of keyword arguments, the same as a client's."""
        return cls.from_dict(settings)

    @classmethod
    @takes_secrets
    def from_dict(cls, mapping: Mapping[str, object]) -> Self:
        """Return the settings of a mapping: a client's parameters, and `connect_timeout`."""
        faults = Faults()
        return cls._check(from_table(mapping, "", faults), faults)

    @classmethod
    @takes_secrets
    def from_url(cls, url: str) -> Self:
        """Return the settings of a URL: hosts between commas, parameters in its query."""
        faults = Faults()
        return cls._check(from_url(url, "", faults), faults)

    @classmethod
    @takes_secrets
    def from_urls(cls, urls: Sequence[str]) -> Self:
        """Return the settings of several URLs, with the nodes of all."""
        faults = Faults()
        return cls._check(from_urls(urls, "", faults), faults)

    @classmethod
    @takes_secrets
    def load(cls, path: str | PathLike[str]) -> Self:
        """Return the settings of a TOML file, or of `[tool.shardcache]` in a `pyproject.toml`."""
        faults = Faults()
        return cls._check(from_file(path, faults), faults)

    @classmethod
    @takes_secrets
    def from_env(cls, environ: Mapping[str, str], default: str | None = None) -> Self:
        """Return the settings of `SHARDCACHE_URL` and the other variables in `environ`.

        If they name neither a URL nor a file, `default` is the URL. Raise `ConfigurationError`
        naming the variables if there is no default.
        """
        faults = Faults()
        return cls._check(from_environment(environ, faults, default), faults)

    @classmethod
    def _check(cls, collected: Collected, faults: Faults) -> Self:
        values: dict[str, Any] = {}  # each of its own type
        for name, (origin, value) in collected.items():
            with faults.of(origin):
                values[name] = PARAMETERS[name].read(value)
        _check_nodes(collected, values, faults)
        faults.report()
        connect = values.pop("connect_timeout", None)
        if connect is not None:
            call = values.get("timeout", TimeoutPolicy()).call
            values["timeout"] = TimeoutPolicy(call, connect)
        return cls(**values)

    def __repr__(self) -> str:
        shown = (f"{one.name}={self._repr_of(one.name)}" for one in fields(self))
        return f"{type(self).__name__}({', '.join(shown)})"

    def _repr_of(self, name: str) -> str:
        value = getattr(self, name)
        if name == "locks" and "://" in value:
            parts = split_url(value)  # its user and its query may hold a password
            value = f"{parts.scheme}://{','.join(parts.hosts)}{parts.path}"
        return "'***'" if name == "secret" and value is not None else repr(value)


def _check_nodes(collected: Collected, values: Mapping[str, Any], faults: Faults) -> None:
    """Add the faults of settings that do not fit the nodes."""
    nodes, failover = values.get("nodes", ()), values.get("failover")
    spares = failover.nodes if isinstance(failover, Gutter) else ()
    names = {node.name for node in nodes}
    for spare in spares:
        if spare.name in names:
            fault = ConfigurationError(within(spare.name, NOT_SPARE))
            faults.add(collected["failover"].origin, fault)
    locks = values.get("locks", REDLOCK)
    if (
        values.get("ssl_context") is not None and locks == REDLOCK
    ):  # else it may be for that service
        shadow = values.get("shadow")
        every = (
            *nodes,
            *(values.get("lock_nodes") or ()),
            *spares,
            *(shadow.nodes if shadow else ()),
        )
        if every and all(node.address.scheme in PLAIN_SCHEMES for node in every):
            faults.add(collected["ssl_context"].origin, ConfigurationError(NO_TLS_NODE))
    if values.get("lock_nodes") is not None and locks != REDLOCK:
        faults.add(collected["lock_nodes"].origin, ConfigurationError(NO_LOCK_NODES))
