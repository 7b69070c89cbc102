"""Reads that are repeated on other nodes, to see whether those have the same values."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from shardcache.core.commands import REPLIES, Command, CommandList, GetAged, GetMany, Reply
from shardcache.core.events import ShadowCompared
from shardcache.core.keys import caller_key
from shardcache.core.placement.topology import Topology
from shardcache.core.reserved_keys import without_generation
from shardcache.core.shadow import DIFFERENCES, OUTCOMES, SampledReads, Seen, compare
from shardcache.core.values.payloads import Payloads
from shardcache.errors import NodeError, NodeUnavailableError
from shardcache.operations.cluster.members import Member
from shardcache.operations.port import IO

BATCH: Final = 20  # keys that are compared in one turn; each value may be large


class Side(NamedTuple):
    """The client's own nodes, or those of the shadow; `reach` returns the backend of a member."""

    topology: Topology
    members: Mapping[str, Member]
    reach: Callable[[Member], Any]  # a backend, as the port takes it

    def owner(self, name: bytes) -> Member:
        """Return the member that a canonical name belongs to; a generation does not move a key."""
        name = without_generation(name)
        hashed = name if self.topology.strategy.hashes_namespace else caller_key(name)
        return self.members[self.topology.owner(hashed).name]


class Rules(NamedTuple):
    """When two answers differ.

    `timeout` bounds one turn, in seconds. A difference counts if it is still there `settle` seconds
    later. Times to live may differ by `ttl_tolerance` seconds. At most `queue` differences wait.
    """

    timeout: float
    settle: float
    ttl_tolerance: float
    queue: int


class Comparer:
    """Compares the sampled reads of a client, turn by turn, over its own port.

    Both sides are only read. What it asks counts in no counter of a node, and ejects none. `here`
    returns the client's own side, or `None` once the client is closed.
    """

    __slots__ = (
        "_counts",
        "_here",
        "_io",
        "_notify",
        "_payloads",
        "_reads",
        "_rules",
        "_there",
        "_unsettled",
    )

    def __init__(  # noqa: PLR0913 - both sides, and what lies between them
        self,
        io: IO[Any],  # of the backends that the sides reach
        reads: SampledReads,
        *,
        here: Callable[[], Side | None],
        there: Side,
        payloads: Payloads,
        rules: Rules,
        notify: Callable[[ShadowCompared], None],
    ) -> None:
        self._io = io
        self._reads = reads
        self._here = here
        self._there = there
        self._payloads = payloads
        self._rules = rules
        self._notify = notify
        self._counts: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
        self._unsettled: deque[tuple[float, bytes]] = deque()  # when to look again, and at what

    def counts(self) -> dict[str, int]:
        """Return how many reads had each outcome, were dropped, or still wait."""
        waiting = len(self._reads) + len(self._unsettled)
        return {**self._counts, "dropped": self._reads.dropped, "waiting": waiting}

    def clear(self) -> None:
        """Forget all that waits."""
        self._reads.clear()
        self._unsettled.clear()

    async def turn(self) -> bool:
        """Compare what is due, up to a batch; return whether there was anything."""
        here = self._here()
        again = self._due()
        fresh = self._reads.next(BATCH - len(again))
        names = [*again, *fresh]
        if here is None or not names:
            return False
        try:
            compared = await self._compare(here, names)
            for event in compared[: len(again)]:
                self._record(event)
            for event in compared[len(again) :]:
                self._record_or_look_again(event)
        finally:  # only now, so that nothing waits when all is counted
            self._reads.remove(len(fresh))
            for _ in again:
                self._unsettled.popleft()
        return True

    def _due(self) -> list[bytes]:
        """Return the differences that have had time to settle."""
        now = self._io.now()
        due: list[bytes] = []
        for at, name in self._unsettled:
            if at > now or len(due) == BATCH:
                break
            due.append(name)
        return due

    def _record_or_look_again(self, event: ShadowCompared) -> None:
        """Look at a difference again before it counts: a write may be on its way to both sides."""
        if event.outcome not in DIFFERENCES or not self._rules.settle:
            self._record(event)
        elif len(self._unsettled) < self._rules.queue:
            self._unsettled.append((self._io.now() + self._rules.settle, event.key))
        else:
            self._reads.dropped += 1

    def _record(self, event: ShadowCompared) -> None:
        self._counts[event.outcome] += 1
        self._notify(event)

    async def _compare(self, here: Side, names: Sequence[bytes]) -> list[ShadowCompared]:
        """Ask the owners of all names on both sides at once; return an event for each name."""
        sides = (here, self._there)
        owners = [[side.owner(name) for name in names] for side in sides]
        questions = [
            question
            for side, members in zip(sides, owners, strict=True)
            for question in _questions(side, members, names)
        ]
        replies = await self._ask(questions)
        seen: dict[tuple[Member, bytes], Seen | Exception] = {}
        for question, reply in zip(questions, replies, strict=True):
            seen.update(question.read(reply))
        return [
            self._event(name, ours, seen[ours, name], theirs, seen[theirs, name])
            for name, ours, theirs in zip(names, *owners, strict=True)
        ]

    async def _ask(self, questions: Sequence[_Question]) -> Sequence[Reply | Exception]:
        """Return the reply to each question; an ejected node is not asked."""
        replies: list[Reply | Exception] = [question.refusal for question in questions]
        sent = [place for place, reply in enumerate(replies) if reply is None]
        if not sent:
            return replies
        try:
            asks = [(questions[place].backend, questions[place].command) for place in sent]
            answers = await self._io.call_many(asks, self._io.now() + self._rules.timeout)
        except Exception as error:  # noqa: BLE001 - a plugin's backend may raise anything
            return [error] * len(questions)
        for place, (reply, _) in zip(sent, answers, strict=True):
            replies[place] = reply
        return replies

    def _event(
        self,
        name: bytes,
        here: Member,
        ours: Seen | Exception,
        there: Member,
        theirs: Seen | Exception,
    ) -> ShadowCompared:
        error = next((each for each in (ours, theirs) if isinstance(each, Exception)), None)
        if isinstance(ours, Exception) or isinstance(theirs, Exception):
            return ShadowCompared(name, "failed", here.node, there.node, error)
        outcome = compare(name, ours, theirs, self._payloads, self._rules.ttl_tolerance)
        return ShadowCompared(name, outcome, here.node, there.node)


class _Question(NamedTuple):
    """One command about some names of one member."""

    side: Side
    member: Member
    names: Sequence[bytes]

    @property
    def backend(self) -> Any:  # as the port takes it
        """The backend of the member."""
        return self.side.reach(self.member)

    @property
    def refusal(self) -> NodeError | None:
        """The error of a member that is ejected, and therefore not asked."""
        health = self.member.health
        return NodeUnavailableError("ejected", self.member.node.name) if health.ejected else None

    @property
    def aged(self) -> bool:
        """Whether the node tells how long it keeps a value."""
        return {GetAged, CommandList} <= self.member.supports

    @property
    def command(self) -> Command:
        """The command that reads the names."""
        if self.aged:
            return CommandList([GetAged(name) for name in self.names])
        return GetMany(self.names)

    def read(self, reply: Any) -> Iterator[tuple[tuple[Member, bytes], Seen | Exception]]:
        """Yield what each name has there, or the error in its place."""
        replies = reply if isinstance(reply, REPLIES) else [reply] * len(self.names)
        for name, each in zip(self.names, replies, strict=True):
            if each is None:
                seen: Seen | Exception = Seen(None)
            elif isinstance(each, Exception):
                seen = each
            else:
                seen = Seen(*each) if self.aged else Seen(each)
            yield (self.member, name), seen


def _questions(side: Side, owners: Sequence[Member], names: Sequence[bytes]) -> Iterator[_Question]:
    """Yield a question for each owner, about its names."""
    groups: dict[Member, list[bytes]] = {}
    for member, name in zip(owners, names, strict=True):
        groups.setdefault(member, []).append(name)
    for member, group in groups.items():
        yield _Question(side, member, group)
