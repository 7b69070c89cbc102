"""The default clients over the life of an ASGI application."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shardcache import CheckFailedError, aclose_default_clients, default_async_client
from shardcache.settings.releases import require

log = logging.getLogger("shardcache")


@asynccontextmanager
async def lifespan(app: object = None) -> AsyncIterator[None]:  # noqa: ARG001 - the form of ASGI lifespans
    """Check the nodes when the application starts, and close both default clients when it ends.

    A node that cannot serve is logged as a warning, with what is wrong: its keys are misses, and the
    application starts. Raise `ConfigurationError` for settings that cannot be used and a FastAPI that is
    too old, so that it does not.

    >>> from fastapi import FastAPI
    >>> app = FastAPI(lifespan=lifespan)
    """
    require("shardcache-fastapi", "fastapi", "0.115")
    try:
        try:
            await default_async_client().check()
        except CheckFailedError as error:
            log.warning("the application starts although %s", error)
        yield
    finally:
        await aclose_default_clients()
