"""From an open file to a client's connection without copying: what every door that serves bytes uses.

Plain TCP: small pieces leave in one ``writev`` together with the head; larger ones by ``sendfile`` from the event loop, the head held back by MSG_MORE or TCP_CORK. Only when the socket is full is it
duplicated, to wait until it is writable (a loop lets nobody wait for a descriptor that a transport has). Neither uvloop (which has no ``loop.sendfile``) nor asyncio ever sees those bytes, so a slow client costs kernel pages of the file and no memory here.
TLS: 256 KiB reads and writes (design measurements: performance.md section 2).

It knows nothing of HTTP. It never blocks the loop on a disk: pages that are not cached are read by a thread first (preadv2(2), RWF_NOWAIT).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from replicad.errors import StorageError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Transport

    from replicad.net.pace import Pace

SMALL_BYTES = 64 << 10
"""Up to here a copy through user space is cheaper than a second system call and a duplicate socket (measured with bench/serve.py)."""
BURST_BYTES = 2 << 20
"""The most that one sendfile call may send before others get their turn, as nginx has it: 0.4 ms at 5 GiB/s, so that a thousand fast clients cannot starve one small request."""
TLS_READ_BYTES = 256 << 10
"""performance.md section 2: 16 KiB reads cost 15 times as much, larger ones gain nothing."""
STALL_S = 60.0
"""nginx's send_timeout. A client that acknowledges a single byte in that time is slow, not gone."""
TLS_BUFFER_BYTES = 64 << 10
"""More than that waiting in the transport and nothing more is read: asyncio's default of 512 KiB would cost each slow client that much."""
_NO_WAIT: int = getattr(os, "RWF_NOWAIT", 0)
T = TypeVar("T")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Terms:
    """Of one transfer. ``stall_s`` without an acknowledged byte and the client is gone; ``on_sent`` hears of every number of bytes that was handed on, the head's included; ``pace`` is asked before
    bytes of the file are sent that are under a limit.
    """

    stall_s: float = STALL_S
    on_sent: Callable[[int], object] = lambda _: None
    pace: Pace | None = None


ANY = Terms()


async def send_file(
    transport: Transport,
    fd: int,
    *,
    offset: int,
    count: int,
    head: bytes = b"",
    drain: Callable[[], Awaitable[None]],
    terms: Terms = ANY,
) -> None:
    """Send ``head`` and then exactly ``count`` bytes of ``fd`` from ``offset``. ``drain`` waits until the transport's own buffer has room, and raises ConnectionError when the client is gone.

    Returns when everything is handed to the kernel (plain) or to the transport (TLS). Raises ConnectionError when the client is gone or acknowledged nothing for ``terms.stall_s`` (up to twice that),
    StorageError when the file is shorter than ``offset + count`` or cannot be read: then a part may be out already, and only cutting the connection tells the client. Cancel it at any point.
    """
    if transport.is_closing():
        raise ConnectionResetError("the client is gone")
    if transport.get_extra_info("sslcontext") is not None or transport.get_write_buffer_size():
        await _Copying(transport, fd, drain=drain, terms=terms).send(head, offset=offset, count=count)
        return
    if terms.pace is not None and terms.pace.limited:
        sent = 0
    elif count <= SMALL_BYTES:
        body = await _read(fd, offset, count)
        sent = _write_now(_open_socket(transport), head, body)
    else:
        first = min(count, BURST_BYTES)
        await _warm(fd, offset, first)
        sent = _send_now(_open_socket(transport), fd, head, offset=offset, count=first)
    terms.on_sent(sent)
    if sent == len(head) + count:
        return
    sent_body = max(0, sent - len(head))
    plain = _open_socket(transport)
    with socket.fromfd(plain.fileno(), plain.family, plain.type, plain.proto) as duplicate:
        duplicate.setblocking(False)
        await _ZeroCopy(duplicate, fd, terms).send(head[sent:], offset=offset + sent_body, count=count - sent_body)


class _Watch:
    """Ends a transfer whose client acknowledges nothing: one timer for the whole transfer, none per wait."""

    def __init__(self, *, loop: AbstractEventLoop, stall_s: float, acknowledged: Callable[[], int], give_up: Callable[[], None]) -> None:
        self._loop = loop
        self._stall_s = stall_s
        self._acknowledged = acknowledged
        self._give_up = give_up

    def __enter__(self) -> None:
        self._last = self._acknowledged()
        self._timer = self._loop.call_later(self._stall_s, self._check)

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _check(self) -> None:
        now = self._acknowledged()
        if now == self._last:
            self._give_up()
            return
        self._last = now
        self._timer = self._loop.call_later(self._stall_s, self._check)


class _ZeroCopy:
    """sendfile on a socket of our own; nobody else writes to that connection meanwhile."""

    def __init__(self, out: socket.socket, fd: int, terms: Terms) -> None:
        self._out = out
        self._fd = fd
        self._pace = terms.pace
        self._loop = asyncio.get_running_loop()
        self._watch = _Watch(loop=self._loop, stall_s=terms.stall_s, acknowledged=self._acknowledged, give_up=self._cut)
        self._on_sent = terms.on_sent
        self._sent = 0

    async def send(self, head: bytes, *, offset: int, count: int) -> None:
        self._cork(on=True)
        with self._watch:
            await self._send_head(head)
            while count:
                asked = await _allowed(self._pace, min(count, BURST_BYTES))
                await _warm(self._fd, offset, asked)
                while asked:
                    sent = _sendfile(self._out.fileno(), self._fd, offset, asked)
                    offset += sent
                    count -= sent
                    asked -= sent
                    self._count(sent)
                    if asked:
                        await self._writable()
                if count:
                    await asyncio.sleep(0)
        self._cork(on=False)

    def _cork(self, *, on: bool) -> None:
        """Whole segments only, until the end: a burst's last piece leaves with the next burst, and a fast client's window updates meet a socket that is not busy with half a segment (tcp(7), TCP_CORK; ADR 0015)."""
        self._out.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, on)

    async def _send_head(self, head: bytes) -> None:
        while head:
            try:
                sent = self._out.send(head)
            except BlockingIOError:
                await self._writable()
                continue
            head = head[sent:]
            self._count(sent)

    def _count(self, sent: int) -> None:
        self._sent += sent
        self._on_sent(sent)

    async def _writable(self) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(self._out, _wake, ready)
        try:
            await ready
        finally:
            self._loop.remove_writer(self._out)

    def _acknowledged(self) -> int:
        return self._sent - _unacknowledged(self._out)

    def _cut(self) -> None:
        """Wakes the waiting sender with an error, and lets the last close drop what the kernel still holds."""
        with contextlib.suppress(OSError):  # it is gone already
            self._out.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._out.shutdown(socket.SHUT_RDWR)


class _Copying:
    """Through the transport: for TLS, and when the transport still has bytes of its own to send."""

    def __init__(self, transport: Transport, fd: int, *, drain: Callable[[], Awaitable[None]], terms: Terms) -> None:
        self._transport = transport
        self._fd = fd
        self._drain = drain
        self._on_sent = terms.on_sent
        self._pace = terms.pace
        self._written = 0
        self._watch = _Watch(loop=asyncio.get_running_loop(), stall_s=terms.stall_s, acknowledged=self._acknowledged, give_up=transport.abort)

    async def send(self, head: bytes, *, offset: int, count: int) -> None:
        self._transport.set_write_buffer_limits(high=TLS_BUFFER_BYTES)
        with self._watch:
            first = await _allowed(self._pace, min(count, SMALL_BYTES))
            await self._write(head + await _read(self._fd, offset, first))
            offset += first
            count -= first
            while count:
                piece = await _read(self._fd, offset, await _allowed(self._pace, min(count, TLS_READ_BYTES)))
                await self._write(piece)
                offset += len(piece)
                count -= len(piece)
                await asyncio.sleep(0)  # a client as fast as this loop leaves others their turn, and one that is gone is noticed

    async def _write(self, piece: bytes | bytearray) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError("the client is gone")
        self._transport.write(piece)
        self._written += len(piece)
        self._on_sent(len(piece))
        await self._drain()

    def _acknowledged(self) -> int:
        return self._written - self._transport.get_write_buffer_size() - _unacknowledged(self._transport.get_extra_info("socket"))


async def _allowed(pace: Pace | None, most: int) -> int:
    """How many of these bytes may be sent now."""
    return most if pace is None or not most or not pace.limited else await pace.take(most)


def _open_socket(transport: Transport) -> Any:
    """The transport's own socket: asyncio's TransportSocket or uvloop's PseudoSocket. Its buffer is empty, so writing to it overtakes nothing."""
    if transport.is_closing():
        raise ConnectionResetError("the client is gone")
    return transport.get_extra_info("socket")


def _write_now(connection: Any, head: bytes, body: bytes | bytearray) -> int:
    """How many bytes the socket took at once."""
    try:
        return os.writev(connection.fileno(), (head, body))
    except BlockingIOError:
        return 0


def _send_now(connection: Any, fd: int, head: bytes, *, offset: int, count: int) -> int:
    """How many bytes of the head and the file the socket took at once: most answers need no more than this."""
    borrowed = socket.socket(connection.family, connection.type, connection.proto, fileno=connection.fileno())
    try:
        sent = borrowed.send(head, socket.MSG_MORE) if head else 0
        return sent if sent < len(head) else sent + _sendfile(borrowed.fileno(), fd, offset, count)
    except BlockingIOError:
        return 0
    finally:
        borrowed.detach()


def _sendfile(out: int, fd: int, offset: int, count: int) -> int:
    """How many bytes the socket took, 0 if it is full. Raises like ``send_file``."""
    try:
        sent = os.sendfile(out, fd, offset, count)
    except BlockingIOError:
        return 0
    except ConnectionError:
        raise
    except OSError as error:
        raise StorageError(f"reading a file to send it: {error.strerror}") from error
    if not sent:
        raise StorageError(f"the file ends at {offset}, before the {count} bytes that were promised")
    return sent


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _unacknowledged(connection: Any) -> int:
    """Bytes that the kernel holds for the client: tcp(7), SIOCOUTQ. 0 when the socket is closed."""
    answer = bytearray(4)
    try:
        fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, answer)
    except (OSError, ValueError):
        return 0
    return int.from_bytes(answer, "little")


async def _read(fd: int, offset: int, count: int) -> bytes | bytearray:
    """Exactly ``count`` bytes: at once if they are cached, else by a thread."""
    if not count:
        return b""
    piece = bytearray(count)
    try:
        if os.preadv(fd, (piece,), offset, _NO_WAIT) == count:
            return piece
    except OSError:  # not cached, or the file system cannot tell: a thread may wait
        pass
    return await _hop(_read_whole, fd, offset, count)


def _read_whole(fd: int, offset: int, count: int) -> bytes:
    try:
        piece = os.pread(fd, count, offset)
    except OSError as error:
        raise StorageError(f"reading a file to send it: {error.strerror}") from error
    if len(piece) < count:
        raise StorageError(f"the file ends at {offset + len(piece)}, before the {count} bytes that were promised")
    return piece


async def _warm(fd: int, offset: int, count: int) -> None:
    """Return when the bytes are likely to be cached, so that a sendfile of them does not hold up everybody."""
    try:
        os.preadv(fd, (bytearray(1),), offset, _NO_WAIT)
    except BlockingIOError:
        await _hop(_read_ahead, fd, offset, count)
    except OSError:  # the file system cannot tell; a failing disk shows in sendfile
        pass


def _read_ahead(fd: int, offset: int, count: int) -> None:
    os.posix_fadvise(fd, offset, count, os.POSIX_FADV_WILLNEED)
    _read_whole(fd, offset + count - 1, 1)


async def _hop(blocking: Callable[[int, int, int], T], fd: int, offset: int, count: int) -> T:
    """Run it in a thread. When cancelled, wait for the thread before the caller closes ``fd`` under it."""
    hop = asyncio.get_running_loop().run_in_executor(None, blocking, fd, offset, count)
    try:
        return await asyncio.shield(hop)
    except asyncio.CancelledError:
        await asyncio.wait((hop,))
        hop.exception()
        raise
