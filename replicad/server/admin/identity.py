"""Who asks: over the Unix socket whoever its mode lets in, over TCP the bearer of the root token or of a token of this node."""

from __future__ import annotations

import hmac
import socket
import struct
from collections.abc import Awaitable, Callable

from aiohttp import web

from replicad.errors import UnauthorizedError
from replicad.model.callers import AccessRole, Caller
from replicad.services.tokens import Tokens

SOCKET = "socket"
BEARER = "Bearer "
_CREDENTIALS = struct.Struct("3i")
"""struct ucred of unix(7): process, user, group."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Identify = Callable[[web.Request], Awaitable[Caller]]


def over_socket() -> Identify:
    """Trusted because of the socket's mode; the caller's name is its user number. A name could come from a directory that does not answer."""

    async def identify(request: web.Request) -> Caller:
        found = None if request.transport is None else request.transport.get_extra_info("socket")
        if found is None:
            return Caller("socket", AccessRole.ADMIN)
        _, user, _ = _CREDENTIALS.unpack(found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        return Caller(f"uid {user}", AccessRole.ADMIN)

    return identify


def over_tcp(root: str, tokens: Tokens) -> Identify:
    """``root``: the text of admin.token, compared in constant time. UnauthorizedError."""
    expected = root.encode()

    async def identify(request: web.Request) -> Caller:
        given = request.headers.get("Authorization", "")
        text = given.removeprefix(BEARER)
        if text == given:
            raise UnauthorizedError(
                "this listener needs a bearer token: one of `replicad token create`, or that of the file admin.token in the data directory",
                hint="set REPLICAD_TOKEN to it",
            )
        if hmac.compare_digest(text.encode(errors="surrogateescape"), expected):
            return Caller("root token", AccessRole.ADMIN)
        return await tokens.identify(text)

    return identify


def origin(request: web.Request) -> str:
    """From where: the address, or ``socket``."""
    return request.remote or SOCKET
