"""A reply of another type than its command has is refused, also where its text would fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.redis.wires import STORED, TEXT, bulk, bulks, cut, make_wire
from shardcache.backends.redis.reader import INCOMPLETE, ReplyReader, Status
from shardcache.backends.redis.wire import RedisWire
from shardcache.backends.wire import UNUSUAL
from shardcache.core.commands import (
    Acquire,
    Cas,
    CasKeep,
    CommandList,
    CompareAndDelete,
    CompareAndExpire,
    Delete,
    DeleteCas,
    DeleteMany,
    FlushAll,
    Get,
    GetAged,
    GetMany,
    GetOrStub,
    Gets,
    Incr,
    IncrSigned,
    Peek,
    Ping,
    Renew,
    ServerStats,
    Set,
    SetMany,
    Touch,
    When,
)
from shardcache.errors import NodeProtocolError

# What each command is answered, and the same text as replies of other types.
OK = (b"+OK\r\n", bulk(b"OK"), b":1\r\n")
OK_OR_NIL = (b"+OK\r\n", bulk(b"OK"), b":0\r\n")
FLAG = (b":1\r\n", b"+1\r\n", bulk(b"1"), bulk(None))
VALUE = (bulk(b"7"), b"+7\r\n", b":7\r\n", bulks([b"7"]))
LONG = b"a" * 300
ANSWERS = [
    (Get(b"k"), VALUE),
    (Gets(b"k"), VALUE),
    (GetOrStub(b"k", b"m", 1.0), VALUE),
    (Incr(b"k", 1), VALUE),
    (IncrSigned(b"k", 1), VALUE),
    (ServerStats(), (bulk(b"a:1"), b"+a:1\r\n", bulk(None))),
    (
        GetAged(b"k"),
        (bulks([b"7", b"-1"]), b"*2\r\n+7\r\n$2\r\n-1\r\n", b"*2\r\n$1\r\n7\r\n:-1\r\n"),
    ),
    (Peek(b"k"), (bulks([b"7", b"-1"]), b"*2\r\n+7\r\n$2\r\n-1\r\n", bulk(b"7"))),
    (
        GetMany([b"k", b"l"]),
        (
            bulks([b"7", None]),
            b"*2\r\n+7\r\n$-1\r\n",
            b"*2\r\n$-1\r\n+7\r\n",
            b"*2\r\n:7\r\n$-1\r\n",
            b"+7\r\n",
        ),
    ),
    (GetMany([b"k"] * 20), (bulks([LONG] * 20), b"*20\r\n%b+%b\r\n" % (bulk(LONG) * 19, LONG))),
    (Set(b"k", TEXT), (*OK, bulk(None))),
    (Set(b"k", TEXT, when=When.ABSENT), OK_OR_NIL),
    (Acquire(b"k", TEXT, 1.0), OK_OR_NIL),
    (
        SetMany([(b"k", TEXT), (b"l", TEXT)]),
        (b"+OK\r\n" * 2, bulk(b"OK") * 2, b"+OK\r\n" + bulk(b"OK")),
    ),
    (FlushAll(), OK),
    (Delete(b"k"), FLAG),
    (DeleteCas(b"k", b"token"), FLAG),
    (Renew(b"k", TEXT, b"token", 1.0), FLAG),
    (CompareAndDelete(b"k", TEXT), FLAG),
    (CompareAndExpire(b"k", TEXT, 1.0), FLAG),
    (DeleteMany([b"k", b"l"]), (b":1\r\n:0\r\n", b"+1\r\n:0\r\n", b":1\r\n" + bulk(b"0"))),
    (Touch(b"k", 1.0), FLAG),
    (Cas(b"k", TEXT, b"token"), FLAG[:3]),
    (CasKeep(b"k", TEXT, b"token"), FLAG[:3]),
    (Ping(), (b"+PONG\r\n:1\r\n", bulk(b"PONG") + b":1\r\n", b"+PONG\r\n+1\r\n")),
]
WRONG = [(command, other) for command, (_, *others) in ANSWERS for other in others]


def replies_to(commands, *fragments):
    """Return the replies of one connection to commands."""
    wire = make_wire()
    for command in commands:
        wire.encode(command)
    return [reply for fragment in fragments for reply in wire.feed(fragment)]


@pytest.mark.parametrize(("command", "answers"), ANSWERS, ids=repr)
def test_the_type_that_a_command_has_is_taken(command, answers):
    """Whole, in two parts, and behind another reply."""
    right = answers[0]
    whole = replies_to([command], right)
    assert len(whole) == 1
    cut_in_two = replies_to([command], right[:-3], right[-3:])
    _, behind = replies_to([Delete(b"z"), command], b":1\r\n" + right)
    # Not by value: the token of an `Acquire` is another on each connection.
    assert [type(reply) for reply in (*cut_in_two, behind)] == [type(whole[0])] * 2


@pytest.mark.parametrize(("command", "wrong"), WRONG, ids=repr)
def test_any_other_type_is_refused(command, wrong):
    """However it arrives, and as the answer to one of a list."""
    for fragments in ([wrong], [wrong[:-3], wrong[-3:]], [wrong[:1], wrong[1:]]):
        with pytest.raises(NodeProtocolError):
            replies_to([command], *fragments)
    with pytest.raises(NodeProtocolError):
        replies_to([Delete(b"z"), command], b":1\r\n" + wrong)
    with pytest.raises(NodeProtocolError):
        replies_to([CommandList([Get(b"z"), command])], bulk(STORED) + wrong)


@pytest.mark.parametrize("text", [b"7", b"OK", STORED])
def test_a_status_is_no_value_on_the_straight_path(text):
    """It is left to `feed`, which refuses it."""
    wire = make_wire()
    wire.start_get(b"k")
    assert wire.end_get(b"+%b\r\n" % text) is UNUSUAL
    wire.expect_get()
    with pytest.raises(NodeProtocolError):
        wire.feed(b"+%b\r\n" % text)


def test_every_command_is_looked_at():
    """None of those that the wire has is left out."""
    assert RedisWire.supports - {CommandList} == {type(command) for command, _ in ANSWERS}


texts = st.sampled_from([b"", b"a", b"+", b"\r\n+a", b"x\r\n+OK\r\n", b"+" * 600, b"b" * 600])
lines = st.sampled_from([b"+OK\r\n", b"+a$b\r\n", b":7\r\n", b"-ERR +\r\n", b"$-1\r\n"])


@given(st.lists(st.one_of(texts.map(bulk), lines), min_size=1, max_size=8), st.data())
def test_statuses_are_told_from_values_wherever_they_are(answers, data):
    """Among any replies, cut anywhere, values that look like a status included."""
    reader = ReplyReader()
    read = []
    for fragment in data.draw(cut(b"".join(answers))):
        reader.feed(fragment)
        while not reader.empty and (reply := reader.read(0)) is not INCOMPLETE:
            read.append(reply)
    assert [type(reply) is Status for reply in read] == [
        answer.startswith(b"+") for answer in answers
    ]
