"""Connections of the downloads door and their bounds: how long, how large a head; and what garbage gets.

aiohttp's parser (llhttp, strict) reads HTTP/1.1; everything after it is here, because a general server's machinery costs three times what this door does for a small file (docs/adr/0015). Requests of one
connection are answered in turn. One task runs while there are any, none while a client is idle.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD
from multidict import istr

from replicad.net.tls import abort
from replicad.server.downloads.answers import plain
from replicad.server.downloads.clients import address_of
from replicad.server.downloads.requests import Request, is_flawed, unreadable
from replicad.server.downloads.respond import CLOSE, Response, head_of
from replicad.telemetry.access_log import Answered
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from aiohttp.streams import StreamReader

    from replicad.server.downloads.server import DownloadServer

log = get(__name__)
PIPELINED_MAX = 32
"""Requests read ahead of their answers; beyond, nothing more is read until half of them are answered. aiohttp's own figure."""
_NO_PAUSE = 1 << 30
"""At this size of a body that nobody reads the parser would pause its protocol, which is given none of ours; ``head_bytes_max`` ends it long before."""
_HEAD_END = b"\r\n\r\n"
_FED_MAX = len(_HEAD_END) - 1
"""So many bytes that the parser has had already may belong to the end of a head."""
_RANGE, _AGENT = istr("Range"), istr("User-Agent")


class Connection(asyncio.Protocol):
    """One client. Holds at most ``head_bytes_max`` and one read of the loop (256 KiB) of a head, and swallows no more of a body."""

    __slots__ = (
        "_asks_no_more",
        "_body",
        "_deadline_s",
        "_fed",
        "_idle",
        "_is_full",
        "_is_last",
        "_loop",
        "_parser",
        "_room",
        "_server",
        "_tail",
        "_unfinished_bytes",
        "_waiting",
        "client",
        "task",
        "transport",
    )

    def __init__(self, server: DownloadServer) -> None:
        config = server.config
        self.transport: asyncio.Transport | None = None
        self.task: asyncio.Task[None] | None = None
        self.client = "unknown"
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._parser = HttpRequestParser(
            BaseProtocol(self._loop),
            self._loop,
            _NO_PAUSE,
            max_line_size=config.request_line_bytes_max,
            max_field_size=config.field_bytes_max,
            max_headers=config.fields_max,
            auto_decompress=False,
        )
        self._waiting: deque[Request] = deque()
        self._body: StreamReader = EMPTY_PAYLOAD
        self._tail, self._fed = b"", 0
        self._unfinished_bytes = 0
        self._is_full = False
        self._is_last = False
        self._asks_no_more = False
        self._room: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for its first request."""
        self.transport = cast("asyncio.Transport", transport)
        peername = transport.get_extra_info("peername")
        self.client = str(peername[0]) if isinstance(peername, tuple) else "unknown"
        idle_s = self._server.config.idle_s
        self._deadline_s = self._loop.time() + idle_s
        self._idle = self._loop.call_later(idle_s, self._look_whether_idle)
        self._server.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Whoever sends to it notices at the next byte."""
        self.transport = None
        self._waiting.clear()
        self._idle.cancel()
        self._server.dismiss(self)
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Parse head by head, so that garbage spoils nothing that was asked before it. ``_tail`` is what came before ``data``: of its bytes the parser has had ``_fed``."""
        data, begin = self._tail + data, self._fed
        while begin < len(data) and not self._is_last:
            if len(self._waiting) >= PIPELINED_MAX:
                self._tail, self._fed, self._is_full = data[begin:], 0, True
                if self.transport is not None:
                    self.transport.pause_reading()
                return
            found = data.find(_HEAD_END, max(0, begin - _FED_MAX))
            end = len(data) if found < 0 else found + len(_HEAD_END)
            self._parse(data[begin:end])
            begin = end
        if begin < len(data):
            self._swallow(data[begin:])
        self._tail, self._fed = data[-_FED_MAX:], min(len(data), _FED_MAX)

    def _parse(self, data: bytes) -> None:
        """The parser's next bytes, up to the end of a head if there is one; count what came since the last complete one."""
        try:
            messages, upgraded, _ = self._parser.feed_data(data)
        except HttpProcessingError as error:
            self._refuse(self._refusal(error))
            return
        for message, body in messages:
            self._unfinished_bytes = 0
            if is_flawed(message, has_body=body is not EMPTY_PAYLOAD):
                self._refuse(HTTPStatus.BAD_REQUEST)
                return
            is_last = upgraded or body is not EMPTY_PAYLOAD
            self._take(Request(message, self, is_last=is_last), body, is_last=is_last)
        if not messages:
            self._unfinished_bytes += len(data)
            if self._unfinished_bytes > self._server.config.head_bytes_max:
                self._refuse_more()

    def _refuse(self, status: HTTPStatus) -> None:
        self._take(unreadable(self, status), EMPTY_PAYLOAD, is_last=True)

    def _take(self, request: Request, body: StreamReader, *, is_last: bool) -> None:
        self._waiting.append(request)
        self._is_last, self._body = is_last, body
        if self.task is None:
            self.task = self._loop.create_task(self._answer_all())

    def _refusal(self, error: HttpProcessingError) -> HTTPStatus:
        found = HTTPStatus.BAD_REQUEST
        if isinstance(error, LineTooLong):
            is_line = error.args[1] == self._server.config.request_line_bytes_max
            found = HTTPStatus.REQUEST_URI_TOO_LONG if is_line else HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        _report(self.client, found, type(error).__name__)
        return found

    def _refuse_more(self) -> None:
        self._is_last = True
        if self.task is None and self.transport is not None:
            _report(self.client, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head too large")
            self.turn_away(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def turn_away(self, status: HTTPStatus, extra: bytes = b"") -> None:
        """An answer outside of any request, and the end."""
        self._is_last = True
        if self.transport is not None:
            answer = plain(status, "GET", extra=extra)
            self.transport.write(head_of(answer, CLOSE) + answer.body)
            self.transport.close()

    def _swallow(self, data: bytes) -> None:
        """What comes after the last request that is answered: the rest of its body, of which a bounded part is read so that the client sees its answer instead of a reset."""
        self._unfinished_bytes += len(data)
        if not self._is_swallowed():
            try:
                self._parser.feed_data(data)
            except HttpProcessingError as error:
                self._body = EMPTY_PAYLOAD
                if self._waiting:
                    self._waiting[-1].refused = self._refusal(error)
        if self.task is None and self._is_swallowed() and self.transport is not None:
            self.transport.close()

    def _is_swallowed(self) -> bool:
        return self._body.is_eof() or self._unfinished_bytes > self._server.config.head_bytes_max

    def eof_received(self) -> bool:
        """A client may end its sending side once it has asked (RFC 9112 section 9.6): it still gets its answers. TLS has no half-closed connections here."""
        self._asks_no_more = True
        return self.task is not None and self.transport is not None and self.transport.get_extra_info("sslcontext") is None

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        """It has room again, or nobody takes what is in it."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    async def drain(self) -> None:
        """Return when the transport's buffer has room; ConnectionResetError when the client is gone."""
        if self._room is not None:
            await self._room
        if self.transport is None:
            raise ConnectionResetError("the client is gone")

    async def _answer_all(self) -> None:
        """Everything that was asked, in turn."""
        try:
            while self._waiting and await self._answer(self._waiting.popleft()):
                if self._is_full and len(self._waiting) <= PIPELINED_MAX // 2:
                    self._read_on()
        finally:
            self.task = None
            self._waiting.clear()
        if self._is_last or self._asks_no_more:
            self._end()
        self._deadline_s = self._loop.time() + self._server.config.idle_s

    def _read_on(self) -> None:
        self._is_full = False
        self.data_received(b"")
        if not self._is_full and self.transport is not None:
            self.transport.resume_reading()

    def _end(self) -> None:
        """Close, at once if the client's last request is here to its end, else ``linger_s`` later."""
        if self.transport is None:
            return
        if self._asks_no_more or self._is_swallowed():
            self.transport.close()
        else:
            self._idle.cancel()
            self._idle = self._loop.call_later(self._server.config.linger_s, self.transport.close)

    async def _answer(self, request: Request) -> bool:
        """Whether there may be another one."""
        begun_s = self._loop.time()
        response = await self._response(request)
        try:
            await response.send(request)
        except ConnectionError:
            self._is_last, self._body = True, EMPTY_PAYLOAD
        except Exception:  # a part may be out: only the end of the connection tells the client
            log.exception("an answer failed", path=request.raw_path.partition("?")[0])
            self.cut()
        finally:
            self._note(request, response, begun_s)
        self._is_last = self._is_last or not response.keep_alive
        return response.keep_alive and self.transport is not None

    async def _response(self, request: Request) -> Response:
        stall_s = self._server.config.stall_s
        if request.refused is not None:
            return Response(plain(request.refused, request.method), stall_s=stall_s, close=True)
        try:
            return await self._server.handler(request)
        except Exception:  # the outermost loop of a request
            log.exception("a request failed", path=request.raw_path.partition("?")[0])
            return Response(plain(HTTPStatus.INTERNAL_SERVER_ERROR, request.method), stall_s=stall_s, close=True)

    def _note(self, request: Request, response: Response, begun_s: float) -> None:
        config, fields = self._server.config, request.headers
        found = address_of(request, config.proxies) if config.proxies else None
        self._server.note(
            Answered(
                time.time(),
                self._loop.time() - begun_s,
                self.client if found is None else str(found),
                request.method,
                request.raw_path,
                response.status,
                response.sent_bytes,
                fields.get(_RANGE, ""),
                fields.get(_AGENT, ""),
            )
        )

    def _look_whether_idle(self) -> None:
        """One timer for the whole life of a connection: it is set anew when it rings, not with every request."""
        now_s, idle_s = self._loop.time(), self._server.config.idle_s
        if self.task is None and now_s >= self._deadline_s:
            self.finish()
            return
        self._idle = self._loop.call_at(self._deadline_s if self.task is None else now_s + idle_s, self._look_whether_idle)

    def finish(self) -> None:
        """Answer what is asked already, then close."""
        self._is_last = True
        if self.task is None and self.transport is not None:
            self.transport.close()

    def cut(self) -> None:
        """Close now."""
        if self.task is not None:
            self.task.cancel()
        if self.transport is not None:
            abort(self.transport)


def _report(client: str, status: HTTPStatus, reason: str) -> None:
    """Once a minute for each client address, however much it sends."""
    log.seldom(client, "bad request", client=client, status=status.value, reason=reason)
