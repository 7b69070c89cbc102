"""Run below Flask-Caching's own tests: its application and its clock, over our nodes (`SUITE_URLS`)."""

from __future__ import annotations

import os
import re
import socket
import time
import uuid
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
import redis

URLS = os.environ["SUITE_URLS"].split()

AGE = """
for _, key in ipairs(redis.call('KEYS', '*')) do
  local left = redis.call('PTTL', key)
  if left >= 0 then redis.call('PEXPIRE', key, left - ARGV[1]) end
end
"""


class Ageing:
    """A clock that is advanced by shortening the life of all that the servers hold."""

    def advance(self, seconds):
        """Make every entry older."""
        for url in URLS:
            (age_redis if url.startswith("redis") else age_memcached)(url, seconds)


def age_redis(url, seconds):
    """Make every entry of a Redis older."""
    with redis.Redis.from_url(url) as server:
        server.eval(AGE, 0, seconds * 1000)


def age_memcached(url, seconds):
    """Make every entry of a memcached older."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=5) as server:
        for key, expires in list(entries(server)):
            server.sendall(b"touch %b %d\r\n" % (key, expires - seconds))
            server.recv(100)


def entries(server):
    """Yield the key and the time of expiry of every entry that has one."""
    reply = b""
    while not reply.endswith(b"END\r\n"):
        if reply.startswith(b"BUSY") or not reply:  # the crawler is still at work
            time.sleep(0.01)
            reply = b""
            server.sendall(b"lru_crawler metadump all\r\n")
        reply += server.recv(65_536)
    for key, expires in re.findall(rb"key=(\S+) exp=(\d+)", reply):
        yield unquote_to_bytes(key), int(expires)


@pytest.fixture
def clock():
    """Return a clock of the servers, in the place of a clock of SimpleCache."""
    return Ageing()


@pytest.fixture
def app(app):
    """Return Flask-Caching's application with our cache, with keys that no other test has."""
    app.config.update(
        CACHE_TYPE="shardcache_flask.FlaskCache",
        CACHE_SHARDCACHE_URL=URLS,
        CACHE_KEY_PREFIX=uuid.uuid4().hex,
        SECRET_KEY="a secret",
    )
    yield app
    for cache in app.extensions.get("cache", {}).values():
        getattr(cache, "close", lambda: None)()


@pytest.fixture(scope="class")
def redis_server():
    """Skip what is about a cache of Flask-Caching's own."""
    pytest.skip("about Flask-Caching's RedisCache")
