"""What the server's replies to single commands mean. Any type may come, hence `Any`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable
from hashlib import sha1
from typing import Any, Final

from shardcache.backends.redis.header import from_redis, from_redis_headed
from shardcache.backends.redis.reader import Headed, Status
from shardcache.backends.redis.replies import (
    Refusal,
    SingleReply,
    UnexpectedError,
    parse_flag,
)
from shardcache.core.commands import Payload, Reply

_is_count = re.compile(rb"[0-9]{1,20}").fullmatch
_is_signed = re.compile(rb"-?[0-9]{1,20}").fullmatch
_is_left = re.compile(rb"-1|[0-9]{1,18}").fullmatch


def parse_value(raw: Any) -> Payload | None:
    """Return the payload of a value, `None` for a missing one.

    Raise `UnexpectedError` for any other reply, as each function here does.
    """
    if type(raw) is bytes:
        return from_redis(raw)
    if raw is None:
        return None
    if type(raw) is Headed:
        return from_redis_headed(raw.head, raw.rest)
    raise UnexpectedError


def parse_value_and_token(raw: Any) -> tuple[Payload, bytes] | None:
    """Return the payload of a value with its CAS token, `None` for a missing one."""
    payload = parse_value(raw)
    if payload is None:
        return None
    return payload, digest(raw)


def digest(stored: bytes) -> bytes:
    """Return the CAS token of a stored value."""
    return sha1(stored, usedforsecurity=False).hexdigest().encode()


def expected_digest(token: Hashable) -> bytes:
    """Return the digest of a token; for a token of another backend, one that no value has."""
    return token if isinstance(token, bytes) else b""


def parse_ok(raw: Any) -> bool:
    """Return `True` for the status `OK`: its commands have no other reply, except for errors."""
    if type(raw) is not Status or raw != b"OK":
        raise UnexpectedError
    return True


def parse_ok_or_none(raw: Any) -> bool:
    """Return `True` for `OK`, `False` for `None`: a condition of the command did not hold."""
    return raw is not None and parse_ok(raw)


def parse_cas(raw: Any) -> bool | None:
    """Return whether a value was swapped, `None` if there is none."""
    return None if raw is None else parse_flag(raw)


def parse_count(raw: Any) -> int | None:
    """Return a number that is not negative, or `None`."""
    return parse_number(raw, _is_count)


def parse_signed(raw: Any) -> int | None:
    """Return a number, or `None`."""
    return parse_number(raw, _is_signed)


def parse_number(raw: Any, is_legal: Callable[[bytes], object]) -> int | None:
    """Return a number whose digits are legal, or `None`."""
    if raw is None:
        return None
    if type(raw) is not bytes or not is_legal(raw):
        raise UnexpectedError
    return int(raw)


def parse_left(raw: Any) -> float:
    """Return the seconds in a `PTTL`."""
    if type(raw) is not bytes or not _is_left(raw):
        raise UnexpectedError
    return math.inf if raw == b"-1" else int(raw) / 1000


def parse_stats(raw: Any) -> dict[str, str]:
    """Return the figures of an `INFO`."""
    if type(raw) is not bytes:
        raise UnexpectedError
    lines = raw.decode(errors="replace").splitlines()
    pairs = (line.partition(":") for line in lines if not line.startswith("#"))
    return {name: figure for name, colon, figure in pairs if colon}


def translate_wrong_type(error: Refusal) -> Reply:
    """Return `False` for a key that is no longer a string: it has been changed."""
    return False if str(error.__cause__).startswith("WRONGTYPE ") else error


VALUE: Final = SingleReply(parse_value)
VALUE_AND_TOKEN: Final = SingleReply(parse_value_and_token)
STORED: Final = SingleReply(parse_ok)
STORED_OR_NOT: Final = SingleReply(parse_ok_or_none)
SWAPPED: Final = SingleReply(parse_cas, translate_wrong_type)
WHETHER: Final = SingleReply(parse_flag)
IF_STRING: Final = SingleReply(parse_flag, translate_wrong_type)
FIGURES: Final = SingleReply(parse_stats)
