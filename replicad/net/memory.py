"""An in-memory carrier for links: two ends, each with a bounded queue. The production interface without sockets, for tests and simulations."""

from __future__ import annotations

import asyncio
from collections import deque

PIPE_FRAMES_MAX = 64


class _Direction:
    """Frames on their way one way."""

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque()
        self.readable = asyncio.Event()
        self.writable = asyncio.Event()
        self.closed = False

    def close(self) -> None:
        self.closed = True
        self.readable.set()
        self.writable.set()


class MemoryFrames:
    """One end of a pipe made by ``pipe``. Frames that the other end does not take fill its queue; then ``send`` waits, as on a socket."""

    def __init__(self, outgoing: _Direction, incoming: _Direction) -> None:
        self._outgoing = outgoing
        self._incoming = incoming

    async def send(self, frame: bytes) -> None:
        """Put a frame into the pipe."""
        way = self._outgoing
        while len(way.frames) >= PIPE_FRAMES_MAX and not way.closed:
            way.writable.clear()
            await way.writable.wait()
        if way.closed:
            raise ConnectionResetError("the pipe is closed")
        way.frames.append(frame)
        way.readable.set()

    async def receive(self) -> bytes:
        """Take the next frame out of the pipe; ``b""`` when it is closed and empty."""
        way = self._incoming
        while not way.frames and not way.closed:
            way.readable.clear()
            await way.readable.wait()
        if not way.frames:
            return b""
        frame = way.frames.popleft()
        way.writable.set()
        return frame

    async def close(self) -> None:
        """Close both directions."""
        self._outgoing.close()
        self._incoming.close()


def pipe() -> tuple[MemoryFrames, MemoryFrames]:
    """The two ends of a new pipe."""
    there, back = _Direction(), _Direction()
    return MemoryFrames(there, back), MemoryFrames(back, there)
