"""Sessions in the cache, new ones also while a node is down: `SESSION_ENGINE = "shardcache_django.sessions"`."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any, Final

from django.contrib.sessions.backends import cache
from django.contrib.sessions.backends.base import UpdateError

from shardcache import NodeError
from shardcache_django.backend import ShardCache

ATTEMPTS: Final = (
    100  # random keys: with one living node of eight all of these miss it twice in a million
)
SECONDS: Final = 2.0  # nodes that are silent, and not ejected yet, cost a timeout each


class SessionStore(cache.SessionStore):  # type: ignore[misc]  # Django has no types
    """Django's own sessions in the cache, except that a new one is created on a node that answers.

    A session whose node is down is missing, so its user logs in again, and has a new session on another
    node. Keys and values are those of `django.contrib.sessions.backends.cache`. When no node answers
    within two seconds, creating a session raises the `NodeError`.

    A request whose session was read before its node went down is answered, and what it changed is lost
    with the session. Django's own engine would tell the user that the session was deleted.
    """

    # What is saved and returned is Django's matter, hence `Any`.

    def create(self) -> Any:
        """Create a session under a new key."""
        patience = _Patience()
        while True:
            try:
                return super().create()
            except NodeError as error:
                patience.spend(error)

    async def acreate(self) -> Any:
        """See `create`."""
        patience = _Patience()
        while True:
            try:
                return await super().acreate()
            except NodeError as error:
                patience.spend(error)

    def save(self, must_create: bool = False) -> Any:  # noqa: FBT001, FBT002 - Django's signature
        """Save the session; raise `UpdateError` if its node answers, and the session is missing."""
        try:
            return super().save(must_create)
        except UpdateError:
            if not isinstance(self._cache, ShardCache):  # another cache, as in a project's tests
                raise
            with suppress(NodeError):  # nobody knows whether the session is missing
                self._cache.client.view(on_error="raise").exists(
                    self._cache.make_key(self.cache_key)
                )
                raise

    async def asave(self, must_create: bool = False) -> Any:  # noqa: FBT001, FBT002 - as above
        """See `save`."""
        try:
            return await super().asave(must_create)
        except UpdateError:
            if not isinstance(self._cache, ShardCache):
                raise
            with suppress(NodeError):
                await self._cache.async_client.view(on_error="raise").exists(
                    self._cache.make_key(await self.acache_key())
                )
                raise


class _Patience:
    """How often, and for how long, another key is tried."""

    def __init__(self) -> None:
        self._left = ATTEMPTS
        self._until = time.monotonic() + SECONDS

    def spend(self, error: NodeError) -> None:
        """Note an error; raise it if it was the last."""
        self._left -= 1
        if not self._left or time.monotonic() > self._until:
            raise error
