"""Cached functions and locks of both clients, called as if both blocked."""

from __future__ import annotations

import functools
import inspect

from shardcache.testing.driving import DrivenClient

BACKENDS = ["memory", "memcached", "redis", "pymemcache", "mixed"]


def urls_of(kind, memcached, redis):
    """Return the URLs of three nodes of a kind, on these servers."""
    if kind == "memory":
        return ["memory://a", "memory://b", "memory://c"]
    if kind == "redis":
        return [server.url for server in redis]
    urls = [server.url for server in memcached]
    if kind == "pymemcache":
        return [url.replace("memcached://", "pymemcache://") for url in urls]
    return urls if kind == "memcached" else [urls[0], redis[1].url, "memory://c"]


class Source:
    """A function that counts its calls, and its client, in either world."""

    def __init__(self, client):
        self.client = client
        self.calls = []
        self.result = "made"

    def cached(self, **terms):
        """Return the function with its values cached."""
        driven = isinstance(self.client, DrivenClient)
        return self._driven(terms) if driven else self._blocking(terms)

    def make(self, number):
        """Do what the function does."""
        self.calls.append(number)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def _blocking(self, terms):
        @self.client.cached(**{"ttl": 60, "namespace": "f", **terms})
        def function(number=1):
            return self.make(number)

        return function

    def _driven(self, terms):
        @self.client.cached(**{"ttl": 60, "namespace": "f", **terms})
        async def function(number=1):
            return self.make(number)

        return Driven(function, self.client.loop)


class Driven:
    """An async object, such as a cached function or a lock, each call run to its end on one loop."""

    def __init__(self, target, loop):
        self._target = target
        self._loop = loop

    def __call__(self, *args, **kwargs):
        """Call it as if it blocked."""
        return self._run(self._target, *args, **kwargs)

    def __getattr__(self, name):
        found = getattr(self._target, name)
        return functools.partial(self._run, found) if inspect.iscoroutinefunction(found) else found

    def _run(self, call, *args, **kwargs):
        result = self._loop.run_until_complete(call(*args, **kwargs))
        is_lease = hasattr(result, "release")
        return Driven(result, self._loop) if is_lease else result


def as_called(client, function, **terms):
    """Return a function cached by a client of either kind, to be called as if it blocked."""
    if not isinstance(client, DrivenClient):
        return client.cached(namespace="f", **terms)(function)

    @functools.wraps(function)
    async def awaited(*args, **kwargs):
        return function(*args, **kwargs)

    cached = client.cached(namespace="f", **terms)(awaited)
    return lambda *args, **kwargs: client.loop.run_until_complete(cached(*args, **kwargs))
