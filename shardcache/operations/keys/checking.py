"""A check that every node can do all that a client needs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from shardcache.core.commands import (
    REPLIES,
    Acquire,
    Acquired,
    Cas,
    Command,
    CompareAndDelete,
    CompareAndExpire,
    Delete,
    DeleteCas,
    DeleteMany,
    Get,
    GetMany,
    GetOrStub,
    Gets,
    Incr,
    Payload,
    Peek,
    Ping,
    Renew,
    Reply,
    ServerStats,
    Set,
    SetMany,
    StubReply,
    Touch,
    When,
)
from shardcache.core.health import FailureKind, failure_kind
from shardcache.core.keys import KeySpace
from shardcache.core.placement.url_warnings import sends_password_in_clear, url_warnings
from shardcache.core.reserved_keys import (
    GENERATIONS,
    LOCKS,
    MARKS,
    REFRESHING,
    TAGS,
    VALUE_LOCKS,
    own_key,
)
from shardcache.core.values.flags import INTEGER_FLAGS, MARK_FLAGS
from shardcache.errors import (
    CheckFailedError,
    ClientClosedError,
    NodeError,
    ShardCacheError,
    printable,
)
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.members import Member

TTL: Final = 10.0  # seconds; the life of a check's key if it cannot be deleted
ONE: Final[Payload] = (INTEGER_FLAGS, b"1")
FINAL: Final = (FailureKind.HARD, FailureKind.TIMEOUT)  # after these nothing more is asked

GONE: Final = "a key just written is missing: no memory left, or several servers behind the address"
OTHER: Final = "a key just written holds something else: several servers behind the address"
NO: Final = "the server refused, without a reason"

EVICT: Final = "give it more memory, or let it evict: maxmemory-policy allkeys-lru"

# What to do about an error, by a word of its text.
ADVICE: Final[Mapping[str, str]] = {
    "NOAUTH": "write redis://user:password@host",
    "WRONGPASS": "correct them",
    "OOM ": EVICT,
    "out of memory": "give it more memory (memcached -m), and let it evict (no -M)",
    "READONLY": "name the server that it is a copy of",
    "MASTERDOWN": "name the server that it is a copy of",
    "CLUSTERDOWN": "a node of a Redis Cluster shards by itself: name servers that stand alone",
    "command 'EVAL'": "a client needs EVAL: allow it, or name the servers behind a proxy",
    "Connection refused": "is the server running there?",
    "in time": "is it running, and may this machine reach it?",
    "by the deadline": "is it running, and may this machine reach it?",
    "certificate is not valid for": "name the host as its certificate does",
    "certificate has expired": "renew its certificate",
    "CERTIFICATE_VERIFY_FAILED": "name its authority by ?ssl_ca_certs=",
    "DB index": "name a database that it has",
}


class Product(NamedTuple):
    """A server product: the name of its version figure, and the oldest version that is supported."""

    name: str
    figure: str
    oldest: tuple[int, ...] = ()


MEMCACHED: Final = Product("memcached", "version", (1, 6))
REDIS: Final = Product("Redis", "redis_version", (6, 2))
PRODUCTS: Final[Mapping[str, Product]] = {
    "memcached": MEMCACHED,
    "memcacheds": MEMCACHED,
    "pymemcache": Product("memcached", "version"),
    "redis": REDIS,
    "rediss": REDIS,
}
VALKEY: Final = Product("Valkey", "valkey_version")

_version = re.compile(r"(\d{1,9})\.(\d{1,9})").match


class NodeCheck(NamedTuple):
    """What a check found on a node that can do all that is needed.

    `server` is the server with its version, `seconds` the time of one answer, `notes` what an
    operator should know although it works, such as that the server evicts nothing.
    """

    server: str
    seconds: float
    notes: tuple[str, ...] = ()


async def check(cluster: Cluster) -> dict[str, NodeCheck]:
    """Return, by node name, what was found; raise `CheckFailedError` if a node cannot do all.

    The keys of a check have random names, and are deleted at its end. Its commands count in no
    counter, eject no node and cause no events; an ejected node is asked as well, and restored when
    it answers.
    """
    visits = _visits(cluster)
    try:
        await _run_scripts(cluster, visits)
    except ClientClosedError:
        raise
    except ShardCacheError:  # of one node, which it does not name; it ended the call to all nodes
        await _clean(cluster, visits)
        visits = _visits(cluster)
        for visit in visits:
            try:
                await _run_scripts(cluster, [visit])
            except ShardCacheError as error:
                visit.note("", _reason(error, visit.member.node.name))
    await _clean(cluster, visits)
    faults = {visit.name: visit.faults() for visit in visits if visit.failed}
    passed = {visit.name: visit.result(cluster) for visit in visits if not visit.failed}
    if faults:
        raise CheckFailedError(faults, passed)
    return passed


def _visits(cluster: Cluster) -> list[Visit]:
    """Return one visit for each node, with those that serve only locks, and spare ones."""
    moving = () if cluster.move is None else cluster.move.members.values()
    cached = {*cluster.members.values(), *cluster.spares.values(), *moving}
    locking = set(cluster.locking.members.values())
    return [
        Visit(
            name,
            member,
            cluster.keys,
            cluster.io.token(),
            values=member in cached,
            locks=member in locking,
        )
        for name, member in cluster.all_members.items()
    ]


async def _run_scripts(cluster: Cluster, visits: Iterable[Visit]) -> None:
    """Ask all nodes at once, one command after the other, until all scripts have ended."""
    io = cluster.io
    scripts = {visit: visit.script() for visit in visits}
    asked = {visit: next(script) for visit, script in scripts.items()}
    while asked:
        started = io.now()
        asks = [(visit.member.backend, command) for visit, command in asked.items()]
        replies = await io.call_many(asks, started + cluster.timeout)
        for (visit, command), (reply, arrived) in zip(list(asked.items()), replies, strict=True):
            visit.seconds = arrived - started
            if visit.member.health.ejected and type(command) is Ping and reply is True:
                cluster.ejector.record_success(visit.member, command)
            try:
                asked[visit] = scripts[visit].send(reply)
            except StopIteration:
                del asked[visit]


async def _clean(cluster: Cluster, visits: Iterable[Visit]) -> None:
    """Delete the keys of visits that broke off; a key that cannot be deleted expires."""
    io = cluster.io
    for visit in visits:
        if visit.written:
            with contextlib.suppress(ShardCacheError):
                command = DeleteMany(visit.written)
                await io.call(visit.member.backend, command, cluster.deadline())


Script: TypeAlias = Generator[Command, Reply, None]
# Returns the reply, which is of the type that its command names, hence `Any`; `REFUSED` for an error.
Asking: TypeAlias = Generator[Command, Reply, Any]

REFUSED: Final[Any] = object()


class _Stop(Exception):  # noqa: N818 - an order to stop
    """Nothing more is to be asked of the node."""


class Visit:
    """The check of one node: its script, and what it found.

    `seconds` is the time of the last answer; `written` are the keys that may be on the node.
    """

    def __init__(  # noqa: PLR0913 - what to ask, and under which names
        self,
        name: str,
        member: Member,
        keys: KeySpace,
        token: bytes,
        *,
        values: bool,
        locks: bool,
    ) -> None:
        self.name = name
        self.member = member
        self.seconds = 0.0
        self._space = keys
        self._values = values
        self._locks = locks
        self._key = keys.canonical(b"check:" + token.hex().encode())
        self._payload: Payload = (MARK_FLAGS, token)
        self.written: list[bytes] = []
        self._unable: dict[str, list[str]] = {}  # by reason: what the node cannot do
        self._answer_seconds = 0.0
        self._figures: Mapping[str, str] | NodeError = {}
        self._asked = 0
        self._unsupported: list[str] = []  # what the backend does not offer

    @property
    def failed(self) -> bool:
        """Whether anything is wrong."""
        return bool(self._unable)

    def note(self, what: str, reason: str) -> None:
        """Note that something cannot be done, and why."""
        self._unable.setdefault(reason, []).append(what)

    def faults(self) -> list[str]:
        """Return what is wrong, and what to do about it."""
        return [self._fault(reason, unable) for reason, unable in self._unable.items()]

    def result(self, cluster: Cluster) -> NodeCheck:
        """Return what was found on a node without faults."""
        return NodeCheck(self._server(), self._answer_seconds, tuple(self._notes(cluster)))

    def script(self) -> Script:
        """Send one command of each kind; delete the keys at the end."""
        try:
            yield from self._ask("answer", Ping())
            if self._values:
                yield from self._ask_for_values()
            if self._locks:
                yield from self._ask_for_locks()
            yield from self._ask("delete many", DeleteMany(self.written))
            self.written = []
            yield from self._ask_for_figures()
        except _Stop:
            return

    def _ask_for_values(self) -> Asking:
        key, counter, payload = self._key, self._key + b":n", self._payload
        stored = yield from self._ask_to_write(Set(key, payload, TTL))
        counting = yield from self._ask_to_write(Set(counter, ONE, TTL))
        if stored:
            yield from self._ask_for("read", Get(key), wanted=payload)
            self._answer_seconds = self.seconds
            yield from self._ask_for("add", Set(key, payload, TTL, When.ABSENT), wanted=False)
            yield from self._ask_for("replace", Set(key, payload, TTL, When.PRESENT))
            yield from self._ask_for("touch", Touch(key, TTL))
            yield from self._ask_for_age(key)
            yield from self._ask_to_swap("compare and set", key, payload)
        if stored and counting:
            pair: list[Payload | NodeError | None] = [payload, ONE]
            # Of two keys: a member of a Redis Cluster may have both, and refuse to read them at once.
            yield from self._ask_for("read many", GetMany([key, counter]), wanted=pair)
        if counting:
            yield from self._ask_for("count", Incr(counter, 1), wanted=2)
        yield from self._ask_to_lead()
        own_keys = [own_key(prefix, key) for prefix in (REFRESHING, TAGS, GENERATIONS, MARKS)]
        self.written += own_keys
        yield from self._ask(
            "write tags and generations", SetMany([(name, payload) for name in own_keys], TTL)
        )
        if stored:
            yield from self._ask_for("delete", Delete(key))

    def _ask_to_lead(self) -> Asking:
        """Send what a cached function sends: leave a stub, renew it, store the value in its place."""
        key, mark = self._key + b":c", self._payload[1]
        self.written.append(key)
        begun = yield from self._ask("cache functions", GetOrStub(key, mark, TTL))
        if not isinstance(begun, StubReply):
            return
        token = yield from self._ask("cache functions", Renew(key, mark, begun.token, TTL))
        if token is not REFUSED:
            yield from self._ask_for("cache functions", Cas(key, self._payload, token, TTL))

    def _ask_to_swap(self, what: str, key: bytes, payload: Payload) -> Asking:
        """Send a compare-and-set."""
        token = yield from self._ask_for_token(what, key)
        if token is not REFUSED:
            yield from self._ask_for(what, Cas(key, payload, token, TTL))

    def _ask_for_age(self, key: bytes) -> Asking:
        aged = yield from self._ask("tell a ttl", Peek(key))
        if aged is None:
            self.note("tell a ttl", GONE)

    def _ask_for_token(self, what: str, key: bytes) -> Asking:
        found = yield from self._ask(what, Gets(key))
        if isinstance(found, tuple):
            return found[1]
        if found is not REFUSED:
            self.note(what, GONE)
        return REFUSED

    def _ask_for_locks(self) -> Asking:
        for prefix in (LOCKS, VALUE_LOCKS):
            yield from self._ask_for_lock(own_key(prefix, self._key))

    def _ask_for_lock(self, key: bytes) -> Asking:
        payload, supports = self._payload, self.member.supports
        self.written.append(key)
        acquired = yield from self._ask("take a lock", Acquire(key, payload, TTL))
        self._answer_seconds = self._answer_seconds or self.seconds
        if acquired is REFUSED:
            return
        if not isinstance(acquired, Acquired):
            self.note("take a lock", NO)
            return
        if CompareAndExpire not in supports:
            yield from self._ask_to_swap("extend a lock", key, payload)
        else:
            yield from self._ask_for("extend a lock", CompareAndExpire(key, payload, TTL))
        if CompareAndDelete in supports:
            yield from self._ask_for("release a lock", CompareAndDelete(key, payload))
            return
        token = yield from self._ask_for_token("release a lock", key)
        if token is not REFUSED:
            yield from self._ask_for("release a lock", DeleteCas(key, token))

    def _ask_for_figures(self) -> Asking:
        """Ask for the server's figures; one without figures, such as a proxy, may still serve."""
        reply = yield ServerStats()
        self._figures = reply if isinstance(reply, (dict, NodeError)) else {}
        product = self._product
        version = _version(self._figure(product.figure))
        if version and tuple(map(int, version.groups())) < product.oldest:
            oldest = ".".join(map(str, product.oldest))
            self.note(
                "", f"{self._server()} is too old: {product.name} {oldest} or newer is needed"
            )

    def _ask_to_write(self, command: Set) -> Asking:
        self.written.append(command.key)
        return (yield from self._ask_for("write", command))

    def _ask_for(self, what: str, command: Command, *, wanted: Reply = True) -> Asking:
        """Ask, and note any reply but `wanted`; return whether that came."""
        reply = yield from self._ask(what, command)
        if reply == wanted:
            return True
        if reply is not REFUSED:
            self.note(what, _surprise(reply, command))
        return False

    def _ask(self, what: str, command: Command) -> Asking:
        """Ask, and note an error; return the reply, or `REFUSED`."""
        if type(command) not in self.member.supports:
            self._unsupported.append(what)
            return REFUSED
        self._asked += 1
        reply = yield command
        error = _error_in(reply)
        if error is None:
            return reply
        self.note(what, _reason(error, error.node))
        kind = failure_kind(error)
        if kind in FINAL or (kind is not FailureKind.NONE and self._asked == 1):
            raise _Stop
        return REFUSED

    def _fault(self, reason: str, unable: Sequence[str]) -> str:
        advice = next((advice for word, advice in ADVICE.items() if word in reason), "")
        if "NOPERM" in reason:
            advice = f"give it +@read +@write +@scripting +@connection +info {self._patterns()}"
        advised = f"{reason.rstrip('.')}; {advice}" if advice else reason
        things = ", ".join(dict.fromkeys(filter(None, unable)))
        whole = not things or len(unable) == self._asked
        return advised if whole else f"cannot {things}: {advised}"

    def _patterns(self) -> str:
        """Return the key patterns that a Redis user needs."""
        own = self._space.canonical(b"").decode(errors="backslashreplace")
        return f"~{own}* ~~sc:*" if own else "~*"

    @property
    def _product(self) -> Product:
        if self._figure(VALKEY.figure):
            return VALKEY
        scheme = self.member.node.address.scheme
        product, _, _ = scheme.partition("+")
        return PRODUCTS.get(product, Product(scheme, "version"))

    def _server(self) -> str:
        product = self._product
        return f"{product.name} {self._figure(product.figure)}".rstrip()

    def _figure(self, name: str) -> str:
        figures = {} if isinstance(self._figures, NodeError) else self._figures
        return printable(figures.get(name, ""))

    def _notes(self, cluster: Cluster) -> Generator[str, None, None]:
        if isinstance(self._figures, NodeError):
            reason = _reason(self._figures, self._figures.node)
            yield f"its version is not known: {reason}"
        if self._unsupported:
            yield f"its backend cannot {', '.join(dict.fromkeys(self._unsupported))}"
        if self._figure("role") == "slave":
            yield "a writable replica of another server: writes are lost when it is synchronised"
        if self._values and self._figure("maxmemory_policy") == "noeviction":
            forever = ": without a ttl values stay for ever, and there is no default_ttl"
            consequence = forever if cluster.default_ttl is None else ""
            yield f"it evicts nothing (maxmemory-policy noeviction){consequence}"
        yield from url_warnings(self.member.node)
        if sends_password_in_clear(self.member.node):
            yield "its password is sent unencrypted: use rediss://"


def _reason(error: ShardCacheError, node: str) -> str:
    return str(error).removeprefix(f"{node}: ")


def _error_in(reply: Reply) -> NodeError | None:
    for each in reply if isinstance(reply, REPLIES) else [reply]:
        if isinstance(each, NodeError):
            return each
    return None


def _surprise(reply: Reply, command: Command) -> str:
    """Return what is wrong with a reply that is not an error."""
    if isinstance(command, (Get, GetMany)):
        missing = None in reply if isinstance(reply, REPLIES) else reply is None
        return GONE if missing else OTHER
    if isinstance(command, Set) and command.when is When.ALWAYS:
        return NO
    return GONE
