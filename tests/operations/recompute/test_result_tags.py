"""Tags that depend on the result: an invalidation during the recompute is not missed."""

from __future__ import annotations

import itertools

import pytest

from operations.cached_harness import DELTA
from operations.harness import MEMCACHED, REDIS, ROUND_TRIP
from operations.virtual import LoopHarness
from shardcache.core.codecs.msgpack import Msgpack
from shardcache.core.commands import Delete, Get, GetMany, Gets, Set, When
from shardcache.core.reserved_keys import TAG_LOGS, TAGS
from shardcache.core.values.flags import MARK_FLAGS
from shardcache.core.values.payloads import payloads_of
from shardcache.errors import (
    EncodeError,
    NodeRefusedError,
    NodeUnavailableError,
    UncacheableResultError,
)
from shardcache.operations.invalidation import tag_log, tags
from shardcache.operations.recompute import cached_value
from shardcache.operations.recompute.outcomes import NO_VALUE

MODES = [False, "shard", True]
OTHERS = tuple(f"other {number}" for number in range(20))


@pytest.fixture(params=[REDIS, MEMCACHED], ids=["redis", "memcached"])
def make_harness(request):
    """Return a maker of harnesses over nodes of each kind, which are checked and closed at the end."""
    made = []

    def make(**terms):
        made.append(
            LoopHarness(
                **{"kinds": request.param, "tags": (), "result_tags": (*OTHERS, "t"), **terms}
            )
        )
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize("lock", MODES)
class TestInvalidations:
    """`invalidate_tag` of a tag that only the result shows."""

    def test_a_stored_value_is_a_miss_afterwards(self, make_harness, lock):
        """In every process, and by whichever of its tags."""
        harness = make_harness(lock=lock)
        for place, tag in itertools.product((0, 1), ("t", OTHERS[7])):
            harness.results([harness.start_call()])
            harness.version += 1
            assert harness.loop.run(tags.invalidate(harness.clusters[place], tag)) is True
            expected = [harness.version] * 2
            assert harness.results([harness.start_call(), harness.start_call(1)]) == expected

    def test_other_tags_end_nothing(self, make_harness, lock):
        """A hit stays one."""
        harness = make_harness(lock=lock)
        harness.results([harness.start_call()])
        for tag in ("t2", "other"):
            assert harness.loop.run(tags.invalidate(harness.clusters[1], tag)) is True
        harness.version = 1
        assert harness.results([harness.start_call(), harness.start_call(1)]) == [0, 0]

    @pytest.mark.slow
    @pytest.mark.parametrize("moment", range(0, 60, 3))
    @pytest.mark.parametrize("delays", [(None,), (0.001, 0.02), (0.02, 0.001)])
    def test_at_any_moment_of_a_recompute(self, make_harness, lock, moment, delays):
        """Whether before, during or after the function, and however far away the client is."""
        harness = make_harness(lock=lock, delays=delays)
        harness.delta = 8 * ROUND_TRIP
        before = harness.start_call()
        harness.advance(moment * ROUND_TRIP / 2)
        harness.void(1, "invalidate_tag")
        after = [harness.start_call() for _ in range(3)]
        assert harness.results(after) == [1] * 3
        assert harness.results([before])[0] in {0, 1}
        harness.version = 2
        assert harness.results([harness.start_call(place) for place in (0, 1)]) == [1, 1]

    def test_callers_of_before_share_the_old_value(self, make_harness, lock):
        """The function runs once for them, and once for those of afterwards."""
        harness = make_harness(lock=lock)
        harness.delta = 1.5
        before = [harness.start_call() for _ in range(3)]
        harness.advance(1.0)
        harness.void(1, "invalidate_tag")
        after = [harness.start_call() for _ in range(3)]
        assert harness.results([*before, *after]) == [0] * 3 + [1] * 3
        assert harness.calls == 2
        assert harness.protections[0].counters.counts["rejected"] == 1

    def test_late_followers_share_one_recompute(self, make_harness, lock):
        """Those who join while the function runs look at the tags of its result, and serve it."""
        harness = make_harness(lock=lock)
        harness.delta = 1.0
        tasks = []
        for _ in range(9):
            tasks += [harness.start_call() for _ in range(3)]
            harness.advance(0.1)
        assert harness.results(tasks) == [0] * 27
        assert harness.calls == 1

    def test_another_process_waits_for_the_value(self, make_harness, lock):
        """It looks at the tags of what it finds, as for a hit."""
        harness = make_harness(lock=lock)
        tasks = [harness.start_call(), harness.start_call(1)]
        assert harness.results(tasks) == [0, 0]
        assert harness.calls == (1 if lock else 2)

    def test_a_refresh_looks_at_its_tags(self, make_harness, lock):
        """An invalidation while an old value is refreshed is not missed either."""
        harness = make_harness(lock=lock, ttl=1.0, stale=30.0)
        harness.results([harness.start_call()])
        harness.advance(2.0)
        assert harness.results([harness.start_call()]) == [0]  # the refresh begins
        harness.advance(DELTA / 2)
        harness.void(1, "invalidate_tag")
        harness.advance(DELTA)
        assert harness.results([harness.start_call()]) == [1]


def logs(harness):
    """Return the nodes that keep a log of tags."""
    return [node for node in harness.nodes if node.held(TAG_LOGS) is not None]


class TestFailures:
    """What is not known is not stored."""

    def interrupted(self, harness, act):
        """Return whether a value is stored whose recompute something has interrupted."""
        task = harness.start_call()
        harness.advance(DELTA / 2)
        act()
        assert harness.results([task]) == [0]
        calls = harness.calls
        harness.results([harness.start_call()])
        return harness.calls == calls

    def test_without_an_interruption_it_is_stored(self, make_harness):
        """Every node has a log by then."""
        harness = make_harness()
        assert self.interrupted(harness, lambda: None)
        assert len(logs(harness)) == len(harness.nodes)

    def test_a_lost_log_may_have_had_any_tag(self, make_harness):
        """As after an eviction, a restart, or another program's write."""
        harness = make_harness()

        def lose(payload):
            for node in harness.nodes:
                node.store.execute(Delete(TAG_LOGS))
                if payload is not None:
                    node.store.execute(Set(TAG_LOGS, payload))

        assert not self.interrupted(harness, lambda: lose(None))
        for payload in ((0, b"text"), (1 << 20, b"short")):
            harness.version = 0
            harness.loop.run(cached_value.invalidate(harness.request(0)))
            assert not self.interrupted(harness, lambda: lose(payload))  # noqa: B023 - called at once

    def test_a_log_that_the_node_refuses_to_read(self, make_harness):
        """As a list of another program on Redis: recomputes and invalidations replace it."""
        harness = make_harness(result_tags=("t",))
        for node in harness.nodes:
            refuse_logs(node)
        harness.results([harness.start_call()])
        assert harness.results([harness.start_call()]) == [0]
        assert harness.calls == 1
        for node in harness.nodes:
            refuse_logs(node)
        harness.void(1, "invalidate_tag")
        assert harness.results([harness.start_call()]) == [1]
        assert not self.interrupted_by_refusals(harness)

    def interrupted_by_refusals(self, harness):
        """Return whether a value is stored during whose recompute the logs were replaced."""
        harness.version = 0
        harness.loop.run(cached_value.invalidate(harness.request(0)))
        return self.interrupted(harness, lambda: [refuse_logs(node) for node in harness.nodes])

    @pytest.mark.parametrize("count", [tag_log.MOST_ENTRIES - 1, tag_log.MOST_ENTRIES])
    def test_a_log_has_the_last_tags_only(self, make_harness, count):
        """If too many were invalidated during the recompute, it may have had any tag."""
        harness = make_harness(result_tags=("t",))
        cluster = harness.clusters[1]
        member = cluster.route("t")[1]
        same_node = (f"x{n}" for n in itertools.count() if cluster.route(f"x{n}")[1] is member)
        harness.delta = 60.0

        def invalidate():
            for tag in itertools.islice(same_node, count):
                assert harness.loop.run(tags.invalidate(cluster, tag)) is True

        assert self.interrupted(harness, invalidate) is (count < tag_log.MOST_ENTRIES)

    def test_a_node_that_fails_is_no_invalidation(self, make_harness):
        """Its tags are unknown: callers get the result, and share it; it is not stored."""
        harness = make_harness(result_tags=OTHERS)
        shard = harness.shard
        other = next(
            node
            for tag in OTHERS
            for node in [harness.clusters[0].route(tag)[1].backend._node]
            if node is not shard
        )
        other.up = False
        tasks = [harness.start_call() for _ in range(3)]
        harness.advance(DELTA)
        tasks += [harness.start_call() for _ in range(3)]
        assert harness.results(tasks) == [0] * 6
        assert harness.calls == 1
        assert harness.protections[0].counters.counts["cache_errors"] == 1

    def test_an_invalidation_counts_though_another_node_fails(self, make_harness):
        """Late followers do not get the value; they recompute it."""
        harness = make_harness()
        harness.delta = 1.0
        owner = harness.clusters[0].route("t")[1].backend._node
        others = [node for node in harness.nodes if node not in {owner, harness.shard}]
        before = harness.start_call()
        harness.advance(0.5)
        harness.void(1, "invalidate_tag")
        for node in others:
            node.up = False
        assert harness.results([before, harness.start_call()]) == [0, 1]

    def test_a_node_that_fails_meanwhile(self, make_harness):
        """Between the versions and the log: the same."""
        harness = make_harness(result_tags=OTHERS)
        node = harness.clusters[0].route("t")[1].backend._node
        execute, reads = node.store.execute, []

        def fail(command):
            if command == Get(TAG_LOGS):
                reads.append(command)
            return NodeUnavailableError("gone") if len(reads) > 1 else execute(command)

        harness.result_tags = ("t",)
        node.store.execute = fail
        assert harness.results([harness.start_call()]) == [0]
        assert len(reads) == 2
        node.store.execute = execute
        assert harness.protections[0].counters.counts["cache_errors"] > 0

    @pytest.mark.parametrize("reply", [None, NodeUnavailableError("gone")])
    def test_a_log_that_goes_while_a_tag_is_added(self, make_harness, reply):
        """Without it nothing has to be logged; a node that fails has confirmed nothing."""
        harness = make_harness(result_tags=("t",))
        harness.results([harness.start_call()])
        node = harness.clusters[0].route("t")[1].backend._node
        execute = node.store.execute
        node.store.execute = lambda command: (
            reply if isinstance(command, Gets) else execute(command)
        )
        confirmed = harness.loop.run(tags.invalidate(harness.clusters[1], "t"))
        node.store.execute = execute
        assert confirmed is (reply is None)

    def test_with_a_secret_logs_are_signed(self, make_harness):
        """One that an attacker has planted is no log: nothing relies on it."""
        harness = make_harness()
        for cluster in harness.clusters:
            secret, others = b"0123456789abcdef", cluster.payloads.others
            cluster.payloads = payloads_of(Msgpack(), [secret], cluster.io.wall, others)
        entry = b"x" * 16
        for node in harness.nodes:
            node.store.execute(Set(TAG_LOGS, (MARK_FLAGS, entry)))
        assert self.interrupted(harness, lambda: None)
        harness.loop.run(cached_value.invalidate(harness.request(0)))
        assert not self.interrupted(
            harness,
            lambda: [n.store.execute(Set(TAG_LOGS, (MARK_FLAGS, entry))) for n in harness.nodes],
        )
        harness.void(1, "invalidate_tag")
        assert harness.results([harness.start_call()]) == [1]

    def test_invalidating_without_the_node_is_not_confirmed(self, make_harness):
        """Whether its log or its version cannot be reached."""
        harness = make_harness(result_tags=("t",))
        harness.results([harness.start_call()])
        node = harness.clusters[0].route("t")[1].backend._node
        node.up = False
        assert harness.loop.run(tags.invalidate(harness.clusters[1], "t")) is False


class TestContention:
    """Clients that invalidate tags of one node at once."""

    def test_all_are_logged(self, make_harness):
        """Or the log is removed, so that no recompute relies on it."""
        harness = make_harness(clients=12, result_tags=("t",))
        harness.delta = 5.0
        task = harness.start_call()
        harness.advance(1.0)

        async def invalidate_all_at_once():
            import asyncio  # noqa: PLC0415

            return await asyncio.gather(
                *(tags.invalidate(cluster, "t") for cluster in harness.clusters[1:])
            )

        harness.version = 1
        assert harness.loop.run(invalidate_all_at_once()) == [True] * 11
        assert harness.results([task]) == [0]
        assert harness.results([harness.start_call()]) == [1]


class TestCosts:
    """How many commands a call needs."""

    def commands(self, harness, act):
        """Return the commands that nodes get during an action."""
        commands = []
        for node in harness.nodes:
            execute = node.store.execute
            node.store.execute = lambda command, execute=execute: (
                commands.append(command) or execute(command)
            )
        act()
        return commands

    def test_a_hit_asks_each_node_of_a_tag_once(self, make_harness):
        """After the value, in one more round trip, however many tags there are."""
        harness = make_harness()
        harness.results([harness.start_call()])
        nodes = {harness.clusters[0].route(tag)[1] for tag in harness.result_tags}
        began = harness.now
        commands = self.commands(harness, lambda: harness.results([harness.start_call()]))
        assert [type(command) for command in commands] == [Get] + [GetMany] * len(nodes)
        assert harness.now - began == pytest.approx(2 * ROUND_TRIP)

    def test_an_invalidation_without_such_values(self, make_harness):
        """One round trip of two commands: nothing is logged."""
        harness = make_harness()
        began = harness.now
        commands = self.commands(harness, lambda: harness.void(1, "invalidate_tag"))
        assert len(commands) == 2
        assert harness.now - began == pytest.approx(ROUND_TRIP)
        assert logs(harness) == []


class TestForms:
    """What is stored, and what is read of it."""

    def test_peek_and_put(self, make_harness):
        """`put` reads the versions at once; `peek` looks at them."""
        harness = make_harness()
        run = harness.loop.run
        others = [node for node in harness.nodes if node is not harness.shard]
        for node in others:
            node.up = False
        assert run(cached_value.put(harness.request(0), 7)) is False  # a version is not known
        for node in others:
            node.up = True
        harness.advance(60.0)  # they are asked again
        assert run(cached_value.put(harness.request(0), 7)) is True
        assert run(cached_value.peek(harness.request(1))) == 7
        harness.void(1, "invalidate_tag")
        assert run(cached_value.peek(harness.request(0))) is NO_VALUE

    def test_a_value_that_names_no_tags_is_a_miss(self, make_harness):
        """It was stored when the function had none, or others."""
        harness = make_harness()
        for plain in ((), ("u",)):
            harness.tags, harness.result_tags = plain, ()
            harness.loop.run(cached_value.put(harness.request(0), 7))
            harness.tags, harness.result_tags = (), ("t",)
            assert harness.loop.run(cached_value.peek(harness.request(0))) is NO_VALUE
            assert harness.results([harness.start_call()]) == [0]

    def test_tags_of_the_arguments_are_read_with_the_value(self, make_harness):
        """Both kinds end it."""
        harness = make_harness(tags=("u", "v"))
        for number, tag in enumerate(("u", "t"), 1):
            harness.results([harness.start_call()])
            harness.version = number
            harness.loop.run(tags.invalidate(harness.clusters[1], tag))
            assert harness.results([harness.start_call()]) == [number]

    def test_a_result_without_tags(self, make_harness):
        """The function may return none: the value is stored, and found."""
        harness = make_harness()
        harness.request = lambda place, make=harness.request: with_tags(make(place), lambda _: ())
        assert harness.results([harness.start_call()]) == [0]
        assert harness.results([harness.start_call()]) == [0]
        assert harness.calls == 1

    def test_a_result_that_is_not_kept(self, make_harness):
        """Late followers look at its tags all the same."""
        harness = make_harness(condition=lambda _: False)
        harness.delta = 1.0
        before = harness.start_call()
        harness.advance(0.5)
        harness.void(1, "invalidate_tag")
        assert harness.results([before, harness.start_call()]) == [0, 1]

    def test_too_many_tags(self, make_harness):
        """As a value that the codec cannot store."""
        names = tuple(f"t{number}" for number in range(256))
        harness = make_harness(result_tags=names, on_uncacheable="raise")
        (error,) = harness.results([harness.start_call()])
        assert isinstance(error, UncacheableResultError)
        assert "it has 256 tags, and the limit is 255" in str(error)
        with pytest.raises(EncodeError):
            harness.loop.run(cached_value.put(harness.request(0), 7))

    def test_an_error_of_the_function_of_tags_reaches_the_callers(self, make_harness):
        """As that of a `condition`; the stub does not stay."""
        harness = make_harness(lock="shard")
        harness.request = lambda place, make=harness.request: with_tags(
            make(place), lambda _: 1 / 0
        )
        began = harness.now
        results = harness.results([harness.start_call(), harness.start_call(1)])
        assert [type(result) for result in results] == [ZeroDivisionError] * 2
        assert harness.now - began < 3 * DELTA

    def test_the_versions_of_no_tag_and_of_a_failed_node(self, make_harness):
        """Missing is not unknown."""
        harness = make_harness()
        cluster = harness.clusters[0]
        ((_, member),) = tags.places(cluster, ["t"])
        assert harness.loop.run(tags.current(cluster, ["t"])) == [None]
        (version,) = harness.loop.run(tags.get_or_create(cluster, ["t"]))
        assert harness.loop.run(tags.current(cluster, ["t", b"t"])) == [version] * 2
        assert member.backend._node.held(TAGS + b"t")[0][1] == version
        member.backend._node.up = False
        assert harness.loop.run(tags.current(cluster, ["t"])) == [tags.UNREACHABLE]


def refuse_logs(node):
    """Have a node refuse to read its log until that is replaced or removed."""
    execute = node.store.execute

    def refuse(command):
        if getattr(command, "key", None) != TAG_LOGS:
            return execute(command)
        if isinstance(command, (Get, Gets)):
            return NodeRefusedError("WRONGTYPE")
        if isinstance(command, Delete) or command.when is When.ALWAYS:
            node.store.execute = execute
            return execute(command)
        return False

    node.store.execute = refuse


def with_tags(request, function):
    """Return a request whose tags a function of the result returns."""
    request.result_tags = function
    return request
