"""Which reads a shadow is asked for, and when its answer differs."""

from __future__ import annotations

import math
import random

import pytest

from shardcache.core.codecs.json import Json
from shardcache.core.codecs.msgpack import Msgpack
from shardcache.core.codecs.raw import Raw
from shardcache.core.shadow import SampledReads, Seen, compare
from shardcache.core.values.envelopes import Envelope, pack
from shardcache.core.values.flags import (
    BARE_STUB,
    ENVELOPE_FLAGS,
    INTEGER_FLAGS,
    JSON_FLAGS,
    TEXT_FLAGS,
    UNKNOWN_FLAGS,
    abandoned,
    stub,
)
from shardcache.core.values.other_clients import OtherClients
from shardcache.core.values.payloads import Payloads, SignedPayloads

NAMES = [b"k%d" % number for number in range(1000)]
NAME = b"k"
PLAIN = Payloads(Msgpack())
TEXT = (TEXT_FLAGS, b"pear")


def reads(sample=1.0, limit=10_000, chance=None):
    """Return an empty queue of sampled reads."""
    return SampledReads(sample, limit, (chance or random.Random(7)).random)


def signed(secret=b"s" * 16, wall=1000.0, codec=None):
    """Return payloads with a secret, at a time of day."""
    return SignedPayloads(codec or Msgpack(), [secret], lambda: wall, OtherClients())


def judged(here, there, payloads=PLAIN, *, left=math.inf, other=math.inf):
    """Return the outcome for two payloads and how long they live."""
    return compare(NAME, Seen(here, left), Seen(there, other), payloads, 2.0)


def test_a_sample_of_one_takes_every_name():
    """Of single reads and of many, in their order."""
    sampled = reads()
    for name in NAMES[:3]:
        sampled.note((name,))
    sampled.note(NAMES[3:])
    assert sampled.next(5) == NAMES[:5]
    assert sampled.next(2000) == NAMES
    assert len(sampled) == 1000


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_sample_has_its_share_of_the_names(size):
    """However they come: each is taken with the same chance, and no place in a batch is special."""
    sampled = reads(0.1, 100_000)
    for start in range(0, 100_000, size):
        sampled.note([b"%d" % (number % 1000) for number in range(start, start + size)])
    assert 9_500 < len(sampled) < 10_500
    assert len(set(sampled.next(100_000))) == 1000


def test_a_full_queue_drops_and_counts():
    """What was there stays; there is room again once it was compared."""
    sampled = reads(limit=2)
    sampled.note(NAMES[:5])
    assert sampled.next(9) == NAMES[:2]
    assert sampled.dropped == 3
    sampled.remove(1)
    sampled.note(NAMES[5:6])
    assert sampled.next(9) == [NAMES[1], NAMES[5]]
    sampled.clear()
    assert len(sampled) == 0


def test_only_callers_keys_are_compared():
    """Not those of shardcache itself; a generation in front changes nothing."""
    sampled = reads()
    stamp = b"~sc:n:0123456789abcdef:"
    sampled.note([b"~sc:l:report", b"~sc:k:1:a:b", b"~sc:h:00ff", stamp + b"k", stamp + b"~sc:r:k"])
    assert sampled.next(9) == [b"~sc:k:1:a:b", b"~sc:h:00ff", stamp + b"k"]


def test_equal_values_are_the_same():
    """And different ones differ."""
    assert judged(TEXT, TEXT) == "same"
    assert judged(TEXT, (TEXT_FLAGS, b"plum")) == "differs"


@pytest.mark.parametrize("mark", [None, stub(b"m"), abandoned(b"m"), BARE_STUB])
def test_what_only_one_side_has(mark):
    """The mark of a recompute is no value."""
    assert judged(TEXT, mark) == "only_here"
    assert judged(mark, TEXT) == "only_there"
    assert judged(mark, None) == "neither"


def test_another_codec_is_a_difference():
    """The stored bytes are compared, not what they mean."""
    value = [1, 2]
    assert judged(PLAIN.encode(NAME, value), Payloads(Json()).encode(NAME, value)) == "differs"


def test_equal_bytes_under_other_flags_are_read_alike():
    """Redis keeps no flags with JSON, and with `raw` none at all; memcached pads counters."""
    as_json, as_bytes = Payloads(Json()), Payloads(Raw())
    assert judged((JSON_FLAGS, b"[1]"), (UNKNOWN_FLAGS, b"[1]"), as_json) == "same"
    assert judged((TEXT_FLAGS, b"pear"), (UNKNOWN_FLAGS, b"pear"), as_bytes) == "same"
    assert judged((INTEGER_FLAGS, b"9"), (INTEGER_FLAGS, b"9 ")) == "same"


def test_equal_bytes_that_are_read_as_something_else_differ():
    """Or that cannot be read on one side."""
    assert judged((INTEGER_FLAGS, b"9"), (TEXT_FLAGS, b"9")) == "differs"
    assert judged((TEXT_FLAGS, b"pear"), (UNKNOWN_FLAGS, b"pear")) == "differs"


def test_an_envelope_is_compared_by_its_value():
    """When it was recomputed, and the versions of its tags, are those of each side."""
    here = pack(Envelope(*TEXT, 1000.0, 0.1, 60.0, (b"v" * 8,)))
    there = pack(Envelope(*TEXT, 1010.0, 0.2, 60.0, (b"w" * 8,)))
    other = pack(Envelope(TEXT_FLAGS, b"plum", 1000.0, 0.1, 60.0, (b"v" * 8,)))
    assert judged((ENVELOPE_FLAGS, here), (ENVELOPE_FLAGS, there)) == "same"
    assert judged((ENVELOPE_FLAGS, here), (ENVELOPE_FLAGS, other)) == "differs"
    assert judged((ENVELOPE_FLAGS, here), (ENVELOPE_FLAGS, b"broken")) == "differs"


def test_the_ttl_of_a_result_that_both_sides_recomputed_is_not_compared():
    """They did so at other times, each with its own jitter. That of a copy is."""
    here = ENVELOPE_FLAGS, pack(Envelope(*TEXT, 1000.0, 0.1, 60.0))
    there = ENVELOPE_FLAGS, pack(Envelope(*TEXT, 1030.0, 0.1, 60.0))
    assert judged(here, there, left=60.0, other=90.0) == "same"
    assert judged(here, here, left=60.0, other=90.0) == "ttl_differs"


def test_a_signature_is_no_part_of_the_value():
    """It ends when its value does; on each side that is another time."""
    ours = signed()
    here, there = ours.encode(NAME, ["a"], 60.0), ours.encode(NAME, ["a"], 90.0)
    assert here != there
    assert judged(here, there, ours) == "same"
    assert judged(here, ours.encode(NAME, ["b"], 60.0), ours) == "differs"
    sealed = [
        ours.seal(NAME, (ENVELOPE_FLAGS, pack(Envelope(*TEXT, at, 0.1, 60.0)))) for at in (1, 2)
    ]
    assert judged(*sealed, ours) == "same"


def test_a_signature_that_is_valid_on_one_side_alone_is_a_difference():
    """With another secret the value would be a miss."""
    ours = signed()
    here, there = ours.encode(NAME, ["a"]), signed(b"t" * 16).encode(NAME, ["a"])
    assert judged(here, there, ours) == "differs"
    assert judged(there, here, ours) == "differs"
    assert judged(here, PLAIN.encode(NAME, ["a"]), ours) == "differs"


def test_values_of_a_function_with_its_own_codec_are_compared_too():
    """Their signatures are valid for that codec alone, on either side."""
    functions = signed(codec=Json())
    here, there = functions.encode(NAME, ["a"], 60.0), functions.encode(NAME, ["a"], 90.0)
    assert judged(here, there, signed()) == "same"


@pytest.mark.parametrize(
    ("left", "other", "outcome"),
    [
        (60.0, 58.0, "same"),
        (58.0, 60.5, "ttl_differs"),
        (math.inf, 60.0, "ttl_differs"),
        (math.inf, math.inf, "same"),
        (None, 60.0, "same"),
        (60.0, None, "same"),
    ],
)
def test_how_long_a_value_lives(left, other, outcome):
    """Within a tolerance, and where both sides can tell."""
    assert judged(TEXT, TEXT, left=left, other=other) == outcome


def test_a_value_that_differs_differs_whatever_its_ttl():
    """The worse fact is told."""
    assert judged(TEXT, (TEXT_FLAGS, b"plum"), left=1.0, other=60.0) == "differs"
