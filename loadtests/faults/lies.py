"""Replies as no server gives them: sizes that are not true, lines without end, words in any order."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

SIZES: Final = (
    b"2147483648",
    b"9223372036854775808",
    b"-5",
    b"-2",
    b"1e3",
    b"0x10",
    b"",
    b"9" * 30,
)
TAILS: Final = (b"", b"a\r\n", b"\r\n", b"a" * 50, b"a" * 5_000 + b"\r\n")

MEMCACHED_HEADS: Final = (b"VA %b f0 %%t\r\n", b"VA %b f256 c5 %%t\r\n", b"VA %b\r\n")
MEMCACHED_WORDS: Final = (
    *(
        b"VA ",
        b"HD",
        b"EN",
        b"NF",
        b"NS",
        b"EX",
        b"MN\r\n",
        b"END\r\n",
        b"STAT a b\r\n",
        b"ERROR\r\n",
    ),
    *(b"SERVER_ERROR no\r\n", b"CLIENT_ERROR bad data chunk\r\n", b"OK\r\n", b"VERSION 1.6\r\n"),
    *(
        b"VALUE k 0 1\r\na\r\n",
        b"STORED\r\n",
        b" %t",
        b" O1",
        b" f256",
        b" f0",
        b" c1",
        b" W",
        b" X",
    ),
    *(
        b" Z",
        b" s1",
        b" t-1",
        b"\r\n",
        b" ",
        b"VA 1 f0 O1\r\na\r\n",
        b"HD %t\r\n",
        b"5",
        b"-1",
        b"\0",
    ),
)
REDIS_HEADS: Final = (b"$%b\r\n", b"*%b\r\n", b"*5\r\n$%b\r\n", b"%%%b\r\n")
REDIS_WORDS: Final = (
    *(b"+OK\r\n", b"+PONG\r\n", b":1\r\n", b"*5\r\n", b"*0\r\n", b"*-1\r\n", b"%1\r\n", b"~1\r\n"),
    *(b">1\r\n", b"|1\r\n", b"_\r\n", b"#t\r\n", b",1.5\r\n", b"(1\r\n", b"=5\r\ntxt:a\r\n"),
    *(
        b"!5\r\nERR x\r\n",
        b"-ERR no\r\n",
        b"-LOADING\r\n",
        b"-OOM x\r\n",
        b"*",
        b"$",
        b":",
        b"+",
        b"-",
    ),
    *(b"\r\n", b"\r", b"\n", b"1", b"9" * 30, b"\0", b"a"),
)
ENDLESS: Final = {"memcached": (b"", b"V", b"VA 1 f0 %t"), "redis": (b"", b"+", b"-", b":", b"$")}
FLOOD: Final = b"1" * 65_536

# A reply that begins like this may be a hit, and so true.
_HITS: Final = {
    "memcached": re.compile(rb"VA (\d{1,9})(?: [^ \r]+)*\r\n"),
    "redis": re.compile(rb"(?:\*\d+\r\n)?\$(\d{1,9})\r\n"),
}


class Lie(NamedTuple):
    """What a server answers; `%t` is the token of the request. With `floods` there is no end."""

    reply: bytes
    floods: bool = False


def lies(kind: str, count: int, seed: int) -> Iterator[Lie]:
    """Yield as many lies in the protocol of a kind of servers."""
    heads, words = (
        (MEMCACHED_HEADS, MEMCACHED_WORDS) if kind == "memcached" else (REDIS_HEADS, REDIS_WORDS)
    )
    yield from (Lie(begin, floods=True) for begin in ENDLESS[kind])
    yield from (Lie(head % size + tail) for head in heads for size in SIZES for tail in TAILS)
    chance = random.Random(seed)
    given = len(ENDLESS[kind]) + len(heads) * len(SIZES) * len(TAILS)
    while given < count:
        reply = b"".join(chance.choice(words) for _ in range(chance.randint(1, 6)))
        if chance.random() < 0.2:
            reply += chance.randbytes(chance.randint(1, 20))
        if not _may_be_true(kind, reply):
            given += 1
            yield Lie(reply + b"\r\n")


def _may_be_true(kind: str, reply: bytes) -> bool:
    """Return whether a reply begins with a whole value; a status of Redis is text, and so is one."""
    if kind == "redis" and reply.startswith(b"+"):
        return True
    head = _HITS[kind].match(reply)
    if head is None:
        return False
    end = head.end() + int(head[1])
    return (reply + b"\r\n")[end : end + 2] == b"\r\n"
