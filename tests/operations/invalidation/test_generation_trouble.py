"""Nodes that answer for some keys only, or store nothing: a generation is looked up again soon."""

from __future__ import annotations

import pytest

from operations.cached_harness import FunctionHarness
from operations.harness import ROUND_TRIP
from operations.simulation import TIMEOUT
from shardcache.core.commands import Cas, Get, GetMany, Gets, Set
from shardcache.core.values.flags import MARK_FLAGS
from shardcache.errors import NodeRefusedError, NodeUnavailableError
from shardcache.operations.invalidation.generations import LOOK_AGAIN, TRIES, _store_newer

NAME = FunctionHarness.NAME
REFUSED = NodeRefusedError("no permission", "node")


def wrap(node, answer):
    """Have a node answer by a function of the command and its own `execute`; return how to undo that."""
    execute = node.store.execute
    node.store.execute = lambda command: answer(command, execute)

    def restore():
        node.store.execute = execute

    return restore


def refuse_to_read(command, execute):
    """Refuse the generation of the function among the keys of a command."""
    if type(command) is not GetMany:
        return execute(command)
    replies = execute(command)
    return [
        REFUSED if key == NAME else each for key, each in zip(command.keys, replies, strict=True)
    ]


def refuse_to_store(command, execute):
    """Refuse to store the generation of the function."""
    return REFUSED if isinstance(command, Set | Cas) and command.key == NAME else execute(command)


def test_a_generation_that_too_few_nodes_tell_is_looked_up_again():
    """A second later, although the mark has not moved since."""
    harness = FunctionHarness(nodes=3)
    assert [harness.call(0), harness.call(1)] == [0, 0]
    harness.invalidate(0)
    harness.advance(LOOK_AGAIN)
    undo = [wrap(node, refuse_to_read) for node in harness.nodes[:2]]
    assert harness.call(1) == 0
    assert harness.known(1) == ""
    for restore in undo:
        restore()
    harness.advance(LOOK_AGAIN)
    assert harness.call(1) == 1
    assert harness.known(1) == harness.known(0)


def test_a_generation_that_too_few_nodes_store_is_put_back_soon():
    """Not only when its turn comes among many."""
    harness = FunctionHarness(nodes=3)
    harness.invalidate(0)
    harness.call(0)
    known = harness.known(0)
    others = [harness.processes[0].generations[f"other{number}"] for number in range(9)]
    for number, other in enumerate(others):
        other.name = f"{number:016x}"
    for node in harness.nodes[1:]:
        node.forget()
    undo = [wrap(node, refuse_to_store) for node in harness.nodes[1:]]
    harness.advance(LOOK_AGAIN)
    assert harness.call(0) == 1
    assert harness.kept == [known, None, None]
    for restore in undo:
        restore()
    harness.advance(LOOK_AGAIN)
    assert harness.call(0) == 1
    assert harness.kept == [known] * 3


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("key", ["mark", "name"])
def test_an_invalidation_that_is_not_in_force(raises, key):
    """It returns `False`, or raises the error of a node, as `on_error` says."""
    harness = FunctionHarness(nodes=3)
    harness.call(0)
    cluster = harness.cluster
    cluster.raises = raises
    if key == "name":
        for node in harness.nodes[:2]:
            node.up = False
        expected = NodeUnavailableError
    else:
        for node in harness.nodes[:2]:
            wrap(
                node,
                lambda command, execute: (
                    REFUSED if type(command) is Set and command.key != NAME else execute(command)
                ),
            )
        expected = NodeRefusedError
    if raises:
        with pytest.raises(expected):
            harness.invalidate(0)
    else:
        assert harness.invalidate(0) is False


def test_a_minority_without_the_name_is_enough():
    """The node that is down gets the generation when it is asked again."""
    harness = FunctionHarness(nodes=3)
    harness.nodes[0].up = False
    harness.cluster.raises = True
    assert harness.invalidate(0) is True


def test_a_node_that_was_not_awaited_gets_the_generation_later():
    """So that it is not lost with a few of the other nodes."""
    harness = FunctionHarness(nodes=5)
    slow = harness.nodes[0]
    slow.delay = 0.02
    began = harness.now
    task = harness.start(harness.functions[0].invalidate_all())
    harness.finish(task)
    assert task.result is True
    assert harness.now - began < TIMEOUT / 4
    harness.advance(0.2)
    assert len(set(harness.kept)) == 1
    assert harness.kept[0] == harness.known(0)


def test_a_key_of_another_type_is_overwritten():
    """On Redis another program's list may be in the place of a generation: reading it is refused."""
    harness = FunctionHarness(nodes=3)

    def wrong_type(command, execute):
        if type(command) is Gets and command.key == NAME:
            return REFUSED
        return execute(command)

    for node in harness.nodes:
        wrap(node, wrong_type)
    assert harness.invalidate(0) is True
    assert harness.kept == [harness.known(0)] * 3


def test_a_node_that_others_write_to_is_tried_a_few_times():
    """Then the generation is not stored there, and the older name of another stays."""
    harness = FunctionHarness(nodes=1)
    node, member = harness.node, harness.member()
    name, older = f"{9:016x}", (MARK_FLAGS, b"%016x" % 7)
    stores = []

    def beaten(command, execute):
        if isinstance(command, Set | Cas):
            stores.append(command)
            execute(Set(NAME, older))
        return execute(command)

    wrap(node, beaten)
    found = {member: None}
    deadline = harness.cluster.deadline()
    work = _store_newer(harness.cluster, NAME, name, found, deadline, 1)
    assert harness.run(work) == set()
    assert len(stores) == TRIES
    assert node.held(NAME)[0] == older


def test_a_value_is_read_along_with_the_look():
    """With no more than one command for the value and one for the mark."""
    harness = FunctionHarness(nodes=1)
    harness.call()
    harness.advance(LOOK_AGAIN)
    commands = harness.record_commands()
    assert harness.call_seconds() == pytest.approx(ROUND_TRIP)
    assert [type(command) for command in commands] == [Get, GetMany]


def test_nodes_that_are_slower_than_the_second_between_looks():
    """A call looks three times at most, and is then served with what it knows."""
    harness = FunctionHarness(nodes=1)
    harness.call()
    harness.advance(LOOK_AGAIN)
    harness.cluster.timeout = 20 * LOOK_AGAIN
    harness.node.delay = 0.6 * LOOK_AGAIN
    looks = harness.record_commands(GetMany)
    assert harness.call_seconds() == pytest.approx(3 * 2 * harness.node.delay)
    assert len(looks) == 3
    assert harness.computed == 1


@pytest.mark.parametrize("invalidated", [False, True])
def test_a_call_reads_while_another_looks(invalidated):
    """What it read under the old name counts only if the generation has not changed."""
    harness = FunctionHarness(nodes=1)
    harness.call(0)
    if invalidated:
        harness.invalidate(1)
    harness.advance(LOOK_AGAIN)
    commands = harness.record_commands()
    tasks = [harness.start_call(0) for _ in range(2)]
    harness.finish(*tasks)
    assert [task.result for task in tasks] == [harness.version] * 2
    assert [type(command) for command in commands][:3] == [Get, GetMany, Get]
    assert harness.computed == 1 + 2 * invalidated
