"""The hash functions of other clients, bit for bit, quirks included."""

from __future__ import annotations

import struct
import zlib
from binascii import crc_hqx
from collections.abc import Callable
from functools import cache
from hashlib import md5 as _md5
from typing import Final, TypeAlias

KeyHash: TypeAlias = Callable[[bytes], int]

_MASK: Final = 0xFFFFFFFF
_first_word: Final = struct.Struct(
    "<I"
).unpack_from  # 0.1 µs faster than `int.from_bytes` of a slice


def _signed(byte: int) -> int:
    """Return a byte as C's signed `char` on x86, widened to 32 bits: from 0x80 it is negative."""
    return (byte - ((byte & 0x80) << 1)) & _MASK


_SIGNED: Final = tuple(_signed(byte) for byte in range(256))


def md5(key: bytes) -> int:
    """Return the first four digest bytes of MD5, little-endian: the key hash of the ketama family."""
    first: int = _first_word(_md5(key, usedforsecurity=False).digest())[0]
    return first


def one_at_a_time(key: bytes) -> int:
    """Return Jenkins' one-at-a-time hash as in libmemcached, its bytes sign-extended."""
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


# libmemcached and twemproxy keep 32 bits of the 64-bit FNV.
_FNV64_START: Final = 0xCBF29CE484222325 & _MASK
_FNV64_PRIME: Final = 0x100000001B3 & _MASK
_FNV32_START: Final = 2166136261
_FNV32_PRIME: Final = 16777619


def fnv1_64(key: bytes) -> int:
    """Return the 64-bit FNV-1 cut to 32 bits, its bytes sign-extended."""
    return _fnv1(key, _FNV64_START, _FNV64_PRIME)


def fnv1a_64(key: bytes) -> int:
    """Return the 64-bit FNV-1a cut to 32 bits, its bytes sign-extended: twemproxy's default."""
    return _fnv1a(key, _FNV64_START, _FNV64_PRIME)


def fnv1_32(key: bytes) -> int:
    """Return the 32-bit FNV-1, its bytes sign-extended."""
    return _fnv1(key, _FNV32_START, _FNV32_PRIME)


def fnv1a_32(key: bytes) -> int:
    """Return the 32-bit FNV-1a, its bytes sign-extended."""
    return _fnv1a(key, _FNV32_START, _FNV32_PRIME)


def crc32(key: bytes) -> int:
    """Return the 15 bits that twemproxy calls crc32, and libmemcached crc."""
    return (zlib.crc32(key) >> 16) & 0x7FFF


def crc32a(key: bytes) -> int:
    """Return the whole CRC-32."""
    return zlib.crc32(key)


def crc16(key: bytes) -> int:
    """Return the CRC-16 of Redis Cluster (CCITT, XMODEM)."""
    return crc_hqx(key, 0)  # the same polynomial, in C


def crc16_wide(key: bytes) -> int:
    """Return twemproxy's crc16: its 32 bits keep what a CRC-16 shifts out."""
    value = 0
    for byte in key:
        value = ((value << 8) & _MASK) ^ _CRC16[((value >> 8) ^ byte) & 0xFF]
    return value


def _crc16_entry(byte: int) -> int:
    value = byte << 8
    for _ in range(8):
        value = ((value << 1) ^ 0x1021 if value & 0x8000 else value << 1) & 0xFFFF
    return value


_CRC16: Final = tuple(_crc16_entry(byte) for byte in range(256))


def hsieh(key: bytes) -> int:
    """Return Hsieh's SuperFastHash as in libmemcached, which starts from 0, not from the length."""
    if not key:
        return 0
    value = 0
    whole = len(key) & ~3
    for low, high in struct.iter_unpack("<HH", key[:whole]):
        value = (value + low) & _MASK
        value = ((value << 16) ^ (high << 11) ^ value) & _MASK
        value = (value + (value >> 11)) & _MASK
    return _hsieh_final(_hsieh_rest(value, key[whole:]))


def _hsieh_rest(value: int, rest: bytes) -> int:
    """Return the value with the rest of the key mixed in: up to three bytes."""
    value = (value + int.from_bytes(rest[:2], "little")) & _MASK
    match len(rest):
        case 0:
            return value
        case 1:
            value, right = value ^ (value << 10), 1
        case 2:
            value, right = value ^ (value << 11), 17
        case _:
            value, right = value ^ (value << 16) ^ (_SIGNED[rest[2]] << 18), 11
    value &= _MASK
    return (value + (value >> right)) & _MASK


def _hsieh_final(value: int) -> int:
    for left, right in ((3, 5), (4, 17), (25, 6)):
        value = (value ^ (value << left)) & _MASK
        value = (value + (value >> right)) & _MASK
    return value


def murmur(key: bytes) -> int:
    """Return MurmurHash2 as in libmemcached, with a seed computed from the length."""
    value = (0xDEADBEEF * len(key) & _MASK) ^ len(key)
    whole = len(key) & ~3
    for (block,) in struct.iter_unpack("<I", key[:whole]):
        mixed = (block * _MURMUR2) & _MASK
        mixed = ((mixed ^ (mixed >> 24)) * _MURMUR2) & _MASK
        value = ((value * _MURMUR2) & _MASK) ^ mixed
    if whole < len(key):
        value = ((value ^ int.from_bytes(key[whole:], "little")) * _MURMUR2) & _MASK
    value = ((value ^ (value >> 13)) * _MURMUR2) & _MASK
    return value ^ (value >> 15)


_MURMUR2: Final = 0x5BD1E995


def jenkins(key: bytes) -> int:
    """Return Jenkins' lookup3 (`hashlittle`, 2006) with libmemcached's initial value, 13."""
    a = b = c = (0xDEADBEEF + len(key) + 13) & _MASK
    if not key:
        return c
    last = (len(key) - 1) // 12 * 12
    for first, second, third in struct.iter_unpack("<3I", key[:last]):
        a, b, c = _lookup3_mix(a + first, b + second, c + third)
    first, second, third = struct.unpack("<3I", key[last:].ljust(12, b"\0"))
    return _lookup3_final(a + first, b + second, c + third)


def _rotate(value: int, left: int) -> int:
    value &= _MASK
    return ((value << left) | (value >> (32 - left))) & _MASK


def _lookup3_mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for left in (4, 6, 8, 16, 19, 4):
        a = (a - c) & _MASK ^ _rotate(c, left)
        c = (c + b) & _MASK
        a, b, c = b, c, a
    return a, b, c


def _lookup3_final(a: int, b: int, c: int) -> int:
    for left in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - _rotate(b, left)) & _MASK
        a, b, c = b, c, a
    return b


@cache
def _blocks(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}I")


def murmur3_32(data: bytes) -> int:
    """Return MurmurHash3 x86 32-bit with seed 0 (Appleby, public domain)."""
    value = 0
    count = len(data) >> 2
    for block in _blocks(count).unpack_from(data):
        mixed = (block * 0xCC9E2D51) & _MASK
        value ^= (((mixed << 15) | (mixed >> 17)) * 0x1B873593) & _MASK
        value = (((value << 13) | (value >> 19)) * 5 + 0xE6546B64) & _MASK
    if len(data) & 3:
        mixed = (int.from_bytes(data[count << 2 :], "little") * 0xCC9E2D51) & _MASK
        value ^= (((mixed << 15) | (mixed >> 17)) * 0x1B873593) & _MASK
    value ^= len(data)
    value = ((value ^ (value >> 16)) * 0x85EBCA6B) & _MASK
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) & _MASK
    return value ^ (value >> 16)


def hash_tag(key: bytes) -> bytes:
    """Return the text between the first `{` and the next `}`; the whole key if that is empty.

    >>> hash_tag(b"cart:{user7}:items"), hash_tag(b"a{}b")
    (b'user7', b'a{}b')
    """
    start = key.find(b"{")
    if start < 0:
        return key
    end = key.find(b"}", start + 1)
    return key[start + 1 : end] if end > start + 1 else key
