"""Buffers for what is on its way: taken for one request, given back, used again.

The plan bounds what is taken at once; this bounds what is kept for reuse, so that a long transfer touches the same pages over and over instead of asking the kernel for zeroed ones. Anonymous
mappings in sizes of powers of two: few sizes fit many requests, and what a request does not fill takes no memory.
"""

from __future__ import annotations

import mmap
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE_MIN = 1 << 20


class Buffers:
    """At most ``kept_bytes_max`` are kept while nobody uses them."""

    def __init__(self, kept_bytes_max: int) -> None:
        self._kept_bytes_max = kept_bytes_max
        self._kept: list[mmap.mmap] = []
        self.kept_bytes = 0
        self.taken_bytes = 0

    @contextmanager
    def taken(self, size_bytes: int) -> Iterator[memoryview]:
        """A buffer of exactly that size, with whatever is in it, until the block ends. Nobody may write into it afterwards."""
        buffer = self._take(max(SIZE_MIN, 1 << (size_bytes - 1).bit_length()))
        self.taken_bytes += size_bytes
        try:
            yield memoryview(buffer)[:size_bytes]
        finally:
            self.taken_bytes -= size_bytes
            self._give_back(buffer)

    def _take(self, size_bytes: int) -> mmap.mmap:
        for place, kept in enumerate(self._kept):
            if len(kept) == size_bytes:
                self.kept_bytes -= size_bytes
                return self._kept.pop(place)
        return mmap.mmap(-1, size_bytes)

    def _give_back(self, buffer: mmap.mmap) -> None:
        self._kept.append(buffer)
        self.kept_bytes += len(buffer)
        while self.kept_bytes > self._kept_bytes_max:
            self.kept_bytes -= len(self._kept.pop(0))

    def clear(self) -> None:
        """Keep nothing: there is nothing to fetch."""
        self._kept.clear()
        self.kept_bytes = 0
