"""A shop with Flask: a cached page, a report that one worker computes for all, visits in a session.

SECRET_KEY=… SHARDCACHE_URL=redis://10.0.0.1,10.0.0.2 gunicorn --workers 2 main:app
"""

from __future__ import annotations

import os
import time
from uuid import uuid4

from flask import Flask, Response, jsonify, session
from flask_caching import Cache

from shardcache import NodeError, cached, default_client

app = Flask(__name__)
app.config.update(
    SECRET_KEY=os.environ["SECRET_KEY"],
    CACHE_TYPE="shardcache_flask.FlaskCache",
    CACHE_SHARDCACHE_URL=os.environ["SHARDCACHE_URL"].split(),  # one URL, or several
)
cache = Cache(app)


@app.get("/")
@cache.cached(timeout=10)
def show_front_page() -> str:
    """Serve a cached page, as Flask-Caching always did."""
    return f"<h1>Welcome</h1><p>Rendered by {os.getpid()} at {time.time()}</p>"


@cached(ttl=30, stale=60, lock=True)
def compute_report(number: int) -> dict[str, object]:
    """Return a report, slowly. With `lock=True` one worker computes it, and all others wait for it."""
    time.sleep(0.2)
    return {"number": number, "sales": 100 * number, "computed": [os.getpid(), time.time()]}


@app.get("/reports/<int:number>")
def show_report(number: int) -> Response:
    """Serve a report."""
    return jsonify(compute_report(number))


@app.get("/visits")
def count_visits() -> Response:
    """Count the visits of a browser: its cookie has a name, the cache the number."""
    name = session.setdefault("name", uuid4().hex)
    try:
        visits = cache.cache.inc(f"visits:{name}")
    except NodeError:  # the node of this counter is down, which is not the same as a first visit
        visits = None
    return jsonify(visits=visits)


@app.get("/healthz")
def check_health() -> Response:
    """Serve the state of this worker. A node that is down costs misses, not the worker."""
    return jsonify(pid=os.getpid(), ejected=[node.name for node in default_client().ejected])
