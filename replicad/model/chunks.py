"""Chunks and extents: how content is cut for verification and for requests.

A chunk is the unit of verification: 1 MiB up to 4 GiB of content, then doubling so that a manifest never has more than 4096 chunks (protocol.md section 7). An extent is 1 to 16
neighbouring chunks: the unit of request.
"""

from __future__ import annotations

from dataclasses import dataclass

CHUNK_SIZE_MIN = 1 << 20
CHUNKS_MAX = 4096
EXTENT_CHUNKS_MAX = 16
CONTENT_SIZE_MAX = 1 << 42
"""4 TiB: a sanity bound on what a signed entry may claim; packages are 1 MB to 20 GB."""


def chunk_size_for(size_bytes: int) -> int:
    """The chunk size that the format prescribes for content of that size."""
    chunk = CHUNK_SIZE_MIN
    while size_bytes > chunk * CHUNKS_MAX:
        chunk *= 2
    return chunk


def chunk_count(size_bytes: int, chunk_size: int) -> int:
    """Number of chunks; 0 for empty content."""
    return -(-size_bytes // chunk_size)


@dataclass(frozen=True, slots=True)
class Extent:
    """Chunks ``first`` to ``first + count - 1`` of one content."""

    first: int
    count: int

    @property
    def end(self) -> int:
        """One past the last chunk."""
        return self.first + self.count

    @property
    def chunks(self) -> range:
        """Their indices."""
        return range(self.first, self.end)

    def byte_range(self, size_bytes: int, chunk_size: int) -> tuple[int, int]:
        """(start, stop) in bytes, stop exclusive and within the content."""
        return self.first * chunk_size, min(self.end * chunk_size, size_bytes)
