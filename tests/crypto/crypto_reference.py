"""Ed25519 by the book (RFC 8032 section 5.1), as slow as it is plain: it makes the edge cases on which libraries differ, and checks signatures as leniently as anybody does."""

from __future__ import annotations

import hashlib

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]
IDENTITY: Point = (0, 1)


def x_of(y: int, sign: int) -> int:
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x * x % P != square:
        raise ValueError("not on the curve")
    return P - x if x and x & 1 != sign else x


def add(one: Point, other: Point) -> Point:
    (a, b), (c, d) = one, other
    product = D * a * b * c * d % P
    return (a * d + b * c) * pow(1 + product, -1, P) % P, (b * d + a * c) * pow(1 - product, -1, P) % P


def times(scalar: int, point: Point) -> Point:
    result = IDENTITY
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


BASE: Point = (x_of(4 * pow(5, -1, P) % P, 0), 4 * pow(5, -1, P) % P)
TORSION: Point = times(ORDER, (x_of(3, 0), 3))
"""A point of order 8: its eight multiples are all points of small order."""


def encode(point: Point) -> bytes:
    x, y = point
    return (y | (x & 1) << 255).to_bytes(32, "little")


def decode(encoded: bytes) -> Point:
    """Leniently: y is reduced, and x = 0 may have either sign."""
    number = int.from_bytes(encoded, "little")
    y = (number & (1 << 255) - 1) % P
    return x_of(y, number >> 255), y


def challenge(r: bytes, key: bytes, message: bytes) -> int:
    return int.from_bytes(hashlib.sha512(r + key + message).digest(), "little") % ORDER


def lenient(key: bytes, message: bytes, signature: bytes) -> bool:
    """The cofactored equation 8 S B = 8 R + 8 k A and nothing else: no bounds, no canonical form, no small order check."""
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    right = add(decode(r), times(challenge(r, key, message), decode(key)))
    return times(8 * s, BASE) == times(8, right)
