"""Where an upload's bytes come from: pieces that somebody else received, or a socket that a thread reads straight into the buffer.

Both fill a buffer and wait at most ``stall_s`` for the next byte. Reading a Unix socket in a thread spares the event loop the copying: aiohttp's own reading costs 0.7 CPU-s per GiB there.
"""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from typing import Protocol

from replicad.errors import InputError
from replicad.store.hops import hop

_POLL_MS = 5
"""A local sender refills its socket well within that; waiting so long in the thread saves a hop."""
_HOP_S = 0.1
"""A slow sender gives its thread back after that."""


class Source(Protocol):
    """Fills buffers in order. ``filled``: how many bytes the last ``fill`` put into its buffer, also when it failed."""

    filled: int

    async def fill(self, buffer: memoryview) -> int:
        """Fill the buffer; fewer bytes than its length mean the end. InputError("stalled") when nothing comes for too long."""

    async def ended(self) -> bool:
        """Whether the upload ends here, after as many bytes as it announced."""


Incoming = Source | AsyncIterator[bytes]
"""Where content comes from: a source, or pieces that somebody else receives."""


class Pieces:
    """From an async iterator of bytes."""

    def __init__(self, pieces: AsyncIterator[bytes], *, stall_s: float) -> None:
        self._pieces = pieces
        self._stall_s = stall_s
        self._rest = memoryview(b"")
        self.filled = 0

    async def fill(self, buffer: memoryview) -> int:
        """See ``Source``."""
        self.filled = 0
        while self.filled < len(buffer):
            if not self._rest:
                piece = await self._next()
                if piece is None:
                    break
                self._rest = memoryview(piece)
            part = self._rest[: len(buffer) - self.filled]
            buffer[self.filled : self.filled + len(part)] = part
            self.filled += len(part)
            self._rest = self._rest[len(part) :]
        return self.filled

    async def ended(self) -> bool:
        """See ``Source``."""
        return not self._rest and not await self.fill(memoryview(bytearray(1)))

    async def _next(self) -> bytes | None:
        try:
            async with asyncio.timeout(self._stall_s):
                return await anext(self._pieces, None)
        except TimeoutError:
            raise stalled(self._stall_s) from None


class Descriptor:
    """From a non-blocking file descriptor of a stream socket (or pipe), after ``prefix``. The descriptor stays the caller's, who must not read from it meanwhile nor close it before ``fill`` returned."""

    def __init__(self, fd: int, *, prefix: bytes, stall_s: float, executor: Executor) -> None:
        self._fd = fd
        self._prefix = memoryview(prefix)
        self._stall_s = stall_s
        self._executor = executor
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._ended = False
        self.filled = 0

    async def fill(self, buffer: memoryview) -> int:
        """See ``Source``."""
        head = self._prefix[: len(buffer)]
        buffer[: len(head)] = head
        self._prefix = self._prefix[len(head) :]
        self.filled = len(head)
        while self.filled < len(buffer) and not self._ended:
            read = await hop(self._executor, self._read, buffer[self.filled :])
            self.filled += read
            if read == 0 and not self._ended:
                await self._readable()
        return self.filled

    async def ended(self) -> bool:
        """See ``Source``. What follows on a socket is not part of the upload."""
        return True

    def _read(self, buffer: memoryview) -> int:
        """Blocks for 5 ms without bytes and 0.1 s in all."""
        filled, until = 0, time.monotonic() + _HOP_S
        while filled < len(buffer) and time.monotonic() < until:
            try:
                read = os.readv(self._fd, [buffer[filled:]])
            except BlockingIOError:
                if not self._poll.poll(_POLL_MS):
                    break
                continue
            except ConnectionError:
                read = 0
            if read == 0:
                self._ended = True
                break
            filled += read
        return filled

    async def _readable(self) -> None:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._fd, ready.set)
        try:
            async with asyncio.timeout(self._stall_s):
                await ready.wait()
        except TimeoutError:
            raise stalled(self._stall_s) from None
        finally:
            loop.remove_reader(self._fd)


def stalled(stall_s: float) -> InputError:
    """The error of an upload that stopped moving."""
    return InputError(f"the upload stalled: no byte for {stall_s:g} s", code="stalled")
