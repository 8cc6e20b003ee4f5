"""The receiving pipeline: bytes are hashed twice, or more often where that is asked for, and written while the next ones arrive.

    source -> buffer -> | whole hash and states | -> buffer back to the pool
                        | chunk hash            |
                        | more hashes           |
                        | write -> begin sync   |

Three lanes, and one for each hash more, work on every buffer at the same time, each in order and in a thread, so the event loop only moves filled buffers. Hashing chunk and whole in two threads gives 1.54 GiB/s against 0.84 in
one (two cores). The pool bounds the memory of all uploads together; the lanes wait for nothing but the disk, so whoever waits for a buffer gets one.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial

from replicad.errors import NoSpaceError, ReplicadError
from replicad.store.disk import Disk, storage_errors
from replicad.store.hashing import Hashes
from replicad.store.hops import Lane
from replicad.store.sources import Source
from replicad.store.space import Space

BUFFER_BYTES = 1 << 20
BUFFERS_MAX = 32
"""32 MiB for all uploads together. With ``uploads_max`` 16 every upload can hold the one it fills and 16 are left for the lanes."""
UPLOAD_BUFFERS_MAX = 12
"""Of one upload: four for each lane."""
WRITEBACK_BYTES = 16 << 20
"""The kernel is told to begin writing after so many bytes."""
ALLOCATE_BYTES = 64 << 20
"""Preallocation step while the size is not known."""
PROMISED = "promised"
"""Among the hashes of a stream: the one of which somebody said what it must be."""


@dataclass(slots=True, eq=False)
class Buffer:
    """``length`` bytes for ``offset`` of the file; ``lanes`` still work on it."""

    memory: memoryview = field(default_factory=lambda: memoryview(bytearray(BUFFER_BYTES)))
    offset: int = 0
    length: int = 0
    lanes: int = 0

    @property
    def content(self) -> memoryview:
        """The bytes that were filled in."""
        return self.memory[: self.length]


class BufferPool:
    """At most ``BUFFERS_MAX`` buffers. Keeps none while nobody uses any."""

    def __init__(self) -> None:
        self._free: list[Buffer] = []
        self._room = asyncio.Semaphore(BUFFERS_MAX)
        self._taken = 0

    async def take(self) -> Buffer:
        """A buffer, after waiting for one in order of asking."""
        await self._room.acquire()
        self._taken += 1
        return self._free.pop() if self._free else Buffer()

    def give(self, buffer: Buffer) -> None:
        """Give a buffer back."""
        self._taken -= 1
        self._free.append(buffer)
        if self._taken == 0:
            self._free.clear()
        self._room.release()


class Pipeline:
    """A stream on its way to one file, from ``start`` on; ``hashes`` are of the bytes before that. What is beyond ``allocated`` is preallocated as the file grows. Lives on the event loop; ``drain`` must
    be awaited before the file is closed or the hashes are used, whatever happened.
    """

    def __init__(self, fd: int, *, hashes: Hashes, allocated: int, pool: BufferPool, space: Space, disk: Disk, executor: Executor, start: int = 0) -> None:
        self._fd = fd
        self._pool = pool
        self._space = space
        self._disk = disk
        self._mine = asyncio.Semaphore(UPLOAD_BUFFERS_MAX)
        self.hashes = hashes
        self.received = start
        self.allocated = allocated
        self._written_back = start
        works: list[Callable[[list[Buffer]], None]] = [*(partial(_hash, update) for update in hashes.updates()), self._write]
        self._lanes = [Lane(executor, work=work, done=self._done) for work in works]

    async def take(self) -> Buffer:
        """An empty buffer. Raises the error of a lane that failed."""
        await self._mine.acquire()
        try:
            self._check()
            return await self._pool.take()
        except BaseException:
            self._mine.release()
            raise

    def put(self, buffer: Buffer) -> None:
        """Hand over a filled buffer: its bytes follow those handed over before."""
        buffer.offset = self.received
        buffer.lanes = len(self._lanes)
        self.received += buffer.length
        for lane in self._lanes:
            lane.push(buffer)

    def give(self, buffer: Buffer) -> None:
        """Give back a buffer that was not handed over."""
        self._pool.give(buffer)
        self._mine.release()

    async def drain(self) -> None:
        """Wait until no thread works for this upload, also when cancelled meanwhile; then raise what went wrong."""
        async with contextlib.AsyncExitStack() as stack:
            for lane in self._lanes:
                stack.push_async_callback(lane.drain)

    @property
    def failed(self) -> bool:
        """Whether the disk failed: then hashes and file do not belong together."""
        return any(lane.error is not None for lane in self._lanes)

    def _check(self) -> None:
        for lane in self._lanes:
            if lane.error is not None:
                raise lane.error

    def _done(self, buffers: list[Buffer]) -> None:
        for buffer in buffers:
            buffer.lanes -= 1
            if buffer.lanes == 0:
                self.give(buffer)

    def _write(self, buffers: list[Buffer]) -> None:
        for buffer in buffers:
            end = buffer.offset + buffer.length
            if end > self.allocated:
                self._grow(end)
            with storage_errors("writing an upload"):
                self._disk.write(self._fd, buffer.content, buffer.offset)
            if end - self._written_back >= WRITEBACK_BYTES:
                self._disk.start_writeback(self._fd, self._written_back, end - self._written_back)
                self._written_back = end

    def _grow(self, end: int) -> None:
        """Preallocate a step at a time; the last bytes before the reserve as they come."""
        for length in (ALLOCATE_BYTES, end - self.allocated):
            try:
                self._space.allocate(self._fd, self.allocated, length)
            except NoSpaceError:
                if length < ALLOCATE_BYTES:
                    raise
            else:
                self.allocated += length
                return


def _hash(update: Callable[[memoryview], object], buffers: list[Buffer]) -> None:
    for buffer in buffers:
        update(buffer.content)


async def run(pipeline: Pipeline, source: Source, *, until: int, seconds: float = math.inf) -> None:
    """Move the stream through the pipeline until that many bytes are there, the stream ends, or so many seconds are over. No thread works for it any more afterwards, however it ended; what came before the
    source failed is there, too.
    """
    try:
        await _pump(pipeline, source, until=until, deadline=time.monotonic() + seconds)
    except BaseException:
        with contextlib.suppress(ReplicadError):
            await pipeline.drain()
        raise
    await pipeline.drain()


async def _pump(pipeline: Pipeline, source: Source, *, until: int, deadline: float) -> None:
    while pipeline.received < until and time.monotonic() < deadline:
        buffer = await pipeline.take()
        try:
            await source.fill(buffer.memory[: min(BUFFER_BYTES, until - pipeline.received)])
        finally:
            buffer.length = source.filled
            if buffer.length:
                pipeline.put(buffer)
            else:
                pipeline.give(buffer)
        if not buffer.length:
            break
