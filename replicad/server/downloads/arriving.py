"""Serves a file while it arrives: verified chunks as they come, what the client asks for fetched first, the exact length promised from the start.

Nothing is promised before the first byte is here: a client whose file nobody brings gets a 503, which proxies and downloaders take as "ask another node, or later". After that, a fetch that stops ends the
connection short of its Content-Length. The file's last byte leaves only when the whole file matches its hash, so no client ever has a complete-looking file that is not what was published.
"""

from __future__ import annotations

import os
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

from replicad.errors import BusyError, NotFoundError, StorageError
from replicad.net.sendfile import Terms, send_file
from replicad.net.tls import abort
from replicad.server.downloads.answers import plain
from replicad.server.downloads.respond import Response
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from asyncio import Transport
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from replicad.model.entries import Wanted
    from replicad.server.downloads.answers import Answer, Piece
    from replicad.server.downloads.config import DownloadsConfig
    from replicad.server.downloads.requests import Request

log = get(__name__)
LATER = b"Retry-After: 5\r\n"


class Waiting(Protocol):
    """One client that waits for one content."""

    async def verified(self, offset: int, *, timeout_s: float) -> int:
        """Up to which byte everything from ``offset`` on is here, once that is more than nothing; the last byte counts when the whole is verified. BusyError; NotFoundError: it never will be; StorageError."""

    async def descriptor(self) -> int:
        """A file to read what is verified, which the caller closes. NotFoundError."""


class Arrivals:
    """All clients that wait. ``waiting`` registers one with the fetch service, ``possible`` tells whether anything can be fetched now: there is somebody to fetch from, and a disk."""

    def __init__(self, waiting: Callable[[Wanted], AbstractContextManager[Waiting]], *, possible: Callable[[], bool]) -> None:
        self.waiting = waiting
        self.possible = possible
        self.count = 0


class ArrivingResponse(Response):
    """An answer whose pieces are of a content that is not here yet."""

    def __init__(self, answer: Answer, arrivals: Arrivals, wanted: Wanted, *, config: DownloadsConfig) -> None:
        super().__init__(answer, stall_s=config.stall_s)
        self._arrivals = arrivals
        self._wanted = wanted
        self._config = config

    async def _send(self, request: Request, transport: Transport) -> None:
        arrivals = self._arrivals
        if arrivals.count >= self._config.waiting_max or not arrivals.possible():
            await self._refuse(request, transport)
            return
        arrivals.count += 1
        try:
            with arrivals.waiting(self._wanted) as self._client:
                if await self._has_begun():
                    await self._send_arriving(request, transport)
                else:
                    await self._refuse(request, transport)
        finally:
            arrivals.count -= 1

    async def _has_begun(self) -> bool:
        try:
            await self._reach(self._answer.pieces[0].span.start)
        except (BusyError, NotFoundError, StorageError):
            return False
        return True

    async def _refuse(self, request: Request, transport: Transport) -> None:
        self._answer = plain(HTTPStatus.SERVICE_UNAVAILABLE, request.method, extra=LATER)
        await super()._send(request, transport)

    async def _send_arriving(self, request: Request, transport: Transport) -> None:
        try:
            await super()._send(request, transport)
        except (BusyError, NotFoundError) as error:
            log.seldom(self._wanted.content, "a client's download was cut short: the rest did not arrive", content=self._wanted.content, reason=error.message)
            abort(transport)
            raise ConnectionAbortedError("the rest did not arrive") from error

    async def _send_part(self, request: Request, transport: Transport, lead: bytes, piece: Piece | None) -> None:
        if piece is None:
            await super()._send_part(request, transport, lead, piece)
            return
        offset, stop = piece.span
        while offset < stop:
            end = min(stop, await self._reach(offset))
            fd = await self._client.descriptor()
            try:
                await send_file(transport, fd, offset=offset, count=end - offset, head=lead, drain=request.drain, terms=Terms(self._stall_s, self._count))
            finally:
                os.close(fd)
            offset, lead = end, b""

    async def _reach(self, offset: int) -> int:
        return await self._client.verified(offset, timeout_s=self._config.arrival_s)
