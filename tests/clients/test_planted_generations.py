"""A generation that an attacker plants on real servers invalidates nothing, and is passed by the next."""

from __future__ import annotations

import time

import pytest

from shardcache import Client
from shardcache.clients.base import caches_of
from shardcache.core.commands import Delete, GetOrStub, Set
from shardcache.core.reserved_keys import GENERATIONS, MARKS
from shardcache.core.values.flags import MARK_FLAGS
from shardcache.testing.driving import MODES, make_client

NAME = GENERATIONS + b"price:0"
HOURS_AHEAD = {"now": 0, "half a day ahead": 11, "two days ahead": 48}
WRITTEN = {
    "junk": b"zzz",
    "extreme": b"f" * 16,
    "17 digits": b"1" * 17,
    "old": b"0" * 12 + b"beef",
    "empty": b"",
}
PLANTED = [*WRITTEN, *HOURS_AHEAD, "stub", "another type"]


@pytest.fixture(params=["memcached", "redis", "pymemcache"])
def servers(request):
    """Return three servers, and the URLs by which clients know them."""
    found = request.getfixturevalue(
        f"{'redis' if request.param == 'redis' else 'memcached'}_servers"
    )
    return [(each, each.url.replace("memcached://", f"{request.param}://")) for each in found]


def plant(how, key, servers):
    """Write something under a key of some servers."""
    for server, url in servers:
        if how == "another type":
            server.ask(b"DEL %b\r\nLPUSH %b x\r\n" % (key, key), b":")
            continue
        with Client(url, timeout=5.0) as client:
            (member,) = client._cluster.members.values()
            deadline = time.monotonic() + 5.0
            if how == "stub":
                member.backend.execute(Delete(key), deadline)
                member.backend.execute(GetOrStub(key, bytes(16), 60.0), deadline)
                continue
            data = WRITTEN.get(how)
            if data is None:
                moment = time.time() + HOURS_AHEAD[how] * 3600
                data = b"%012xbeef" % int(moment * 1000)
            assert member.backend.execute(Set(key, (MARK_FLAGS, data)), deadline) is True


def write(key, payload, servers):
    """Store a payload on all servers."""
    for _, url in servers:
        with Client(url, timeout=5.0) as client:
            (member,) = client._cluster.members.values()
            deadline = time.monotonic() + 5.0
            assert member.backend.execute(Set(key, payload), deadline) is True


class Shop:
    """A client of the servers with one cached function, whose source has a version."""

    def __init__(self, mode, servers, versions, **options):
        self.client = make_client(mode, [url for _, url in servers], timeout=5.0, **options)
        loop = getattr(self.client, "loop", None)
        if loop is None:
            f = self.client.cached(ttl=600, namespace="price")(lambda: versions[-1])
            self.price, self.invalidate_all = f, f.invalidate_all
            return

        async def make():
            return versions[-1]

        g = self.client.cached(ttl=600, namespace="price")(make)
        self.price = lambda: loop.run_until_complete(g())
        self.invalidate_all = lambda: loop.run_until_complete(g.invalidate_all())

    def rest(self):
        """Have the next call look at the mark, as after a second."""
        caches = caches_of(getattr(self.client, "twin", self.client))
        caches.generations.due = time.monotonic()


def assert_all_get(price, shops):
    """Check what each shop gets when it asks again for the generation."""
    for shop in shops:
        shop.rest()
        assert shop.price() == price


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("key", [MARKS, NAME], ids=["mark", "generation"])
@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("on", ["one", "all"])
def test_a_planted_generation_invalidates_nothing(mode, key, planted, on, servers):
    """One node is ignored; planted on all of them it is gone with the next `invalidate_all`."""
    if planted == "another type" and not servers[0][1].startswith("redis"):
        pytest.skip("memcached has one type")
    versions = [1]
    shops = [Shop(mode, servers, versions) for _ in range(2)]
    assert [shop.price() for shop in shops] == [1, 1]
    versions.append(2)
    assert shops[0].invalidate_all() is True
    shops[1].rest()
    assert [shop.price() for shop in shops] == [2, 2]
    versions.append(3)  # no process is told: it is seen when something has ended
    plant(planted, key, servers[:1] if on == "one" else servers)
    shops.append(Shop(mode, servers, versions))
    for shop in shops:
        shop.rest()
        assert shop.price() == 2 or on == "all"
    versions.append(4)
    assert shops[1].invalidate_all() is True
    shops.append(Shop(mode, servers, versions))
    assert_all_get(4, shops)
    for shop in shops:
        shop.client.close()


@pytest.mark.parametrize("mode", MODES)
def test_with_a_secret_no_attacker_starts_a_generation(mode, servers):
    """A generation that is unsigned, or signed for another use, is ignored."""
    versions, secret = [1], "a secret that both have"
    shops = [Shop(mode, servers, versions, secret=secret)]
    assert shops[0].price() == 1
    versions.append(2)
    payloads = getattr(shops[0].client, "twin", shops[0].client)._cluster.payloads
    name = (MARK_FLAGS, b"%012xbeef" % int(time.time() * 1000))
    for planted in (
        name,
        payloads.seal(GENERATIONS + b"other:0", name),
        payloads.seal(b"~sc:t:price:0", name),
    ):
        write(NAME, planted, servers)
        write(MARKS, (MARK_FLAGS, planted[1][:16]), servers)
        shops.append(Shop(mode, servers, versions, secret=secret))
        assert_all_get(1, shops)
    assert shops[0].invalidate_all() is True
    shops.append(Shop(mode, servers, versions, secret=secret))
    assert_all_get(2, shops)
    for shop in shops:
        shop.client.close()


@pytest.mark.parametrize("mode", MODES)
def test_a_generation_outlasts_a_change_of_secrets(mode, servers):
    """A client with the new secret in front believes what the old one signed."""
    old, new = "the secret of last year", "the secret of this year"
    versions = [1]
    first = Shop(mode, servers, versions, secret=[old, new])
    assert first.price() == 1
    versions.append(2)
    assert first.invalidate_all() is True
    assert first.price() == 2
    versions.append(3)
    second = Shop(mode, servers, versions, secret=[new, old])
    assert second.price() == 2
    assert second.invalidate_all() is True
    first.rest()
    assert [second.price(), first.price()] == [3, 3]
    for shop in (first, second):
        shop.client.close()
