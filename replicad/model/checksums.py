"""Checksums that somebody promises of bytes, besides the SHA-256 that names a content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _hashlib import HASH


@dataclass(frozen=True, slots=True)
class Checksum:
    """``digest`` is what ``algorithm``, a name of hashlib, must make of the bytes."""

    algorithm: str
    digest: bytes

    def begin(self) -> HASH:
        """A hash of that algorithm before the first byte. It protects against accidents only."""
        return hashlib.new(self.algorithm, usedforsecurity=False)
