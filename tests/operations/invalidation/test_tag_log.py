"""A log of tags that is none, or that many clients write to at once."""

from __future__ import annotations

from operations.client_harness import ClientHarness
from shardcache.core.commands import Cas, Gets, Set
from shardcache.core.values.flags import MARK_FLAGS
from shardcache.errors import NodeRefusedError
from shardcache.operations.invalidation import tag_log


def add(harness):
    """Log a tag, and return what came of it."""
    cluster = harness.cluster
    return harness.run(tag_log.add(cluster, harness.member(), b"t", cluster.deadline()))


def begin(harness):
    """Put an empty log on the node."""
    name = tag_log.name_of(harness.cluster)
    harness.nodes[0].store.execute(Set(name, (MARK_FLAGS, b"")))
    return name


def test_a_log_of_another_type_is_deleted():
    """On Redis another program's list may be in its place: reading that is refused."""
    harness = ClientHarness()
    name = begin(harness)
    harness.answer_to(Gets, NodeRefusedError("WRONGTYPE"))
    assert add(harness) is None
    assert harness.sent() == ["Gets", "Delete"]
    assert harness.nodes[0].held(name) is None


def test_a_log_that_keeps_changing_is_deleted():
    """Without it recomputes in progress store nothing, so that none misses the tag."""
    harness = ClientHarness()
    name = begin(harness)
    harness.answer_to(Cas, reply=False)
    assert add(harness) is None
    assert harness.sent() == [*["Gets", "Cas"] * tag_log.TRIES, "Delete"]
    assert harness.nodes[0].held(name) is None


def test_a_node_without_a_log_gets_none():
    """No recompute in progress depends on it."""
    harness = ClientHarness()
    assert add(harness) is None
    assert harness.sent() == ["Gets"]
