"""``POST /peer/v1/join``: a node that is no member yet asks to become one. Open to everybody, hence small, bounded and slow to anger."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from replicad.errors import PeerError, ReplicadError
from replicad.net.dialer import JOIN_PATH
from replicad.protocol.wire import JOIN_BYTES_MAX
from replicad.server.peers import refusals
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = get(__name__)


JOINS_AT_ONCE = 16
BODY_TIMEOUT_S = 10.0


class JoinDoor:
    """``answer`` takes a request body and returns the answer's, or raises what the asker is told."""

    def __init__(self, answer: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._answer = answer
        self._at_once = 0

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [web.post(JOIN_PATH, self.join)]

    async def join(self, request: web.Request) -> web.Response:
        """Read the bounded body within its time, and answer or say why not."""
        if self._at_once >= JOINS_AT_ONCE:
            return _problem(429, "busy", "too many nodes are joining through this member at this moment; try again")
        self._at_once += 1
        try:
            return web.Response(body=await self._answer(await _body(request)), content_type="application/msgpack")
        except TimeoutError:
            return _problem(408, "slow", f"the request did not arrive within {BODY_TIMEOUT_S:.0f} s")
        except ReplicadError as error:
            refusals.tell(log, "join request refused", request, error)
            return _problem(400 if isinstance(error, PeerError) else error.http_status, error.error_code, error.message, error.hint)
        finally:
            self._at_once -= 1


async def _body(request: web.Request) -> bytes:
    if (request.content_length or 0) > JOIN_BYTES_MAX:
        raise PeerError(f"join request of {request.content_length} bytes (at most {JOIN_BYTES_MAX})", code="bad-join")
    body = bytearray()
    async with asyncio.timeout(BODY_TIMEOUT_S):
        while part := await request.content.readany():
            body += part
            if len(body) > JOIN_BYTES_MAX:
                raise PeerError(f"join request of more than {JOIN_BYTES_MAX} bytes", code="bad-join")
    return bytes(body)


def _problem(status: int, code: str, message: str, hint: str = "") -> web.Response:
    """RFC 9457, as on the admin door."""
    body = msgspec.json.encode({"type": "about:blank", "status": status, "title": message, "code": code, "hint": hint})
    return web.Response(status=status, body=body, content_type="application/problem+json")
