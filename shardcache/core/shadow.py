"""What a shadow is asked for, and how its answer is compared with that of the client's own nodes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, get_args

from shardcache.core.commands import Payload
from shardcache.core.events import ShadowOutcome
from shardcache.core.key_accesses import is_ours
from shardcache.core.reserved_keys import RESERVED, without_generation
from shardcache.core.values.envelopes import unpack
from shardcache.core.values.flags import ENVELOPE_FLAGS, FLAGS_OF, SHIFT, SIGNED, is_mark
from shardcache.core.values.payloads import Payloads
from shardcache.core.values.signing import signed_data
from shardcache.errors import DecodeError

OUTCOMES: Final[tuple[ShadowOutcome, ...]] = get_args(ShadowOutcome)

# Outcomes that a write on its way to both sides could explain: they are looked at again.
DIFFERENCES: Final[frozenset[ShadowOutcome]] = frozenset(
    {"differs", "only_here", "only_there", "ttl_differs"}
)


class SampledReads:
    """A random sample of the names that are read, in a bounded queue.

    A read pays for one subtraction: when a name is taken, it is decided how many are skipped until the
    next one. `to_skip` of them are left; a caller with a single name may lower it by itself. There is no
    lock, as every step is atomic; a count that two threads lower at once makes a gap a little longer.
    """

    __slots__ = ("_limit", "_random", "_scale", "_waiting", "dropped", "to_skip")

    def __init__(self, sample: float, limit: int, random: Callable[[], float]) -> None:
        """Take the share `sample` of all names, above 0 and at most 1, and keep `limit` of them."""
        self._limit = limit
        self._random = random
        # The gaps between the names of such a sample have a geometric distribution.
        self._scale = 1 / math.log1p(-sample) if sample < 1 else 0.0
        self._waiting: deque[bytes] = deque()
        self.dropped = 0  # names that found the queue full
        self.to_skip = self._gap()

    def note(self, names: Sequence[bytes]) -> None:
        """Take the names of a read that are in the sample; count those for which there is no room."""
        place, count = self.to_skip, len(names)
        while place < count:
            self._offer(names[place])
            place += 1 + self._gap()
        self.to_skip = place - count

    def next(self, count: int) -> list[bytes]:
        """Return the first names of the queue, which stay there until `remove`."""
        return [self._waiting[place] for place in range(min(count, len(self._waiting)))]

    def remove(self, count: int) -> None:
        """Remove the first names of the queue."""
        for _ in range(count):
            self._waiting.popleft()

    def clear(self) -> None:
        """Remove all names."""
        self._waiting.clear()

    def __len__(self) -> int:
        return len(self._waiting)

    def _gap(self) -> int:
        return int(math.log(1 - self._random()) * self._scale)

    def _offer(self, name: bytes) -> None:
        if name.startswith(RESERVED) and is_ours(without_generation(name)):
            return
        if len(self._waiting) >= self._limit:
            self.dropped += 1
        else:
            self._waiting.append(name)


class Seen(NamedTuple):
    """What a node has for a key: its payload, and for how many seconds it keeps it.

    The payload is `None` if there is no value. The seconds are infinite without an expiry, and `None`
    where the node cannot tell.
    """

    payload: Payload | None
    seconds: float | None = None

    @property
    def value(self) -> Payload | None:
        """The payload, unless it is the mark of a recompute."""
        return None if self.payload is None or is_mark(self.payload) else self.payload


def compare(
    name: bytes, here: Seen, there: Seen, payloads: Payloads, tolerance: float
) -> ShadowOutcome:
    """Return how what two nodes have for `name` differs.

    Stored bytes are compared, so that another codec is a difference. What tells only when and by whom a
    value was stored is none: the end of a signature, the age of a cached result, the versions of its
    tags. The seconds may differ by `tolerance`; they are not compared for a result that each side has
    from another recompute, at another time.
    """
    ours, theirs = here.value, there.value
    if ours is None or theirs is None:
        if ours is None and theirs is None:
            return "neither"
        return "only_here" if theirs is None else "only_there"
    if not _are_equal(name, ours, theirs, payloads):
        return "differs"
    left, other = here.seconds, there.seconds
    if ours != theirs and _kind(ours) == ENVELOPE_FLAGS:
        return "same"
    if left is None or other is None or left == other or abs(left - other) <= tolerance:
        return "same"
    return "ttl_differs"


def _are_equal(name: bytes, ours: Payload, theirs: Payload, payloads: Payloads) -> bool:
    if ours == theirs:
        return True
    inner, other = _content(ours), _content(theirs)
    if inner != other and not _read_equal(name, inner, other, payloads):
        return False
    # One secret may be wrong, and then its value is a miss.
    return _is_valid(name, ours, payloads) == _is_valid(name, theirs, payloads)


def _kind(payload: Payload) -> int:
    """Return the flags of what is stored, without those of a signature."""
    flags = payload[0]
    return FLAGS_OF[(flags & ~SIGNED) >> SHIFT] if flags & SIGNED else flags


def _content(payload: Payload) -> Payload:
    """Return the payload of the value in a signature and an envelope."""
    flags, data = payload
    if flags & SIGNED:
        flags, data = _kind(payload), signed_data(data)
    if flags == ENVELOPE_FLAGS:
        try:
            envelope = unpack(data)
        except DecodeError:
            return flags, data
        return envelope.flags, envelope.data
    return flags, data


def _read_equal(name: bytes, ours: Payload, theirs: Payload, payloads: Payloads) -> bool:
    """Return whether equal bytes under other flags are the same value.

    Redis keeps no flags with JSON, and with the codec `raw` none at all. memcached pads counters.
    """
    if ours[1].rstrip(b" ") != theirs[1].rstrip(b" "):
        return False
    try:
        value, other = payloads.load(name, ours), payloads.load(name, theirs)
    except DecodeError:
        return False
    return type(value) is type(other) and bool(value == other)


def _is_valid(name: bytes, payload: Payload, payloads: Payloads) -> bool:
    try:
        payloads.open(name, payload)
    except DecodeError:
        return False
    return True
