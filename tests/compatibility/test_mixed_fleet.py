"""Other clients beside ours on the same memcached: nobody takes what is ours for theirs.

Of what they do not know pymemcache and pylibmc give the bytes. python-memcached raises for any flags
but those it writes, and so does a serializer of one's own that is written like the `JsonSerde` of
pymemcache's documentation: no flags of ours could change that, but none is taken for theirs, either.
"""

from __future__ import annotations

import json

import memcache
import pytest
from pymemcache.client.base import Client as PymemcacheClient
from pymemcache.serde import CompressedSerde, PickleSerde

from shardcache.core.commands import GetOrStub, Set
from shardcache.core.values.flags import abandoned, stub
from shardcache.operations.port import step
from shardcache.testing.driving import MODES, make_client

SECRET = "sixteen bytes or more"
CODECS = ("msgpack", "json", "raw", "pickle")
VALUES = {"msgpack": {"a": (1,)}, "json": {"a": [1]}, "raw": b"\x00\xff", "pickle": {"a": range(3)}}
SCHEMES = ("memcached", "pymemcache")


class JsonSerde:
    """The serializer of pymemcache's "Getting started"."""

    def serialize(self, _, value):
        """Give text under flag 1, anything else as JSON under flag 2."""
        if isinstance(value, str):
            return value.encode(), 1
        return json.dumps(value).encode(), 2

    def deserialize(self, _, value, flags):
        """Give back what has one of the two flags, and raise for all others."""
        if flags == 1:
            return value.decode()
        if flags == 2:
            return json.loads(value.decode())
        raise ValueError("Unknown serialization format")


class RefusedError(Exception):
    """Stands for what another client raises of flags that it does not know."""


class Theirs:
    """Another client, its refusals of unknown flags told by one error."""

    def __init__(self, client, refuses=""):
        self.client = client
        self._refuses = refuses

    def get(self, key):
        """Give what it reads; raise `RefusedError` where it refuses the flags."""
        try:
            return self.client.get(key)
        except ValueError as error:
            if self._refuses and str(error).startswith(self._refuses):
                raise RefusedError from error
            raise


def pylibmc_client(host):
    """Give a client of pylibmc, which has no wheels for some versions of Python."""
    pylibmc = pytest.importorskip("pylibmc", reason="pylibmc has no wheel for this Python")
    return pylibmc.Client([host])


MAKERS = {
    "pymemcache": lambda host: Theirs(
        PymemcacheClient(host, serde=PickleSerde(), default_noreply=False)
    ),
    "pymemcache compressed": lambda host: Theirs(
        PymemcacheClient(host, serde=CompressedSerde(), default_noreply=False)
    ),
    "pymemcache plain": lambda host: Theirs(PymemcacheClient(host, default_noreply=False)),
    "pymemcache JsonSerde": lambda host: Theirs(
        PymemcacheClient(host, serde=JsonSerde(), default_noreply=False), "Unknown serialization"
    ),
    "pylibmc": lambda host: Theirs(pylibmc_client(host)),
    "python-memcached": lambda host: Theirs(memcache.Client([host]), "Unknown flags"),
    "python-memcached, protocol 2": lambda host: Theirs(
        memcache.Client([host], pickleProtocol=2), "Unknown flags"
    ),
}
PYTHON_MEMCACHED = ("python-memcached", "python-memcached, protocol 2")
REFUSING = ("pymemcache JsonSerde", *PYTHON_MEMCACHED)


@pytest.fixture
def server(memcached_servers):
    """Give an empty memcached."""
    return memcached_servers[0]


@pytest.fixture(params=MAKERS)
def name(request):
    """Give each other client in turn."""
    return request.param


@pytest.fixture
def theirs(name, server):
    """Give a client of it."""
    made = MAKERS[name](f"{server.host}:{server.port}")
    yield made
    getattr(made.client, "close", made.client.disconnect_all)()


@pytest.fixture(params=[(mode, scheme) for mode in MODES for scheme in SCHEMES], ids="-".join)
def make(request, server):
    """Give a function that makes a client of ours, closed at the end."""
    mode, scheme = request.param
    clients = []

    def make(**options):
        url = server.url.replace("memcached://", f"{scheme}://")
        clients.append(make_client(mode, url, timeout=10, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def seen(theirs, key):
    """Give what another client sees of a key: bytes, text, a number, or that it refuses it."""
    try:
        return theirs.get(key)
    except RefusedError:
        return RefusedError


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("secret", [None, SECRET], ids=["plain", "signed"])
def test_what_we_write_is_not_taken_for_theirs(make, name, theirs, codec, secret):
    """Of a codec's value, signed or not, they see bytes or refuse it: never a value of their own."""
    if codec == "pickle" and secret is None:
        pytest.skip("pickles are always signed")
    client = make(codec=codec, secret=secret)
    client.set("k", VALUES[codec], ttl=60)
    client.get_or_set("aged", lambda: VALUES[codec], ttl=60, stale=60)
    for key in ("k", "aged"):
        found = seen(theirs, key)
        plain = codec == "raw" and key == "k" and secret is None
        if name in REFUSING and not (plain and name in PYTHON_MEMCACHED):
            assert found is RefusedError
        else:
            assert type(found) is bytes
            assert (found == VALUES["raw"]) is plain


@pytest.mark.parametrize("codec", CODECS)
def test_what_we_write_of_plain_values_they_read(make, name, theirs, codec):
    """Bytes, text and numbers of ours are theirs as well, unless a secret signs them."""
    if codec == "pickle":
        pytest.skip("it signs bytes and text")
    client = make(codec=codec)
    values = {"n": 7, "text": "é"} if codec == "json" else {"n": 7, "text": "é", "bytes": b"\xff"}
    client.set_many(values)
    for key, value in values.items():
        found = seen(theirs, key)
        if name == "pymemcache plain":
            expected = [value, str(value).encode(), b'"\xc3\xa9"']
        elif name == "pymemcache JsonSerde":
            expected = [7, RefusedError]
        elif codec == "json" and key == "text":
            expected = [b'"\xc3\xa9"', RefusedError]
        else:
            expected = [value]
        assert found in expected


def test_signed_numbers_are_plain(make, name, theirs):
    """Servers and other clients count with us, with a secret too."""
    client = make(codec="pickle", secret=SECRET)
    client.set("n", 7)
    assert client.incr("n") == 8
    assert seen(theirs, "n") in ([b"8"] if name == "pymemcache plain" else [8])


def test_marks_are_no_values_to_them(make, name, theirs):
    """Stubs, abandoned recomputes and kept errors are bytes to them, or refused, but no value."""
    client = make()

    def ask(command):
        async def asking():
            (member,) = client._cluster.members.values()
            return await client._cluster.ask(member, command)

        loop = getattr(client, "loop", None)
        return step(asking()) if loop is None else loop.run_until_complete(asking())

    def failing():
        raise LookupError("no")

    with pytest.raises(LookupError):
        client.get_or_set("error", failing, ttl=60, cache_errors=(LookupError,), error_ttl=60)
    ask(GetOrStub(b"begun", b"mark", 60))
    ask(Set(b"stub", stub(b"mark"), 60))
    ask(Set(b"abandoned", abandoned(b"mark"), 60))
    for key in ("error", "begun", "stub", "abandoned"):
        found = seen(theirs, key)
        if name == "pymemcache JsonSerde":
            assert found is RefusedError
        elif key == "begun":  # memcached's own stub is empty, and has no flags
            assert found in {b"", b"mark", RefusedError}
        else:
            assert (found is RefusedError) if name in REFUSING else (type(found) is bytes)
        assert client.get(key, "miss") == "miss"


# What each writes, and what we read of it with nothing asked for, in the other direction.
THEIR_VALUES = {
    "bytes": b"\x00\xff",
    "text": "é",
    "number": 7,
    "large": 2**70,
    "dict": {"a": [1]},
    "float": 1.5,
    "none": None,
    "long": "é" * 2000,
}
PICKLED = ("dict", "float", "none")


def written(name, theirs):
    """Have them write all that they take; give it by key."""
    values = dict(THEIR_VALUES)
    if name == "pymemcache plain":
        values = {"bytes": values["bytes"]}
    elif name == "pymemcache JsonSerde":
        del values["bytes"]
    for key, value in values.items():
        theirs.client.set(key, value)
    return values


@pytest.mark.parametrize("codec", ["msgpack", "pickle"])
def test_what_they_write_is_read(make, name, theirs, codec):
    """Bytes, text and numbers as they are; pickles and compressed values only when asked for."""
    values = written(name, theirs)
    signing = {"secret": SECRET, "read_unsigned": True} if codec == "pickle" else {}
    for reading in (False, True):
        asked = {"read_unsigned": reading, "read_compressed": reading}
        client = make(codec=codec, **{**signing, **asked})
        for key, value in values.items():
            found = client.get(key, "miss")
            if name == "pymemcache JsonSerde":
                expected = [value] if key in {"number", "large"} else ["miss"]
            elif key in PICKLED:
                # python-memcached pickles by protocol 0, which text can be.
                expected = [value] if reading and name != "python-memcached" else ["miss"]
            elif key == "long" and name == "pymemcache compressed":
                expected = [value] if reading else ["miss"]
            else:
                expected = [value]
            if codec == "pickle" and not reading and key not in {"number", "large"}:
                expected = ["miss"]
            if codec == "pickle" and not reading and name == "pylibmc":
                expected = [
                    *expected,
                    "miss",
                ]  # its numbers have another flag than counters of ours
            assert found in expected, (key, reading)


@pytest.mark.parametrize("secret", [None, SECRET], ids=["plain", "signed"])
def test_json_that_they_write_is_read_as_json(make, name, theirs, secret):
    """A client of the codec `json` reads JSON whoever wrote it, and takes nothing else for a value."""
    client = make(codec="json", secret=secret, read_unsigned=secret is not None)
    if name == "pymemcache JsonSerde":
        theirs.client.set("k", {"a": [1]})
    else:
        theirs.client.set("k", b'{"a": [1]}')
    assert client.get("k") == {"a": [1]}
    theirs.client.set("k", "no JSON")
    assert client.get("k", "miss") == "miss"


def test_a_visitor_s_text_is_never_a_pickle(make, theirs, tmp_path):
    """Under a JsonSerde flag 1 is text: what somebody wrote in a comment is not executed."""
    executed = tmp_path / "executed"
    text = f"cposix\nsystem\n(S'touch {executed}'\ntR."
    theirs.client.set("comment", text)
    for codec in CODECS:
        secret = SECRET if codec == "pickle" else None
        client = make(codec=codec, secret=secret, read_unsigned=True, read_compressed=True)
        assert client.get("comment", "miss") in {"miss", text, text.encode()}
        assert client.get_many(["comment"]) in ({}, {"comment": text}, {"comment": text.encode()})
    assert not executed.exists()
