"""The same crowd in front of other caches, with the stampede protection that each offers.

They are optional, so each is imported by the one who plays it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from stampede import scenes
from stampede.crowd import Crowd
from stampede.figures import Figures
from stampede.scenes import DELTA, Play, Stage
from stampede.servers import KINDS
from stampede.workers import Part, Tasks, Threads

LOCK_SECONDS = 5  # as long as ours is held
PATIENCE = 12.0  # seconds; who has no answer then is still waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A cache, the class that plays it, the module it needs and the servers it can use.

    `options` are those of its cache, for all that is played; only ours knows more than a `ttl`.
    """

    name: str
    subject: str
    module: str
    kinds: tuple[str, ...] = KINDS
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def installed(self) -> bool:
        """Return whether it is here; peers are optional."""
        return find_spec(self.module) is not None


class Dogpile(Threads):
    """dogpile.cache with the distributed lock of its memcached and redis backends."""

    def cached(self, part: Part) -> Any:
        """Return the function under test, cached."""
        from dogpile.cache import make_region  # noqa: PLC0415

        where = urlsplit(part.urls[0])
        arguments: dict[str, Any]
        if where.scheme == "redis":
            backend, arguments = "dogpile.cache.redis", {"thread_local_lock": False}
            arguments |= {"host": where.hostname, "port": where.port}
        else:
            backend, arguments = "dogpile.cache.pymemcache", {"url": where.netloc}
        arguments |= {"distributed_lock": True, "lock_timeout": LOCK_SECONDS}
        region = make_region().configure(
            backend, expiration_time=part.options["ttl"], arguments=arguments
        )
        return region.cache_on_arguments()(function_of(part))


class Cashews(Tasks):
    """cashews with `lock=True`, which Redis alone offers between processes, or with `early`."""

    async def cached(self, part: Part) -> Any:
        """Return the function under test, cached, with open connections."""
        from cashews import Cache  # noqa: PLC0415

        self.cache = Cache()
        self.cache.setup(part.urls[0])
        await self.cache.init()
        ttl, key = part.options["ttl"], "stampede:{number}"
        if stale := part.options.get("stale"):
            decorate = self.cache.early(ttl=ttl + stale, early_ttl=ttl, key=key)
        else:
            decorate = self.cache(ttl=ttl, key=key, lock=True)
        return decorate(coroutine_of(part))

    async def aclose(self) -> None:
        """Close connections."""
        await self.cache.close()


class Aiocache(Tasks):
    """aiocache with `cached_stampede`."""

    async def cached(self, part: Part) -> Any:
        """Return the function under test, cached."""
        from aiocache import Cache, cached_stampede  # noqa: PLC0415
        from aiocache.serializers import JsonSerializer  # noqa: PLC0415

        where = urlsplit(part.urls[0])
        kind = Cache.REDIS if where.scheme == "redis" else Cache.MEMCACHED
        decorate = cached_stampede(
            lease=LOCK_SECONDS,
            ttl=part.options["ttl"],
            key_builder=lambda _, number: f"stampede:{number}",
            cache=kind,
            serializer=JsonSerializer(),
            endpoint=where.hostname,
            port=where.port,
        )
        return decorate(coroutine_of(part))


def function_of(part: Part) -> Any:
    """Return the function under test as a plain function, which decorators ask for its name."""

    def function(number: int) -> Any:
        return part.run(number)

    return function


def coroutine_of(part: Part) -> Any:
    """Return the function under test as a coroutine function."""

    async def function(number: int) -> Any:
        return await part.arun(number)

    return function


OURS = Peer(
    name="shardcache",
    subject=scenes.CACHED,
    module="shardcache",
    options={"lock": True, "jitter": 0},
)
PEERS = (
    OURS,
    Peer(name="dogpile.cache", subject="stampede.peers:Dogpile", module="dogpile"),
    Peer(name="cashews", subject="stampede.peers:Cashews", module="cashews", kinds=("redis",)),
    Peer(name="aiocache", subject="stampede.peers:Aiocache", module="aiocache"),
)


@dataclass(frozen=True, slots=True)
class Act:
    """What happens to a crowd, so that those of it who are given call; on which terms."""

    begun: Callable[[Play], Crowd]
    terms: Mapping[str, Any] = field(default_factory=lambda: {"ttl": 60})
    warm: bool = False
    fails: bool = False

    def by(self, peer: Peer) -> Callable[[Stage], Figures]:
        """Return the scene of it with the peer's cache."""

        def scene(stage: Stage) -> Figures:
            options = {**peer.options, **self.terms}
            with stage.play(peer.subject, options=options, fails=self.fails) as play:
                if self.warm:
                    Crowd(play.crowd.members[:1]).call(callers=1)
                before = len(play.ledger.runs())
                with play.servers.watch_commands() as seen:
                    crowd = self.begun(play)
                    calls = crowd.results(PATIENCE)
                figures = play.figures(calls, before)
            return {**figures, "commands": len(seen), "processes left waiting": crowd.silent}

        return scene


def all_call(play: Play) -> Crowd:
    """All members call at once."""
    play.crowd.begin()
    return play.crowd


def all_read_on(play: Play) -> Crowd:
    """All members read a value while it expires."""
    play.crowd.begin(**scenes.READING)
    return play.crowd


def leader_dies(play: Play) -> Crowd:
    """All members call at once, and the leader is killed while it recomputes."""
    play.crowd.begin()
    leader = play.leader()
    time.sleep(DELTA / 2)
    leader.kill()
    return play.crowd.without(leader)


ACTS = {
    "cold key, all at once": Act(all_call),
    "expiry with stale": Act(all_read_on, terms={"ttl": 2, "stale": 30}, warm=True),
    "recompute raises": Act(all_call, fails=True),
    "leader killed at half time": Act(leader_dies),
}
