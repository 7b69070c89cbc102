"""A check tells all that is wrong with a node at once, and what to do about it."""

from __future__ import annotations

import pytest

from operations.check_harness import CheckHarness
from operations.client_harness import REFUSED
from shardcache.core.commands import (
    Acquire,
    Cas,
    CompareAndDelete,
    CompareAndExpire,
    Delete,
    DeleteCas,
    DeleteMany,
    Get,
    GetMany,
    GetOrStub,
    Gets,
    Incr,
    Peek,
    Ping,
    Renew,
    ServerStats,
    Set,
    SetMany,
    Touch,
    When,
)
from shardcache.core.keys import KeySpace
from shardcache.core.reserved_keys import LOCKS as LOCK_KEYS
from shardcache.errors import (
    CheckFailedError,
    ClientClosedError,
    NodeProtocolError,
    NodeRefusedError,
    NodeTimeoutError,
    NodeUnavailableError,
    UnsupportedError,
)
from shardcache.operations.keys.checking import ADVICE, GONE, NO, OTHER, NodeCheck


def surprised(what, reason):
    """Return a fault."""
    return f"cannot {what}: {reason}"


def only(wanted, reply):
    """Return a reply to the commands that are `wanted`; the others are executed."""
    return lambda command, execute: reply if wanted(command) else execute(command)


class TestSurprises:
    """Replies that are no errors, and that a sound node does not give."""

    @pytest.mark.parametrize(
        ("kind", "reply", "told"),
        [
            (Set, False, surprised("write", NO)),
            (Get, None, surprised("read", GONE)),
            (Get, (0, b"other"), surprised("read", OTHER)),
            (GetMany, [None, (2, b"1")], surprised("read many", GONE)),
            (GetMany, [(0, b"other"), (2, b"1")], surprised("read many", OTHER)),
            (Touch, False, surprised("touch", GONE)),
            (Peek, None, surprised("tell a ttl", GONE)),
            (Gets, None, surprised("compare and set", GONE)),
            (Cas, False, surprised("compare and set, cache functions", GONE)),
            (Incr, 7, surprised("count", GONE)),
            (Renew, None, surprised("cache functions", GONE)),
            (Delete, False, surprised("delete", GONE)),
            (Acquire, False, surprised("take a lock", NO)),
            (CompareAndExpire, False, surprised("extend a lock", GONE)),
            (CompareAndDelete, False, surprised("release a lock", GONE)),
        ],
    )
    def test_each_is_a_fault(self, kind, reply, told):
        """It names what does not work, and the likely cause."""
        harness = CheckHarness()
        harness.answer_to(kind, reply=reply)
        assert harness.faults() == (told,)
        assert harness.kept == []

    def test_a_server_that_forgets_a_lock(self):
        """One that cannot compare is asked for the lock, and for its token."""
        harness = CheckHarness(memcached=True)
        is_lock = lambda command: command.key.startswith(LOCK_KEYS)  # noqa: E731
        harness.answer_to(Gets, only(is_lock, None))
        assert harness.faults() == (surprised("extend a lock, release a lock", GONE),)
        harness = CheckHarness(memcached=True)
        harness.answer_to(DeleteCas, reply=False)
        assert harness.faults() == (surprised("release a lock", GONE),)

    @pytest.mark.parametrize(
        ("when", "reply", "told"),
        [
            (When.ABSENT, True, surprised("add", GONE)),
            (When.PRESENT, False, surprised("replace", GONE)),
        ],
    )
    def test_a_condition_that_is_not_kept(self, when, reply, told):
        """An `add` must not store over a value, a `replace` must."""
        harness = CheckHarness()
        harness.answer_to(Set, only(lambda command: command.when is when, reply))
        assert harness.faults() == (told,)

    @pytest.mark.parametrize("counter", [False, True])
    def test_what_needs_a_value_that_was_not_stored_is_not_asked(self, counter):
        """One refused write is one fault, and not ten."""
        harness = CheckHarness()
        harness.answer_to(
            Set, only(lambda command: command.key.endswith(b":n") is counter, REFUSED)
        )
        (fault,) = harness.faults()
        assert fault.startswith("cannot write: out of memory; ")
        kinds = set(map(type, harness.received[0]))
        assert GetMany not in kinds
        assert (Incr in kinds) is not counter
        assert ({Get, Touch, Gets, Delete} <= kinds) is counter


class TestErrors:
    """Errors of a node, each of which is told once."""

    @pytest.mark.parametrize(
        ("kind", "told"),
        [
            (GetMany, "cannot read many: no"),
            (Gets, "cannot compare and set: no"),
            (Cas, "cannot compare and set, cache functions: no"),
            (GetOrStub, "cannot cache functions: no"),
            (Renew, "cannot cache functions: no"),
            (SetMany, "cannot write tags and generations: no"),
            (Acquire, "cannot take a lock: no"),
            (CompareAndExpire, "cannot extend a lock: no"),
            (CompareAndDelete, "cannot release a lock: no"),
            (DeleteMany, "cannot delete many: no"),
        ],
    )
    def test_a_refusal_is_reported_with_what_it_prevents(self, kind, told):
        """The node's name is not said twice, and the check goes on."""
        harness = CheckHarness()
        harness.answer_to(kind, NodeRefusedError("no", "n0"))
        assert harness.faults() == (told,)
        assert type(harness.received[0][-1]) is ServerStats

    def test_a_lock_that_cannot_be_looked_up(self):
        """On a server that cannot compare, extension and release begin with that."""
        harness = CheckHarness(memcached=True)
        harness.answer_to(Gets, NodeRefusedError("no", "n0"))
        assert harness.faults() == ("cannot compare and set, extend a lock, release a lock: no",)

    def test_a_refused_key_among_many_is_an_error(self):
        """A reply about many keys holds it."""
        harness = CheckHarness()
        harness.answer_to(SetMany, [True, NodeRefusedError("no", "n0"), True, True])
        assert harness.faults() == ("cannot write tags and generations: no",)

    def test_an_error_of_all_commands_is_reported_without_a_list(self):
        """Nothing works, so nothing needs to be named."""
        harness = CheckHarness()
        harness.answer(NodeRefusedError("NOAUTH wanted.", "n0"))
        assert harness.faults() == (f"NOAUTH wanted; {ADVICE['NOAUTH']}",)

    @pytest.mark.parametrize("namespace", ["", "shop"])
    def test_missing_rights_are_named(self, namespace):
        """With the keys of this client."""
        harness = CheckHarness()
        harness.cluster.keys = KeySpace(namespace)
        harness.answer_to(Incr, NodeRefusedError("NOPERM no rights", "n0"))
        (fault,) = harness.faults()
        keys = "~4:shop:* ~~sc:*" if namespace else "~*"
        assert fault == (
            "cannot count: NOPERM no rights; give it +@read +@write +@scripting +@connection"
            f" +info {keys}"
        )

    @pytest.mark.parametrize(
        "answer",
        [
            NodeTimeoutError("no answer in time", "n0"),
            NodeUnavailableError("Connection refused", "n0"),
            NodeProtocolError("nonsense", "n0"),
        ],
    )
    def test_a_node_that_does_not_serve_is_asked_once(self, answer):
        """Each further question would fail as well."""
        harness = CheckHarness()
        harness.answer(answer)
        (fault,) = harness.faults()
        assert str(answer).removeprefix("n0: ") in fault
        assert [type(command) for command in harness.received[0]] == [Ping]

    def test_a_node_that_falls_silent_is_asked_no_further(self):
        """The others are not delayed by it again; its keys expire if they cannot be deleted."""
        harness = CheckHarness(2)
        harness.answer_to(Get, NodeTimeoutError("no answer in time", "n0"), 0)
        assert harness.faults() == (f"cannot read: no answer in time; {ADVICE['in time']}",)
        assert [type(command) for command in harness.received[0][-2:]] == [Get, DeleteMany]
        assert harness.kept == []

    def test_keys_that_cannot_be_deleted_expire(self):
        """A node that is gone at the end keeps them for ten seconds."""
        harness = CheckHarness()

        def vanish(command, execute):
            del command, execute
            harness.nodes[0].up = False
            return NodeUnavailableError("gone", "n0")

        harness.answer_to(Get, vanish)
        (fault,) = harness.faults()
        assert fault == "cannot read: gone"
        assert len(harness.kept) == 2
        harness.advance(10.0)
        assert [harness.nodes[0].held(key) for key in harness.kept] == [None, None]

    def test_nonsense_amid_a_check_does_not_end_it(self):
        """The connection is replaced, and the next command may be understood."""
        harness = CheckHarness()
        harness.answer_to(Incr, NodeProtocolError("nonsense", "n0"))
        assert harness.faults() == ("cannot count: nonsense",)
        assert type(harness.received[0][-1]) is ServerStats

    def test_the_other_nodes_are_in_the_error(self):
        """As they would be in the result."""
        harness = CheckHarness(3)
        harness.answer_to(Incr, REFUSED, 1)
        with pytest.raises(CheckFailedError, match="1 of 3 nodes cannot serve") as raised:
            harness.check()
        assert list(raised.value.faults) == ["n1"]
        assert {name: type(each) for name, each in raised.value.passed.items()} == {
            "n0": NodeCheck,
            "n2": NodeCheck,
        }


class TestErrorsThatAreRaised:
    """Errors that end a call to all nodes, and do not name the one that causes them."""

    @pytest.fixture
    def raising(self):
        """Return two nodes, and a function that has calls to the first raise from a moment on."""
        harness = CheckHarness(2)
        io, call_many = harness.cluster.io, harness.cluster.io.call_many

        def raise_at(kind, error):
            async def raise_or_ask(asks, *terms):
                if any(
                    backend is harness.nodes[0] and isinstance(command, kind)
                    for backend, command in asks
                ):
                    raise error
                return await call_many(asks, *terms)

            io.call_many = raise_or_ask

        return harness, raise_at

    @pytest.mark.parametrize("kind", [Ping, Get])
    def test_it_is_the_fault_of_one_node(self, raising, kind):
        """Each node is then asked alone, with new keys; those of before are deleted."""
        harness, raise_at = raising
        raise_at(kind, UnsupportedError("n0: the server is part of a Redis Cluster"))
        assert harness.faults() == ("the server is part of a Redis Cluster",)
        assert harness.kept == []
        assert Incr in set(map(type, harness.received[1]))

    def test_a_closed_client_is_no_fault_of_a_node(self, raising):
        """The caller is told that it was closed."""
        harness, raise_at = raising
        raise_at(Get, ClientClosedError("this client is closed"))
        with pytest.raises(ClientClosedError):
            harness.check()
