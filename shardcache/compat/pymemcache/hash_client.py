"""pymemcache's `HashClient`: its calls and results, over the nodes of a shardcache client."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from pymemcache.client.rendezvous import RendezvousHash  # type: ignore[import-untyped]  # it has no types
from pymemcache.exceptions import MemcacheError  # type: ignore[import-untyped]  # as above
from pymemcache.serde import LegacyWrappingSerde  # type: ignore[import-untyped]  # as above

from shardcache.backends.locking import ProcessLock
from shardcache.compat.pymemcache.client import SerdeClient
from shardcache.compat.pymemcache.cluster import KeyRules
from shardcache.compat.pymemcache.errors import errors_in, translate
from shardcache.compat.pymemcache.operations import Side
from shardcache.compat.pymemcache.options import (
    check_encoding,
    check_hasher,
    check_integer,
    check_socket_module,
    delta_of,
    digits_of,
    node_of,
    prefix_of,
    timeouts_of,
    token_of,
    ttl_of,
)
from shardcache.compat.pymemcache.values import Item, Serde, SerdePayloads
from shardcache.core.events import check_observers
from shardcache.core.keys import check_items
from shardcache.core.placement.nodes import Node
from shardcache.errors import (
    ClientClosedError,
    ClientCopyError,
    ConfigurationError,
    DecodeError,
    NodeError,
    PartialFailureError,
    UnsupportedError,
)
from shardcache.operations.cluster.routing import Key
from shardcache.operations.keys.admin import Counters
from shardcache.settings import Failover

if TYPE_CHECKING:  # loaded with the first node that speaks TLS
    import ssl

T = TypeVar("T")
U = TypeVar("U")
Server = str | tuple[str, int]

POOL_SIZE: Final = 32  # connections per server; pymemcache has no limit by default

# Values and defaults are the caller's own objects, hence `Any`.


class HashClient:
    """pymemcache's `HashClient` over shardcache, safe between threads.

    Keys are where pymemcache put them, under the same names, and a `serde` reads what it wrote there.
    A server that fails is left out and probed in the background. Its keys do not move to other servers,
    but with a `failover` these keep them meanwhile, under other names.
    """

    def __init__(
        self,
        servers: Iterable[Server],
        hasher: object = RendezvousHash,
        serde: Serde | None = None,
        serializer: Callable[[Key, Any], tuple[Any, int]] | None = None,
        deserializer: Callable[[Key, bytes, int], Any] | None = None,
        connect_timeout: float | None = None,
        timeout: float | None = None,
        no_delay: bool = False,
        socket_module: ModuleType = socket,
        socket_keepalive: object = None,
        key_prefix: str | bytes = b"",
        max_pool_size: int | None = None,
        pool_idle_timeout: float = 0,
        lock_generator: object = None,
        retry_attempts: int = 2,
        retry_timeout: float = 1,
        dead_timeout: float = 60,
        use_pooling: bool = False,
        ignore_exc: bool = False,
        allow_unicode_keys: bool = False,
        default_noreply: bool = True,
        encoding: str = "ascii",
        tls_context: ssl.SSLContext | None = None,
        *,
        failover: Failover = "miss",
        observers: Iterable[object] = (),
    ) -> None:
        """Create a client of `servers`; it connects to nothing before its first call.

        The parameters are pymemcache's. `timeout` is one deadline, in seconds, for a whole call; `None`
        is half a second here. `max_pool_size` bounds the connections per server, by default to 32.
        `observers` receive the events of shardcache. `failover="next"` keeps the keys of a server that is
        down on the next ones, and a `Gutter` on spare ones, for a minute at most.

        Without effect are `no_delay` and `socket_keepalive`, which are always on; `use_pooling`,
        `pool_idle_timeout` and `lock_generator`, as there is always a pool; `retry_attempts`,
        `retry_timeout` and `dead_timeout`, because health decides when a server is asked again.

        Raise `ConfigurationError` for a server that is none, another `hasher`, a `socket_module` that
        is not the process's, observers that are none, and settings that cannot work.
        """
        if isinstance(servers, str):
            raise ConfigurationError("servers must be a list of servers, not one text")
        check_observers(observers)
        check_hasher(hasher)
        check_socket_module(socket_module)
        check_encoding(encoding)
        self.ignore_exc = ignore_exc
        self.default_noreply = default_noreply
        self._secure = tls_context is not None
        self._connect = partial(
            SerdeClient,
            rules=KeyRules(prefix_of(key_prefix), allow_unicode_keys),
            values=SerdePayloads(serde or LegacyWrappingSerde(serializer, deserializer), encoding),
            timeout=timeouts_of(timeout, connect_timeout),
            on_error="miss" if ignore_exc else "raise",
            failover=failover,
            pool_size=POOL_SIZE if max_pool_size is None else max_pool_size,
            ssl_context=tls_context,
            observers=tuple(observers),
        )
        self._changing = ProcessLock()
        nodes = {node.name: node for node in map(self._node, servers)}
        self._client = self._connect(nodes.values()) if nodes else None

    def get(self, key: Key, default: Any = None) -> Any:
        """Return the value of `key`, or `default`."""
        return self._ask(lambda client: client.get(key, default), default)

    def get_many(self, keys: Iterable[Key], gets: bool = False) -> dict[Key, Any]:
        """Return the keys found with their values, with tokens as well if `gets`; all nodes are asked at once."""
        if gets:
            return self.gets_many(keys)
        return self._ask(lambda client: client.get_many(keys), {})

    get_multi = get_many

    def gets(self, key: Key, default: Any = None, cas_default: Any = None) -> tuple[Any, Any]:
        """Return the value of `key` and its token for `cas`, or both defaults."""

        def ask(client: SerdeClient) -> tuple[Any, Any]:
            value, token = client.gets(key, default)
            return (default, cas_default) if token is None else (value, digits_of(token))

        return self._ask(ask, (default, cas_default))

    def gets_many(self, keys: Iterable[Key]) -> dict[Key, tuple[Any, bytes]]:
        """Return the keys found, each with its value and its token for `cas`."""
        nothing: dict[Key, tuple[Any, Any]] = {}
        found = self._ask(lambda client: client.gets_many(keys), nothing)
        return {key: (value, digits_of(token)) for key, (value, token) in found.items()}

    gets_multi = gets_many

    def set(
        self,
        key: Key,
        value: Any,
        expire: int = 0,
        noreply: bool | None = None,
        flags: int | None = None,
    ) -> bool:
        """Store `value`; return whether it was stored, `True` with `noreply`."""
        item, ttl, unread = Item(value, flags), _ttl(expire), self._unread(noreply)
        return self._ask(lambda client: client.set(key, item, ttl) or unread, False, unread)

    def set_many(
        self,
        values: Mapping[Key, Any],
        expire: int = 0,
        noreply: bool | None = None,
        flags: int | None = None,
    ) -> list[Key]:
        """Store every item, all nodes at once; return the keys that could not be stored."""
        check_items("set_many", values)
        items, ttl = {key: Item(value, flags) for key, value in values.items()}, _ttl(expire)
        unread = self._unread(noreply)

        def ask(client: SerdeClient) -> list[Key]:
            try:
                return client.set_many(items, ttl)
            except PartialFailureError as error:
                if not (unread and client.note_refusals(error)):
                    raise
                return list(error.failed)

        return self._ask(ask, list(items))

    set_multi = set_many

    def add(
        self,
        key: Key,
        value: Any,
        expire: int = 0,
        noreply: bool | None = None,
        flags: int | None = None,
    ) -> bool:
        """Store `value` if the key is missing; return whether it was stored, `True` with `noreply`."""
        item, ttl, unread = Item(value, flags), _ttl(expire), self._unread(noreply)
        return self._ask(lambda client: client.add(key, item, ttl) or unread, False, unread)

    def replace(
        self,
        key: Key,
        value: Any,
        expire: int = 0,
        noreply: bool | None = None,
        flags: int | None = None,
    ) -> bool:
        """Store `value` if the key exists; return whether it was stored, `True` with `noreply`."""
        item, ttl, unread = Item(value, flags), _ttl(expire), self._unread(noreply)
        return self._ask(lambda client: client.replace(key, item, ttl) or unread, False, unread)

    def append(
        self,
        key: Key,
        value: Any,
        expire: int = 0,
        noreply: bool | None = None,
        flags: int | None = None,
    ) -> bool:
        """Put data behind that of a value; return whether there was one, `True` with `noreply`.

        The value keeps its expiry and flags, whatever is passed, as memcached does it.
        """
        return self._extend(key, Item(value, flags), Side.AFTER, expire, noreply)

    def prepend(
        self,
        key: Key,
        value: Any,
        expire: int = 0,
        noreply: bool | None = None,
        flags: int | None = None,
    ) -> bool:
        """Put data in front of that of a value; return what `append` does."""
        return self._extend(key, Item(value, flags), Side.BEFORE, expire, noreply)

    def cas(
        self,
        key: Key,
        value: Any,
        cas: int | str | bytes,
        expire: int = 0,
        noreply: bool = False,
        flags: int | None = None,
    ) -> bool | None:
        """Store `value` if the key has not changed since `gets` returned `cas`.

        Return `True` when it was stored, `False` when the key was changed meanwhile, `None` when it is
        missing; with `noreply` `True`.
        """
        item, ttl, token = Item(value, flags), _ttl(expire), token_of(cas)

        def ask(client: SerdeClient) -> bool | None:
            stored = client.cas(key, item, token, ttl)
            return True if noreply else stored

        return self._ask(ask, False, noreply)

    def delete(self, key: Key, noreply: bool | None = None) -> bool:
        """Delete `key`; return whether it existed, `True` with `noreply`."""
        unread = self._unread(noreply)
        return self._ask(lambda client: client.delete(key) or unread, False, unread)

    def delete_many(self, keys: Iterable[Key], noreply: bool | None = None) -> bool:
        """Delete every key, all nodes at once; return `True`."""
        self._ask(lambda client: client.delete_many(keys), 0)
        return True

    delete_multi = delete_many

    def incr(self, key: Key, value: int, noreply: bool = False) -> int | None:
        """Add `value` to a counter; return its new value, `None` if it is missing or with `noreply`.

        With `ignore_exc` the result is `False` for a counter that could not be reached.
        """
        delta = delta_of(value)
        return self._count(lambda client: client.incr(key, delta), noreply)

    def decr(self, key: Key, value: int, noreply: bool = False) -> int | None:
        """Subtract `value` from a counter, which stops at 0; return what `incr` does."""
        delta = delta_of(value)
        return self._count(lambda client: client.decr(key, delta), noreply)

    def touch(self, key: Key, expire: int = 0, noreply: bool | None = None) -> bool:
        """Set the expiry of `key`; return whether it existed, `True` with `noreply`."""
        ttl, unread = _ttl(expire), self._unread(noreply)
        return self._ask(lambda client: client.touch(key, ttl) or unread, False, unread)

    def flush_all(self, delay: int = 0, noreply: bool | None = None) -> None:
        """Empty every server, for all its users; a `delay` raises `UnsupportedError`."""
        if check_integer(delay, "delay"):
            raise UnsupportedError(
                "flush_all: there is no delay; call it when the servers are to be empty"
            )
        self._ask(lambda client: client.flush_all(), False)

    def stats(self) -> dict[str, dict[str, str]]:
        """Return each server's own figures by its name, `host:port` or the path of its socket."""

        def ask(client: SerdeClient) -> dict[str, dict[str, str]]:
            figures = {}
            for name, node in client.stats().items():
                if isinstance(node.server, dict):
                    figures[name] = node.server
                elif not self.ignore_exc:
                    raise node.server
            return figures

        return self._ask(ask, {})

    def version(self) -> dict[str, bytes]:
        """Return the version of each server by its name."""
        return {name: figures["version"].encode() for name, figures in self.stats().items()}

    def counters(self) -> Counters:
        """Return this client's counters by server: calls, hits, errors swallowed and more.

        It asks no server; see `Client.counters`. They begin again when the client is closed.
        """
        client = self._client
        return Counters() if client is None else client.counters()

    def add_server(self, server: Server, port: int | None = None) -> None:
        """Add a server; nothing changes if it is there already."""
        node = self._node(server if port is None else _pair(server, port))
        with self._changing.current():
            if self._client is None:
                self._client = self._connect([node])
            elif node not in self._client.nodes:
                self._client.add_node(node)

    def remove_server(self, server: Server, port: int | None = None) -> None:
        """Remove a server; raise `ValueError` if there is no such server."""
        node = self._node(server if port is None else _pair(server, port))
        with self._changing.current():
            client = self._client
            if client is None or node not in client.nodes:
                raise ValueError(f"no server {node.name} to remove")
            if len(client.nodes) > 1:
                client.remove_node(node.name)
            else:
                self._client = None
                client.close()

    def close(self) -> None:
        """Close all connections; a later call opens new ones."""
        with self._changing.current():
            client = self._client
            if client is not None:
                self._client = self._connect(client.nodes)
                client.close()

    disconnect_all = close
    quit = close

    def __reduce__(self) -> NoReturn:
        """Raise `ClientCopyError`: two clients would share connections, and close them."""
        raise ClientCopyError("HashClient cannot be copied or pickled: create one in each process")

    def __repr__(self) -> str:
        return f"<HashClient {[] if self._client is None else list(map(str, self._client.nodes))}>"

    def _node(self, server: object) -> Node:
        return node_of(server, secure=self._secure)

    def _unread(self, noreply: bool | None) -> bool:
        """Return whether the caller does not read the answer to a write."""
        return self.default_noreply if noreply is None else noreply

    def _extend(self, key: Key, item: Item, side: Side, expire: int, noreply: bool | None) -> bool:
        check_integer(expire, "expire")
        unread = self._unread(noreply)
        return self._ask(lambda client: client.extend(key, item, side) or unread, False, unread)

    def _count(self, call: Callable[[SerdeClient], int | None], noreply: bool) -> int | None:
        def ask(client: SerdeClient) -> int | None:
            count = call(client)
            return None if noreply else count

        return self._ask(ask, False, noreply)

    def _ask(self, call: Callable[[SerdeClient], T], failed: U, unread: bool = False) -> T | U:
        """Return the result of a call, or `failed` if a node failed and `ignore_exc` is set.

        Raise pymemcache's error otherwise. If the caller does not read the answer (`unread`), a
        refusal by a node is counted and logged instead, and `failed` is returned.
        """
        while True:
            client = self._client
            if client is None:
                if self.ignore_exc:
                    return failed
                raise MemcacheError("there are no servers")
            try:
                return call(client)
            except ClientClosedError:  # by another thread, before anything was sent
                if client is self._client:
                    raise
            except (DecodeError, NodeError, PartialFailureError) as error:
                if self.ignore_exc or (unread and client.note_refusals(error)):
                    return failed
                translated = translate(errors_in(error)[0])
                raise translated from (None if translated is error.__cause__ else error)


def _ttl(expire: int) -> float | None:
    return ttl_of(expire, time.time())


def _pair(host: object, port: int) -> Server:
    if not isinstance(host, str):
        raise TypeError("a server is text when a port is passed")
    return host, port
