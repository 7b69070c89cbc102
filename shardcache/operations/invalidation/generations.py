"""Generations of a client's values: after a new one begins, values of the old are not found.

Each cached function has a generation, and so has a clearable client. They are stored on as many
nodes as a lock is, with one mark for all of them: a client that begins a generation writes it, then
moves the mark (stores a new random value there). A call looks at the mark once a second, along with
its own reads, and at the generations that it needs when the mark has moved. It waits for a majority
of the nodes, not for silent ones beyond that.

With a secret, generations are signed. The mark is not: it only tells that something has changed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from shardcache.core.commands import (
    REPLIES,
    Cas,
    Command,
    Get,
    GetMany,
    Gets,
    Payload,
    Reply,
    Set,
    When,
)
from shardcache.core.generations import (
    FIRST,
    current_generation,
    is_decided,
    next_generation,
    parse_generation,
)
from shardcache.core.keys import KeySpace
from shardcache.core.leases import quorum
from shardcache.core.reserved_keys import CLEARED, GENERATIONS, MARKS, own_key
from shardcache.core.values.flags import MARK_FLAGS
from shardcache.errors import DecodeError, NodeError, NodeRefusedError
from shardcache.operations.cluster.members import Member
from shardcache.operations.port import UNANSWERED

if TYPE_CHECKING:  # it has the generations of its client
    from shardcache.operations.cluster.cluster import Cluster

LOOK_AGAIN: Final = 1.0  # seconds between two looks for another process's change

ROUNDS: Final = 3  # looks of one call: at the mark, at the generations, and one to spare
TRIES: Final = 5  # to write to a node to which other clients write as well

Asks = Sequence[tuple[Member, Command]]
Timed = tuple[Reply, float]  # a reply, and the seconds it took
_NOT_SEEN: Final[Any] = object()


class Generation:
    """One generation, as this process knows it; nodes store it under `key`.

    `epoch` is the epoch of the mark at the last look-up. The first generation has no name and is not
    stored: a lost node loses nothing unless a later one was begun.
    """

    __slots__ = ("epoch", "key", "name")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.name = FIRST
        self.epoch: object = None


class Generations(dict[str, Generation]):
    """The generations of a client's functions by their prefixes, and the mark that they share.

    `epoch` is a new object each time the mark has moved, `due` the time of the next look at it.
    `cleared` is the generation of all keys of a clearable client.

    Threads and loops share it without a lock: each step is one assignment, and two callers at once
    cost at worst one look-up more.
    """

    __slots__ = ("_keys", "_looking", "_mark", "_seen", "_turn", "cleared", "due", "epoch")

    def __init__(self, keys: KeySpace) -> None:
        self._keys = keys
        self._mark = own_key(MARKS, keys.canonical(b""))
        self._seen: Mapping[Member, Payload | None] = {}  # the mark on each node at the last look
        self._turn = 0  # counts the generations that are looked at along with the mark
        self._looking: set[bytes] = set()  # the keys of looks in progress
        self.cleared = Generation(own_key(CLEARED, keys.canonical(b"")))
        self.epoch: object = object()
        self.due = -math.inf

    def __missing__(self, function: str) -> Generation:
        key = own_key(GENERATIONS, self._keys.canonical(self._keys.encode(function)))
        return self.setdefault(function, Generation(key))

    def are_current(self, wanted: Iterable[Generation], now: float) -> bool:
        """Return whether none of these has to be looked up."""
        return now < self.due and all(each.epoch is self.epoch for each in wanted)

    async def settle(
        self, cluster: Cluster, wanted: Sequence[Generation], reads: Asks, deadline: float
    ) -> list[Timed] | None:
        """Look up outdated generations along with `reads`: in one round trip unless the mark moved.

        Return the replies to the reads; `None` if a `wanted` generation has changed, because then
        the reads were of old names. If too few nodes answer by `deadline`, nothing changes.
        """
        now = cluster.io.now
        names = [each.name for each in wanted]
        replies: list[Timed] | None = None
        for _ in range(ROUNDS):
            if self.are_current(wanted, now()) or now() >= deadline:
                break
            stale = (each.key for each in wanted if each.epoch is not self.epoch)
            key = self._mark if now() >= self.due else next(stale, self._mark)
            if replies is None and key in self._looking:  # another caller looks: read meanwhile
                replies = await _read(cluster, reads, deadline)
            along = reads if replies is None else ()
            new_replies = await self._look_once(cluster, key, wanted, along, deadline)
            replies = new_replies if replies is None else replies
        if names != [each.name for each in wanted]:
            return None
        return await _read(cluster, reads, deadline) if replies is None else replies

    async def _look_once(
        self,
        cluster: Cluster,
        key: bytes,
        wanted: Sequence[Generation],
        reads: Asks,
        deadline: float,
    ) -> list[Timed] | None:
        """Look for all callers, or wait for the caller that does; return the replies to own `reads`."""
        own_replies: list[list[Timed]] = []

        async def look() -> None:
            self._looking.add(key)
            try:
                own_replies.append(await self._look(cluster, wanted, reads, deadline))
            finally:
                self._looking.discard(key)

        seconds_left = deadline - cluster.io.now()
        await cluster.io.single_flight.do(key, look, max(0.0, seconds_left), takes_over=False)
        return own_replies[0] if own_replies else None

    async def renew(self, cluster: Cluster, generation: Generation) -> bool:
        """Begin another generation; return whether it is in force, so that other clients will see it.

        That needs a majority that stores it, or a newer one, and then a majority with a new mark.
        """
        members = self._keepers(cluster)
        deadline, wanted = cluster.deadline(), quorum(len(members))
        found = await _read_each(cluster, generation.key, members, deadline, wanted)
        key = generation.key
        names = [_name_in(cluster, key, reply) for reply in found.values() if _is_answer(reply)]
        io = cluster.io
        known = [generation.name, current_generation(names, len(members))]
        name = next_generation(known, names, io.wall(), io.token())
        stored = await _store_newer(cluster, generation.key, name, found, deadline, wanted)
        unanswered = [member for member, reply in found.items() if reply is UNANSWERED]
        if unanswered:  # they get it later, so that it is not lost with a few of the other nodes
            io.try_spawn(lambda: _catch_up(cluster, generation.key, name, unanswered), "generation")
        if len(stored) < wanted:
            failed = (reply for reply in found.values() if isinstance(reply, NodeError))
            return cluster.unwrap(next(failed, None), default=False) is True
        # Not before: no caller may store under a name that other clients may still overlook.
        generation.name = max(generation.name, name)
        return await self._move(cluster, members, deadline)

    async def _move(self, cluster: Cluster, members: Sequence[Member], deadline: float) -> bool:
        """Move the mark; return whether a majority of its nodes has stored it."""
        wanted = quorum(len(members))
        command = Set(self._mark, (MARK_FLAGS, cluster.io.token().hex().encode()))
        replies = await cluster.ask_members_timed(
            [(member, command) for member in members],
            deadline,
            partial(_are_stored, wanted),
        )
        stored = [reply for reply, _ in replies]
        if stored.count(True) >= wanted:
            return True
        failed = next((reply for reply in stored if reply is not True), None)
        return cluster.unwrap(failed, default=False) is True

    async def _look(
        self, cluster: Cluster, wanted: Sequence[Generation], reads: Asks, deadline: float
    ) -> list[Timed]:
        """Ask each keeper for all outdated generations in one command, and send the `reads` along."""
        began, epoch = cluster.io.now(), self.epoch
        marks = [self._mark] if began >= self.due else []
        unsure = [each for each in wanted if each.epoch is not epoch]
        extra = self._next_in_turn(unsure) if marks else []
        keys = [*marks, *(each.key for each in (*unsure, *extra))]
        if not keys:
            return await cluster.ask_members_timed(_stamp_all(cluster, reads), deadline)
        members = self._keepers(cluster)
        first = len(reads)

        def names(heard: Iterable[Sequence[Any]], place: int) -> list[str]:
            key, replies = keys[place], (reply[place] for reply in heard)
            return [
                _generation_in(cluster, key, each)
                for each in replies
                if not isinstance(each, NodeError)
            ]

        def enough(replies: Sequence[Reply]) -> bool:
            if UNANSWERED in replies[:first]:
                return False
            heard = [reply for reply in replies[first:] if isinstance(reply, REPLIES)]
            if len(heard) < quorum(len(members)):
                return False
            return all(
                is_decided(names(heard, place), len(members))
                for place in range(len(marks), len(marks) + len(unsure))
            )

        asks = [*_stamp_all(cluster, reads), *((member, GetMany(keys)) for member in members)]
        timed = await cluster.ask_members_timed(asks, deadline, enough)
        heard = {
            member: reply
            for member, (reply, _) in zip(members, timed[first:], strict=True)
            if isinstance(reply, REPLIES)
        }
        if marks:
            self.due = began + LOOK_AGAIN
            epoch = self._note_marks(members, heard)
        for place, generation in enumerate([*unsure, *extra], len(marks)):
            if generation in unsure or is_decided(names(heard.values(), place), len(members)):
                answers = _answers_in(heard, place)
                await self._learn(cluster, generation, answers, len(members), deadline)
            if generation in unsure:
                generation.epoch = epoch
        return timed[:first]

    def _note_marks(
        self, members: Sequence[Member], heard: Mapping[Member, Sequence[Any]]
    ) -> object:
        """Note the mark of each node; return the epoch for which the other replies count.

        A mark only tells that something has changed: then generations are looked up. Nodes whose
        marks differ may have been asked while the mark was moved, and the generations before.
        """
        marks = _answers_in(heard, 0)
        before = self.epoch
        # A node heard for the first time tells nothing new if it has the mark that all others have.
        known = set(self._seen.values())
        common = known.pop() if len(known) == 1 else _NOT_SEEN
        if any(self._seen.get(member, common) != mark for member, mark in marks.items()):
            self.epoch = object()  # first: a caller that sees the new marks must see this as well
        after = self.epoch
        seen = {**self._seen, **marks}
        self._seen = {member: seen[member] for member in members if member in seen}
        return after if len(set(marks.values())) == 1 else before

    async def _learn(
        self,
        cluster: Cluster,
        generation: Generation,
        answers: Mapping[Member, Payload | None],
        nodes: int,
        deadline: float,
    ) -> None:
        """Look up the generation in force; first store it on nodes that have an older one."""
        if len(answers) < quorum(nodes):
            self._seen = {}  # look it up again with the next look at the mark
            return
        key = generation.key
        names = {
            member: _generation_in(cluster, key, payload) for member, payload in answers.items()
        }
        name = max(generation.name, current_generation(list(names.values()), nodes))
        behind = [member for member, known in names.items() if known < name]
        stored = len(names) - len(behind)
        if behind:
            found = await _read_each(cluster, key, behind, deadline, len(behind))
            stored += len(await _store_newer(cluster, key, name, found, deadline, len(behind)))
        generation.name = max(generation.name, name)
        if stored < quorum(nodes):
            self._seen = {}  # as above; the other nodes get it then

    def _keepers(self, cluster: Cluster) -> Sequence[Member]:
        """Return the nodes that store the mark and all generations, as many as store a lock."""
        return cluster.voters(self._mark)

    def _next_in_turn(self, unsure: Sequence[Generation]) -> list[Generation]:
        """Return one generation that has a name, in turn: a key that is never read may be evicted."""
        named = [each for each in (self.cleared, *list(self.values())) if each.name]
        if not named:
            return []
        self._turn += 1
        turn = named[self._turn % len(named)]
        return [] if turn in unsure else [turn]


async def _read(cluster: Cluster, reads: Asks, deadline: float) -> list[Timed]:
    """Send reads; one reply serves all tasks that ask for the same value at the same time."""
    asks = _stamp_all(cluster, reads)
    if len(asks) != 1 or type(asks[0][1]) is not Get:
        return await cluster.ask_members_timed(asks, deadline)

    async def ask() -> Any:  # tasks share the reply together with its seconds
        return (await cluster.ask_members_timed(asks, deadline))[0]

    timed: Any = await cluster.io.coalesce(asks[0][1], ask)
    return [timed]


def _stamp_all(cluster: Cluster, asks: Asks) -> Asks:
    return [(member, cluster.stamp(command)) for member, command in asks]


def _answers_in(
    heard: Mapping[Member, Sequence[Any]], place: int
) -> Mapping[Member, Payload | None]:
    """Return the item at `place` of each node's reply, without errors."""
    return {
        member: reply[place]
        for member, reply in heard.items()
        if not isinstance(reply[place], NodeError)
    }


def _generation_in(cluster: Cluster, key: bytes, payload: Payload | None) -> str:
    """Return the generation in a payload of `key`; `FIRST` if none of our secrets signed it."""
    try:
        opened = None if payload is None else cluster.payloads.open(key, payload)
    except DecodeError:
        return FIRST
    return parse_generation(opened, cluster.io.wall())


async def _read_each(
    cluster: Cluster, key: bytes, members: Sequence[Member], deadline: float, wanted: int
) -> dict[Member, Reply]:
    """Read a generation on each node, with CAS tokens; wait for `wanted` answers."""
    replies = await cluster.ask_members_timed(
        [(member, Gets(key)) for member in members],
        deadline,
        lambda heard: sum(map(_is_answer, heard)) >= wanted,
    )
    return dict(zip(members, (reply for reply, _ in replies), strict=True))


def _is_answer(reply: Reply) -> bool:
    """Return whether a reply to `Gets` says what the key holds, be it of a type that is not ours."""
    if isinstance(reply, NodeError):
        return isinstance(reply, NodeRefusedError)
    return reply is not UNANSWERED


def _name_in(cluster: Cluster, key: bytes, reply: Reply) -> str:
    payload = reply[0] if isinstance(reply, tuple) else None
    return _generation_in(cluster, key, payload)


async def _store_newer(  # noqa: PLR0913, PLR0917 - what to store, over what, and what is enough
    cluster: Cluster,
    key: bytes,
    name: str,
    found: Mapping[Member, Reply],
    deadline: float,
    wanted: int,
) -> Collection[Member]:
    """Store a generation on nodes, only over older ones; wait for `wanted` of them.

    Return the nodes that have it now, or a newer one.
    """
    done: set[Member] = set()
    payload = cluster.payloads.seal(key, (MARK_FLAGS, name.encode()))
    for _ in range(TRIES):
        asks: list[tuple[Member, Command]] = []
        for member, reply in found.items():
            if _is_answer(reply) and _name_in(cluster, key, reply) >= name:
                done.add(member)
            elif _is_answer(reply):
                asks.append((member, _store_command(key, payload, reply)))
        if not asks:
            break
        missing = wanted - len(done)
        replies = await cluster.ask_members_timed(asks, deadline, partial(_are_stored, missing))
        stored = dict(
            zip((member for member, _ in asks), (reply for reply, _ in replies), strict=True)
        )
        done |= {member for member, reply in stored.items() if reply is True}
        beaten = [member for member, reply in stored.items() if reply is False or reply is None]
        if not beaten:
            break
        found = await _read_each(cluster, key, beaten, deadline, len(beaten))
    return done


def _are_stored(wanted: int, replies: Sequence[Reply]) -> bool:
    return replies.count(True) >= wanted


def _store_command(key: bytes, payload: Payload, reply: Reply) -> Command:
    """Return the command that stores a generation unless the key has changed since `reply`."""
    if isinstance(reply, tuple):
        return Cas(key, payload, reply[1])
    # On Redis, a value of another type than string cannot be compared.
    when = When.ALWAYS if isinstance(reply, NodeRefusedError) else When.ABSENT
    return Set(key, payload, None, when)


async def _catch_up(cluster: Cluster, key: bytes, name: str, members: Sequence[Member]) -> None:
    """Store a generation on nodes that were not awaited."""
    deadline = cluster.deadline()
    found = await _read_each(cluster, key, members, deadline, len(members))
    await _store_newer(cluster, key, name, found, deadline, len(members))
