"""``/peer/v1/link``: the answering side of a link. ``/peer/v1/ping``: the proof that this door can be reached.

Whoever connects is unknown until the handshake is done: it has ``HANDSHAKE_TIMEOUT_S``, a small first frame, and at most ``HANDSHAKES_MAX`` are under way at once; one more ends the oldest, so that
strangers who never finish keep no member out. Failures are logged once a minute per address.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from replicad import __version__
from replicad.errors import PeerError, UnreachableError
from replicad.net.dialer import LINK_PATH, PING_PATH, SOCKET_FRAME_BYTES_MAX, PingBody, WebSocketFrames
from replicad.net.establish import accept_link
from replicad.net.tls import abort
from replicad.server.peers import refusals
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicad.net.link import LinkConfig
    from replicad.net.links import LinkTable
    from replicad.protocol.handshake import Identity

log = get(__name__)

HANDSHAKES_MAX = 64
_CLOSE_TIMEOUT_S = 2.0


async def _prepared(websocket: web.WebSocketResponse, request: web.Request) -> bool:
    """Switch protocols; False if the peer has gone meanwhile, which is nobody's error."""
    try:
        await websocket.prepare(request)
    except ConnectionError:
        return False
    return True


class LinkDoor:
    """``identity`` is asked afresh for each handshake: joining another network changes it."""

    def __init__(self, table: LinkTable, identity: Callable[[], Identity], *, config: LinkConfig | None = None) -> None:
        self._table = table
        self._identity = identity
        self._config = config
        self._shaking: dict[web.WebSocketResponse, web.Request] = {}

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [web.get(LINK_PATH, self.link), web.get(PING_PATH, self.ping)]

    async def link(self, request: web.Request) -> web.StreamResponse:
        """Upgrade, shake hands, serve the link until it ends."""
        if len(self._shaking) >= HANDSHAKES_MAX:
            log.seldom("handshakes", "too many handshakes at once", at_once=HANDSHAKES_MAX)
            oldest = self._shaking.pop(next(iter(self._shaking)))
            if oldest.transport is not None:
                abort(oldest.transport)
        websocket = web.WebSocketResponse(max_msg_size=SOCKET_FRAME_BYTES_MAX, compress=False, timeout=_CLOSE_TIMEOUT_S)
        self._shaking[websocket] = request
        try:
            if not await _prepared(websocket, request):
                return web.Response()  # which nobody hears
            link = await accept_link(WebSocketFrames(websocket), self._identity(), may_prove=self._table.may_prove, config=self._config)
        except (PeerError, UnreachableError) as error:
            refusals.tell(log, "handshake failed", request, error)
            return websocket
        finally:
            self._shaking.pop(websocket, None)
        await self._table.run(link)
        return websocket

    async def stop(self, _application: web.Application) -> None:
        """Let go of everybody, so that the door can close at once."""
        self._table.stop("this node stops")
        for websocket in tuple(self._shaking):
            await websocket.close()

    async def ping(self, request: web.Request) -> web.Response:
        """Answer a linked member."""
        try:
            self._table.authenticate(request.headers.get("Authorization"), "GET", request.raw_path)
        except PeerError as error:
            refusals.tell(log, "data request refused", request, error)
            return web.json_response({"code": error.error_code}, status=401)
        return web.Response(body=msgspec.json.encode(PingBody(int(time.time() * 1000), __version__)), content_type="application/json")
