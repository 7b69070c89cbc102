"""A shop with Django in one file: a cached page, a report for all workers, visits in a session.

SECRET_KEY=… SHARDCACHE_URL=redis://10.0.0.1,10.0.0.2 gunicorn --workers 2 shop:application
"""

from __future__ import annotations

import os
import time

import django
from django.conf import settings
from django.core.cache import cache
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.cache import cache_page

from shardcache import cached

settings.configure(
    SECRET_KEY=os.environ["SECRET_KEY"],
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    CACHES={
        "default": {
            "BACKEND": "shardcache_django.ShardCache",
            "LOCATION": os.environ["SHARDCACHE_URL"],
        }
    },
    SESSION_ENGINE="shardcache_django.sessions",  # no new session is refused while a node is down
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
)
django.setup()


@cache_page(10)
def show_front_page(request: HttpRequest) -> HttpResponse:
    """Serve a cached page, as Django always did."""
    return HttpResponse(f"<h1>Welcome</h1><p>Rendered by {os.getpid()} at {time.time()}</p>")


@cached(ttl=30, stale=60, lock=True)
def compute_report(number: int) -> dict[str, object]:
    """Return a report, slowly. With `lock=True` one worker computes it, and all others wait for it."""
    time.sleep(0.2)
    return {"number": number, "sales": 100 * number, "computed": [os.getpid(), time.time()]}


def show_report(request: HttpRequest, number: int) -> JsonResponse:
    """Serve a report."""
    return JsonResponse(compute_report(number))


def count_visits(request: HttpRequest) -> JsonResponse:
    """Count the visits of a browser in its session, which the cache keeps."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    return JsonResponse({"visits": request.session["visits"]})


def check_health(request: HttpRequest) -> JsonResponse:
    """Serve the state of this worker. A node that is down costs misses, not the worker."""
    ejected = [node.name for node in cache.client.ejected]
    return JsonResponse({"pid": os.getpid(), "ejected": ejected})


urlpatterns = [
    path("", show_front_page),
    path("reports/<int:number>", show_report),
    path("visits", count_visits),
    path("healthz", check_health),
]
application = get_wsgi_application()
