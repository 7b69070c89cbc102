"""What a type checker tells a user of `cached` and `lock`; checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple, assert_type

from shardcache import (
    AsyncClient,
    AsyncLease,
    CachedFunction,
    CacheEntry,
    CacheInfo,
    CachePolicy,
    Client,
    Lease,
    LockPolicy,
    Stats,
    bypass,
    cached,
    cached_many,
    configure,
    refresh,
)
from shardcache.core.codecs import Json

client = Client("memory://a")
async_client = AsyncClient("memory://a")


@client.cached(ttl=60, lock=True)
def profile(user_id: int, *, verbose: bool = False) -> dict[str, int]:
    """Stand for any function."""
    return {"id": user_id if verbose else 0}


@cached(ttl=timedelta(minutes=1), lock=LockPolicy(ttl=5), stale=30, cache_errors=(KeyError,))
def plain(user_id: int) -> str:
    """Stand for any function of the default client."""
    return str(user_id)


@cached(ttl=60, lock="shard")
async def fetched(user_id: int) -> bytes:
    """Stand for any coroutine function."""
    return b"%d" % user_id


@client.cached(60)
def by_position(user_id: int) -> str:
    """Stand for a function whose ttl is given by position."""
    return str(user_id)


@client.cached()
def by_default(user_id: int) -> str:
    """Stand for a function whose ttl is that of the client."""
    return str(user_id)


@client.cached_many(ttl=60, lock="shard")
def names(ids: list[int], *, short: bool = False) -> dict[int, str]:
    """Stand for a function of many items."""
    return {number: str(number)[:short] for number in ids}


@cached_many(60)
async def fetched_names(ids: list[int]) -> Mapping[int, str]:
    """Stand for a coroutine function of many items."""
    return names(ids)


def names_of(_call: Mapping[str, object], result: list[int]) -> list[str]:
    """Stand for a function of the arguments and the result."""
    return [str(number) for number in result]


@client.cached(
    policy=CachePolicy(ttl=60, on_cancel="finish"),
    tags=["numbers", lambda call: [str(call["count"])], names_of],
)
def by_result(count: int) -> list[int]:
    """Stand for a function whose values are tagged by what is in them."""
    return list(range(count))


@client.cached(
    ttl=lambda result, call: len(result) if call["user_id"] else None,
    condition=lambda result, call: bool(result and call),
)
def by_arguments(user_id: int) -> str:
    """Stand for a function whose ttl and condition see the arguments."""
    return str(user_id)


# A function is no ttl by position: the parentheses were forgotten.
client.cached(by_default)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async_client.cached(by_default)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
cached(by_default)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Account(NamedTuple):
    """A type of the application's own."""

    number: int


@client.cached(ttl=60, returns=True, codec="json", on_uncacheable="raise")
def accounts(user_id: int) -> list[Account]:
    """Stand for a function whose results are of an own type."""
    return [Account(user_id)]


@cached(ttl=60, returns=Account | None, codec=Json())
async def account(user_id: int) -> Account | None:
    """Stand for a function whose type is given."""
    return Account(user_id)


class Users:
    """Methods of every kind."""

    @client.cached(ttl=60, ignore="self")
    def method(self, number: int) -> str:
        """Be an ordinary one."""
        return str(number)

    @async_client.cached(ttl=lambda result: len(str(result)), ignore=["self"])
    async def awaited(self, number: int) -> str:
        """Be one that is awaited."""
        return str(number)

    @staticmethod
    @client.cached(ttl=60)
    def static(number: int) -> str:
        """Be one without an instance."""
        return str(number)


class Backwards:
    """A value format of another author."""

    name = "backwards"

    def encode(self, name: bytes, value: Any) -> tuple[int, bytes]:
        """Return a payload."""
        return 64 << 16, name + bytes(value)

    def decode(self, name: bytes, payload: tuple[int, bytes]) -> Any:
        """Return a value."""
        return name, payload


async def load_account() -> Account:
    """Stand for any factory."""
    return Account(7)


def functions() -> None:
    """Call with the function's own parameters; the extras take them as well."""
    assert_type(profile(7, verbose=True), dict[str, int])
    assert_type(profile.get(7), dict[str, int] | None)
    assert_type(profile.entry(7), CacheEntry[dict[str, int]] | None)
    assert_type(profile.set({"id": 7}, 7), bool)
    assert_type(profile.refresh(user_id=7), dict[str, int])
    assert_type(profile.invalidate(7), bool)
    assert_type(profile.invalidate_all(), bool)
    assert_type(profile.bypass(7), dict[str, int])
    assert_type(profile.key_for(7), str | bytes)
    assert_type(profile.cache_info(), CacheInfo)
    assert_type(plain(7), str)
    assert_type(client.get_or_set("k", lambda: 7, ttl=60, lock=True), int)
    assert_type(client.get_or_set("k", lambda: [7], ttl=60, tags=["t", b"u", str]), list[int])
    assert_type(names([7], short=True), dict[int, str])
    assert_type(names.get([7]), dict[int, str] | None)
    assert_type(names.invalidate([7]), bool)
    assert_type(accounts(7), list[Account])
    assert_type(accounts.get(7), list[Account] | None)
    assert_type(client.get_or_set("k", lambda: Account(7), ttl=60, returns=Account), Account)
    assert_type(client.get_or_set("k", lambda: [7], ttl=60, codec=Backwards()), list[int])
    accounts.set([7], 7)  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    assert_type(client.stats(), Stats)
    with bypass(), refresh():
        assert_type(plain(7), str)
    profile("seven")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    configure("memory://a,b,c")


def methods() -> None:
    """Call without the instance."""
    assert_type(Users().method(7), str)
    assert_type(Users().method.get(7), str | None)
    assert_type(Users().method.entry(7), CacheEntry[str] | None)
    assert_type(Users.static(7), str)
    bound: CachedFunction[[int], str] = Users().method
    assert_type(bound(7), str)
    Users().method("seven")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def awaited() -> None:
    """Await the same."""
    assert_type(await fetched(7), bytes)
    assert_type(await fetched_names([7]), Mapping[int, str])
    assert_type(await account(7), Account | None)
    stored = await async_client.get_or_set("k", load_account, ttl=60, returns=True)
    assert_type(stored, Account)
    assert_type(await fetched.get(7), bytes | None)
    assert_type(await Users().awaited(7), str)
    assert_type(await Users().awaited.refresh(7), str)
    assert_type(await Users().awaited.entry(7), CacheEntry[str] | None)


def locks() -> None:
    """Take a lock in each way."""
    lock = client.lock("report", ttl=timedelta(seconds=10), renew=True)
    assert_type(lock.acquire(wait=1), Lease)
    assert_type(lock.try_acquire(), Lease | None)
    with lock as lease:
        assert_type(lease, Lease)
        assert_type(lease.remaining(), float)
        assert_type(lease.extend(), float)
    with lock.hold(wait=1) as lease:
        assert_type(lease, Lease)


async def awaited_locks() -> None:
    """Await the same."""
    lock = async_client.lock("report")
    assert_type(await lock.acquire(), AsyncLease)
    assert_type(await lock.try_acquire(), AsyncLease | None)
    async with lock as lease:
        assert_type(await lease.release(), bool)
    async with lock.hold(wait=1) as lease:
        assert_type(lease, AsyncLease)
