"""What all data requests between nodes have in common: who asks, what a refusal looks like, how bytes of a file leave.

Every request is authenticated by the link's session before anything else is looked at. A refusal is a small JSON body with a stable code; "not granted" and "unknown" look the same.
"""

from __future__ import annotations

import asyncio
import functools
from abc import abstractmethod
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import web

from replicad.errors import InputError, NotFoundError, PeerError, ReplicadError, StorageError
from replicad.net.congestion import suit
from replicad.net.pace import paced
from replicad.net.sendfile import Terms, send_file
from replicad.net.tls import abort
from replicad.server.draining import drain
from replicad.server.peers import refusals
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from replicad.net.link import Link
    from replicad.net.links import LinkTable
    from replicad.net.pace import Pace

log = get(__name__)

TRANSFER_DIGITS_MAX = 19
BODY_STALL_S = 15.0
"""As the client's ``stall_s``: whoever sends nothing of a body for so long is given up."""
Answer = web.StreamResponse


def authenticated(links: LinkTable, handler: Callable[[web.Request, Link], Awaitable[Answer]]) -> Callable[[web.Request], Awaitable[Answer]]:
    """The handler for members only, told through which link's session the request was proven. Its errors become refusals."""

    @functools.wraps(handler)
    async def answer(request: web.Request) -> Answer:
        range_ = request.headers.get("Range" if request.method == "GET" else "Content-Range", "")
        try:
            link = links.authenticate(request.headers.get("Authorization"), request.method, request.raw_path, range_)
        except PeerError as error:
            refusals.tell(log, "data request refused", request, error)
            return refusal(401, error.error_code)
        try:
            return await handler(request, link)
        except (PeerError, InputError) as error:
            log.seldom((link.node, error.error_code), "a peer asked nonsense", peer=link.node.short, code=error.error_code, reason=error.message)
            return refusal(400, error.error_code)
        except ReplicadError as error:
            return refusal(error.http_status, error.error_code)

    return answer


def refusal(status: int, code: str) -> web.Response:
    """A refusal that says why. After a body that nobody read, the connection cannot be used again."""
    response = web.json_response({"code": code}, status=status)
    if status == 429:
        response.headers["Retry-After"] = "1"
    return response


async def next_piece(request: web.Request) -> bytes:
    """What came of a request's body, empty at its end. Raises PeerError("stalled")."""
    try:
        async with asyncio.timeout(BODY_STALL_S):
            return await request.content.readany()
    except TimeoutError:
        raise PeerError(f"nothing of the body came for {BODY_STALL_S:.0f} s", code="stalled") from None


def transfer_of(request: web.Request) -> int:
    """The number under which this was asked for over the link; NotFoundError if there is none."""
    text = request.query.get("transfer", "")
    if not text.isascii() or not text.isdecimal() or len(text) > TRANSFER_DIGITS_MAX:
        raise NotFoundError("no such transfer")
    return int(text)


class OwnAnswer(web.StreamResponse):
    """An answer whose head and body go to the transport past aiohttp, which would send the head by itself and copy. Cut off if its body fails: never a body that only looks complete. A peer that has gone,
    perhaps because somebody else was faster, is nobody's error. ``on_failure`` is called when a file fails.
    """

    def __init__(self, status: HTTPStatus, fields: str = "", *, count: int, pace: Pace | None, on_failure: Callable[[], object] = lambda: None) -> None:
        super().__init__(status=status)
        head = f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: application/octet-stream\r\nContent-Length: {count}\r\n{fields}\r\n"
        self._head = head.encode("ascii")
        self._pace = pace
        self._on_failure = on_failure
        self._begun = False
        self.whole = False
        """Everything was sent."""

    async def prepare(self, request: web.BaseRequest) -> Any:
        """Send everything, once (aiohttp calls it again when the handler returns)."""
        if self._begun:
            return
        self._begun = True
        self._keep_alive = request.keep_alive
        transport = request.transport
        if transport is None:
            return
        suit(transport)
        try:
            await self._send(transport, functools.partial(drain, request))
            self.whole = True
        except (StorageError, OSError) as error:
            self._keep_alive = False
            abort(transport)
            if not isinstance(error, ConnectionError):
                log.error("a file failed while it was sent to a peer", reason=str(error))
                self._on_failure()

    @abstractmethod
    async def _send(self, transport: asyncio.Transport, drained: Callable[[], Awaitable[None]]) -> None:
        """Give head and body to the transport. StorageError, OSError: cut it off."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to send."""


class FileAnswer(OwnAnswer):
    """206 with exactly ``count`` bytes of an open file, which stays the caller's: sendfile where there is no TLS."""

    def __init__(self, fd: int, *, offset: int, count: int, size: int, pace: Pace | None = None, on_failure: Callable[[], object] = lambda: None) -> None:
        fields = f"Content-Range: bytes {offset}-{offset + count - 1}/{size}\r\n"
        super().__init__(HTTPStatus.PARTIAL_CONTENT, fields, count=count, pace=pace, on_failure=on_failure)
        self._fd = fd
        self._offset = offset
        self._count = count

    async def _send(self, transport: asyncio.Transport, drained: Callable[[], Awaitable[None]]) -> None:
        await send_file(transport, self._fd, offset=self._offset, count=self._count, head=self._head, drain=drained, terms=Terms(pace=self._pace))


class PiecesAnswer(OwnAnswer):
    """200 with ``count`` bytes in pieces, each asked for when the one before has left; the first leaves together with the head."""

    def __init__(self, pieces: AsyncIterator[bytearray], *, count: int, pace: Pace | None = None) -> None:
        super().__init__(HTTPStatus.OK, count=count, pace=pace)
        self._pieces = pieces

    async def _send(self, transport: asyncio.Transport, drained: Callable[[], Awaitable[None]]) -> None:
        head: tuple[bytes, ...] = (self._head,)
        async for piece in self._pieces:
            async for part in paced(piece, self._pace):
                if transport.is_closing():
                    raise ConnectionResetError("the peer is gone")
                transport.writelines((*head, part))
                head = ()
                await drained()
