"""Which member keeps the keys of an ejected one meanwhile, and how it is asked for them.

A key's route names a stand-in while the key's own member is ejected, so a whole operation goes to one
node: its reads, writes, stubs and claims. What is member-addressed (a lock, a generation, a probe) has
no route, and so no stand-in.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from shardcache.core.capabilities import CAS, STUBS, Trait, commands_with
from shardcache.core.commands import (
    REPLIES,
    Command,
    CommandList,
    Delete,
    DeleteMany,
    Get,
    Reply,
    Set,
    When,
    is_delete,
    keys_of,
    take,
    with_keys,
)
from shardcache.core.events import CallDetoured
from shardcache.core.placement.topology import Topology
from shardcache.core.reserved_keys import DETOURED, RESERVED, own_key
from shardcache.core.timeouts import TTL_CAP
from shardcache.core.writes import keys_to_write
from shardcache.errors import NodeError, NodeUnavailableError
from shardcache.operations.cluster.members import Member, SharedHealth, refusal
from shardcache.operations.port import Enough

if TYPE_CHECKING:  # it has a failover
    from shardcache.operations.cluster.cluster import Cluster

# A second try is allowed for a tenth of the calls, so that a failing node adds little to the load of
# the others; `BURST` is the most at once.
SHARE: Final = 0.1
BURST: Final = 10.0

# What a stand-in must be able to do if the owner is: without these commands nothing is recomputed.
_NEEDED: Final = CAS | STUBS

# What an operation counts at the member that its route names.
_COUNTED: Final = ("hits", "misses", "errors", "swallowed", "decode_failures")
_SHOWN: Final = ("calls", "hits", "misses", "errors", "swallowed_errors", "decode_failures")

# Commands that need nothing of an earlier reply: they may as well go to the owner when it is back.
ONE_STEP: Final = commands_with(Trait.ONE_STEP)
_REPEATABLE: Final = commands_with(Trait.REPEATABLE)  # and an unconditional `Set`
_LIMITING: Final = commands_with(Trait.LIMITS)


class _DetouredHealth(SharedHealth):
    """The health of all stand-ins: that of an ejected node, so that a cluster looks twice at them.

    A cluster looks for ejected members before each call. That is where it finds the stand-ins as
    well, so a call to a healthy node pays nothing for them.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        self.ejected = True

    @property
    def soft(self) -> bool:
        """Whether it is worth asking: the node behind a stand-in may well answer."""
        return True


_HEALTH: Final = _DetouredHealth()


class StandIn(Member):
    """A member in place of an ejected one, its `owner`, whose keys it keeps under other names.

    It can do what `member` can. What is found on it is counted here, and shown with that one's counters.
    """

    __slots__ = ("_cap", "member", "owner")

    def __init__(self, owner: Member, member: Member, cap: float) -> None:
        super().__init__(member.node, member.backend)
        self.owner = owner
        self.member = member
        self.health = _HEALTH
        self._cap = cap

    def redirect(self, command: Command) -> tuple[Member, Command]:
        """Return the member that gets a command about the owner's keys, and the command as it is sent."""
        if not self.owner.health.ejected and type(command) in ONE_STEP:
            return self.owner, command  # it is back since the key was routed
        keys = [own_key(DETOURED, key) for key in keys_of(command)]
        return self.member, with_ttl_cap(with_keys(command, keys), self._cap)


class DetouredToken(NamedTuple):
    """A stand-in's token for `cas`, as no other node takes it: its number may be one of theirs."""

    token: Hashable


def token_for_caller(member: Member, token: Hashable) -> Hashable:
    """Return the token of a value that `member` has, as `gets` returns it: `cas` asks the owner."""
    return DetouredToken(token) if isinstance(member, StandIn) else token


class _Budget:
    """The second tries of a client and its views: `tokens` are left, after `seen` calls."""

    __slots__ = ("seen", "tokens")

    def __init__(self) -> None:
        self.tokens = BURST
        self.seen = 0


class Failover:
    """The one list of stand-ins: the nodes in a key's order of preference, or spare nodes in theirs.

    `members` are those of `topology`; with `spare` they are no others' owners, and stay when the
    cluster's nodes change.
    """

    __slots__ = ("_budget", "_stand_ins", "cap", "members", "spare", "topology")

    def __init__(
        self,
        topology: Topology,
        members: Mapping[str, Member],
        cap: float = TTL_CAP,
        *,
        spare: bool = False,
    ) -> None:
        self.topology = topology
        self.members = members
        self.cap = cap
        self.spare = spare
        self._stand_ins: dict[tuple[Member, Member], StandIn] = {}
        self._budget = _Budget()

    def over(self, topology: Topology, members: Mapping[str, Member]) -> Failover:
        """Return the failover of a cluster with other nodes; forget the stand-ins of those that left."""
        present = {*members.values(), *self.spares.values()}
        for pair in list(self._stand_ins):
            if not present.issuperset(pair):
                self._retire(pair)
        return self.placed_by(topology, members)

    def placed_by(self, topology: Topology, members: Mapping[str, Member]) -> Failover:
        """Return this failover for keys that another topology places."""
        if self.spare:
            return self
        changed = Failover(topology, members, self.cap)
        changed._stand_ins = self._stand_ins
        changed._budget = self._budget
        return changed

    def _retire(self, pair: tuple[Member, Member]) -> None:
        """Forget a stand-in, and keep its counts."""
        stand_in = self._stand_ins.pop(pair, None)
        if stand_in is not None:
            for name in _COUNTED:
                setattr(pair[1], name, getattr(pair[1], name) + getattr(stand_in, name))

    def counters_of(self, member: Member) -> dict[str, int | float]:
        """Return a member's counters, with what it has for others."""
        figures = member.counters()
        for stand_in in list(self._stand_ins.values()):
            if stand_in.member is member:
                own = stand_in.counters()
                figures.update({name: figures[name] + own[name] for name in _SHOWN})
        return figures

    @property
    def spares(self) -> Mapping[str, Member]:
        """The members that do nothing but stand in for others."""
        return self.members if self.spare else {}

    def stand_in(self, owner: Member, hashed: bytes) -> Member:
        """Return the first fit member in a place's order of preference; `owner` if there is none.

        A member is fit if it is not ejected, and can do what the owner can for a recompute.
        """
        members = self.members
        unfit = sum(not _is_fit(member, owner) for member in members.values())
        for node in self.topology.preference(hashed, 1 + unfit):
            member = members[node.name]
            if _is_fit(member, owner):
                return self._between(owner, member)
        return owner

    def all_for(self, owner: Member) -> list[Member]:
        """Return all that may stand in for a member now."""
        return [
            self._between(owner, member)
            for member in self.members.values()
            if _is_fit(member, owner)
        ]

    def _between(self, owner: Member, member: Member) -> StandIn:
        """Return the one stand-in of two members, by which calls are grouped."""
        known = self._stand_ins.get((owner, member))
        if known is not None:
            return known
        return self._stand_ins.setdefault((owner, member), StandIn(owner, member, self.cap))

    def admits(self, calls: int) -> bool:
        """Return whether there may be a second try after this number of calls, and count it.

        It is counted without a lock: of two threads at the same moment, one may go uncounted.
        """
        budget = self._budget
        # Fewer than before, if a node has left.
        tokens = min(BURST, budget.tokens + SHARE * max(0, calls - budget.seen))
        budget.seen = calls
        budget.tokens = tokens - 1 if tokens >= 1 else tokens
        return tokens >= 1


def can_stand_in(member: Member, owner: Member) -> bool:
    """Return whether a member can do what another can for a recompute."""
    return owner.supports & _NEEDED <= member.supports


def _is_fit(member: Member, owner: Member) -> bool:
    return not member.health.ejected and can_stand_in(member, owner)


async def try_again(  # noqa: PLR0913, PLR0917 - the first try, and its end
    cluster: Cluster,
    failover: Failover,
    member: Member,
    command: Command,
    error: NodeError,
    until: float,
) -> Reply:
    """Return the stand-ins' reply to a command whose call has just failed and ejected its node.

    Return `error` if there is no second try: for commands that are not idempotent, beyond a tenth of
    the calls, and without a stand-in or time.
    """
    if not _may_be_repeated(member, command, error) or cluster.io.now() >= until:
        return error
    placed: dict[Member, list[int]] = {}
    keys = keys_of(command)
    for place, key in enumerate(keys):
        name = cluster.own_name(key)
        if name.startswith(RESERVED) and name == cluster.keys.raw(name):
            return error  # shardcache's own: its operation goes on without a reply
        _, other, _ = cluster.route_name(name)
        # Else the node is not ejected, or all others are, or it is not the key's own but its old one.
        if not isinstance(other, StandIn) or other.owner is not member:
            return error
        placed.setdefault(other, []).append(place)
    members = (*cluster.members.values(), *cluster.spares.values())
    if not failover.admits(sum(each.answered + each.errors for each in members)):
        return error
    asks = [(other, take(command, places)) for other, places in placed.items()]
    replies = [reply for reply, _ in await cluster.ask_members_timed(asks, until)]
    if isinstance(command, (Get, Set, Delete)):
        return replies[0]
    merged: list[Any] = [None] * len(keys)
    for places, reply in zip(placed.values(), replies, strict=True):
        parts = reply if isinstance(reply, REPLIES) else [reply] * len(places)
        for place, part in zip(places, parts, strict=True):
            merged[place] = part
    return merged


async def ask_twice(
    cluster: Cluster,
    failover: Failover,
    asks: Sequence[tuple[Member, Command]],
    deadline: float | None,
    enough: Enough | None,
) -> list[tuple[Reply, float]]:
    """Ask many nodes at once, and stand-ins for those that are ejected by it."""
    began = cluster.io.now()
    until = began + cluster.timeout if deadline is None else deadline
    timed = await cluster.ask_members_timed(asks, until, enough)
    for place, ((member, command), (reply, _)) in enumerate(zip(asks, timed, strict=True)):
        if isinstance(reply, NodeError):
            again = await try_again(cluster, failover, member, command, reply, until)
            if again is not reply:
                timed[place] = again, cluster.io.now() - began
    return timed


def detour(cluster: Cluster, stand_in: StandIn, command: Command) -> tuple[Member, Command]:
    """Count a call that a stand-in gets; return it as it is sent.

    A delete is the owner's as well. What is written makes the owner's own value old.
    """
    owner = stand_in.owner
    member, sent = stand_in.redirect(command)
    if member is owner:
        return member, sent
    owner.detoured += 1
    cause = owner.health.error  # none if it has just come back
    if cause is not None and is_delete(command):
        cluster.refuse(owner, command)
    else:
        # A later step of an operation that began before the return makes no value of the owner old.
        if cause is not None or type(command) in ONE_STEP:
            # An `add` too: the owner may have a value.
            written = DeleteMany(keys_to_write(command))
            cluster.ejector.note_writes(owner, written, refusal(owner))
        if cause is not None:
            cluster.ejector.refuse(owner)
            cluster.note_refused(owner, cause)
    if CallDetoured in cluster.observers.heard:
        name, keys = type(command).__name__.lower(), len(keys_of(command))
        cluster.observers.notify(CallDetoured(name, owner.node, member.node, keys))
    return member, sent


def _may_be_repeated(member: Member, command: Command, error: NodeError) -> bool:
    refused = isinstance(error, NodeUnavailableError) and not error.sent
    if refused or isinstance(member, StandIn):
        return False
    if isinstance(command, Set):
        return command.when is When.ALWAYS
    return type(command) in _REPEATABLE


def with_ttl_cap(command: Command, cap: float) -> Command:
    """Return a command whose values live for at most `cap` seconds; leases and marks keep their ttl.

    >>> [with_ttl_cap(Set(b"k", (0, b"1"), ttl), 60.0).ttl for ttl in (None, 300.0, 5.0)]
    [60.0, 60.0, 5.0]
    """
    fields: Any = command  # each kind has others
    capped = command
    if isinstance(command, CommandList):
        capped = fields._replace(commands=[with_ttl_cap(each, cap) for each in command.commands])
    elif type(command) in _LIMITING and (fields.ttl is None or fields.ttl > cap):
        capped = fields._replace(ttl=cap)
    return capped
