"""Sessions in the cache, new ones also while a node is down: `SESSION_ENGINE = "shardcache_django.sessions"`."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.contrib.sessions.backends import cache
from django.contrib.sessions.backends.base import UpdateError

from shardcache import DecodeError, NodeError
from shardcache_django.backend import ShardCache

ATTEMPTS: Final = (
    100  # random keys: with one living node of eight all of these miss it twice in a million
)
SECONDS: Final = 2.0  # nodes that are silent, and not ejected yet, cost a timeout each

log = logging.getLogger("shardcache")


class SessionStore(cache.SessionStore):  # type: ignore[misc]  # Django has no types
    """Django's own sessions in the cache, except that a new one is created on a node that answers.

    A session whose node is down is missing, so its user logs in again, and has a new session on another
    node. Keys and values are those of `django.contrib.sessions.backends.cache`. When no node answers
    within two seconds, creating a session raises the `NodeError`.

    A request whose session was read before its node went down is answered; what it changed in the session
    is lost, and the log says so. Django's own engine would tell the user that the session was deleted. It
    is not saved on another node: its user may have logged out meanwhile, which only its own node knows.
    """

    # What is saved and returned is Django's matter, hence `Any`.

    _cache: Any  # of Django's own class: a cache of any backend

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
        is_new = must_create or self.session_key is None
        try:
            with self._telling_failed_from_missing():
                return super().save(must_create)
        except NodeError as error:
            if is_new:
                raise
            self._note_lost(error)

    async def asave(self, must_create: bool = False) -> Any:  # noqa: FBT001, FBT002 - as above
        """See `save`."""
        is_new = must_create or self.session_key is None
        try:
            with self._telling_failed_from_missing():
                return await super().asave(must_create)
        except NodeError as error:
            if is_new:
                raise
            self._note_lost(error)

    def _note_lost(self, error: NodeError) -> None:
        log.warning("session not saved, and what its request changed in it is lost: %s", error)

    @contextmanager
    def _telling_failed_from_missing(self) -> Iterator[None]:
        """Raise the error of a node that fails within the block; what cannot be read is missing."""
        cache = self._cache
        if isinstance(cache, ShardCache):  # and not another cache, as in a project's tests
            self._cache = cache.raising()
        try:
            yield
        except DecodeError as error:
            raise UpdateError from error
        finally:
            self._cache = cache


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
