"""The whole hash of a content whose chunks arrive in any order: it follows the contiguous prefix.

SHA-256 of the whole is sequential, so it can only advance over chunks that are there without a gap. Chunks that arrive exactly in order are hashed from memory, in a second thread while the first
verifies and writes them; the others are read back from the file (normally the page cache) in steps of ``STEP_BYTES_MAX`` as soon as the gap before them closes. At the end little is left to do.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from replicad.model.chunks import chunk_count
from replicad.model.manifest import Manifest
from replicad.store.hops import settled, waited

if TYPE_CHECKING:
    from _hashlib import HASH

STEP_BYTES_MAX = 16 << 20
"""Read back in one thread hop: about 12 ms, so that a verification queued behind it does not wait long."""


class PrefixHash:
    """One content's whole hash. Lives on the event loop; at most one thread works for it at a time. ``has(index)`` tells whether a chunk is verified and written;
    ``feed(update, start, stop)`` blocks and gives that range of the file to ``update``, or raises OSError.
    """

    def __init__(
        self, manifest: Manifest, *, has: Callable[[int], bool], feed: Callable[[Callable[[memoryview], object], int, int], None], executor: Executor
    ) -> None:
        self._manifest = manifest
        self._has = has
        self._feed = feed
        self._executor = executor
        self._hash = hashlib.sha256()
        self._next_chunk = 0
        self._generation = 0
        self._unreadable = False
        self._idle = asyncio.Event()
        self._idle.set()

    def reset(self) -> None:
        """Forget everything hashed; a job still under way is ignored when it ends."""
        self._generation += 1
        self._hash = hashlib.sha256()
        self._next_chunk = 0
        self._unreadable = False

    def start_ahead(self, first_chunk: int, content: memoryview) -> Ahead | None:
        """Begin to hash whole chunks from memory while somebody else verifies them, if they are the next ones and no thread is at work; else None. Whatever comes of it, ``end_ahead`` must be called, and
        ``content`` must stay unchanged until it returns.
        """
        if not self._idle.is_set() or first_chunk != self._next_chunk or not content:
            return None
        self._idle.clear()
        return Ahead(self._hash.copy(), content, executor=self._executor, generation=self._generation)

    async def end_ahead(self, ahead: Ahead, *, good: bool) -> None:
        """Wait for the thread; what it hashed counts only if every chunk turned out ``good``."""
        try:
            await settled(ahead.job)
            if good and ahead.generation == self._generation:
                self._hash = ahead.hash
                self._next_chunk += chunk_count(ahead.length, self._manifest.chunk_size)
        finally:
            self._idle.set()

    def follow(self) -> None:
        """Read back and hash what has become contiguous, in a thread, step by step, until a gap or the end. Does nothing while a thread is at work or once the file could not be read."""
        end = self._end_of_step()
        if not self._idle.is_set() or self._unreadable or end == self._next_chunk:
            return
        self._idle.clear()
        generation = self._generation
        job = asyncio.get_running_loop().run_in_executor(self._executor, self._read_back, self._hash.copy(), self._next_chunk, end)
        job.add_done_callback(lambda job: self._followed(job, generation, end))

    def _end_of_step(self) -> int:
        end = self._next_chunk
        limit = min(self._manifest.count, end + max(1, STEP_BYTES_MAX // self._manifest.chunk_size))
        while end < limit and self._has(end):
            end += 1
        return end

    def _followed(self, job: asyncio.Future[HASH | None], generation: int, end: int) -> None:
        self._idle.set()
        hashed = job.result()
        if generation != self._generation:
            return
        if hashed is None:
            self._unreadable = True
        else:
            self._hash, self._next_chunk = hashed, end
            self.follow()

    def _read_back(self, hashed: HASH, first: int, end: int) -> HASH | None:
        start, stop = first * self._manifest.chunk_size, min(end * self._manifest.chunk_size, self._manifest.size)
        try:
            self._feed(hashed.update, start, stop)
        except OSError:
            return None
        return hashed

    async def quiet(self) -> None:
        """Wait until no thread works for this hash, also when cancelled meanwhile."""
        await waited(self._idle)

    async def digest(self) -> bytes | None:
        """SHA-256 of the whole content; None when not all chunks are there, or they cannot be read back. In the latter case the next call tries again."""
        self._unreadable = False
        while self._next_chunk < self._manifest.count:
            self.follow()
            if self._idle.is_set():
                return None
            await self._idle.wait()
        return self._hash.digest()


class Ahead:
    """Whole chunks being hashed from memory."""

    def __init__(self, hashed: HASH, content: memoryview, *, executor: Executor, generation: int) -> None:
        self.hash = hashed
        self.length = len(content)
        self.generation = generation
        self.job = asyncio.get_running_loop().run_in_executor(executor, hashed.update, content)
