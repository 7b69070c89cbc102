"""shardcache's own keys: their bytes, and the one place where they are built."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import shardcache
from shardcache.core import reserved_keys
from shardcache.core.keys import KeySpace
from shardcache.core.reserved_keys import (
    CLEARABLE,
    CLEARED,
    GENERATIONS,
    LOCKS,
    MARKS,
    PROBES,
    REFRESHING,
    RESERVED,
    TAGS,
    VALUE_LOCKS,
    own_key,
)

PACKAGE = Path(shardcache.__file__).parent
PREFIXES = [name for name, value in vars(reserved_keys).items() if isinstance(value, bytes)]


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        (TAGS, b"~sc:t:4:shop:k"),
        (GENERATIONS, b"~sc:g:4:shop:k"),
        (CLEARED, b"~sc:c:4:shop:k"),
        (CLEARABLE, b"~sc:n:4:shop:k"),
        (MARKS, b"~sc:m:4:shop:k"),
        (REFRESHING, b"~sc:r:4:shop:k"),
        (LOCKS, b"~sc:l:4:shop:k"),
        (VALUE_LOCKS, b"~sc:v:4:shop:k"),
    ],
)
def test_names_stay_as_they_are(prefix, name):
    """Processes of another version share locks, tags and generations by these bytes."""
    assert own_key(prefix, KeySpace("shop").canonical(b"k")) == name
    assert own_key(PROBES) == b"~sc:ping"


def test_no_caller_s_key_is_an_own_key():
    """A key that begins like one of shardcache's own is escaped."""
    own = own_key(LOCKS, b"k")
    assert KeySpace().canonical(own) == b"~sc:k:" + own
    assert own.startswith(RESERVED)


def test_names_are_built_in_one_place():
    """No other module joins a prefix with a name, save the names of callers' keys in `core.keys`."""
    joined = re.compile(
        rf"\b(?:{'|'.join(PREFIXES)}) \+|\+ (?:{'|'.join(PREFIXES)})\b|%b.*CLEARABLE"
    )
    builders = [
        str(path.relative_to(PACKAGE))
        for path in sorted(PACKAGE.rglob("*.py"))
        if "reserved_keys import" in path.read_text(encoding="utf-8")
        and joined.search(path.read_text(encoding="utf-8"))
    ]
    assert builders == ["core/keys.py"]
