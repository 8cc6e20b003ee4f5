"""What is known about a request while it is worked on: who asks and how, under which id, and what becomes of it. For the audit log, ``X-Request-Id`` and the cookie of a session."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from aiohttp import web

from replicad.model.callers import Caller

if TYPE_CHECKING:
    from replicad.catalog import Session

REQUEST_ID = "X-Request-Id"
_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Via(StrEnum):
    """What a caller is known by."""

    SOCKET = "socket"
    ROOT_TOKEN = "root-token"  # noqa: S105 - a word
    TOKEN = "token"  # noqa: S105 - a word
    SESSION = "session"
    COOKIE = "cookie"
    """A session, too, but borne by a browser: whatever page the person looks at can make it ask."""


@dataclass(slots=True)
class Trace:
    """``session`` and ``session_text``: the one that the request bears. ``writes``: its route may change something; ``detail``: what it says besides its path; ``code``: of the problem it was answered with.
    ``cookie``: the session that the browser bears from now on, empty: none; None: as before.
    """

    request_id: str
    caller: Caller | None = None
    via: Via | None = None
    session: Session | None = None
    session_text: str = ""
    cookie: str | None = None
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
