"""The node of a client that signs, as an attacker who can write to it sees it."""

from __future__ import annotations

from shardcache.core.commands import Get, Set
from shardcache.operations.port import step

OLD, NEW = "the secret of last year", "the secret of this year"
CODECS = ("msgpack", "json", "raw", "pickle")
VALUES = {"msgpack": {"a": (1,)}, "json": {"a": [1]}, "raw": b"bytes", "pickle": range(3)}


class Node:
    """The one node of a client, as an attacker who can write to it sees it."""

    def __init__(self, client):
        self.client = client
        (self.member,) = client._cluster.members.values()

    def ask(self, command):
        """Return the reply to a command."""

        async def asking():
            return await self.client._cluster.ask(self.member, command)

        loop = getattr(self.client, "loop", None)
        return step(asking()) if loop is None else loop.run_until_complete(asking())

    def held(self, key):
        """Return what is stored for a key."""
        return self.ask(Get(self.name(key)))

    def plant(self, key, payload):
        """Store it without a signature of this program."""
        assert self.ask(Set(self.name(key), payload, 60)) is True

    def name(self, key):
        """Return the name of a key, or that of a key of ours."""
        return key if key.startswith(b"~sc:") else self.client._cluster.keys.canonical(key)


def cached(client, function, **options):
    """Return a cached function of no arguments, and its key."""
    loop = getattr(client, "loop", None)
    if loop is None:
        made = client.cached(namespace="tests", key="k", **options)(function)
        return made, made.key_for().encode()

    async def compute():
        return function()

    made = client.cached(namespace="tests", key="k", **options)(compute)
    key = loop.run_until_complete(made.key_for())
    return lambda: loop.run_until_complete(made()), key.encode()
