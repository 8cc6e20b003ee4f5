"""``ETag`` and ``If-Match``: who changes what somebody else has changed meanwhile is told so (RFC 9110 section 13.1.1)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from replicad.crypto.hashing import sha256
from replicad.errors import ConflictError
from replicad.server.admin.routes import Call

HEADER = "If-Match"
TAG_PATTERN = r'^(\*|"[0-9a-f]{32}")$'
TAG_CHARS = 32


class StaleError(ConflictError):
    """It is not any more what the caller has seen."""

    code = "stale"
    http_status = 412


async def tag(state: Callable[[Call[Any]], Awaitable[msgspec.Struct]], call: Call[Any]) -> str:
    """The entity tag of what can be edited."""
    return f'"{str(sha256(msgspec.json.encode(await state(call))))[:TAG_CHARS]}"'


def check(request: web.Request, current: str) -> None:
    """StaleError if the request names other states than the current one."""
    given = request.headers.get(HEADER)
    if given is not None and given.strip() != "*" and current not in [one.strip() for one in given.split(",")]:
        raise StaleError(f"{request.path} was changed meanwhile: it is {current} now, not {given[:80]}", hint="read it again, then decide")
