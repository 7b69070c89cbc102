"""The versions of tags."""

from __future__ import annotations

import pytest

from operations.cached_harness import FunctionHarness
from operations.simulation import TIMEOUT
from shardcache.core.commands import Set
from shardcache.core.reserved_keys import TAGS, own_key
from shardcache.core.values.flags import MARK_FLAGS
from shardcache.operations.invalidation import tag_log, tags

TAG = own_key(TAGS, b"t")


class TestTags:
    """The versions of tags."""

    def test_two_processes_agree_on_a_new_version(self):
        """Of two that make one at once, one is first, and both use that version."""
        harness = FunctionHarness()
        works = [tags.get_or_create(process.cluster, ["t"]) for process in harness.processes]
        tasks = [harness.start(work, place) for place, work in enumerate(works)]
        harness.advance(1.0)
        assert tasks[0].result == tasks[1].result
        assert tasks[0].result == [harness.node.held(TAG)[0][1]]

    def test_an_invalidation_has_one_deadline(self):
        """However many steps it has: a change of nodes waits for as long as one call may take."""
        harness = FunctionHarness()
        cluster = harness.processes[0].cluster
        harness.run(tag_log.ends(cluster))
        harness.node.delay = 0.4 * TIMEOUT  # each way; there are four steps
        began = harness.now
        task = harness.start(tags.invalidate(cluster, "t"))
        harness.advance(1.0, lambda: task.done)
        assert task.result is False
        assert harness.now - began == pytest.approx(TIMEOUT)

    @pytest.mark.parametrize("odd", [b"", b"seven b", b"nine byte"])
    def test_a_foreign_value_is_no_version(self, odd):
        """With another program's value in its place, no value with this tag is stored."""
        harness = FunctionHarness()
        harness.node.store.execute(Set(TAG, (MARK_FLAGS, odd)))
        assert harness.run(tags.get_or_create(harness.processes[0].cluster, ["t"])) is None

    def test_a_failing_node_leaves_no_version_known(self):
        """A value has the versions of all its tags, or is not stored."""
        harness = FunctionHarness()
        harness.node.up = False
        assert harness.run(tags.get_or_create(harness.processes[0].cluster, ["t"])) is None
        assert harness.run(tags.get_or_create(harness.processes[0].cluster, [])) == []
