"""The members of a client: its nodes, how they change, and its background services."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Hashable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, cast

from shardcache.backends.base import AsyncBackend, Backend
from shardcache.backends.live_objects import LiveObjects
from shardcache.backends.locking import ProcessLock
from shardcache.clients.construction import build_strategy
from shardcache.clients.namespaces import Namespace
from shardcache.clients.services import Service, Services, StartingIO
from shardcache.core.commands import FlushAll
from shardcache.core.events import TopologyChanged, WarmUpEnded
from shardcache.core.placement.nodes import MEMORY, Node
from shardcache.core.placement.strategy import Strategy
from shardcache.core.placement.topology import Topology, TopologyChange
from shardcache.core.placement.url_warnings import url_warnings
from shardcache.core.values.other_clients import OtherClients, largest_value
from shardcache.errors import ClientClosedError
from shardcache.log import log
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.members import GetStraight, Member
from shardcache.operations.cluster.moves import Move
from shardcache.operations.cluster.warming import with_move
from shardcache.operations.locks.redlock import Redlock
from shardcache.operations.port import IO
from shardcache.plugin.manager import Plugins, load
from shardcache.settings import node_list
from shardcache.settings.follow import follow_seconds

if TYPE_CHECKING:  # loaded with the first node that speaks TLS
    import ssl

BackendT = TypeVar("BackendT", bound=Backend | AsyncBackend)

MIN_LOCK_NODES: Final = 3  # fewer do not survive the loss of one


class Handle(Protocol):
    """A client, or a view of one, over shared members; its operations work on its own cluster."""

    _cluster: Cluster


class Membership(Generic[BackendT]):
    """The members of one client and its views: one list of nodes, one health, one set of connections.

    `cluster` is the client's own. Each handle has a cluster with the same topology and members, which is
    replaced whole when they change: calls in flight keep the one they started with, and its backends
    serve them to the end.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what a client is built from
        self,
        plugins: Plugins,
        connect: Callable[[Node], BackendT],
        others: OtherClients,
        ssl_context: ssl.SSLContext | None,
        close_later: Callable[[list[BackendT]], None],
        sampling: Callable[[GetStraight], GetStraight] | None = None,
    ) -> None:
        """Prepare for members; `sampling` is put around the straight way of their reads, for a shadow."""
        self.cluster: Cluster  # set by `begin`
        self.services = Services()
        self._plugins = plugins
        self._connect = connect
        self._others = others
        self._ssl_context = ssl_context
        self._close_later = close_later
        self._sampling = sampling
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

    async def prepare(self, decide: Callable[[Topology], Topology]) -> None:
        """Announce the next nodes, and wait until no call goes on that does not know them.

        If they have been announced before, wait for what is left of that time.
        """
        cluster = self.cluster
        move, topology = cluster.move, decide(cluster.topology)
        if move is None or not move.announced or not _same(move.topology, topology):
            _, retired = self.announce(decide)
            self._close_later(retired)
            move = self.cluster.move
        if move is None:  # the cache is turned off
            return
        try:
            await cluster.io.sleep(max(0.0, move.since + cluster.timeout - cluster.io.now()))
        except BaseException:
            self.end(move)
            raise

    async def empty(self, node: Node) -> None:
        """Empty a node that is to be added; raise its error, or `TopologyError` if it cannot be added."""
        cluster = self.cluster
        cluster.topology.adding(node)
        backend = self._connect(node)
        try:
            await cluster.io.call(backend, FlushAll(), cluster.deadline())
        finally:
            self._close_later([backend])

    def announce(
        self, decide: Callable[[Topology], Topology]
    ) -> tuple[TopologyChange, list[BackendT]]:
        """Delete what is written or deleted on the nodes of the topology that `decide` returns as well.

        Return the change to come, and the backends that are not used any more, to be closed.
        """

        def build(cluster: Cluster) -> Cluster:
            topology = decide(cluster.topology)
            move = Move(topology, self._members_of(topology), cluster.io.now())
            return with_move(cluster.with_nodes(cluster.topology, cluster.members), move)

        before, _, retired = self._replace(build)
        return TopologyChange(before.topology, decide(before.topology)), retired

    def change(
        self, decide: Callable[[Topology], Topology], warm_for: float = 0.0
    ) -> tuple[TopologyChange, list[BackendT]]:
        """Replace the topology by what `decide` returns for it; read old nodes for `warm_for` seconds.

        Return the change, and the backends that are not used any more, to be closed.
        """

        def build(cluster: Cluster) -> Cluster:
            topology = decide(cluster.topology)
            changed = cluster.with_nodes(topology, self._members_of(topology))
            if not warm_for:
                return changed
            now, end = cluster.io.now(), self._ender()
            return with_move(changed, Move(cluster.topology, cluster.members, now, warm_for, end))

        before, after, retired = self._replace(build)
        return TopologyChange(before.topology, after.topology), retired

    def end(self, move: Move) -> None:
        """Ask the other nodes of a move no more; close the connections of those that are not used."""

        def build(cluster: Cluster) -> Cluster:
            ended = cluster.move is move
            return cluster.with_nodes(cluster.topology, cluster.members) if ended else cluster

        if not self.closed and self.cluster.move is move:
            _, _, retired = self._replace(build)
            self._close_later(retired)

    def _ender(self) -> Callable[[Move], None]:
        """Return `end`, as long as the client is alive."""
        reference = weakref.ref(self)

        def end(move: Move) -> None:
            membership = reference()
            if membership is not None:
                membership.end(move)

        return end

    def _replace(
        self, build: Callable[[Cluster], Cluster]
    ) -> tuple[Cluster, Cluster, list[BackendT]]:
        """Replace the cluster by what `build` returns for it; return both, and what is not used any more."""
        with self._changing.current():
            try:
                while True:
                    cluster = self.cluster
                    changed = build(cluster)
                    used = set(changed.all_members.values())
                    for member in used.difference(cluster.all_members.values()):
                        cluster.ejector.add(member, self._identity(member.node))
                    _hand_over(cluster, changed)
                    if self.cluster is cluster:  # no finalizer has changed it meanwhile
                        self.cluster = changed
                        break
            finally:
                self._update_handles()
            cluster.ejector.keep(used)
        retired = [member for member in cluster.all_members.values() if member not in used]
        move = cluster.move
        if move is not None and not move.announced and changed.move is not move:
            log.info("warm-up ended: %d values copied from old nodes", move.copied)
            if cluster.observers:
                cluster.observers.notify(WarmUpEnded(move.reads, move.hits, move.copied))
        return cluster, changed, [member.backend for member in retired]

    def _members_of(self, topology: Topology) -> dict[str, Member]:
        """Return the members of a topology; a node of the same name and address keeps its member."""
        return {node.name: self._reuse(node) for node in topology.nodes}

    def notify_changed(self, change: TopologyChange) -> None:
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
            elif not isinstance(own, Closed) and not _follows(own, current):
                changed = own.with_nodes(current.topology, current.members)
                handle._cluster = with_move(changed, current.move)  # noqa: SLF001
            if self.cluster is current:
                return

    def _member(self, node: Node) -> Member:
        member = Member(node, self._connect(node))
        if self._sampling is not None and member.get_straight is not None:
            member.get_straight = self._sampling(member.get_straight)
        others = self._others  # what a node may hold is what may be read of it
        others.largest = max(others.largest, largest_value(node.address.options))
        for caution in url_warnings(node):
            log.warning("node %s: %s", node.name, caution)
        return member

    def _reuse(self, node: Node) -> Member:
        """Return the node's present member if its address is the same, else a new one."""
        cluster = self.cluster
        known = [cluster.members, {} if cluster.move is None else cluster.move.members]
        for members in known:
            member = members.get(node.name)
            if member is not None and member.node.url == node.url:
                member.node = node
                return member
        return self._member(node)

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


def _hand_over(before: Cluster, after: Cluster) -> None:
    """Keep what is known of a server that the nodes after a change reach under other options."""
    own = list(after.members.values())
    heirs = {_server_of(member): member for member in own}
    for former in before.value_members.values():
        heir = None if former in own else heirs.get(_server_of(former))
        if heir is not None:
            before.ejector.succeed(heir, former)


def _server_of(member: Member) -> tuple[object, ...]:
    address = member.node.address
    return address.host, address.port, address.path


def _follows(own: Cluster, current: Cluster) -> bool:
    """Return whether the cluster of a handle has the nodes of the client's own, and the same move."""
    return own.topology is current.topology and own.move is current.move


def _same(one: Topology, other: Topology) -> bool:
    """Return whether two topologies place every key equally, without a look at their tables."""
    return one.nodes == other.nodes and one.strategy.name == other.strategy.name


def _set_io(cluster: Cluster, io: IO[Any]) -> None:
    """Replace the port of a cluster and of its locks."""
    cluster.use_io(io)
    if cluster.locks is not None:
        cluster.locks.use_io(io)


def changed_topology(
    topology: Topology, nodes: str | Node | Iterable[str | Node], strategy: str | Strategy | None
) -> Topology:
    """Return the topology of other nodes, under the same strategy or another."""
    listed = node_list(nodes)
    if strategy is None:
        return topology.replaced(listed)
    return Topology(listed, build_strategy(load(), strategy))


def warm_seconds(warm_for: float | timedelta) -> float:
    """Return `warm_for` in seconds; raise `ConfigurationError` for what is no length of time."""
    return follow_seconds("warm_for", warm_for)


_with_services: LiveObjects[Membership[Any]] = LiveObjects()


def _after_fork() -> None:
    for membership in _with_services:
        membership.restart_services()


os.register_at_fork(after_in_child=_after_fork)
