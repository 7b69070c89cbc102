"""Inputs for the targets: pieces of what each reads, put together by chance, and any bytes."""

from __future__ import annotations

from hypothesis import strategies as st

MEMCACHED = [
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
        b"STAT time 5\r\n",
        b"ERROR\r\n",
    ),
    *(
        b"SERVER_ERROR out of memory\r\n",
        b"CLIENT_ERROR bad data chunk\r\n",
        b"CLIENT_ERROR too large\r\n",
    ),
    *(
        b"ERROR Too many open connections\r\n",
        b"OK\r\n",
        b"VERSION 1.6\r\n",
        b"VALUE k0 0 1\r\na\r\n",
    ),
    *(
        b"VALUE k0 256 5 17\r\nvalue\r\n",
        b"STORED\r\n",
        b"NOT_STORED\r\n",
        b"EXISTS\r\n",
        b"NOT_FOUND\r\n",
    ),
    *(b"DELETED\r\n", b"TOUCHED\r\n", b"12\r\n", b"18446744073709551616\r\n"),
    *(
        b" %0",
        b" %1",
        b" %2",
        b" O1",
        b" f256",
        b" f0",
        b" c1",
        b" W",
        b" X",
        b" Z",
        b" s1",
        b" t5",
        b" t-1",
        b"\r\n",
        b" ",
    ),
    *(b"VA 1 f256 %0\r\na\r\n", b"VA 0 f0 %0\r\n\r\n", b"HD %0\r\n", b"EN %0\r\n", b"HD c5 %0\r\n"),
    *(
        b"VA 1 f256 c5 %0\r\na\r\n",
        b"VA 2 %0\r\n12\r\n",
        b"5",
        b"-1",
        b"1073741825",
        b"9" * 30,
        b"a" * 40,
    ),
]
REDIS = [
    *(
        b"$1\r\na\r\n",
        b"$-1\r\n",
        b"$0\r\n\r\n",
        b"$2\r\n\xc1\x00\r\n",
        b"+OK\r\n",
        b"+PONG\r\n",
        b":1\r\n",
        b":0\r\n",
    ),
    *(
        b"*5\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"*1000000000\r\n",
        b"%1\r\n",
        b"~1\r\n",
        b">1\r\n",
        b"|1\r\n",
        b"_\r\n",
    ),
    *(
        b"#t\r\n",
        b",1.5\r\n",
        b"(1\r\n",
        b"=5\r\ntxt:a\r\n",
        b"!5\r\nERR x\r\n",
        b"$1000000000\r\n",
        b"$-2\r\n",
    ),
    *(
        b"-ERR no\r\n",
        b"-LOADING\r\n",
        b"-WRONGTYPE x\r\n",
        b"-OOM x\r\n",
        b"-MOVED 1 h:1\r\n",
        b"-NOAUTH x\r\n",
    ),
    *(
        b"-ERR unknown command 'AUTH', with args beginning with: 'app' 'hunter2secret'\r\n",
        b"-ERR hunter2secret\r\n",
    ),
    *(
        b"-ERR max number of clients reached\r\n",
        b"-ERR value is not an integer\r\n",
        b"$5\r\n:1\r\n*\r\n",
    ),
    *(b"*", b"$", b":", b"+", b"-", b"\r\n", b"\r", b"\n", b"1", b"9" * 30),
]
PAYLOADS = [
    *(
        b"\xc1",
        b"\xc1\x04",
        b"\xc1\x05",
        b"\xc7\x01",
        b"\xc9",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
    ),
    *(
        b"\x91" * 50,
        b"\x81\xa1a",
        b"\xcb\x7f\xf8\0\0\0\0\0\0",
        b"\x80\x05",
        b"\x80\x04K\x01.",
        b"[1,",
        b'{"a":1}',
    ),
    *(
        b"[" * 50,
        b"1e999",
        b"-0",
        b"NaN",
        b"\x01\0\0\x01\x20" + b"\0" * 25,
        b"x\x9c",
        b"\xff",
        b"12",
        b"\0" * 8,
    ),
]
URLS = [
    *(
        "redis://",
        "memcached://",
        "memory://",
        "rediss://",
        "redis+unix://",
        "pymemcache://",
        "x://",
        "h",
        "h1,h2",
    ),
    *(
        "[::1]",
        "[",
        "]",
        ":",
        "@",
        "/",
        "?",
        "#",
        "&",
        "=",
        "%",
        "%zz",
        "%ff",
        "*3",
        "*0",
        "*",
        ",",
        ":6379",
        ":99999",
    ),
    *(
        "app:pw@",
        "timeout=",
        "strategy=",
        "ketama:profile=",
        "db=",
        "max_value_bytes=",
        "1e3",
        "none",
        "nan",
        "-1",
    ),
    *("nodes = ", "[[nodes]]\n", "url = ", '"', "'", "\n", "timeout = 1", "{", "}", "é", "\0", " "),
]
LITERALS = [
    *(
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "1",
        "-",
        "1.5",
        "1e999",
        "True",
        "None",
        "'a'",
        "b'a'",
        "...",
        "set()",
    ),
    *("9" * 50, "[" * 30, "0x", "{1, 2}", "{'a': 1}", "(1,)", "'\\ud800'"),
]


def pieced(pieces):
    """Give bytes made of the pieces and of any others."""
    known = [piece.encode("utf-8") if isinstance(piece, str) else piece for piece in pieces]
    part = st.one_of(st.sampled_from(known), st.sampled_from(known), st.binary(max_size=12))
    return st.lists(part, max_size=24).map(b"".join)


def headed(size, pieces):
    """Give bytes by which a target chooses, and what it reads."""
    return st.builds(bytes.__add__, st.binary(min_size=size, max_size=size), pieced(pieces))


INPUTS = {
    "memcached": headed(5, MEMCACHED),
    "redis": headed(5, REDIS),
    "pymemcache": headed(5, MEMCACHED),
    "payloads": headed(2, PAYLOADS),
    "settings": pieced(URLS),
    "arguments": pieced(LITERALS),
}
