"""Frames of ClickHouse's `compress=1`: a checksum, the method, two sizes, the data.

Clients that ask for it (its JDBC driver does) take nothing else. Bytes stand in the frames as they are: LZ4 of literals alone.
"""

import struct
from collections.abc import Iterator
from typing import Final

_FRAME_BYTES: Final = 1 << 20
_LZ4: Final = 0x82
_U64: Final = (1 << 64) - 1
_K0: Final = 0xC3A5C85C97CB3127
_K1: Final = 0xB492B66FBE98F273
_K2: Final = 0x9AE16A3B2F90404F
_K3: Final = 0xC949D7C7509E6557
_MULTIPLIER: Final = 0x9DDFEA08EB382D69


def framed(data: bytes) -> bytes:
    """The data in frames."""
    return b"".join(_frames(data))


def _frames(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), _FRAME_BYTES):
        plain = data[start : start + _FRAME_BYTES]
        block = _literals(plain)
        body = struct.pack("<BII", _LZ4, len(block) + 9, len(plain)) + block
        yield struct.pack("<QQ", *city_hash_128(body)) + body


def _literals(plain: bytes) -> bytes:
    """One sequence of literals, without a match (LZ4 Block Format Description)."""
    if len(plain) < 15:
        return bytes((len(plain) << 4,)) + plain
    full, last = divmod(len(plain) - 15, 255)
    return b"\xf0" + b"\xff" * full + bytes((last,)) + plain


def city_hash_128(data: bytes) -> tuple[int, int]:
    """CityHash128 of version 1.0.2, which ClickHouse keeps to (later versions differ)."""
    size = len(data)
    if size >= 16:
        return _seeded(data[16:], _at(data, 0) ^ _K3, _at(data, 8))
    if size >= 8:
        return _murmur(b"", _at(data, 0) ^ (size * _K0 & _U64), _at(data, size - 8) ^ _K1)
    return _murmur(data, _K0, _K1)


def _seeded(data: bytes, x: int, y: int) -> tuple[int, int]:
    size = len(data)
    if size < 128:
        return _murmur(data, x, y)
    words = struct.unpack_from(f"<{size // 8}Q", data)
    z = size * _K1 & _U64
    v0 = (_rotated(y ^ _K1, 49) * _K1 + words[0]) & _U64
    v1 = (_rotated(v0, 42) * _K1 + words[1]) & _U64
    w0 = (_rotated(y + z, 35) * _K1 + x) & _U64
    w1 = _rotated(x + words[11], 53) * _K1 & _U64
    for at in range(0, size // 128 * 16, 8):
        x = _rotated(x + y + v0 + words[at + 2], 37) * _K1 & _U64
        y = _rotated(y + v1 + words[at + 6], 42) * _K1 & _U64
        x ^= w1
        y ^= v0
        z = _rotated(z ^ w0, 33)
        v0, v1 = _weak(words[at : at + 4], v1 * _K1, x + w0)
        w0, w1 = _weak(words[at + 4 : at + 8], z + w1, y)
        x, z = z, x
    y = (y + _rotated(w0, 37) * _K0 + z) & _U64
    x = (x + _rotated(v0 + z, 49) * _K0) & _U64
    rest = size % 128
    for done in range(32, rest + 32, 32):
        # Up to four pieces of 32 bytes from the end; the first may overlap what was hashed.
        piece = struct.unpack_from("<4Q", data, size - done)
        y = (_rotated(y - x, 42) * _K0 + v1) & _U64
        w0 = (w0 + piece[2]) & _U64
        x = (_rotated(x, 49) * _K0 + w0) & _U64
        w0 = (w0 + v0) & _U64
        v0, v1 = _weak(piece, v0, v1)
    x = _mixed(x, v0)
    y = _mixed(y, w0)
    return (_mixed(x + v1, w1) + y) & _U64, _mixed(x + w1, y + v1)


def _murmur(data: bytes, a: int, b: int) -> tuple[int, int]:
    size = len(data)
    if size <= 16:
        a = _shifted(a * _K1) * _K1 & _U64
        c = (b * _K1 + _short(data)) & _U64
        d = _shifted(a + (_at(data, 0) if size >= 8 else c))
    else:
        c = _mixed(_at(data, size - 8) + _K1, a)
        d = _mixed(b + size, c + _at(data, size - 16))
        a = (a + d) & _U64
        for at in range(0, size - 16, 16):
            a = (a ^ _shifted(_at(data, at) * _K1) * _K1 & _U64) * _K1 & _U64
            b ^= a
            c = (c ^ _shifted(_at(data, at + 8) * _K1) * _K1 & _U64) * _K1 & _U64
            d ^= c
    a = _mixed(a, c)
    b = _mixed(d, b)
    return a ^ b, _mixed(b, a)


def _short(data: bytes) -> int:
    size = len(data)
    if size > 8:
        last = _at(data, size - 8)
        return _mixed(_at(data, 0), _rotated(last + size, size)) ^ last
    if size >= 4:
        first, last = struct.unpack_from("<I", data)[0], struct.unpack_from("<I", data, size - 4)[0]
        return _mixed((first << 3) + size, last)
    if size > 0:
        y = data[0] + (data[size >> 1] << 8)
        z = size + (data[size - 1] << 2)
        return _shifted(y * _K2 ^ z * _K3) * _K2 & _U64
    return _K2


def _weak(words: tuple[int, ...], a: int, b: int) -> tuple[int, int]:
    a += words[0]
    b = _rotated(b + a + words[3], 21)
    c = a
    a += words[1] + words[2]
    return (a + words[3]) & _U64, (b + _rotated(a, 44) + c) & _U64


def _mixed(low: int, high: int) -> int:
    a = (low ^ high) * _MULTIPLIER & _U64
    a ^= a >> 47
    b = ((high & _U64) ^ a) * _MULTIPLIER & _U64
    b ^= b >> 47
    return b * _MULTIPLIER & _U64


def _shifted(value: int) -> int:
    value &= _U64
    return value ^ value >> 47


def _rotated(value: int, shift: int) -> int:
    value &= _U64
    return (value >> shift | value << 64 - shift) & _U64


def _at(data: bytes, at: int) -> int:
    (word,) = struct.unpack_from("<Q", data, at)
    return int(word)
