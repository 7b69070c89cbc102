"""Tools for tests: network faults, traffic profiles for load tests, contracts for plugins.

`FaultProxy`, `Profile` and `ProfileRecorder` need no extra. The contracts of backends and strategies
are in the modules `backend` and `strategy`, and need pytest (extra `testing`).
"""

from __future__ import annotations

from shardcache.testing.faults.proxy import FaultProxy
from shardcache.testing.profiles import Profile
from shardcache.testing.recording import ProfileRecorder

__all__ = ["FaultProxy", "Profile", "ProfileRecorder"]
