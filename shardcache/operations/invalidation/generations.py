"""The generations of a client's values: another one, and none of the old is found any more.

Each cached function has one, and so has a client that can be cleared. They are kept by as many nodes
as a lock is, with one mark for all of them: who begins a generation writes it, then moves the mark.
A call looks at the mark once a second, along with what it reads, and at the generations that it
needs when the mark has moved. It waits for a majority, and not for those that keep silent beyond.

With a secret generations are signed. The mark is not: it is believed in nothing but that it changed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from shardcache.core.commands import Cas, Command, Get, GetMany, Gets, Payload, Reply, Set, When
from shardcache.core.generations import (
    FIRST,
    current_generation,
    is_decided,
    next_generation,
    parse_generation,
)
from shardcache.core.keys import KeySpace
from shardcache.core.leases import lock_node_count, quorum
from shardcache.core.reserved_keys import CLEARED, GENERATIONS, MARKS
from shardcache.core.values.flags import MARK_FLAGS
from shardcache.errors import DecodeError, NodeError, NodeRefusedError
from shardcache.operations.cluster.members import Member
from shardcache.operations.port import UNANSWERED

if TYPE_CHECKING:  # it has the generations of its client
    from shardcache.operations.cluster.cluster import Cluster

LOOK_AGAIN: Final = 1.0  # seconds after which another process's change is looked for

ROUNDS: Final = 3  # looks of one call: at the mark, at what it says has moved, and one to spare
TRIES: Final = 5  # to write to a node that others write to as well

Asks = Sequence[tuple[Member, Command]]
Timed = tuple[Reply, float]  # a reply, and the seconds it took
_NOT_SEEN: Final[Any] = object()


class Generation:
    """One generation, as this process knows it; it is kept under `key`.

    `epoch` is that of the mark for which it was looked up. The first has no name and is kept
    nowhere: nothing is lost with a node unless a later one was begun.
    """

    __slots__ = ("epoch", "key", "name")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.name = FIRST
        self.epoch: object = None


class Generations(dict[str, Generation]):
    """The generations of a client's functions by their prefixes, and the mark that they share.

    `epoch` is another object each time the mark is seen to have moved, `due` when it has to be looked
    at again. `cleared` is the generation of all keys of a client that can be cleared.

    Threads and loops share it without a lock: each step is one assignment, and what two do at once
    is at worst looked up once more.
    """

    __slots__ = ("_keys", "_looking", "_mark", "_seen", "_turn", "cleared", "due", "epoch")

    def __init__(self, keys: KeySpace) -> None:
        self._keys = keys
        self._mark = MARKS + keys.canonical(b"")
        self._seen: Mapping[Member, Payload | None] = {}  # what each node had for a mark
        self._turn = 0  # of the generations that are looked at along with the mark
        self._looking: set[bytes] = set()  # the keys of looks under way
        self.cleared = Generation(CLEARED + keys.canonical(b""))
        self.epoch: object = object()
        self.due = -math.inf

    def __missing__(self, function: str) -> Generation:
        key = GENERATIONS + self._keys.canonical(self._keys.encode(function))
        return self.setdefault(function, Generation(key))

    def are_current(self, wanted: Iterable[Generation], now: float) -> bool:
        """Return whether nothing has to be looked up for these."""
        return now < self.due and all(each.epoch is self.epoch for each in wanted)

    async def settle(
        self, cluster: Cluster, wanted: Sequence[Generation], reads: Asks, deadline: float
    ) -> list[Timed] | None:
        """Look up what has to be, along with some `reads`, in one round trip unless the mark moved.

        Return the replies to the reads; `None` when a generation that is `wanted` has changed, so
        that they were of old names. When too few nodes answer by `deadline`, what is known stays.
        """
        now = cluster.io.now
        names = [each.name for each in wanted]
        replies: list[Timed] | None = None
        for _ in range(ROUNDS):
            if self.are_current(wanted, now()) or now() >= deadline:
                break
            stale = (each.key for each in wanted if each.epoch is not self.epoch)
            key = self._mark if now() >= self.due else next(stale, self._mark)
            if replies is None and key in self._looking:  # somebody else looks: read meanwhile
                replies = await _read(cluster, reads, deadline)
            beside = reads if replies is None else ()
            own = await self._flown(cluster, key, wanted, beside, deadline)
            replies = own if replies is None else replies
        if names != [each.name for each in wanted]:
            return None
        return await _read(cluster, reads, deadline) if replies is None else replies

    async def _flown(
        self,
        cluster: Cluster,
        key: bytes,
        wanted: Sequence[Generation],
        reads: Asks,
        deadline: float,
    ) -> list[Timed] | None:
        """Look for all who want to, or wait for whoever does; return the replies to own `reads`."""
        own: list[list[Timed]] = []

        async def look() -> None:
            self._looking.add(key)
            try:
                own.append(await self._look(cluster, wanted, reads, deadline))
            finally:
                self._looking.discard(key)

        left = deadline - cluster.io.now()
        await cluster.io.single_flight.do(key, look, max(0.0, left), takes_over=False)
        return own[0] if own else None

    async def renew(self, cluster: Cluster, generation: Generation) -> bool:
        """Begin another generation; return whether it is in force, and others will see it.

        That is when a majority has it, or a newer one, and then the mark has moved for a majority.
        """
        members = self._keepers(cluster)
        deadline, wanted = cluster.deadline(), quorum(len(members))
        held = await _held(cluster, generation.key, members, deadline, wanted)
        key = generation.key
        names = [_name(cluster, key, reply) for reply in held.values() if _answers(reply)]
        io = cluster.io
        known = [generation.name, current_generation(names, len(members))]
        name = next_generation(known, names, io.wall(), io.token())
        noted = await _raise(cluster, generation.key, name, held, deadline, wanted)
        left = [member for member, reply in held.items() if reply is UNANSWERED]
        if left:  # they are told all the same, so that it is not lost with a few of the others
            io.try_spawn(lambda: _catch_up(cluster, generation.key, name, left), "generation")
        if len(noted) < wanted:
            failed = (reply for reply in held.values() if isinstance(reply, NodeError))
            return cluster.unwrap(next(failed, None), default=False) is True
        # Not before: nobody may store under a name that others do not have to pass.
        generation.name = max(generation.name, name)
        return await self._move(cluster, members, deadline)

    async def _move(self, cluster: Cluster, members: Sequence[Member], deadline: float) -> bool:
        """Move the mark; return whether a majority of its nodes has taken note."""
        wanted = quorum(len(members))
        command = Set(self._mark, (MARK_FLAGS, cluster.io.token().hex().encode()))
        replies = await cluster.ask_raw(
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
        """Ask each keeper for all that has to be looked up, in one command, and others for `reads`."""
        began, epoch = cluster.io.now(), self.epoch
        marks = [self._mark] if began >= self.due else []
        unsure = [each for each in wanted if each.epoch is not epoch]
        beside = self._taking_turns(unsure) if marks else []
        keys = [*marks, *(each.key for each in (*unsure, *beside))]
        if not keys:
            return await cluster.ask_raw(_stamped(cluster, reads), deadline)
        members = self._keepers(cluster)
        first = len(reads)

        def names(heard: Iterable[Sequence[Any]], place: int) -> list[str]:
            key, replies = keys[place], (reply[place] for reply in heard)
            return [
                _believed(cluster, key, each) for each in replies if not isinstance(each, NodeError)
            ]

        def enough(replies: Sequence[Reply]) -> bool:
            if UNANSWERED in replies[:first]:
                return False
            heard = [reply for reply in replies[first:] if type(reply) is list]
            if len(heard) < quorum(len(members)):
                return False
            return all(
                is_decided(names(heard, place), len(members))
                for place in range(len(marks), len(marks) + len(unsure))
            )

        asks = [*_stamped(cluster, reads), *((member, GetMany(keys)) for member in members)]
        timed = await cluster.ask_raw(asks, deadline, enough)
        heard = {
            member: reply
            for member, (reply, _) in zip(members, timed[first:], strict=True)
            if type(reply) is list
        }
        if marks:
            self.due = began + LOOK_AGAIN
            epoch = self._note_marks(members, heard)
        for place, generation in enumerate([*unsure, *beside], len(marks)):
            if generation in unsure or is_decided(names(heard.values(), place), len(members)):
                answers = _answers_in(heard, place)
                await self._note(cluster, generation, answers, len(members), deadline)
            if generation in unsure:
                generation.epoch = epoch
        return timed[:first]

    def _note_marks(
        self, members: Sequence[Member], heard: Mapping[Member, Sequence[Any]]
    ) -> object:
        """Take note of what each node has for a mark; return for which epoch the other replies count.

        A mark is believed in nothing but that it has changed: then generations are looked up. Nodes
        that differ may have been asked while the mark was moved, and the generations before.
        """
        marks = _answers_in(heard, 0)
        before = self.epoch
        if any(self._seen.get(member, _NOT_SEEN) != mark for member, mark in marks.items()):
            self.epoch = object()  # first: whoever finds the marks noted must find this, too
        after = self.epoch
        seen = {**self._seen, **marks}
        self._seen = {member: seen[member] for member in members if member in seen}
        return after if len(set(marks.values())) == 1 else before

    async def _note(
        self,
        cluster: Cluster,
        generation: Generation,
        answers: Mapping[Member, Payload | None],
        nodes: int,
        deadline: float,
    ) -> None:
        """Learn the generation in force; first tell the nodes that know an older one."""
        if len(answers) < quorum(nodes):
            self._seen = {}  # with the next look at the mark it is looked up again
            return
        key = generation.key
        names = {member: _believed(cluster, key, payload) for member, payload in answers.items()}
        name = max(generation.name, current_generation(list(names.values()), nodes))
        behind = [member for member, known in names.items() if known < name]
        noted = len(names) - len(behind)
        if behind:
            held = await _held(cluster, key, behind, deadline, len(behind))
            noted += len(await _raise(cluster, key, name, held, deadline, len(behind)))
        generation.name = max(generation.name, name)
        if noted < quorum(nodes):
            self._seen = {}  # as above: the others are told then

    def _keepers(self, cluster: Cluster) -> Sequence[Member]:
        """Return the nodes that keep the mark and all generations, as many as keep a lock."""
        nodes = cluster.topology.preference(self._mark, lock_node_count(len(cluster.members)))
        return [cluster.members[node.name] for node in nodes]

    def _taking_turns(self, unsure: Sequence[Generation]) -> list[Generation]:
        """Return one of those that have a name: what is never read may be evicted."""
        named = [each for each in (self.cleared, *list(self.values())) if each.name]
        if not named:
            return []
        self._turn += 1
        turn = named[self._turn % len(named)]
        return [] if turn in unsure else [turn]


async def _read(cluster: Cluster, reads: Asks, deadline: float) -> list[Timed]:
    """Ask for what is read; one reply serves all tasks that ask for the same value just now."""
    asks = _stamped(cluster, reads)
    if len(asks) != 1 or type(asks[0][1]) is not Get:
        return await cluster.ask_raw(asks, deadline)

    async def ask() -> Any:  # it is a reply with its seconds that is shared here
        return (await cluster.ask_raw(asks, deadline))[0]

    timed: Any = await cluster.io.coalesce(asks[0][1], ask)
    return [timed]


def _stamped(cluster: Cluster, asks: Asks) -> Asks:
    return [(member, cluster.stamped(command)) for member, command in asks]


def _answers_in(
    heard: Mapping[Member, Sequence[Any]], place: int
) -> Mapping[Member, Payload | None]:
    """Return what is in one place of each node's reply, but for errors."""
    return {
        member: reply[place]
        for member, reply in heard.items()
        if not isinstance(reply[place], NodeError)
    }


def _believed(cluster: Cluster, key: bytes, payload: Payload | None) -> str:
    """Return the generation that a node keeps under `key`; `FIRST` for what no secret of ours signed."""
    try:
        opened = None if payload is None else cluster.payloads.open(key, payload)
    except DecodeError:
        return FIRST
    return parse_generation(opened, cluster.io.wall())


async def _held(
    cluster: Cluster, key: bytes, members: Sequence[Member], deadline: float, wanted: int
) -> dict[Member, Reply]:
    """Ask what nodes have for a generation, with tokens; wait for so many answers."""
    replies = await cluster.ask_raw(
        [(member, Gets(key)) for member in members],
        deadline,
        lambda heard: sum(map(_answers, heard)) >= wanted,
    )
    return dict(zip(members, (reply for reply, _ in replies), strict=True))


def _answers(reply: Reply) -> bool:
    """Return whether a reply to `Gets` says what is there: also that it is nothing of our kind."""
    if isinstance(reply, NodeError):
        return isinstance(reply, NodeRefusedError)
    return reply is not UNANSWERED


def _name(cluster: Cluster, key: bytes, reply: Reply) -> str:
    payload = reply[0] if isinstance(reply, tuple) else None
    return _believed(cluster, key, payload)


async def _raise(  # noqa: PLR0913, PLR0917 - what is written, over what, and when that is enough
    cluster: Cluster,
    key: bytes,
    name: str,
    held: Mapping[Member, Reply],
    deadline: float,
    wanted: int,
) -> Collection[Member]:
    """Have nodes keep a generation, over older ones alone; wait for so many.

    Return those that have it now, or a newer one.
    """
    noted: set[Member] = set()
    payload = cluster.payloads.seal(key, (MARK_FLAGS, name.encode()))
    for _ in range(TRIES):
        asks: list[tuple[Member, Command]] = []
        for member, reply in held.items():
            if _answers(reply) and _name(cluster, key, reply) >= name:
                noted.add(member)
            elif _answers(reply):
                asks.append((member, _overwriting(key, payload, reply)))
        if not asks:
            break
        missing = wanted - len(noted)
        replies = await cluster.ask_raw(asks, deadline, partial(_are_stored, missing))
        stored = dict(
            zip((member for member, _ in asks), (reply for reply, _ in replies), strict=True)
        )
        noted |= {member for member, reply in stored.items() if reply is True}
        beaten = [member for member, reply in stored.items() if reply is False or reply is None]
        if not beaten:
            break
        held = await _held(cluster, key, beaten, deadline, len(beaten))
    return noted


def _are_stored(wanted: int, replies: Sequence[Reply]) -> bool:
    return replies.count(True) >= wanted


def _overwriting(key: bytes, payload: Payload, reply: Reply) -> Command:
    """Return the command that stores a generation unless there is another by now."""
    if isinstance(reply, tuple):
        return Cas(key, payload, reply[1])
    # What is no string, on Redis, cannot be compared.
    when = When.ALWAYS if isinstance(reply, NodeRefusedError) else When.ABSENT
    return Set(key, payload, None, when)


async def _catch_up(cluster: Cluster, key: bytes, name: str, members: Sequence[Member]) -> None:
    """Tell nodes that were not waited for."""
    deadline = cluster.deadline()
    held = await _held(cluster, key, members, deadline, len(members))
    await _raise(cluster, key, name, held, deadline, len(members))
