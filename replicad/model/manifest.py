"""Manifest: the chunk list of one content. Its id is the SHA-256 of its canonical bytes.

Layout (big-endian): ``b"RCM1"``, algorithm u8, 3 zero bytes, chunk size u64, size u64, the whole content's SHA-256, then one SHA-256 per chunk. Algorithm 2 goes on with the state of the whole content's SHA-256 after each chunk but the last (eight words of 32 bits each); algorithm 1 does not. Content of at most one chunk has a manifest that follows from its digest and size alone, so small files need no manifest to be sent (``Manifest.implied``).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, replace
from functools import cached_property

from replicad.errors import IntegrityError
from replicad.model.chunks import CHUNKS_MAX, CONTENT_SIZE_MAX, Extent, chunk_count, chunk_size_for
from replicad.model.ids import SIZE_BYTES, Digest

MAGIC = b"RCM1"
SHA256 = 1
SHA256_WITH_STATES = 2
HEADER = struct.Struct(">4sB3xQQ32s")
MANIFEST_BYTES_MAX = HEADER.size + (2 * CHUNKS_MAX - 1) * SIZE_BYTES


@dataclass(frozen=True)
class Manifest:
    """``chunks`` is the packed chunk hashes (32 bytes each); ``content`` the whole hash; ``states`` the packed states of the whole hash after each chunk but the last, or nothing if they are not known."""

    content: Digest
    size: int
    chunk_size: int
    chunks: bytes
    states: bytes = b""

    @property
    def count(self) -> int:
        """Number of chunks."""
        return len(self.chunks) // SIZE_BYTES

    def chunk_digest(self, index: int) -> bytes:
        """SHA-256 of chunk ``index``."""
        return self.chunks[index * SIZE_BYTES : (index + 1) * SIZE_BYTES]

    def state_after(self, index: int) -> bytes:
        """The state of the whole hash after chunk ``index``, if there are ``states`` and it is not the last one."""
        return self.states[index * SIZE_BYTES : (index + 1) * SIZE_BYTES]

    def chunk_length(self, index: int) -> int:
        """Bytes in chunk ``index``: the chunk size except for a shorter last one."""
        return min(self.chunk_size, self.size - index * self.chunk_size)

    def byte_range(self, extent: Extent) -> tuple[int, int]:
        """(start, stop) of the extent in bytes."""
        return extent.byte_range(self.size, self.chunk_size)

    @property
    def encoded(self) -> bytes:
        """The canonical bytes."""
        return _encoded(self.content, self.size, self.chunk_size, self.chunks, self.states)

    @cached_property
    def id(self) -> Digest:
        """SHA-256 of ``encoded``."""
        return Digest(hashlib.sha256(self.encoded).digest())

    @property
    def bare(self) -> Manifest:
        """The same without states: of one content the only one."""
        return replace(self, states=b"")

    @classmethod
    def implied(cls, content: Digest, size: int) -> Manifest | None:
        """The manifest that follows from digest and size: for content of at most one chunk, else None."""
        chunk_size = chunk_size_for(size)
        if size > chunk_size:
            return None
        return cls(content, size, chunk_size, bytes(content) if size else b"")

    @staticmethod
    def implied_id(content: Digest, size: int) -> Digest | None:
        """The id of ``implied``: a microsecond, a third of what both take. It is asked for of every record and every content that is wanted."""
        chunk_size = chunk_size_for(size)
        if size > chunk_size:
            return None
        return Digest(hashlib.sha256(_encoded(content, size, chunk_size, content if size else b"")).digest())

    @classmethod
    def decode(cls, encoded: bytes) -> Manifest:
        """From canonical bytes; raises IntegrityError for anything that is not exactly canonical."""
        if not HEADER.size <= len(encoded) <= MANIFEST_BYTES_MAX:
            raise IntegrityError(f"manifest of {len(encoded)} bytes: {HEADER.size} to {MANIFEST_BYTES_MAX} expected")
        magic, algorithm, chunk_size, size, content = HEADER.unpack_from(encoded)
        if magic != MAGIC or algorithm not in {SHA256, SHA256_WITH_STATES}:
            raise IntegrityError("manifest of an unknown format or hash algorithm")
        if size > CONTENT_SIZE_MAX or chunk_size != chunk_size_for(size):
            raise IntegrityError(f"manifest sizes contradict each other (size {size}, chunk size {chunk_size})")
        end = HEADER.size + SIZE_BYTES * chunk_count(size, chunk_size)
        found = cls(Digest(content), size, chunk_size, encoded[HEADER.size : end], encoded[end:])
        states = max(found.count - 1, 0) if algorithm == SHA256_WITH_STATES else 0
        if len(encoded) != end + SIZE_BYTES * states:
            raise IntegrityError(f"manifest sizes contradict each other (size {size}, chunk size {chunk_size}, {len(encoded)} bytes)")
        if found.encoded != encoded:
            raise IntegrityError("manifest is not canonical")
        return found


def _encoded(content: bytes, size: int, chunk_size: int, chunks: bytes, states: bytes = b"") -> bytes:
    return HEADER.pack(MAGIC, SHA256_WITH_STATES if states else SHA256, chunk_size, size, content) + chunks + states
