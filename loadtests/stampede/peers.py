"""The same crowd in front of other caches, with the stampede protection that each offers.

They are optional, so each is imported by the one who plays it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
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
    """A cache, the class that plays it, the distribution it needs and the servers it can use."""

    name: str
    subject: str
    module: str
    kinds: tuple[str, ...] = KINDS
    options: dict[str, Any] = field(default_factory=dict)  # those of our own `cached`

    @property
    def installed(self) -> bool:
        """Say whether it is here; peers are optional."""
        return find_spec(self.module) is not None


class Dogpile(Threads):
    """dogpile.cache with the distributed lock of its memcached and redis backends."""

    def cached(self, part: Part) -> Callable[[int], Any]:
        """Give the function under test, cached."""
        from dogpile.cache import make_region  # noqa: PLC0415

        where = urlsplit(part.urls[0])
        if where.scheme == "redis":
            backend, arguments = "dogpile.cache.redis", {"thread_local_lock": False}
            arguments |= {"host": where.hostname, "port": where.port}
        else:
            backend, arguments = "dogpile.cache.pymemcache", {"url": where.netloc}
        arguments |= {"distributed_lock": True, "lock_timeout": LOCK_SECONDS}
        region = make_region().configure(backend, expiration_time=60, arguments=arguments)
        return region.cache_on_arguments()(function_of(part))


class Cashews(Tasks):
    """cashews with `lock=True`, which Redis alone offers between processes."""

    async def cached(self, part: Part) -> Callable[[int], Any]:
        """Give the function under test, cached, with open connections."""
        from cashews import Cache  # noqa: PLC0415

        self.cache = Cache()
        self.cache.setup(part.urls[0])
        await self.cache.init()
        decorate = self.cache(ttl=60, key="stampede:{number}", lock=True)
        return decorate(coroutine_of(part))

    async def aclose(self) -> None:
        """Close connections."""
        await self.cache.close()


class Aiocache(Tasks):
    """aiocache with `cached_stampede`."""

    async def cached(self, part: Part) -> Callable[[int], Any]:
        """Give the function under test, cached."""
        from aiocache import Cache, cached_stampede  # noqa: PLC0415
        from aiocache.serializers import JsonSerializer  # noqa: PLC0415

        where = urlsplit(part.urls[0])
        kind = Cache.REDIS if where.scheme == "redis" else Cache.MEMCACHED
        decorate = cached_stampede(
            lease=LOCK_SECONDS,
            ttl=60,
            key_builder=lambda _, number: f"stampede:{number}",
            cache=kind,
            serializer=JsonSerializer(),
            endpoint=where.hostname,
            port=where.port,
        )
        return decorate(coroutine_of(part))


def function_of(part: Part) -> Callable[[int], Any]:
    """Give the function under test as a plain function, which decorators ask for its name."""

    def function(number: int) -> Any:
        return part.run(number)

    return function


def coroutine_of(part: Part) -> Callable[[int], Any]:
    """Give the function under test as a coroutine function."""

    async def function(number: int) -> Any:
        return await part.arun(number)

    return function


OURS = Peer(
    name="shardcache",
    subject=scenes.CACHED,
    module="shardcache",
    options={"ttl": 60, "lock": True},
)
PEERS = (
    OURS,
    Peer(name="dogpile.cache", subject="stampede.peers:Dogpile", module="dogpile"),
    Peer(name="cashews", subject="stampede.peers:Cashews", module="cashews", kinds=("redis",)),
    Peer(name="aiocache", subject="stampede.peers:Aiocache", module="aiocache"),
)


def beside(act: Callable[[Play], Crowd], peer: Peer, **part: Any) -> Callable[[Stage], Figures]:
    """Give the scene in which something happens to a crowd, and those of it who are left call."""

    def scene(stage: Stage) -> Figures:
        with stage.played(peer.subject, options=peer.options, **part) as play:
            with play.servers.watched() as seen:
                crowd = act(play)
                calls = crowd.results(PATIENCE)
            waiting = len(crowd.members) * stage.scale.callers - len(calls)
            return {**play.figures(calls), "commands": len(seen), "still waiting": waiting}

    return scene


def all_call(play: Play) -> Crowd:
    """Let all call at once."""
    play.crowd.begin()
    return play.crowd


def leader_dies(play: Play) -> Crowd:
    """Let all call at once, and kill the leader while it computes."""
    play.crowd.begin()
    leader = play.leader()
    time.sleep(DELTA / 2)
    leader.kill()
    return play.crowd.without(leader)


PLAYS: dict[str, Callable[[Peer], Callable[[Stage], Figures]]] = {
    "cold key, all at once": partial(beside, all_call),
    "recompute raises": partial(beside, all_call, fails=True),
    "leader killed at half time": partial(beside, leader_dies),
}
