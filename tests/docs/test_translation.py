"""The tables of calls of other clients name calls that exist here."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import shardcache

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "translate-your-calls.md"
CLIENTS = (
    "pymemcache",
    "pylibmc and python-memcached",
    "redis-py",
    "Django and django-redis",
    "aiocache",
    "cashews",
    "dogpile.cache",
)


def test_each_client_has_a_table():
    """A reader finds the old client by its name in a heading."""
    sections = re.split(r"^## ", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    tables = {section.splitlines()[0]: section.count("|---|---|") for section in sections}
    assert [name for name in CLIENTS if not tables.get(name)] == []


def test_each_call_of_the_tables_exists():
    """The second column names calls, parameters and functions of shardcache alone."""
    known = {
        *dir(shardcache.Client),
        *dir(shardcache.CachedFunction),
        *dir(shardcache.Lock),
        *shardcache.__all__,
        *inspect.signature(shardcache.Client).parameters,
        *inspect.signature(shardcache.Client.cached).parameters,
        *(field for field in inspect.signature(shardcache.CachePolicy).parameters),
    }
    rows = [
        line for line in GUIDE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")
    ]
    cells = [code for row in rows for code in re.findall(r"`([^`]+)`", row.split("|")[2])]
    assert len(cells) > 60
    for code in cells:
        name = re.sub(r"^@?(f\.|cache\.|client\.)?", "", code)
        assert re.split(r"\W", name)[0] in known, code
