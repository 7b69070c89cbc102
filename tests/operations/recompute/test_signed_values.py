"""With a secret, what another program wrote is neither served nor believed."""

from __future__ import annotations

import pytest

from operations.cached_harness import FunctionHarness, RecomputeHarness
from operations.client_harness import SECRETS
from shardcache.core.codecs.msgpack import Msgpack
from shardcache.core.commands import Set
from shardcache.core.values.flags import MARK_FLAGS, SIGNED
from shardcache.core.values.payloads import SignedPayloads
from shardcache.operations.invalidation import tags
from shardcache.operations.invalidation.generations import LOOK_AGAIN
from shardcache.operations.recompute import cached_value

MODES = [False, "shard", True]


def sign(harness):
    """Have all processes sign what they store."""
    for process in harness.processes:
        cluster = process.cluster
        cluster.payloads = SignedPayloads(Msgpack(), SECRETS, cluster.io.wall)
    return harness


def forged(payload):
    """Return a payload with another signature."""
    flags, data = payload
    assert flags & SIGNED
    return flags, bytes([data[0] ^ 1]) + data[1:]


@pytest.mark.parametrize("tagged", [(), ("t",)])
@pytest.mark.parametrize("terms", [{}, {"stale": 30.0}])
@pytest.mark.parametrize("lock", MODES)
def test_a_forged_value_is_a_miss(lock, terms, tagged):
    """A signed one is a hit, for every process with the secret."""
    harness = sign(RecomputeHarness(processes=2, lock=lock, **terms))
    harness.source.version = "a report"

    def call(process):
        request = harness.request(process, tags=tagged)
        return harness.run(cached_value.get(request), process)

    assert [call(0), call(1)] == ["a report"] * 2
    assert (harness.source.calls, harness.count("hits")) == (1, 1)
    name = harness.request().name
    harness.shard.store.execute(Set(name, forged(harness.shard.held(name)[0])))
    assert [call(0), call(1)] == ["a report"] * 2
    assert (harness.source.calls, harness.count("hits")) == (2, 2)


@pytest.mark.parametrize("payload", [(MARK_FLAGS, b"8 bytes!"), None])
def test_a_forged_version_of_a_tag_is_none(payload):
    """No value is stored with it, and none that was stored before is served."""
    harness = sign(RecomputeHarness(processes=1))
    request = harness.request(tags=("t",))
    assert harness.run(cached_value.get(request)) == 0
    ((name, member),) = tags.places(harness.cluster, ["t"])
    held = member.backend.held(name)[0]
    member.backend.store.execute(Set(name, forged(held) if payload is None else payload))
    assert harness.run(tags.get_or_create(harness.cluster, ["t"])) is None
    harness.source.version = 1
    assert harness.run(cached_value.get(harness.request(tags=("t",)))) == 1
    assert harness.source.calls == 2
    assert harness.count("cache_errors") == 1


def test_a_forged_generation_is_ignored():
    """On a majority too: the process keeps the one that it knows, and a new process the first."""
    harness = sign(FunctionHarness(nodes=3))
    assert harness.invalidate(0) is True
    assert harness.call(0) == 1
    known = harness.known(0)
    newer = b"%016x" % (int(known, 16) + 1)
    harness.plant(FunctionHarness.NAME, (MARK_FLAGS, newer), harness.nodes)
    harness.advance(2 * LOOK_AGAIN)
    assert harness.call(0) == 1
    assert harness.known(0) == known
    assert harness.invalidate(1) is True
    harness.advance(LOOK_AGAIN)
    assert harness.call(0) == 2
