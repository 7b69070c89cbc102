"""The stored forms of one client's results that have a codec of their own, or a declared type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from shardcache.clients.construction import build_codec, build_payloads
from shardcache.clients.results import (
    CodecChoice,
    ResultFormat,
    ResultOptions,
    Returns,
    check_codec,
)
from shardcache.core.codecs import Codec, Raw, ValueFormat
from shardcache.core.values.payloads import Payloads
from shardcache.errors import ConfigurationError
from shardcache.plugin.manager import load
from shardcache.settings import Settings

MAX_DIRECT: Final = 256  # pairs of codec and type in calls of `get_or_set`

_ONLY_RAW: Final = (
    "codec: a client with the codec 'raw' stores text and bytes on Redis without their type, so that"
    " no other codec can read them; create the client with that codec, and a view of it with codec='raw'"
)


class ResultPayloads:
    """The stored forms of the results of one client, or of one view.

    `own` is that of its other values, `wall` the time of day, and `only_raw` whether its nodes keep
    bytes without their type.
    """

    __slots__ = ("_direct", "_only_raw", "_own", "_settings", "_wall")

    def __init__(
        self, own: Payloads, settings: Settings, wall: Callable[[], float], *, only_raw: bool
    ) -> None:
        self._own = own
        self._settings = settings
        self._wall = wall
        self._only_raw = only_raw
        self._direct: dict[ResultOptions, Payloads] = {}

    def of(self, results: ResultFormat) -> Payloads:
        """Return the stored form of a function's results; raise `ConfigurationError` for a bad codec."""
        own, settings, codec = self._own, self._settings, self._own.codec
        if results.codec is not None:
            check_codec(results.codec)
            codec = other_codec("cached", results.codec, settings, only_raw=self._only_raw)
        return build_payloads(codec, settings, self._wall, own.others, results.declared)

    def direct(
        self, codec: CodecChoice | None, returns: Returns, factory: Callable[[], object]
    ) -> Payloads | None:
        """Return the stored form of a value of `get_or_set`; `None` for that of other values."""
        if codec is None and returns is None:
            return None
        options = ResultOptions(codec, returns).of(factory)
        try:
            known = self._direct.get(options)
        except TypeError:  # what an `Annotated` is annotated with may have no hash
            return self.of(options.format())
        if known is None:
            if len(self._direct) >= MAX_DIRECT:
                self._direct.clear()
            known = self._direct[options] = self.of(options.format())
        return known

    def options(self, codec: CodecChoice | None, returns: Returns) -> ResultOptions:
        """Return the options of a cached function; raise `ConfigurationError` for a bad codec."""
        if codec is not None:
            self.of(ResultFormat(codec))
        return ResultOptions(codec, returns)


def other_codec(
    call: str, choice: CodecChoice, settings: Settings, *, only_raw: bool
) -> Codec | ValueFormat:
    """Return a codec to be used beside the client's own; raise `ConfigurationError` if it cannot be."""
    codec = build_codec(load(), choice, settings)
    if only_raw and not isinstance(codec, Raw):
        raise ConfigurationError(f"{call}: {_ONLY_RAW}")
    return codec
