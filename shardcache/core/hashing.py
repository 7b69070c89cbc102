"""The hash functions of other clients, bit for bit, quirks included."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from hashlib import md5 as _md5
from typing import Final, TypeAlias

KeyHash: TypeAlias = Callable[[bytes], int]

_MASK: Final = 0xFFFFFFFF


def _signed(byte: int) -> int:
    """Give a byte as C's `char` on x86 sees it: 0x80 and above below zero, widened to 32 bits."""
    return (byte - 256) & _MASK if byte >= 0x80 else byte


_SIGNED: Final = tuple(_signed(byte) for byte in range(256))


def md5(key: bytes) -> int:
    """Give the first four digest bytes of MD5, little-endian: the key hash of the ketama family."""
    return int.from_bytes(_md5(key, usedforsecurity=False).digest()[:4], "little")


def one_at_a_time(key: bytes) -> int:
    """Give Jenkins' one-at-a-time hash as libmemcached has it, its bytes sign-extended."""
    value = 0
    for byte in key:
        value = (value + _SIGNED[byte]) & _MASK
        value = (value + (value << 10)) & _MASK
        value ^= value >> 6
    value = (value + (value << 3)) & _MASK
    value ^= value >> 11
    return (value + (value << 15)) & _MASK


def _fnv1(key: bytes, start: int, prime: int) -> int:
    for byte in key:
        start = ((start * prime) & _MASK) ^ _SIGNED[byte]
    return start


def _fnv1a(key: bytes, start: int, prime: int) -> int:
    for byte in key:
        start = ((start ^ _SIGNED[byte]) * prime) & _MASK
    return start


# libmemcached and twemproxy keep the 64-bit constants of FNV in 32 bits.
_FNV64_START: Final = 0xCBF29CE484222325 & _MASK
_FNV64_PRIME: Final = 0x100000001B3 & _MASK
_FNV32_START: Final = 2166136261
_FNV32_PRIME: Final = 16777619


def fnv1_64(key: bytes) -> int:
    """Give twemproxy's fnv1_64: 64-bit constants cut to 32 bits."""
    return _fnv1(key, _FNV64_START, _FNV64_PRIME)


def fnv1a_64(key: bytes) -> int:
    """Give twemproxy's fnv1a_64, its default: 64-bit constants cut to 32 bits."""
    return _fnv1a(key, _FNV64_START, _FNV64_PRIME)


def fnv1_32(key: bytes) -> int:
    """Give the 32-bit FNV-1."""
    return _fnv1(key, _FNV32_START, _FNV32_PRIME)


def fnv1a_32(key: bytes) -> int:
    """Give the 32-bit FNV-1a."""
    return _fnv1a(key, _FNV32_START, _FNV32_PRIME)


def crc32(key: bytes) -> int:
    """Give twemproxy's crc32: 15 bits of the middle, as libmemcached's `crc`."""
    return (zlib.crc32(key) >> 16) & 0x7FFF


def crc32a(key: bytes) -> int:
    """Give the whole CRC-32."""
    return zlib.crc32(key)


def crc16(key: bytes) -> int:
    """Give the CRC-16 of Redis Cluster (CCITT, XMODEM)."""
    value = 0
    for byte in key:
        value = ((value << 8) & 0xFFFF) ^ _CRC16[(value >> 8) ^ byte]
    return value


def _crc16_entry(byte: int) -> int:
    value = byte << 8
    for _ in range(8):
        value = ((value << 1) ^ 0x1021 if value & 0x8000 else value << 1) & 0xFFFF
    return value


_CRC16: Final = tuple(_crc16_entry(byte) for byte in range(256))


def murmur3_32(data: bytes) -> int:
    """Give MurmurHash3 x86 32-bit of seed 0 (Appleby, public domain)."""
    value = 0
    blocks = len(data) & ~3
    for start in range(0, blocks, 4):
        value ^= _murmur_mix(int.from_bytes(data[start : start + 4], "little"))
        value = ((value << 13) | (value >> 19)) & _MASK
        value = (value * 5 + 0xE6546B64) & _MASK
    if blocks < len(data):
        value ^= _murmur_mix(int.from_bytes(data[blocks:], "little"))
    value ^= len(data)
    value = ((value ^ (value >> 16)) * 0x85EBCA6B) & _MASK
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) & _MASK
    return value ^ (value >> 16)


def _murmur_mix(block: int) -> int:
    block = (block * 0xCC9E2D51) & _MASK
    block = ((block << 15) | (block >> 17)) & _MASK
    return (block * 0x1B873593) & _MASK


def hash_tag(key: bytes) -> bytes:
    """Give what stands between the first `{` and the first `}` after it; the key if that is empty.

    >>> hash_tag(b"cart:{user7}:items"), hash_tag(b"a{}b")
    (b'user7', b'a{}b')
    """
    start = key.find(b"{")
    if start < 0:
        return key
    end = key.find(b"}", start + 1)
    return key[start + 1 : end] if end > start + 1 else key
