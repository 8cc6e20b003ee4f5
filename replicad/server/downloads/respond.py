"""Sends an answer: the head and small bodies in one write, files by ``net.sendfile``. Nothing is buffered for a slow client.

The open descriptor decides which version leaves: replacing or deleting the name meanwhile changes nothing. A file that proves shorter than promised, or unreadable, ends the connection
short of its Content-Length; the client never sees a complete-looking wrong file.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from aiohttp import HttpVersion11

from replicad.errors import StorageError
from replicad.net.sendfile import Terms, send_file
from replicad.net.tls import abort
from replicad.server.downloads.conditions import http_date

if TYPE_CHECKING:
    from asyncio import Transport

    from replicad.server.downloads.answers import Answer, Piece
    from replicad.server.downloads.requests import Request

NO_FILE = -1
CLOSE = b"Connection: close\r\n"
KEEP = b"Connection: keep-alive\r\n"


class Response:
    """One answer on its way. Owns ``fd`` (``NO_FILE``: none) and closes it in ``send``, which must be called. ``on_failure`` is called when the file fails while it is being sent."""

    def __init__(
        self, answer: Answer, *, fd: int = NO_FILE, stall_s: float, on_failure: Callable[[StorageError], object] = lambda _: None, close: bool = False
    ) -> None:
        self._answer = answer
        self._fd = fd
        self._stall_s = stall_s
        self._on_failure = on_failure
        self._close = close
        self._sent = 0
        self._head_bytes = 0

    @property
    def status(self) -> int:
        """Of the answer."""
        return self._answer.status

    @property
    def sent_bytes(self) -> int:
        """Of the body, handed to the kernel or to TLS so far."""
        return max(0, self._sent - self._head_bytes)

    @property
    def keep_alive(self) -> bool:
        """Whether another request may follow. Never after a body that nobody asked for: what follows it may be somebody else's idea of a request (RFC 9112 section 11.2)."""
        return not self._close

    async def send(self, request: Request) -> None:
        """Send everything. ConnectionError when the client is gone, stalled, or had to be cut off."""
        self._close = self._close or not request.keep_alive
        try:
            transport = request.transport
            if transport is None:
                raise ConnectionResetError("the client is gone")
            await self._send(request, transport)
        finally:
            if self._fd != NO_FILE:
                os.close(self._fd)

    async def _send(self, request: Request, transport: Transport) -> None:
        answer = self._answer
        head = self._head(request)
        self._head_bytes = len(head)
        lead = head + answer.body
        try:
            if not answer.pieces:
                await self._send_part(request, transport, lead, None)
            for piece in answer.pieces:
                await self._send_part(request, transport, lead + piece.lead, piece)
                lead = b""
            if answer.tail:
                await self._send_part(request, transport, answer.tail, None)
        except StorageError as error:
            abort(transport)
            self._on_failure(error)
            raise ConnectionAbortedError("the file failed") from error

    async def _send_part(self, request: Request, transport: Transport, lead: bytes, piece: Piece | None) -> None:
        offset, count = (piece.span.start, piece.span.size) if piece else (0, 0)
        await send_file(transport, self._fd, offset=offset, count=count, head=lead, drain=request.drain, terms=Terms(self._stall_s, self._count))

    def _count(self, sent: int) -> None:
        self._sent += sent

    def _head(self, request: Request) -> bytes:
        """RFC 9112 section 9.3: HTTP/1.1 connections persist unless somebody says otherwise, older ones only when both say so."""
        if self._close:
            return head_of(self._answer, CLOSE)
        return head_of(self._answer, b"" if request.version >= HttpVersion11 else KEEP)


def head_of(answer: Answer, connection: bytes) -> bytes:
    """Everything before the body; ``connection`` is a complete line or nothing."""
    return b"".join((answer.status_line, _ours(int(time.time())), answer.fields, connection, b"\r\n"))


@lru_cache(maxsize=2)
def _ours(now_s: int) -> bytes:
    return f"Server: replicad\r\nDate: {http_date(now_s)}\r\n".encode()
