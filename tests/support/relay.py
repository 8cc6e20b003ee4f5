"""A TCP relay in front of a door: counts what passes, slows it down, cuts it off, or loses connections in the middle. It runs in a thread of its own, on loopback only."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator

from support.network import free_port
from support.waiting import until

PIECE_BYTES = 64 << 10
"""Read ahead of the line by each connection: as much as a router would queue, a chunk among four connections would be."""
START_S = 30.0


class Relay:
    """Listens on ``port`` and passes everything on to ``target_port``. ``received`` counts bytes that the target sent back. ``rate`` bounds those in bytes per second (None: no bound).

    ``life_bytes`` says after how many bytes, both ways together, the next connection is aborted; None: it is not.
    """

    def __init__(self, target_port: int, *, rate: float | None = None) -> None:
        self.port = free_port()
        self.received = 0
        self.rate = rate
        self.life_bytes: Callable[[], int] | None = None
        self.lost = 0
        """Connections aborted so far because their bytes were used up."""
        self._target = target_port
        self._due_s = 0.0
        self._open = True
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()), name="relay")

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """End all connections and accept none until ``heal``."""
        self._loop.call_soon_threadsafe(self._cut)

    def heal(self) -> None:
        """Accept connections again."""
        self._loop.call_soon_threadsafe(self._heal)

    @contextlib.contextmanager
    def running(self) -> Iterator[Relay]:
        self._thread.start()
        assert self._ready.wait(START_S), "the relay did not start"
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(START_S)
            self._loop.close()

    def _heal(self) -> None:
        self._open = True

    def _cut(self) -> None:
        self._open = False
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", self.port, limit=PIECE_BYTES)
        self._ready.set()
        await self._stop.wait()
        self._cut()
        server.close()
        await until(lambda: not self._writers, what="the relay's connections to end", deadline_s=START_S)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self._open:
                await self._pass_on(reader, writer)
        except (ConnectionError, TimeoutError):
            pass
        finally:
            writer.transport.abort()
            self._writers.discard(writer)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target, limit=PIECE_BYTES)
        self._writers.add(far_writer)
        life = [self.life_bytes() if self.life_bytes else None]
        try:
            ways = [
                asyncio.ensure_future(self._copy(reader, far_writer, life, counted=False)),
                asyncio.ensure_future(self._copy(far_reader, writer, life, counted=True)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        finally:
            far_writer.transport.abort()
            self._writers.discard(far_writer)

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, life: list[int | None], *, counted: bool) -> None:
        while piece := await source.read(PIECE_BYTES):
            if life[0] is not None:
                life[0] -= len(piece)
                if life[0] < 0:
                    self.lost += 1
                    return
            if counted:
                self.received += len(piece)
                await self._pace(len(piece))
            sink.write(piece)
            await sink.drain()

    async def _pace(self, count: int) -> None:
        if self.rate is None:
            return
        now_s = self._loop.time()
        self._due_s = max(self._due_s, now_s) + count / self.rate
        if self._due_s - now_s > 0.01:
            await asyncio.sleep(self._due_s - now_s)
