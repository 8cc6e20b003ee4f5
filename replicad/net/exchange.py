"""One HTTP/1.1 connection to a peer's door: one exchange at a time, the body straight into the caller's buffer.

The answer must say its length; what it says is checked before a byte of the body is taken, and the buffer has exactly that room, so a body that is too long or never ends costs nothing. Strict
on purpose (RFC 9112): both ends are ours, anything unusual is a fault of the peer. There is no copy between the socket and the buffer except for what arrived together with the head.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from replicad.errors import PeerError, ReplicadError, UnreachableError
from replicad.net.pace import Pace
from replicad.net.tls import abort

HEAD_BYTES_MAX = 16 << 10
BULK_BYTES = 256 << 10
"""The kernel wakes us for so many bytes of a body at once, and for what is left near its end: fewer, larger reads, and nobody waits for it, since a chunk counts only when it is whole."""
RECORD_BYTES_MAX = 17 << 10
"""More than a TLS record has. As many may have left the socket and not be in the body yet, so what is waited for is always less than what is left."""
QUIET_S = 0.005
"""A peer that has fallen silent is looked at again so soon after we asked to be woken for whatever there is: that comes at once."""
FIELDS_MAX = 64
_STATUS = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9])(?: [\x20-\x7e\x80-\xff]*)?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\t\x80-\xff]*?)[ \t]*")
_LENGTH = re.compile(r"0|[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class Head:
    """Status and fields of an answer; names in lower case. ``length``: bytes of the body."""

    status: int
    fields: dict[str, str]
    length: int

    @property
    def keeps(self) -> bool:
        """Whether another exchange may follow on the connection."""
        return self.fields.get("connection", "").lower() != "close"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an exchange: ``received`` bytes of the body lie in the buffer that was provided. ``error`` tells why it is not complete; ``head`` is None if not even that came."""

    head: Head | None
    received: int
    error: ReplicadError | None


class LostError(UnreachableError):
    """The connection ended before the first byte of an answer: if it had been idle before, the peer just closed it and the request may be repeated."""


def parse_head(raw: bytes) -> Head:
    """From the bytes before the empty line; PeerError("bad-answer") for anything but a plain answer of a known length."""
    lines = raw.split(b"\r\n")
    status = _STATUS.fullmatch(lines[0])
    if status is None or len(lines) > FIELDS_MAX + 1:
        raise PeerError("answer is not HTTP/1.1", code="bad-answer")
    fields: dict[str, str] = {}
    for line in lines[1:]:
        field = _FIELD.fullmatch(line)
        name = field[1].decode("ascii").lower() if field is not None else ""
        if field is None or name in fields:
            raise PeerError("answer has a malformed or repeated field", code="bad-answer")
        fields[name] = field[2].decode("latin-1")
    empty = status[1] == b"204"
    length = fields.get("content-length", "0" if empty else "")
    if "transfer-encoding" in fields or "content-encoding" in fields or not _LENGTH.fullmatch(length) or (empty and length != "0"):
        raise PeerError("answer does not say its length", code="bad-answer")
    return Head(int(status[1]), fields, int(length))


class Connection(asyncio.BufferedProtocol):
    """``exchange`` and ``close``; the rest is for the transport. ``on_closed`` is called once when it has ended."""

    def __init__(self) -> None:
        self.closed = False
        self.surplus = False
        """The peer sent bytes that nobody had asked for."""
        self.idle_since_s = 0.0
        self.on_closed: Callable[[], None] = lambda: None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._head_buffer = bytearray(HEAD_BYTES_MAX)
        self._head_bytes = 0
        self._head: Head | None = None
        self._accept: Callable[[Head], memoryview] | None = None
        self._body = memoryview(b"")
        self._received = 0
        self._pace: Pace | None = None
        self._allowed: int | None = None
        self._held_since_s: float | None = None
        self._deadline_s = 0.0
        self._done: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle
        self._heard_s = 0.0
        self._bulk_bytes = 1
        self._writable = asyncio.Event()
        self._writable.set()

    @property
    def transport(self) -> asyncio.Transport:
        """Of an open connection."""
        if self._transport is None:
            raise UnreachableError("not connected")
        return self._transport

    async def drain(self) -> None:
        """Wait until the transport's buffer has room."""
        await self._writable.wait()

    async def exchange(
        self, send: Callable[[], Awaitable[None]], accept: Callable[[Head], memoryview], *, stall_s: float, limit_s: float, pace: Pace | None = None
    ) -> Answer:
        """Send one request and receive its answer. ``accept`` is told the head and returns a buffer of exactly ``head.length`` bytes, or raises PeerError: then the connection is closed.

        Ends with UnreachableError when nothing arrives for ``stall_s`` or the whole takes more than ``limit_s``, not counting what ``pace`` holds up: it is asked before bytes of the body are read
        that are under a limit of ours. Errors are in the ``Answer``; after any of them the connection is closed.
        Cancelled: it is closed as well, and nothing is written into the buffer any more.
        """
        self._done = self._begin(accept, pace)
        self._deadline_s = self._heard_s + limit_s
        self._timer = self._loop.call_later(stall_s, self._watch, stall_s)
        error: ReplicadError | None = None
        complete = False
        try:
            await self._send(send)
            await self._done
            complete = True
        except ReplicadError as failed:
            error = failed
        finally:
            if self._done.done() and not self._done.cancelled():
                self._done.exception()  # it is known already, or sending failed first
            self._done = self._pace = None
            self._body = memoryview(b"")
            self._timer.cancel()
            if not complete or (self._head is not None and not self._head.keeps):
                self.close()
        self.idle_since_s = self._loop.time()
        return Answer(self._head, self._received, error)

    def _begin(self, accept: Callable[[Head], memoryview], pace: Pace | None) -> asyncio.Future[None]:
        self._accept, self._head, self._head_bytes, self._received = accept, None, 0, 0
        self._body = memoryview(b"")
        self._pace, self._allowed, self._held_since_s = pace, None, None
        self._heard_s = self._loop.time()
        return self._loop.create_future()

    async def _send(self, send: Callable[[], Awaitable[None]]) -> None:
        """What the peer answered before it stopped listening counts more than that it did."""
        try:
            await send()
        except ConnectionError as error:
            if self._head is None:
                raise UnreachableError(f"connection lost while sending ({error})") from None

    def _watch(self, stall_s: float) -> None:
        done, now = self._done, self._loop.time()
        if done is None or done.done():
            return
        if self._held_since_s is not None:
            self._timer = self._loop.call_later(stall_s, self._watch, stall_s)
        elif now < (ends_s := min(self._heard_s + stall_s, self._deadline_s)):
            self._timer = self._loop.call_at(ends_s, self._watch, stall_s)
        elif self._bulk_bytes > 1:
            self._wake_for(1)
            self._timer = self._loop.call_later(QUIET_S, self._watch, stall_s)
        else:
            self._fail(UnreachableError("the peer is too slow" if now >= self._deadline_s else f"nothing received for {stall_s:.0f} s", code="stalled"))

    def close(self) -> None:
        """Close at once; harmless when repeated."""
        if self._transport is not None and not self.closed:
            abort(self._transport)
        self._end()

    # -- what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's TLS transport is one in all but its base class

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Where the next bytes go: the rest of the body, else the head's buffer."""
        if self._received < len(self._body):
            return self._body[self._received : self._allowed if self._allowed is None else max(self._allowed, self._received + 1)]
        return memoryview(self._head_buffer)[self._head_bytes :]

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes arrived where ``get_buffer`` said."""
        self._heard_s = self._loop.time()
        if self._done is None or self._done.done():
            self.surplus = self._done is None or not self._done.cancelled()  # a request that was just given up may still be answered
            self.close()
        elif self._head is not None:
            self._received += nbytes
            left = len(self._body) - self._received
            if left < self._bulk_bytes + RECORD_BYTES_MAX and self._bulk_bytes > 1:
                self._wake_for(max(1, left - RECORD_BYTES_MAX))
            self._finish_if_whole(surplus=False)
            if self._allowed is not None or (self._pace is not None and self._pace.limited):
                self._ask()
        else:
            self._head_bytes += nbytes
            self._look_for_head()

    def eof_received(self) -> bool:
        """The peer closed its side: it sends nothing more."""
        self._lost(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection ended."""
        self._lost(exc)
        self._end()

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It has room again."""
        self._writable.set()

    # -- inside

    def _look_for_head(self) -> None:
        end = self._head_buffer.find(b"\r\n\r\n", 0, self._head_bytes)
        if end < 0:
            if self._head_bytes == HEAD_BYTES_MAX:
                self._refuse(PeerError(f"head of more than {HEAD_BYTES_MAX} bytes", code="bad-answer"))
            return
        try:
            head = parse_head(bytes(self._head_buffer[:end]))
            body = self._accept(head) if self._accept is not None else memoryview(b"")
        except PeerError as error:
            self._refuse(error)
            return
        early = memoryview(self._head_buffer)[end + 4 : self._head_bytes]
        taken = min(len(early), len(body))
        if taken:
            body[:taken] = early[:taken]
        self._head, self._body, self._received, self._head_bytes = head, body, taken, 0
        self._finish_if_whole(surplus=len(early) > taken)
        if self._pace is not None and self._pace.limited:
            self._allowed = 0
            self._ask()
        elif len(body) - taken > RECORD_BYTES_MAX:
            self._wake_for(min(BULK_BYTES, len(body) - taken - RECORD_BYTES_MAX))

    def _wake_for(self, count: int) -> None:
        """Hear of bytes when there are so many; of the connection's end at once."""
        if self._transport is not None and count != self._bulk_bytes and not self._transport.is_closing():
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
            self._bulk_bytes = count

    def _ask(self) -> None:
        """Read no further than is allowed: rest until more is. A limit that was set in the middle counts from here."""
        self._wake_for(1)
        if self._allowed is None:
            self._allowed = self._received
        if self._pace is None or self._transport is None or not self._allowed <= self._received < len(self._body) or self._held_since_s is not None:
            return
        if not self._transport.is_closing():
            self._transport.pause_reading()
        self._held_since_s = self._loop.time()
        self._pace.ask(len(self._body) - self._allowed, self._go_on)

    def _go_on(self, granted: int) -> None:
        now = self._loop.time()
        self._allowed = (self._allowed or 0) + granted
        self._deadline_s += now - (self._held_since_s or now)
        self._heard_s, self._held_since_s = now, None
        if self._allowed <= self._received:
            self._ask()
        elif self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _finish_if_whole(self, *, surplus: bool) -> None:
        if surplus:
            self._refuse(PeerError("the body is longer than it said", code="long-body"))
        elif self._received == len(self._body) and self._done is not None and not self._done.done():
            self._body = memoryview(b"")
            self._done.set_result(None)

    def _lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._fail(UnreachableError(f"connection lost ({exc or type(exc).__name__})"))
        elif self._head is None and not self._head_bytes:
            self._fail(LostError("the peer closed the connection"))
        else:
            self._fail(PeerError("the answer ended early", code="cut-body"))

    def _refuse(self, error: PeerError) -> None:
        self._fail(error)
        self.close()

    def _fail(self, error: ReplicadError) -> None:
        self._body = memoryview(b"")
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)

    def _end(self) -> None:
        if not self.closed:
            self.closed = True
            self._writable.set()
            self._fail(UnreachableError("connection closed"))
            self.on_closed()
