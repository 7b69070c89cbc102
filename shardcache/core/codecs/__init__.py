"""Codecs: values to bytes and back. A value comes back equal and of the same type, or is refused."""

from __future__ import annotations

from shardcache.core.codecs.base import Codec, CodecFactory, ValueFormat
from shardcache.core.codecs.json import Json
from shardcache.core.codecs.msgpack import Msgpack
from shardcache.core.codecs.pickle import Pickle
from shardcache.core.codecs.raw import Raw

__all__ = ["Codec", "CodecFactory", "Json", "Msgpack", "Pickle", "Raw", "ValueFormat"]
