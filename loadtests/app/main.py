"""Two pages of the same expensive report: one protected by shardcache, one cached by hand.

With the cache nodes in `SHARDCACHE_URL`: `uvicorn --app-dir loadtests --workers 2 app.main:app`

| variable | default | meaning |
|---|---|---|
| `SHARDCACHE_URL` | nodes in the memory of each worker | the cache nodes |
| `APP_TTL` | 5 | seconds for which a report is fresh |
| `APP_STALE` | 30 | seconds more for which the old one may be served; 0 for none |
| `APP_SOURCE_SECONDS` | 0.2 | seconds that the source takes for a report |
| `APP_LEDGER` | none | a file that counts the runs of the source in all workers |
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from app import ledger
from shardcache import AsyncClient

TTL = float(os.environ.get("APP_TTL", "5"))
STALE = float(os.environ.get("APP_STALE", "30"))
SOURCE_SECONDS = float(os.environ.get("APP_SOURCE_SECONDS", "0.2"))
LEDGER = os.environ.get("APP_LEDGER")

Report = dict[str, Any]

cache = AsyncClient.from_env(default="memory://a,b,c")
NO_RUNS = {"protected": 0, "unprotected": 0}
recomputes = Counter(NO_RUNS)  # of this worker


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Close the connections to the cache nodes when the worker stops."""
    yield
    await cache.aclose()


app = FastAPI(title="Expensive reports", lifespan=lifespan)


# The expensive source: in your application a query, a model, another service.


async def compute_report(number: int, page: str) -> Report:
    """Return the report with this number, after a while; its run is counted for `page`."""
    count_run(page)
    await asyncio.sleep(SOURCE_SECONDS)
    return {"number": number, "sales": 100 * number, "computed_at": time.time()}


def count_run(page: str) -> None:
    """Count a run of the source, in this worker and in the ledger of all workers."""
    recomputes[page] += 1
    if LEDGER:
        ledger.append_run(LEDGER, page)


def count_all_runs() -> dict[str, int] | None:
    """Return how often each page ran the source in all workers, if there is a ledger of them."""
    return {**NO_RUNS, **ledger.count_by_page(ledger.read_runs(LEDGER))} if LEDGER else None


# The protected page: one caller computes, in all workers; the others get the old report or wait.


@cache.cached(ttl=TTL, stale=STALE, lock=True)
async def cached_report(number: int) -> Report:
    """Return the report with this number; shardcache decides when it is recomputed, and where."""
    return await compute_report(number, "protected")


@app.get("/reports/{number}")
async def show_report(number: int) -> Report:
    """Serve a report that is protected from stampedes."""
    return await cached_report(number)


# The comparison: the same page, written by hand. Every caller who misses the report computes it.


@app.get("/unprotected/reports/{number}")
async def show_unprotected_report(number: int) -> Report:
    """Serve a report that is cached, and not protected."""
    report: Report | None = await cache.get(f"report:{number}")
    if report is None:
        report = await compute_report(number, "unprotected")
        await cache.set(f"report:{number}", report, ttl=TTL)
    return report


@app.get("/healthz")
async def check_health() -> dict[str, Any]:
    """Serve the state of this worker. A cache node that is down costs misses, not the worker."""
    return {"status": "ok", "pid": os.getpid(), "ejected": [node.name for node in cache.ejected]}


@app.get("/stats")
async def show_stats() -> dict[str, Any]:
    """Serve the counters of the worker that happens to answer, and those of the ledger."""
    return {
        "pid": os.getpid(),
        "recomputes": recomputes,
        "recomputes_of_all_workers": count_all_runs(),
        "cache_info": cached_report.cache_info()._asdict(),
        "nodes": {
            name: {"ejected": node.circuit != "closed", **node.client}
            for name, node in (await cache.stats()).items()
        },
    }
