"""A shop with FastAPI: visits in a session, a report that one worker computes for all.

SHARDCACHE_URL=redis://10.0.0.1,10.0.0.2 uvicorn --workers 2 main:app
"""

from __future__ import annotations

import os
import time
from typing import Annotated
from uuid import uuid4

from fastapi import Cookie, FastAPI, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel
from shardcache_fastapi import BlockingCache, Cache, lifespan

from shardcache import cached

app = FastAPI(lifespan=lifespan)


class Report(BaseModel):
    """What a query of the shop's database returns."""

    number: int
    sales: int
    computed: tuple[int, float]


@cached(ttl=30, stale=60, lock=True, returns=True)
def compute_report(number: int) -> Report:
    """Return a report, slowly. With `lock=True` one worker computes it, and all others wait for it."""
    time.sleep(0.2)
    return Report(number=number, sales=100 * number, computed=(os.getpid(), time.time()))


@app.get("/reports/{number}")
def show_report(number: int) -> Report:
    """Serve a report. FastAPI runs this function in a thread, so it may block."""
    return compute_report(number)


@cached(ttl=10)
async def render_front_page() -> str:
    """Return a page; each worker that misses it renders it once."""
    return f"<h1>Welcome</h1><p>Rendered by {os.getpid()} at {time.time():.0f}</p>"


@app.get("/", response_class=HTMLResponse)
async def show_front_page() -> str:
    """Serve a cached page."""
    return await render_front_page()


@app.get("/visits")
async def count_visits(
    cache: Cache, response: Response, session: Annotated[str | None, Cookie()] = None
) -> dict[str, int | None]:
    """Count the visits of a browser for half an hour; `None` while the node of its session is down."""
    session = session or uuid4().hex
    response.set_cookie("session", session, httponly=True)
    return {"visits": await cache.incr(f"visits:{session}", initial=1, ttl=1800)}


@app.get("/healthz")
def check_health(cache: BlockingCache) -> dict[str, object]:
    """Serve the state of this worker. A node that is down costs misses, not the worker."""
    return {"pid": os.getpid(), "ejected": [node.name for node in cache.ejected]}
