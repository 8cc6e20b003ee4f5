"""Checksums of contents besides the SHA-256 that names them: those that somebody promises, and those that a share asks for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from _hashlib import HASH

Algorithm = Literal["md5", "sha512", "sha3_512"]
"""What a share may ask for, as hashlib names it: what Jamf Pro keeps of a package beside its SHA-256. They say that bytes are the same, not that nobody made others alike."""
ALGORITHMS: tuple[str, ...] = get_args(Algorithm)
ASKED_MAX = 16
"""Algorithms in a policy: more than any version knows."""
NO_HASHES: Mapping[str, HASH] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Checksum:
    """``digest`` is what ``algorithm``, a name of hashlib, must make of the bytes."""

    algorithm: str
    digest: bytes

    def begin(self) -> HASH:
        """A hash of that algorithm before the first byte. It protects against accidents only."""
        return hashlib.new(self.algorithm, usedforsecurity=False)


def begin(asked: Iterable[str]) -> dict[str, HASH]:
    """Hashes before the first byte, by algorithm: of those asked for that this version knows."""
    return {algorithm: hashlib.new(algorithm, usedforsecurity=False) for algorithm in asked if algorithm in ALGORITHMS}


def of(content: bytes | memoryview, asked: Iterable[str]) -> dict[str, bytes]:
    """What ``begin`` would come to after the content."""
    hashes = begin(asked)
    for one in hashes.values():
        one.update(content)
    return digests(hashes)


def digests(hashes: Mapping[str, HASH]) -> dict[str, bytes]:
    """Their digests."""
    return {algorithm: found.digest() for algorithm, found in hashes.items()}
