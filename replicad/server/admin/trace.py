"""What is known about a request while it is worked on: who asks, under which id, and what becomes of it. For the audit log and for ``X-Request-Id``."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from aiohttp import web

from replicad.model.callers import Caller

REQUEST_ID = "X-Request-Id"
_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(slots=True)
class Trace:
    """``writes``: its route may change something; ``detail``: what it says besides its path; ``code``: of the problem it was answered with."""

    request_id: str
    caller: Caller | None = None
    writes: bool = False
    detail: str = ""
    code: str = ""


_TRACE: web.RequestKey[Trace] = web.RequestKey("trace", Trace)


def trace(request: web.Request) -> Trace:
    """The one of this request. Its id is what the client gave (1 to 64 letters, digits, dots, dashes), else a new one."""
    if _TRACE not in request:
        given = request.headers.get(REQUEST_ID, "")
        request[_TRACE] = Trace(given if _GIVEN_ID.fullmatch(given) else secrets.token_hex(8))
    return request[_TRACE]


async def show_id(request: web.Request, response: web.StreamResponse) -> None:
    """Every answer carries the id of its request. For ``on_response_prepare``."""
    response.headers[REQUEST_ID] = trace(request).request_id
