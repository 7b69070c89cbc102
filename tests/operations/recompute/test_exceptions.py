"""Exceptions that are stored in place of a value come back whole, or are not stored."""

from __future__ import annotations

import copy
import enum
import json
import subprocess
import traceback
from http import HTTPStatus
from pathlib import Path

import fastapi
import httpx
import pydantic
import pytest
import starlette.exceptions

from shardcache.core.codecs.json import Json
from shardcache.core.codecs.msgpack import Msgpack
from shardcache.core.values.payloads import Payloads
from shardcache.errors import EncodeError, RecomputeTimeoutError
from shardcache.operations.recompute.exceptions import copy_to_raise, describe, equal, restore


class Reason(enum.Enum):
    """An enum of an application."""

    GONE = "gone"


class HTTPError(Exception):
    """As that of Starlette and FastAPI."""

    def __init__(self, status_code, detail=None, headers=None):
        self.status_code = status_code
        self.detail = detail
        self.headers = headers

    def __str__(self):
        return f"{self.status_code}: {self.detail}"


class NotFoundError(Exception):
    """As many a program has one."""

    def __init__(self, user_id):
        self.user_id = user_id

    def __str__(self):
        return f"no user {self.user_id}"


class ClientError(Exception):
    """As that of botocore."""

    def __init__(self, response, operation):
        super().__init__(f"{operation}: {response['Error']['Code']}")
        self.response = response
        self.operation_name = operation


class StatusError(Exception):
    """As that of httpx: it holds objects."""

    def __init__(self, message, *, request, response):
        super().__init__(message)
        self.request = request
        self.response = response


class SlottedError(Exception):
    """With an attribute that is not in its dict."""

    __slots__ = ("code",)

    def __init__(self, code):
        super().__init__("refused")
        self.code = code


class DeepSlottedError(SlottedError):
    """With one more, and a dict."""

    __slots__ = ("_mangled", "extra")


class KeywordError(Exception):
    """One that wants a keyword."""

    def __new__(cls, *, code):
        """Make it without `__init__`."""
        made = super().__new__(cls, code)
        made.code = code
        return made

    def __init__(self, *, code):
        pass


class UntidyError(Exception):
    """One that cannot be shown."""

    def __str__(self):
        raise RuntimeError


class Holder:
    """An object without an equal."""


def _noted():
    error = ValueError("no such user")
    error.add_note("asked for by name")
    return error


def _caused():
    made = NotFoundError(7)
    made.__cause__ = KeyError("row")
    return made


def _extra(error, **attributes):
    vars(error).update(attributes)
    return error


def _deep():
    error = DeepSlottedError(3)
    error.extra = "more"
    return error


def _decoding():
    try:
        b"\xff".decode()
    except UnicodeDecodeError as error:
        return error


def _parsing():
    try:
        json.loads("{")
    except json.JSONDecodeError as error:
        return error


def _compiling():
    try:
        compile("f(", "page.py", "exec")
    except SyntaxError as error:
        return error


def _missing_file():
    try:
        Path("/nowhere/at/all").read_bytes()
    except OSError as error:
        return error


def _invalid():
    try:
        pydantic.TypeAdapter(int).validate_python("x")
    except pydantic.ValidationError as error:
        return error


def _http_status():
    request = httpx.Request("GET", "https://shop.example")
    return httpx.HTTPStatusError(
        "404", request=request, response=httpx.Response(404, request=request)
    )


WHOLE = {
    "a plain one": lambda: ValueError("no such user", 7),
    "without arguments": LookupError,
    "KeyError": lambda: KeyError("user"),
    "HTTP, by position": lambda: HTTPError(404, "no such item"),
    "HTTP, by keyword": lambda: HTTPError(status_code=404, detail="no such item"),
    "HTTP, with headers": lambda: HTTPError(404, {"reason": [1, 2]}, headers={"X": "y"}),
    "an argument that is no argument of Exception": lambda: NotFoundError(7),
    "botocore": lambda: ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject"),
    "slots": lambda: SlottedError(7),
    "slots of two classes": _deep,
    "notes": _noted,
    "with an origin": _caused,
    "OSError with two": lambda: OSError(2, "no such file"),
    "OSError with a name": lambda: OSError(2, "no such file", "a.txt"),
    "OSError with two names": lambda: OSError(2, "no such file", "a.txt", None, "b.txt"),
    "a file that is missing": _missing_file,
    "UnicodeDecodeError": _decoding,
    "JSONDecodeError": _parsing,
    "SyntaxError": _compiling,
    "ImportError": lambda: ImportError("none", name="shop", path="/shop"),
    "AttributeError": lambda: AttributeError("none", name="price"),
    "StopIteration": lambda: StopIteration(7),
    "FastAPI's": lambda: fastapi.HTTPException(status_code=404, detail={"item": 7}),
    "Starlette's": lambda: starlette.exceptions.HTTPException(404, "none", {"X": "y"}),
    "httpx's, without objects": lambda: httpx.ConnectError("no route"),
    "subprocess's": lambda: subprocess.CalledProcessError(1, "ls", "out", "err"),
    "our own": lambda: RecomputeTimeoutError("late"),
    "an enum of the standard library": lambda: HTTPError(HTTPStatus.NOT_FOUND),
    "with an attribute": lambda: _extra(ValueError("x"), code=7, tags={"a", "b"}),
}
LOST = {
    "an object": lambda: StatusError("404", request=Holder(), response=Holder()),
    "an argument that is an object": lambda: ValueError(Holder()),
    "httpx's, with objects": _http_status,
    "pydantic's": _invalid,
    "a group": lambda: ExceptionGroup("two", [ValueError(1), KeyError(2)]),
    "a constructor with keywords": lambda: KeywordError(code=7),
    "no text": UntidyError,
    "an object whose member is one": lambda: AttributeError("none", obj=Holder()),
    "an enum": lambda: HTTPError(Reason.GONE),
}

# Attributes that are sets, bytes, tuples or enums.
BEYOND_JSON = {
    "an enum of the standard library",
    "with an attribute",
    "UnicodeDecodeError",
    "SyntaxError",
}


def kept(error, codec, kinds=(Exception,)):
    """Return what comes back of an exception, `None` when it is not kept."""
    payloads = Payloads(codec)
    try:
        payload = payloads.encode(b"k", describe(error))
    except EncodeError:
        return None
    twin = restore(payloads.decode(b"k", payload), kinds)
    return twin if twin is not None and equal(twin, error) else None


@pytest.mark.parametrize("codec", [Msgpack(), Json()], ids=["msgpack", "json"])
@pytest.mark.parametrize("name", [*WHOLE, *LOST])
def test_an_exception_comes_back_whole_or_is_not_stored(name, codec):
    """Type, text, arguments and attributes are the same."""
    error = (WHOLE | LOST)[name]()
    before = copy.copy(vars(error))
    twin = kept(error, codec)
    if name in LOST:
        assert twin is None
        return
    if twin is None:
        assert isinstance(codec, Json)
        assert name in BEYOND_JSON
        return
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert repr(twin) == repr(error)
    assert twin.args == error.args
    assert vars(twin) == vars(error) == before
    for member in ("code", "extra", "errno", "filename", "filename2", "reason", "name", "value"):
        assert getattr(twin, member, None) == getattr(error, member, None)


@pytest.mark.parametrize("name", WHOLE)
def test_the_default_codec_stores_these(name):
    """The list says what is stored, and not only that nothing is lost."""
    assert kept(WHOLE[name](), Msgpack()) is not None


def test_only_listed_types_come_back():
    """A type must be among those that are stored, or below one of them."""
    assert kept(KeyError("user"), Msgpack(), kinds=(LookupError,)) is not None
    assert kept(KeyError("user"), Msgpack(), kinds=(ValueError,)) is None


@pytest.mark.parametrize(
    "stored",
    [
        None,
        7,
        [],
        ["builtins:ValueError", [], {}, 1],
        ["builtins:ValueError", 7, {}],
        ["builtins:ValueError", [], 7],
        [7, [], {}],
        ["builtins:ValueError", [], {"__class__": 7}],
        ["builtins:ValueError", [], {7: 7}],
        ["builtins:UnicodeDecodeError", [], {"start": "x"}],
    ],
)
def test_a_forged_description_is_no_exception(stored):
    """An attacker who can write to the cache makes at most an exception of a known type."""
    twin = restore(stored, (Exception,))
    assert twin is None or type(twin) is ValueError


@pytest.mark.parametrize("name", [*WHOLE, *LOST])
def test_a_follower_gets_the_exception_whole_too(name):
    """A copy where one can be made, or the same object; its trace shows where it was raised."""

    def source():
        made = (WHOLE | LOST)[name]()
        raise made

    with pytest.raises(Exception) as raised:  # noqa: PT011 - of any type
        source()
    error = raised.value
    twin = copy_to_raise(error)
    assert twin is error or equal(twin, error)
    assert twin.__cause__ is error.__cause__
    if name != "no text":
        assert "in source" in "".join(traceback.format_exception(twin))
    frames = error.__traceback__
    with pytest.raises(type(error)):
        raise twin
    if twin is not error:
        assert error.__traceback__ is frames
