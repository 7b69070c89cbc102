"""A client that signs, and what is written to its node behind its back."""

from __future__ import annotations

import pickle
import socket
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from faults.loops import Loop
from faults.players import Part
from shardcache import AsyncClient, Client

SECRET: Final = "a secret that only this row knows"
VALUES: Final[dict[str, Any]] = {
    "msgpack": {"a": (1, None), "b": ["text", b"bytes"]},
    "json": {"a": [1, None], "b": "text"},
    "raw": b"bytes of some length",
    "pickle": {"a": (1, None), "b": range(3)},
}
# Of each bit of these, one is flipped. Not of a pickle: with its rule off, a damaged one would be
# executed.
ALTERED: Final = ("msgpack", "json", "raw")
BATCH: Final = 40  # values that are written and read at a time
KEYS: Final = [f"planted:{number:02}" for number in range(BATCH)]
SHIFTS: Final = (1, 7, 39)  # from a key to the one whose payload it gets
SIGNATURE: Final = bytes(40)  # nobody's
MARK: Final = "planted"  # an attribute of `sys`

# Values are those of each codec, hence `Any`.


class Stored(NamedTuple):
    """What a server holds for a key; the flags of Redis are in its bytes."""

    flags: int
    data: bytes


class Raw(ABC):
    """A connection to a server, without any client between."""

    STORED: bytes  # the answer to a write

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port), 10)
        self._file = self._socket.makefile("rb")

    @abstractmethod
    def read(self, key: str) -> Stored:
        """Return what is stored."""

    def write(self, planted: Mapping[str, Stored]) -> None:
        """Store what there is for each key."""
        self._socket.sendall(b"".join(map(self._request, planted, planted.values())))
        for _ in planted:
            assert self._file.readline() == self.STORED

    @abstractmethod
    def _request(self, key: str, stored: Stored) -> bytes:
        """Return the request to store it."""

    @abstractmethod
    def altered(self, stored: Stored) -> Iterator[Stored]:
        """Yield it with one bit flipped, each that says anything of the value."""

    @abstractmethod
    def marked(self, kind: int, data: bytes) -> Stored:
        """Return data as if a client of this library had stored it as of that kind."""

    @abstractmethod
    def foreign(self, data: bytes) -> list[Stored]:
        """Return data as other clients store a pickle."""

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()

    def _ask(self, request: bytes) -> bytes:
        self._socket.sendall(request)
        return self._file.readline()


class RawMemcached(Raw):
    """Speaks the classic protocol."""

    STORED = b"STORED\r\n"

    def read(self, key: str) -> Stored:
        """Return what is stored."""
        _, _, flags, size = self._ask(b"get %b\r\n" % key.encode()).split()
        data = self._file.read(int(size))
        self._file.readline()
        self._file.readline()
        return Stored(int(flags), data)

    def _request(self, key: str, stored: Stored) -> bytes:
        head = b"set %b %d 0 %d\r\n" % (key.encode(), stored.flags, len(stored.data))
        return head + stored.data + b"\r\n"

    def altered(self, stored: Stored) -> Iterator[Stored]:
        """Yield it with one bit flipped, those of the flags too."""
        for bit in range(32):
            yield stored._replace(flags=stored.flags ^ 1 << bit)
        yield from _flipped(stored, range(len(stored.data)))

    def marked(self, kind: int, data: bytes) -> Stored:
        """Return data with the flags of the kind."""
        return Stored(kind << 16, data)

    def foreign(self, data: bytes) -> list[Stored]:
        """Return data with flags that other clients use."""
        return [Stored(flags, data) for flags in (0, 1, 2, 16)]


class RawRedis(Raw):
    """Speaks Redis' protocol."""

    STORED = b"+OK\r\n"

    def read(self, key: str) -> Stored:
        """Return what is stored."""
        size = int(self._ask(_words(b"GET", key.encode()))[1:])
        return Stored(0, self._file.read(size + 2)[:-2])

    def _request(self, key: str, stored: Stored) -> bytes:
        return _words(b"SET", key.encode(), stored.data)

    def altered(self, stored: Stored) -> Iterator[Stored]:
        """Yield it with one bit flipped, but those of the write's number, which is no part of the value."""
        yield from _flipped(stored, [0, 1, *range(10, len(stored.data))])

    def marked(self, kind: int, data: bytes) -> Stored:
        """Return data behind the header of the kind."""
        return Stored(0, bytes((0xC1, kind)) + bytes(8) + data)

    def foreign(self, data: bytes) -> list[Stored]:
        """Return data without a header."""
        return [Stored(0, data)]


def _words(*words: bytes) -> bytes:
    parts = (b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
    return b"*%d\r\n%b" % (len(words), b"".join(parts))


def _flipped(stored: Stored, places: Sequence[int]) -> Iterator[Stored]:
    for place in places:
        for bit in range(8):
            data = bytearray(stored.data)
            data[place] ^= 1 << bit
            yield stored._replace(data=bytes(data))


class Planted:
    """A value that runs code when its pickle is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Return that code."""
        return exec, (f"import sys; sys.{MARK} = True",)


class Planter(ABC):
    """One caller, whose node somebody else writes to."""

    def __init__(self, part: Part) -> None:
        (url,) = part.urls
        self._raw = RawRedis(url) if url.startswith("redis") else RawMemcached(url)
        self._clients = {
            codec: self._open(part, {"codec": codec, "secret": SECRET}) for codec in VALUES
        }

    def alter(self, codecs: Sequence[str]) -> Counter[str]:
        """Flip each bit of a value of some codecs, and read it; return the counts."""
        tally: Counter[str] = Counter()
        for codec in codecs:
            each = [list(self._raw.altered(stored)) for stored in self._store_all(codec).values()]
            # In a batch each key has another bit flipped.
            altered = [each[place % BATCH][place] for place in range(len(each[0]))]
            tally.update(self._read_all(codec, altered))
        return tally

    def swap(self) -> Counter[str]:
        """Write the payloads of keys under other keys, and read those; return the counts."""
        tally: Counter[str] = Counter()
        for codec in VALUES:
            stored = list(self._store_all(codec).values())
            for shift in SHIFTS:
                tally.update(self._read_all(codec, stored[shift:] + stored[:shift]))
        return tally

    def plant(self, codecs: Sequence[str]) -> Counter[str]:
        """Write pickles that run code, and JSON, as every kind of value; return the counts of reads."""
        tally: Counter[str] = Counter()
        planted = []
        for data in (pickle.dumps(Planted()), b'{"admin": true}'):
            planted += self._raw.foreign(data)
            for kind in range(256):
                planted += [self._raw.marked(kind, data), self._raw.marked(kind, SIGNATURE + data)]
        for codec in codecs:
            tally.update(self._read_all(codec, planted))
        return tally

    def works(self) -> bool:
        """Return whether a pickle that is executed is noticed, and a value that is intact is read."""
        pickle.loads(pickle.dumps(Planted()))
        noticed = bool(vars(sys).pop(MARK, False))
        for codec, value in VALUES.items():
            self._raw.write(self._store_all(codec))
            noticed = noticed and all(self._done(codec, "get", key) == value for key in KEYS)
        return noticed

    def _store_all(self, codec: str) -> dict[str, Stored]:
        """Store the codec's value under each key; return what the server has."""
        assert self._done(codec, "set_many", dict.fromkeys(KEYS, VALUES[codec])) == []
        return {key: self._raw.read(key) for key in KEYS}

    def _read_all(self, codec: str, planted: Sequence[Stored]) -> Counter[str]:
        """Write each under a key, and read them in batches, the first of each alone too.

        Return how many were read, and how many misses were counted.
        """
        tally: Counter[str] = Counter()
        before = self._failures(codec)
        for first in range(0, len(planted), BATCH):
            batch = dict(zip(KEYS, planted[first : first + BATCH], strict=False))
            self._raw.write(batch)
            tally["planted"] += len(batch)
            tally["reads"] += len(batch) + 1
            try:
                tally["read"] += len(self._done(codec, "get_many", list(batch)))
                tally["read"] += self._done(codec, "get", KEYS[0]) is not None
            except Exception:  # noqa: BLE001 - it is what is looked for
                tally["leaked"] += 1
            tally["executed"] += bool(vars(sys).pop(MARK, False))
        tally["counted"] = self._failures(codec) - before
        return tally

    def _failures(self, codec: str) -> int:
        figures = self._clients[codec].counters().values()
        return sum(int(each["decode_failures"]) for each in figures)

    def _done(self, codec: str, name: str, *arguments: Any) -> Any:
        call = getattr(self._clients[codec], name)
        return self._await(lambda: call(*arguments))

    @abstractmethod
    def _open(self, part: Part, options: dict[str, Any]) -> Any: ...

    @abstractmethod
    def _await(self, call: Callable[[], Any]) -> Any: ...


class ThreadPlanter(Planter):
    """Reads with the blocking client."""

    def _open(self, part: Part, options: dict[str, Any]) -> Client:
        return Client(part.urls, timeout=part.timeout, **options)

    def _await(self, call: Callable[[], Any]) -> Any:
        return call()


class TaskPlanter(Planter):
    """Reads with the asyncio client."""

    def __init__(self, part: Part) -> None:
        self._loop = Loop()
        super().__init__(part)

    def _open(self, part: Part, options: dict[str, Any]) -> AsyncClient:
        return AsyncClient(part.urls, timeout=part.timeout, **options)

    def _await(self, call: Callable[[], Any]) -> Any:
        return self._loop.run(call)
