"""Faults of the straight way of the usual call: what it must do as the general way does."""

from __future__ import annotations

from mutants.mutant import Mutant

STRAIGHT = "operations/keys/straight.py"
SOCKETS = "backends/transport/blocking.py"
STRAIGHT_TESTS = ("operations/keys/test_straight.py",)
OBSERVER_TESTS = ("clients/test_straight.py::test_what_an_observer_hears_is_equal",)
RESTED_TESTS = ("clients/test_straight.py::test_a_connection_that_rested_is_looked_at",)
TOKEN_TESTS = ("clients/test_straight.py::test_a_reply_with_another_token_is_never_read",)
REPLY_TESTS = ("clients/test_straight.py::test_replies_are_equal",)

TOGETHER = "backends/transport/together.py"
_TESTS_OF = "backends/transport/test_together.py::test_"
LATE_TESTS = (f"{_TESTS_OF}a_late_node_does_not_keep_others_from_sending",)
REST_TESTS = (f"{_TESTS_OF}connections_that_rested_are_looked_at",)
KIND_TESTS = (f"{_TESTS_OF}nodes_of_several_kinds_are_asked_at_once",)
CUT_TESTS = (f"{_TESTS_OF}a_connection_cut_between_any_two_bytes_is_the_same_to_both",)

MUTANTS = [
    Mutant(
        "a get asks an ejected node",
        STRAIGHT,
        "if member.get_straight is None or member.health.ejected:",
        "if member.get_straight is None:",
        STRAIGHT_TESTS,
    ),
    Mutant(
        "a write asks an ejected node",
        STRAIGHT,
        "    if health.ejected:\n        return run(",
        "    if not health:\n        return run(",
        STRAIGHT_TESTS,
    ),
    Mutant(
        "an awaited get asks an ejected node",
        STRAIGHT,
        "    if health.ejected:\n        return await",
        "    if not health:\n        return await",
        STRAIGHT_TESTS,
    ),
    Mutant(
        "the answer of a watched node is not looked at",
        STRAIGHT,
        "    if member.health.watched or isinstance(reply, NodeError):",
        "    if isinstance(reply, NodeError):",
        STRAIGHT_TESTS,
    ),
    Mutant(
        "a refused store leaves the old value",
        STRAIGHT,
        "    return run(lambda: single.end_store(cluster, member, name, reply, until))",
        "    return bool(cluster.unwrap(reply, default=False))",
        STRAIGHT_TESTS,
    ),
    Mutant(
        "a set with a ttl of zero stores",
        STRAIGHT,
        "    if seconds == 0:\n",
        "    if seconds == -1:\n",
        STRAIGHT_TESTS,
    ),
    Mutant(
        "an observer hears of no get",
        STRAIGHT,
        "    if cluster.observed:\n        cluster.record(member, Get(name)",
        "    if not cluster:\n        cluster.record(member, Get(name)",
        OBSERVER_TESTS,
    ),
    Mutant(
        "a rested connection is not looked at",
        SOCKETS,
        "request is None or (began - connection.since >= RESTED and connection.stale)",
        "request is None",
        RESTED_TESTS,
    ),
    Mutant(
        "a reply with another token is read",
        "backends/memcached/replies.py",
        "    head, end, rest = data.partition(tail)\n    try:\n",
        '    head, end, rest = data.partition(b"\\r\\n")\n'
        '    head = head.rpartition(b" O")[0]\n    try:\n',
        TOKEN_TESTS,
    ),
    Mutant(
        "the reply to another write is read",
        "backends/memcached/straight.py",
        "if data[2:] == self._tail else UNUSUAL",
        "if len(data) == 2 + len(self._tail) else UNUSUAL",
        ("backends/memcached/test_straight.py",),
    ),
    Mutant(
        "a signal within a large store ends its deadline",
        "backends/transport/transfer.py",
        "        if left <= 0 or not writable.poll(left * 1000):\n            raise TimeoutError\n",
        "        writable.poll(left * 1000)\n",
        ("backends/transport/test_large_values.py",),
    ),
    Mutant(
        "a large value may have any end",
        "backends/transport/large_values.py",
        "        if block.read() != END:\n            return None\n",
        "",
        ("backends/transport/test_large_values.py",),
    ),
    Mutant(
        "a reply that is too large is read",
        "backends/redis/wire.py",
        ' or data[-2:] != b"\\r\\n" or size > self._max_value:',
        ' or data[-2:] != b"\\r\\n":',
        REPLY_TESTS,
    ),
    Mutant(
        "a late node keeps the others waiting",
        TOGETHER,
        "PATIENCE: Final = 0.005",
        "PATIENCE: Final = 5.0",
        LATE_TESTS,
    ),
    Mutant(
        "a connection that rested is not looked at before a batch",
        TOGETHER,
        " or (now - connection.since >= RESTED and connection.stale)",
        "",
        REST_TESTS,
    ),
    Mutant(
        "a batch of which a part was answered is sent again",
        TOGETHER,
        "connection.answered = bool(data)",
        "connection.answered = False",
        CUT_TESTS,
    ),
    Mutant(
        "a connection is used again after a reply that makes no sense",
        TOGETHER,
        "self._exchange(place, connection).fail(connection, error)\n                continue\n            if replies",
        "asks[place][0].pool.idle.append(connection)\n                raise\n            if replies",
        CUT_TESTS,
    ),
    Mutant(
        "nodes of other kinds are asked as the first",
        TOGETHER,
        "if type(backend) is kind else None",
        "if kind else None",
        KIND_TESTS,
    ),
]
