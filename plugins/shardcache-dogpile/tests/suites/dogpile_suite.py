"""dogpile.cache's tests of a backend, from `dogpile.testing`, over our nodes (`SUITE_URLS`)."""

from __future__ import annotations

import os
from typing import ClassVar

from dogpile.testing.fixtures import (
    _GenericBackendTestSuite,
    _GenericMutexTestSuite,
    _GenericSerializerTestSuite,
)


class Ours:
    """The backend by the name of its entry point, with a secret."""

    backend = "shardcache"
    config_args: ClassVar = {
        "arguments": {"url": os.environ["SUITE_URLS"].split(), "secret": "a secret"}
    }


class TestBackend(Ours, _GenericBackendTestSuite):
    """All that a region asks of a backend."""


class TestSerializer(Ours, _GenericSerializerTestSuite, _GenericBackendTestSuite):
    """The same with a region that serializes."""


class TestMutex(Ours, _GenericMutexTestSuite):
    """The mutex of a key."""
