"""The members of a client: its nodes, how they change, and its background services."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, cast

from shardcache.backends.base import AsyncBackend, Backend
from shardcache.backends.live_objects import LiveObjects
from shardcache.backends.locking import ProcessLock
from shardcache.clients.namespaces import Namespace
from shardcache.clients.services import Service, Services, StartingIO
from shardcache.core.events import TopologyChanged
from shardcache.core.placement.nodes import MEMORY, Node
from shardcache.core.placement.topology import Topology, TopologyChange
from shardcache.core.placement.url_warnings import url_warnings
from shardcache.core.values.other_clients import OtherClients, largest_value
from shardcache.errors import ClientClosedError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.members import Member
from shardcache.operations.locks.redlock import Redlock
from shardcache.operations.port import IO
from shardcache.plugin.manager import Plugins

if TYPE_CHECKING:  # loaded with the first node that speaks TLS
    import ssl

BackendT = TypeVar("BackendT", bound=Backend | AsyncBackend)

MIN_LOCK_NODES: Final = 3  # fewer do not survive the loss of one

log = logging.getLogger("shardcache")


class Handle(Protocol):
    """A client, or a view of one, over shared members; its operations work on its own cluster."""

    _cluster: Cluster


class Membership(Generic[BackendT]):
    """The members of one client and its views: one list of nodes, one health, one set of connections.

    `cluster` is the client's own. Each handle has a cluster with the same topology and members, which is
    replaced whole when they change: calls in flight keep the one they started with, and its backends
    serve them to the end.
    """

    def __init__(
        self,
        plugins: Plugins,
        connect: Callable[[Node], BackendT],
        others: OtherClients,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self.cluster: Cluster  # set by `begin`
        self.services = Services()
        self._plugins = plugins
        self._connect = connect
        self._others = others
        self._ssl_context = ssl_context
        self._handles: LiveObjects[Handle] = LiveObjects()
        self._namespaces: weakref.WeakValueDictionary[str, Namespace]
        self._namespaces = weakref.WeakValueDictionary()
        self._io: IO[Any]
        self._changing = ProcessLock()  # reentrant: a finalizer may change or close the client, too
        self._warned_of_locks = False

    def build(self, topology: Topology) -> dict[str, Member]:
        """Return a new member for each node of a topology, by name."""
        return {node.name: self._member(node) for node in topology.nodes}

    def begin(self, cluster: Cluster) -> None:
        """Use the client's first cluster, and watch the health of its nodes."""
        self.cluster = cluster
        self._io = cluster.io
        for member in cluster.all_members.values():
            cluster.ejector.add(member, self._identity(member.node))

    def join(self, handle: Handle) -> None:
        """Keep a handle's cluster up to date from now on, as long as the handle is alive."""
        with self._changing.current():
            self._handles.remove_dead()
            self._handles.add(handle)
            self._update(handle)
            if not self.closed:
                _set_io(handle._cluster, self.cluster.io)  # noqa: SLF001 - its part in a handle

    def namespace(self, name: str) -> Namespace:
        """Return what the handles with this namespace share; it lasts as long as one of them."""
        with self._changing.current():
            return self._namespaces.setdefault(name, Namespace(name))

    @property
    def closed(self) -> bool:
        """Return whether the client is closed."""
        return isinstance(self.cluster, Closed)

    def change(
        self, decide: Callable[[Topology], Topology]
    ) -> tuple[TopologyChange, list[BackendT]]:
        """Replace the topology by what `decide` returns for it.

        Return the change, and the backends that are not used any more, to be closed.
        """
        with self._changing.current():
            try:
                while True:
                    cluster = self.cluster
                    topology = decide(cluster.topology)
                    members = {
                        node.name: self._reuse(cluster.members, node) for node in topology.nodes
                    }
                    changed = cluster.with_nodes(topology, members)
                    used = set(members.values())
                    for member in used.difference(cluster.members.values()):
                        cluster.ejector.add(member, self._identity(member.node))
                    if self.cluster is cluster:  # no finalizer has changed it meanwhile
                        self.cluster = changed
                        break
            finally:
                self._update_handles()
            cluster.ejector.keep(changed.all_members.values())
        retired = [member for member in cluster.members.values() if member not in used]
        return TopologyChange(cluster.topology, topology), [member.backend for member in retired]

    def announce(self, change: TopologyChange) -> None:
        """Notify observers and plugins of a change."""
        observers = self.cluster.observers
        if observers:
            observers.notify(TopologyChanged(change))
        self._plugins.topology_changed(change)

    def close(self, kind: str) -> list[BackendT]:
        """Stop the services and refuse all further calls; return every backend, to be closed.

        The second time there is none. `kind` is the name of the client's class, for errors.
        """
        closed = cast("Cluster", Closed(kind))
        with self._changing.current():
            try:
                cluster, self.cluster = self.cluster, closed  # nothing comes in between
            finally:
                self._update_handles()
        if isinstance(cluster, Closed):
            return []
        self.services.stop()
        cluster.ejector.stop()
        return [member.backend for member in cluster.all_members.values()]

    def add_service(self, service: Service) -> None:
        """Add a service: the next call to a node starts it, closing the client stops it."""
        self.services.add(service)
        _with_services.add(self)
        self._await_call()

    def warn_of_few_lock_nodes(self) -> None:
        """Log one warning if there are too few nodes for locks to survive the loss of one."""
        count = len(self.cluster.locking.members)
        on_nodes = isinstance(self.cluster.lock_provider, Redlock)
        if on_nodes and count < MIN_LOCK_NODES and not self._warned_of_locks:
            self._warned_of_locks = True
            log.warning(
                "locks are stored on %d node(s): losing one node loses them; use three or more",
                count,
            )

    def restart_services(self) -> None:
        """In a forked child, have the services started again by the next call to a node."""
        self.services.forget_inherited()
        if not self.closed:
            self._await_call()

    def _await_call(self) -> None:
        """Start the services at the next call to a node."""
        with self._changing.current():
            self._use_io(cast("IO[Any]", StartingIO(self._io, self._start_services)))

    def _start_services(self) -> None:
        self._use_io(self._io)
        self.services.start()

    def _use_io(self, io: IO[Any]) -> None:
        for cluster in (self.cluster, *(handle._cluster for handle in self._handles)):  # noqa: SLF001 - its part in a handle
            if not isinstance(cluster, Closed):
                _set_io(cluster, io)

    def _update_handles(self) -> None:
        """Pass the current members to every handle, also when a signal raises meanwhile."""
        try:
            for handle in self._handles:
                self._update(handle)
        except BaseException:
            for handle in self._handles:
                self._update(handle)
            raise

    def _update(self, handle: Handle) -> None:
        """Pass the current members to a handle; again, if a finalizer has changed them meanwhile."""
        while True:
            current, own = self.cluster, handle._cluster  # noqa: SLF001 - as above
            if isinstance(current, Closed):
                handle._cluster = current  # noqa: SLF001
            elif not isinstance(own, Closed) and own.topology is not current.topology:
                handle._cluster = own.with_nodes(current.topology, current.members)  # noqa: SLF001
            if self.cluster is current:
                return

    def _member(self, node: Node) -> Member:
        member = Member(node, self._connect(node))
        others = self._others  # what a node may hold is what may be read of it
        others.largest = max(others.largest, largest_value(node.address.options))
        for caution in url_warnings(node):
            log.warning("node %s: %s", node.name, caution)
        return member

    def _reuse(self, members: Mapping[str, Member], node: Node) -> Member:
        """Return the node's present member if its address is the same, else a new one."""
        member = members.get(node.name)
        if member is None or member.node.url != node.url:
            return self._member(node)
        member.node = node
        return member

    def _identity(self, node: Node) -> Hashable:
        """Return what clients of this process must have in common to share a node's health.

        That is its whole address, with login and TLS options, and the TLS context. An in-process
        memory node belongs to its client alone.
        """
        address = node.address
        return None if address.scheme == MEMORY else (address, self._ssl_context)


class Closed:
    """Stands in for the cluster of a closed client: every use raises `ClientClosedError`."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __getattr__(self, name: str) -> Any:  # every attribute raises
        raise ClientClosedError(f"this {self._kind} is closed")


def _set_io(cluster: Cluster, io: IO[Any]) -> None:
    """Replace the port of a cluster and of its locks."""
    cluster.io = io
    if cluster.locks is not None:
        cluster.locks.io = io


_with_services: LiveObjects[Membership[Any]] = LiveObjects()


def _after_fork() -> None:
    for membership in _with_services:
        membership.restart_services()


os.register_at_fork(after_in_child=_after_fork)
