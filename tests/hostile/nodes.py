"""Servers that mean harm: each takes a connection, and answers as no server would.

A behaviour of `MEMCACHED` and `REDIS` is called with a socket and the number of its connection.
Those that flood do so until the other end hangs up.
"""

from __future__ import annotations

import time

from backends.fakes import token_of

GIB = 1 << 30
GARBAGE = bytes(range(256)) * 16
CHUNK = 64 * 1024


def says(reply, *, times=1):
    """Answer each request with the same bytes; `%t` in them is the request's token."""

    def behave(connection, _):
        while request := connection.recv(CHUNK):
            token = token_of(request) if b"%t" in reply else b""
            connection.sendall(reply.replace(b"%t", token) * times)

    return behave


def floods(begin, endless):
    """Answer with the beginning, then the rest again and again."""

    def behave(connection, _):
        request = connection.recv(CHUNK)
        token = token_of(request) if b"%t" in begin else b""
        connection.sendall(begin.replace(b"%t", token))
        piece = endless * (CHUNK // len(endless) + 1)
        while True:
            connection.sendall(piece)

    return behave


def drips(reply):
    """Answer with a byte every 10 ms."""

    def behave(connection, _):
        request = connection.recv(CHUNK)
        token = token_of(request) if b"%t" in reply else b""
        for byte in reply.replace(b"%t", token) + b"x" * 10_000:
            connection.sendall(bytes([byte]))
            time.sleep(0.01)

    return behave


def speaks_first(said):
    """Say something before any question, then nothing."""

    def behave(connection, _):
        connection.sendall(said)
        while connection.recv(CHUNK):
            pass

    return behave


def silent(connection, _):
    """Take all and say nothing."""
    while connection.recv(CHUNK):
        pass


def echoes(connection, _):
    """Answer with the question."""
    while request := connection.recv(CHUNK):
        connection.sendall(request)


def unique_figures(connection, _):
    """Answer `stats` with lines without end, no two alike."""
    connection.recv(CHUNK)
    number = 0
    while True:
        lines = range(number, number + 1000)
        connection.sendall(b"".join(b"STAT n%d %s\r\n" % (n, b"x" * 200) for n in lines))
        number += 1000


COMMON = {
    "garbage": says(GARBAGE),
    "an endless line": floods(b"", b"x"),
    "line ends": floods(b"", b"\r\n"),
    "zeros": floods(b"", b"\0"),
    "a push before the question": speaks_first(b"HD\r\n"),
    "silence": silent,
    "the question": echoes,
    "HTTP": says(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
}
MEMCACHED = {
    **COMMON,
    "a drip": drips(b"VA 100 f256 %t\r\n"),
    "an impossible length": says(b"VA 99999999999999999999 f256 %t\r\n"),
    "a negative length": says(b"VA -1 f256 %t\r\n"),
    "a length of a GiB and no more": says(b"VA %d f256 %%t\r\n" % GIB),
    "a value of a GiB": floods(b"VA %d f256 %%t\r\n" % GIB, b"x"),
    "a value behind a value": says(b"VA 1 f256 %t\r\na\r\nVA 1 f256 %t\r\na\r\n"),
    "another token": says(b"VA 1 f256 O1\r\na\r\n"),
    "no token": says(b"VA 1 f256\r\na\r\n"),
    "hits without end": floods(b"", b"VA 1 f256 O1\r\na\r\n"),
    "errors without end": floods(b"", b"SERVER_ERROR out of memory\r\n"),
    "a refusal of 4000 letters": says(b"SERVER_ERROR " + b"x" * 4000 + b"\r\n"),
    "a long head": says(b"VA 1 f" + b"1" * 60_000 + b" %t\r\na\r\nMN\r\n"),
}
CLASSIC = {
    **COMMON,
    "a drip": drips(b"VALUE k 0 100\r\n"),
    "an impossible length": says(b"VALUE k 0 99999999999999999999\r\n"),
    "a negative length": says(b"VALUE k 0 -1\r\n"),
    "a length of a GiB and no more": says(b"VALUE k 0 %d\r\n" % GIB),
    "a value of a GiB": floods(b"VALUE k 0 %d\r\n" % GIB, b"x"),
    "a value behind a value": says(b"VALUE k 0 1\r\na\r\nVALUE k 0 1\r\na\r\n"),
    "a value of another key": says(b"VALUE other 0 1\r\na\r\nEND\r\n"),
    "values without end": floods(b"", b"VALUE k 0 1\r\na\r\n"),
    "a value without a length": says(b"VALUE k 0\r\na\r\nEND\r\n"),
    "errors without end": floods(b"", b"SERVER_ERROR out of memory\r\n"),
    "a refusal of 4000 letters": says(b"SERVER_ERROR " + b"x" * 4000 + b"\r\n"),
    "a long key": says(b"VALUE " + b"k" * 60_000 + b" 0 1\r\na\r\nEND\r\n"),
}
REDIS = {
    **COMMON,
    "a drip": drips(b"$100\r\n"),
    "an impossible length": says(b"$99999999999999999999\r\n"),
    "a negative length": says(b"$-2\r\n"),
    "a length of 512 MiB and no more": says(b"$%d\r\n" % (GIB // 2)),
    "a value of 512 MiB": floods(b"$%d\r\n" % (GIB // 2), b"x"),
    "a value behind a value": says(b"$1\r\n1\r\n$1\r\n1\r\n"),
    "an endless status": floods(b"", b"+"),
    "an endless error": floods(b"-", b"x"),
    "statuses without end": floods(b"", b"+OK\r\n"),
    "nulls without end": floods(b"", b"$-1\r\n"),
    "errors without end": floods(b"", b"-ERR no\r\n"),
    "arrays in arrays": floods(b"", b"*1\r\n"),
    "a number of a million digits": floods(b":", b"1"),
    **{
        f"{what} of {count}": says(b"%c%d\r\n" % (letter, count))
        for what, letter in (
            ("an array", b"*"),
            ("a map", b"%"),
            ("a set", b"~"),
            ("a push", b">"),
            ("attributes", b"|"),
        )
        for count in (2, 1_000_000_000)
    },
    "an array within an array": says(b"*1\r\n*1000000000\r\n"),
    "an array within the array that is owed": says(b"*20\r\n$1\r\n1\r\n*1000000000\r\n"),
    "a map within the array that is owed": says(b"*20\r\n$1\r\n1\r\n%1000000000\r\n"),
    "an array behind the value": says(b"$1\r\n1\r\n*1000000000\r\n"),
    "a map behind the value": says(b"$1\r\n1\r\n%1000000000\r\n"),
    "an array that promises more": says(b"*21\r\n"),
    **{
        f"RESP3 {scalar!r}": says(scalar)
        for scalar in (
            b"_\r\n",
            b"#t\r\n",
            b",1.5\r\n",
            b"(123\r\n",
            b"=5\r\ntxt:a\r\n",
            b"!5\r\nERR x\r\n",
            b".\r\n",
            b"$?\r\n",
        )
    },
}
