"""Connections of the downloads door and their bounds: how many, how long, how large a head; and what garbage gets.

aiohttp parses HTTP/1.1 (llhttp, strict), keeps connections alive and queues at most 32 pipelined requests. What it leaves open is closed here: the number of connections, the size of a whole
head, the status of an oversized one, and a log line per bad request.
"""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from replicad.server.downloads.answers import plain
from replicad.server.downloads.clients import address_of
from replicad.server.downloads.respond import CLOSE, Response, head_of
from replicad.telemetry.access_log import Answered
from replicad.telemetry.log import get

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from replicad.server.downloads.config import DownloadsConfig

log = get(__name__)


class Connection(web.RequestHandler):
    """One client. Holds at most ``head_bytes_max`` and one read of the loop (256 KiB) of a head, and swallows no more of a body."""

    __slots__ = ("_answered", "_asks_no_more", "_config", "_note", "_unfinished_bytes")

    def __init__(self, server: web.Server, config: DownloadsConfig, *, note: Callable[[Answered], object], **options: Any) -> None:
        super().__init__(server, **options)
        self._config = config
        self._note = note
        self._logging_enabled = True  # aiohttp takes the time of each request then
        self._unfinished_bytes = 0
        self._answered = 0
        self._asks_no_more = False

    def data_received(self, data: bytes) -> None:
        """Parse, and count what came since the last complete head."""
        requests = self._request_count
        super().data_received(data)
        if self._request_count != requests:
            self._unfinished_bytes = 0
            return
        self._unfinished_bytes += len(data)
        if self._unfinished_bytes > self._config.head_bytes_max:
            self._refuse_more()

    def _refuse_more(self) -> None:
        if self._answered < self._request_count or self.transport is None:  # a body: its request is being answered, and then the connection ends
            self.close()
            return
        _report(self.peername, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head too large")
        self.transport.write(_bare(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
        self.force_close()

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client may end its sending side once it has asked (RFC 9112 section 9.6): it still gets its answers. TLS has no half-closed connections here."""
        self._asks_no_more = True
        return self._answered < self._request_count and self.ssl_context is None

    async def finish_response(self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None) -> tuple[web.StreamResponse, bool]:
        """Send the answer, and know that it is sent."""
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._log(request, resp, start_time)
            self._answered += 1
            if self._asks_no_more and self._answered == self._request_count:
                self.close()

    def _log(self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None) -> None:
        duration_s = 0.0 if start_time is None else self._loop.time() - start_time
        sent_bytes = resp.sent_bytes if isinstance(resp, Response) else 0
        fields = request.headers
        self._note(
            Answered(
                time.time(),
                duration_s,
                self._client_of(request),
                request.method,
                request.raw_path,
                resp.status,
                sent_bytes,
                fields.get("Range", ""),
                fields.get("User-Agent", ""),
            )
        )

    def _client_of(self, request: web.BaseRequest) -> str:
        found = address_of(request, self._config.proxies) if self._config.proxies else None
        return _client(self.peername) if found is None else str(found)

    def handle_error(self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None) -> web.StreamResponse:  # noqa: ARG002
        """What aiohttp calls for a request that it cannot parse (400) and for an exception that nobody caught (500)."""
        found = HTTPStatus(status)
        if found is HTTPStatus.BAD_REQUEST:
            if isinstance(exc, LineTooLong):
                is_line = exc.args[1] == self._config.request_line_bytes_max
                found = HTTPStatus.REQUEST_URI_TOO_LONG if is_line else HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            _report(self.peername, found, type(exc).__name__)
        else:
            log.exception("a request failed", path=request.raw_path.partition("?")[0])  # noqa: LOG004 - aiohttp calls this inside its handler
        return Response(plain(found, request.method), stall_s=self._config.stall_s, close=True)


class DownloadServer(web.Server):
    """A protocol factory for ``web.ServerRunner`` or ``loop.create_server``. Create it in the running loop."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        config: DownloadsConfig,
        *,
        note: Callable[[Answered], object] = lambda _: None,
    ) -> None:
        super().__init__(
            handler,
            access_log=None,
            keepalive_timeout=config.idle_s,
            timeout_ceil_threshold=config.idle_s + 1,
            lingering_time=config.linger_s,
            max_line_size=config.request_line_bytes_max,
            max_field_size=config.field_bytes_max,
            max_headers=config.fields_max,
            auto_decompress=False,
        )
        self._config = config
        self._note = note

    def __call__(self) -> Connection:
        """A new connection."""
        return Connection(self, self._config, note=self._note, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Count it; beyond the bound it gets a 503 at once."""
        super().connection_made(handler, transport)
        if len(self._connections) > self._config.connections_max:
            log.seldom("connections", "more clients than connections_max", connections=len(self._connections))
            transport.write(_bare(HTTPStatus.SERVICE_UNAVAILABLE, b"Retry-After: 5\r\n"))
            handler.force_close()


def _bare(status: HTTPStatus, extra: bytes = b"") -> bytes:
    """An answer outside of any request."""
    answer = plain(status, "GET", extra=extra)
    return head_of(answer, CLOSE) + answer.body


def _report(peername: object, status: HTTPStatus, reason: str) -> None:
    """Once a minute for each client address, however much it sends."""
    client = _client(peername)
    log.seldom(client, "bad request", client=client, status=status.value, reason=reason)


def _client(peername: object) -> str:
    return str(peername[0]) if isinstance(peername, tuple) else "unknown"
