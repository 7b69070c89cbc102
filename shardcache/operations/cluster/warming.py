"""A cluster whose keys move to other nodes: values follow their keys, and no old one outlives a write.

A change of nodes has two steps. While it is *announced*, a key is read and written on its own node, and
what is written or deleted there is then deleted on its next node. After the *switch* a key belongs to
that node. A read that misses there reads the old node and copies the value, and what is written or
deleted is first deleted on the old node.

So a write or delete, of whichever process, reaches the *source* first, from which values are copied,
and then the *target*. A copy begins with a stub on the target, and only then reads the source. Its
`Cas` stores the value only while that stub is there. A delete in between takes the stub away. A delete
before the stub had reached the source before it was read. No copy is older than a confirmed write,
then, as long as each process has either announced the change or switched.

Processes switch one after the other, within `SPREAD` seconds. For so long after it has stopped reading
the old nodes, a process goes on deleting there, because others may read them still.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from functools import cache
from typing import Any, ClassVar, Final, TypeAlias, cast

from shardcache.core.commands import (
    REPLIES,
    Cas,
    Command,
    CommandList,
    Delete,
    DeleteCas,
    DeleteMany,
    GetAged,
    GetMany,
    GetOrStub,
    Reply,
    StubReply,
    keys_of,
)
from shardcache.core.events import OldNodesRead
from shardcache.core.key_accesses import single_commands
from shardcache.core.placement.topology import Topology
from shardcache.core.values.flags import is_mark
from shardcache.errors import NodeError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.failover import StandIn
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.moves import (
    LOOKING,
    MANY,
    Aged,
    Move,
    Moving,
    can_copy,
    commands_of,
    fill_in,
    is_add,
    may_have_changed,
    merge,
    missing_in,
    moves_with_owner,
    needs_value,
    replaces,
    values_in,
)
from shardcache.operations.cluster.routing import hashed_by_name, owner_by_name, reached_by_name
from shardcache.operations.port import Enough

# The ttl of a copy's stub, in seconds. A node that counts whole seconds keeps it for one at least.
STUB_SECONDS: Final = 2.0

Asks: TypeAlias = Sequence[tuple[Member, Command]]
Timed: TypeAlias = tuple[Reply, float]
Others: TypeAlias = Mapping[bytes, Member]  # by the name of a key: its other node
Owners: TypeAlias = Mapping[bytes, Member]  # as well: its own node


class MovingCluster(Cluster):
    """What the two steps of a change have in common; `plain` is the kind of cluster without a change."""

    __slots__ = ()

    plain: ClassVar[type[Cluster]] = Cluster

    def with_nodes(self, topology: Topology, members: Mapping[str, Member]) -> Cluster:
        """Return a cluster of another topology, whose keys do not move."""
        settled: Cluster = copy(self)
        settled.__class__ = self.plain
        settled.moving = None
        settled.use_io(self.io)
        return settled.with_nodes(topology, members)

    def holders(self, name: bytes, member: Member) -> Sequence[Member]:
        """Return the members that may have a key now, its own node last."""
        other = self._other(name, member)
        return [member] if other is None else [other, member]

    async def ask(self, member: Member, command: Command, deadline: float | None = None) -> Reply:
        """Ask a key's node; if the key moves, also its other node where the command needs it."""
        if self._is_over() or not self._others([(member, command)]):
            return await super().ask(member, command, deadline)
        ((reply, _),) = await self.ask_timed([(member, command)], deadline)
        return reply

    def _is_over(self) -> bool:
        """Return whether the other nodes are not asked any more."""
        return False

    @property
    def _move(self) -> Move:
        return cast("Moving", self.moving).move

    def _other(self, name: bytes, member: Member) -> Member | None:
        """Return the other node of a key; `None` if it does not move, or `member` is not its owner."""
        if not moves_with_owner(name):
            return None
        other = cast("Moving", self.moving).owner(name)
        owner = member.owner if isinstance(member, StandIn) else member
        return None if other is owner else other

    def _others(self, asks: Iterable[tuple[Member, Command]]) -> dict[bytes, Member]:
        """Return the other node of each key that moves, by its name."""
        found = {}
        for member, command in asks:
            for name in keys_of(command):
                other = self._other(name, member)
                if other is not None:
                    found[name] = other
        return found

    async def _send(self, asks: Asks, until: float) -> list[Reply]:
        """Return the replies to commands; those about one key of the same node travel together."""
        groups: dict[Any, list[int]] = {}
        for place, (member, command) in enumerate(asks):
            alone = isinstance(command, MANY) or CommandList not in member.supports
            groups.setdefault((member, place if alone else None), []).append(place)
        joined = [_join([asks[place] for place in places]) for places in groups.values()]
        replies: list[Reply] = [None] * len(asks)
        answers = await super().ask_timed(joined, until) if joined else ()
        for places, (answer, _) in zip(groups.values(), answers, strict=True):
            each = (
                answer
                if len(places) > 1 and isinstance(answer, REPLIES)
                else [answer] * len(places)
            )
            for place, reply in zip(places, each, strict=True):
                replies[place] = reply
        return replies

    async def _delete(self, others: Others, until: float) -> dict[bytes, Reply]:
        """Delete keys on their other nodes, or the stand-ins of these; return the replies, by name."""
        names: dict[Member, list[bytes]] = {}
        for name in others:
            names.setdefault(cast("Moving", self.moving).reached(name), []).append(name)
        asks = [
            (member, DeleteMany(each) if len(each) > 1 else Delete(each[0]))
            for member, each in names.items()
        ]
        deleted: dict[bytes, Reply] = {}
        for each, reply in zip(names.values(), await self._send(asks, until), strict=True):
            replies = reply if isinstance(reply, list) else [reply] * len(each)
            deleted.update(zip(each, replies, strict=True))
        return deleted


class AnnouncedCluster(MovingCluster):
    """A cluster that knows the next nodes: what it writes and deletes is deleted there as well."""

    __slots__ = ()

    async def ask_timed(
        self,
        asks: Asks,
        deadline: float | None = None,
        enough: Enough | None = None,
        *,
        ejected_too: bool = False,
    ) -> list[Timed]:
        """Ask many nodes at once, then delete on the next nodes what has been written or deleted."""
        until = self.deadline() if deadline is None else deadline
        answers = await super().ask_timed(asks, until, enough, ejected_too=ejected_too)
        others = self._others(
            (member, command)
            for (member, whole), (reply, _) in zip(asks, answers, strict=True)
            for command, reply in single_commands(whole, reply)
            if may_have_changed(command, reply)
        )
        if not others:
            return answers
        deleted = await self._delete(others, until)
        return [
            (merge(command, reply, deleted), seconds)
            for (_, command), (reply, seconds) in zip(asks, answers, strict=True)
        ]


class WarmingCluster(MovingCluster):
    """A cluster that has switched: it copies values from the old nodes, and deletes on both."""

    __slots__ = ()

    async def ask_timed(
        self,
        asks: Asks,
        deadline: float | None = None,
        enough: Enough | None = None,
        *,
        ejected_too: bool = False,
    ) -> list[Timed]:
        """Ask many nodes at once: delete on old nodes before it, and read what is missing after it."""
        others = {} if self._is_over() else self._others(asks)
        if not others or enough is not None or ejected_too:
            return await super().ask_timed(asks, deadline, enough, ejected_too=ejected_too)
        began = self.io.now()
        until = self.deadline() if deadline is None else deadline
        flat = [(member, command) for member, whole in asks for command in commands_of(whole)]
        replies = iter(await self._ask_flat(flat, others, until))
        seconds = self.io.now() - began
        answers: list[Timed] = []
        for _, whole in asks:
            if isinstance(whole, CommandList):
                answers.append(([next(replies) for _ in whole.commands], seconds))
            else:
                answers.append((next(replies), seconds))
        return answers

    async def _ask_flat(self, asks: Asks, others: Others, until: float) -> list[Reply]:
        """Return the replies to commands, none of them a list."""
        kept = await self._bring(_names(asks, others, needs_value), _owners(asks), until)
        deleted = await self._delete(_names(asks, others, replaces), until)
        for name, reply in deleted.items():
            # An answer of a stand-in says nothing of the old node, which may be back soon.
            if isinstance(reply, NodeError) or others[name].health.ejected:
                self._move.note_unconfirmed(name)
        # A key is not free for an `add` if its old value is there and could not be copied.
        taken = {
            place
            for place, (_, command) in enumerate(asks)
            if is_add(command) and not kept.isdisjoint(keys_of(command))
        }
        sent = [ask for place, ask in enumerate(asks) if place not in taken]
        answers = iter(await self._send(sent, until))
        replies = [
            False if place in taken else merge(command, next(answers), deleted)
            for place, (_, command) in enumerate(asks)
        ]
        return await self._fill(asks, replies, others, until)

    async def _bring(self, others: Others, own: Owners, until: float) -> set[bytes]:
        """Copy old values before commands that depend on them; return the keys that stay behind."""
        found = await self._look(others, until)
        return set(found) - await self._copy(found, others, own, until)

    async def _fill(
        self, asks: Asks, replies: list[Reply], others: Others, until: float
    ) -> list[Reply]:
        """Return the replies with what the old nodes have in place of what is missing."""
        missing = {
            name: others[name]
            for (_, command), reply in zip(asks, replies, strict=True)
            for name in missing_in(command, reply)
            if name in others
        }
        if not missing or self.io.now() >= self._move.reads_until:
            return replies
        found = await self._look(missing, until)
        copied = await self._copy(found, others, _owners(asks), until)
        self._count(len(missing), len(found), len(copied))
        again = [
            place
            for place, (_, command) in enumerate(asks)
            if type(command) in LOOKING
            and not copied.isdisjoint(missing_in(command, replies[place]))
        ]
        looks = await self._send([asks[place] for place in again], until)
        complete = [
            fill_in(command, reply, found)
            for (_, command), reply in zip(asks, replies, strict=True)
        ]
        for place, reply in zip(again, looks, strict=True):
            complete[place] = reply
        return complete

    async def _look(self, others: Others, until: float) -> dict[bytes, Aged]:
        """Return the values that old nodes have under these names."""
        move = self._move
        if self.io.now() >= move.reads_until:
            return {}
        asks: list[tuple[Member, Command]] = []
        ageless: dict[Member, list[bytes]] = {}
        for name, other in others.items():
            if name in move.unconfirmed or other.health.pending:  # it may be about to be deleted
                continue
            if GetAged in other.supports:
                asks.append((other, GetAged(name)))
            else:
                ageless.setdefault(other, []).append(name)
        asks += [(other, GetMany(names)) for other, names in ageless.items()]
        found: dict[bytes, Aged] = {}
        for (_, command), reply in zip(asks, await self._send(asks, until), strict=True):
            found.update(values_in(command, reply))
        return found

    async def _copy(
        self, found: Mapping[bytes, Aged], others: Others, own: Owners, until: float
    ) -> set[bytes]:
        """Copy values that old nodes have; return the names of those that their own nodes have now."""
        names = [name for name, aged in found.items() if can_copy(aged, own[name])]
        mark = self.io.token()
        stubs: Asks = [(own[name], GetOrStub(name, mark, STUB_SECONDS)) for name in names]
        claims: dict[bytes, StubReply] = {}
        copied = set()
        for name, reply in zip(names, await self._send(stubs, until), strict=True):
            if not isinstance(reply, StubReply):
                continue
            if reply.payload is None:
                claims[name] = reply
            elif not is_mark(reply.payload):
                copied.add(name)  # another caller was faster
        again = await self._look({name: others[name] for name in claims}, until)
        stores: list[tuple[Member, Command]] = []
        for name, claim in claims.items():
            aged = again.get(name)
            if aged is not None and can_copy(aged, own[name]):
                ttl = None if aged.left == math.inf else aged.left
                stores.append((own[name], Cas(name, aged.payload, claim.token, ttl)))
            elif claim.leads:  # it was deleted meanwhile
                stores.append((own[name], DeleteCas(name, claim.token)))
        for (_, command), reply in zip(stores, await self._send(stores, until), strict=True):
            if isinstance(command, Cas) and not isinstance(reply, NodeError):
                self._move.copied += reply is True
                # If not by this caller, it was stored or deleted by another.
                copied.add(command.key)
        return copied

    def _count(self, reads: int, hits: int, copied: int) -> None:
        """Count reads of old nodes, and notify the observers."""
        move = self._move
        move.reads += reads
        move.hits += hits
        if reads and self.observers:
            self.observers.notify(OldNodesRead(reads, hits, copied))

    def _is_over(self) -> bool:
        """Return whether the old nodes are not asked any more; the first to notice ends the move."""
        move = self._move
        over = self.io.now() >= move.until
        if over:
            move.end(move)
        return over


def with_move(cluster: Cluster, move: Move | None) -> Cluster:
    """Return a cluster with the same nodes, whose keys move; without a move they do not."""
    if move is None or cluster.disabled:
        return cluster
    moving: Cluster = copy(cluster)
    hashed = hashed_by_name(move.topology, cluster.keys)
    owner = owner_by_name(move.topology, move.members, hashed)
    failover = cluster.failover and cluster.failover.placed_by(move.topology, move.members)
    moving.moving = Moving(move, owner, reached_by_name(owner, hashed, failover))
    plain = type(cluster)
    moving.__class__ = _kind(plain, announced=move.announced)  # type: ignore[arg-type]  # it looks at the hash of an instance
    moving.use_io(cluster.io)
    return moving


@cache
def _kind(plain: type[Cluster], *, announced: bool) -> type[MovingCluster]:
    """Return the kind of cluster that moves keys, and else does what `plain` does."""
    step = AnnouncedCluster if announced else WarmingCluster
    made = type(step.__name__, (step, plain), {"__slots__": (), "plain": plain})
    return cast("type[MovingCluster]", made)


def _names(asks: Asks, others: Others, wanted: Callable[[Command], bool]) -> dict[bytes, Member]:
    """Return the other node of each moving key of the commands that are `wanted`."""
    return {
        name: others[name]
        for _, command in asks
        if wanted(command)
        for name in keys_of(command)
        if name in others
    }


def _owners(asks: Asks) -> dict[bytes, Member]:
    return {name: member for member, command in asks for name in keys_of(command)}


def _join(asks: Asks) -> tuple[Member, Command]:
    """Return one command to a node for all of its commands."""
    member, command = asks[0]
    return (
        (member, command) if len(asks) == 1 else (member, CommandList([each for _, each in asks]))
    )
