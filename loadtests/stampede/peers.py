"""The same crowd in front of other caches, with the stampede protection that each offers.

They are optional, so each is imported by the one who plays it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from stampede import scenes
from stampede.figures import Figures
from stampede.scenes import DELTA, Play, Stage
from stampede.servers import KINDS
from stampede.workers import Call, Part, Tasks, Threads

LOCK_SECONDS = 5  # as long as ours is held


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


def beside(
    peer: Peer, act: Callable[[Play], Sequence[Call]], **part: Any
) -> Callable[[Stage], Figures]:
    """Give the scene in which a crowd does something with the peer's cache."""

    def scene(stage: Stage) -> Figures:
        with stage.played(peer.subject, options=peer.options, **part) as play:
            with play.servers.watched() as seen:
                calls = act(play)
            return {**play.figures(calls), "commands": len(seen)}

    return scene


def cold(peer: Peer) -> Callable[[Stage], Figures]:
    """Let all want the key at once."""
    return beside(peer, lambda play: play.crowd.call())


def raising(peer: Peer) -> Callable[[Stage], Figures]:
    """Let all want a value that cannot be made."""
    return beside(peer, lambda play: play.crowd.call(), fails=True)


def killed(peer: Peer) -> Callable[[Stage], Figures]:
    """Kill the leader while it computes."""

    def act(play: Play) -> Sequence[Call]:
        play.crowd.begin()
        leader = play.leader()
        time.sleep(DELTA / 2)
        leader.kill()
        return play.crowd.without(leader).results()

    return beside(peer, act)


PLAYS = {"peers, cold key": cold, "peers, raises": raising, "peers, leader killed": killed}
