"""For those who test with shardcache: faults, traffic profiles for load tests, contracts for plugins.

`FaultProxy`, `Profile` and `ProfileRecorder` need nothing more. The contracts, which every backend
and every strategy must keep, are in modules of their own and need pytest, which the extra `testing`
brings.
"""

from __future__ import annotations

from shardcache.testing.faults.proxy import FaultProxy
from shardcache.testing.profiles import Profile
from shardcache.testing.recording import ProfileRecorder

__all__ = ["FaultProxy", "Profile", "ProfileRecorder"]
