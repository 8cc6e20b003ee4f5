"""Who asks: over the Unix socket whoever the system says is at its other end, over TCP the bearer of the root token, of a token or of a session of this node."""

from __future__ import annotations

import hmac
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from functools import lru_cache
from pathlib import Path

from aiohttp import web

from replicad.errors import NotAllowedError, UnauthorizedError
from replicad.model.callers import AccessRole, Caller
from replicad.server.admin import cookies
from replicad.server.admin.trace import Via, trace
from replicad.services.identity.sessions import MARK as SESSION_MARK
from replicad.services.identity.sessions import Sessions
from replicad.services.tokens import Tokens

SOCKET = "socket"
BEARER = "Bearer "
PASSWD = Path("/etc/passwd")
_CREDENTIALS = struct.Struct("3i")
"""struct ucred of unix(7): process, user, group."""
_SO_PEERGROUPS = 59
_GROUPS = struct.Struct("=256I")
"""The most that Python asks the kernel for; whoever is in more groups is known by the primary one only."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Identify = Callable[[web.Request], Awaitable[Caller]]


def over_socket() -> Identify:
    """Root, the daemon's own user and the members of the socket's group are admins: as its mode says already, and as the kernel says of who connected. NotAllowedError for others."""

    async def identify(request: web.Request) -> Caller:
        trace(request).via = Via.SOCKET
        found = None if request.transport is None else request.transport.get_extra_info("socket")
        if found is None:
            raise UnauthorizedError("the connection is gone")
        _, user, group = _CREDENTIALS.unpack(found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        name = f"socket uid {user}{_login_name(user)}"
        if user not in {0, os.geteuid()} and _group_of(found) not in {group, *_groups(found)}:
            raise NotAllowedError(f"{name} is neither root nor a member of the socket's group")
        return Caller(name, AccessRole.ADMIN)

    return identify


def _group_of(found: socket.socket) -> int:
    """The group to which the socket's file belongs."""
    return Path(found.getsockname()).stat().st_gid


def _groups(found: socket.socket) -> tuple[int, ...]:
    """The other groups of the process that connected, at that time."""
    try:
        given = found.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS.size)
    except OSError:
        return ()
    return struct.unpack(f"={len(given) // 4}I", given)


@lru_cache(maxsize=64)
def _login_name(user: int) -> str:
    """`` (name)`` from the local file alone: a directory might not answer. Empty if it is not there."""
    try:
        lines = PASSWD.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((f" ({fields[0]})" for line in lines if len(fields := line.split(":")) > 2 and fields[2] == str(user)), "")


def over_tcp(root: str, tokens: Tokens, sessions: Sessions) -> Identify:
    """``root``: the text of admin.token, compared in constant time. A browser's cookie counts where no bearer is given. UnauthorizedError."""
    expected = root.encode()

    async def identify(request: web.Request) -> Caller:
        known = trace(request)
        given = request.headers.get("Authorization", "")
        text = given.removeprefix(BEARER)
        known.via = Via.TOKEN
        if text == given:
            text, known.via = cookies.session_of(request) or "", Via.COOKIE
        if not text:
            raise UnauthorizedError(
                "this listener needs a bearer token: one of `replicad token create`, or that of the file admin.token in the data directory; or a login",
                hint="replicad login URL, or set REPLICAD_TOKEN",
            )
        if known.via is Via.COOKIE or text.startswith(SESSION_MARK):
            known.via = known.via if known.via is Via.COOKIE else Via.SESSION
            known.session, known.session_text = await sessions.identify(text), text
            return known.session.account.caller
        if hmac.compare_digest(text.encode(errors="surrogateescape"), expected):
            known.via = Via.ROOT_TOKEN
            return Caller("root token", AccessRole.ADMIN)
        return await tokens.identify(text)

    return identify


def origin(request: web.Request) -> str:
    """From where: the address, or ``socket``."""
    return request.remote or SOCKET
