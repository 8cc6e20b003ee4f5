"""Logging in and out, and who asks."""

from __future__ import annotations

from aiohttp import web

from replicad.errors import NotFoundError
from replicad.model.callers import Caller, Source
from replicad.server.admin import bodies, cookies, nouns, people
from replicad.server.admin.identity import origin
from replicad.server.admin.routes import Call
from replicad.server.admin.trace import Trace, Via, trace
from replicad.services.identity import Opened
from replicad.services.identity.sessions import csrf_of, ends_ms


async def whoami(call: Call[bodies.Nothing]) -> nouns.Whoami:
    """GET /whoami."""
    return _who(call.caller, trace(call.request))


async def login(call: Call[people.Login]) -> nouns.LoggedIn:
    """POST /sessions. UnauthorizedError("wrong-login"), UnauthorizedError("code-needed") if only the code of the second factor is missing, BusyError("too-many-guesses"): its ``Retry-After`` says when to
    come back. NotAllowedError("csrf") if a page from elsewhere asks. UnreachableError if the name is not one of this node and a directory does not answer.
    """
    cookies.check_origin(call.request)
    asked = call.asked
    opened = await call.services.logins.login(asked.name, asked.password, code=asked.code, address=origin(call.request))
    return bear(call.request, opened, in_cookie=asked.cookie)


def bear(request: web.Request, opened: Opened, *, in_cookie: bool) -> nouns.LoggedIn:
    """What a session that has just begun is answered with: its text, or a cookie."""
    known = trace(request)
    known.caller, known.session, known.session_text = opened.session.account.caller, opened.session, opened.text
    known.via = Via.COOKIE if in_cookie else Via.SESSION
    known.cookie = opened.text if in_cookie else None
    return nouns.LoggedIn(_who(known.caller, known), None if in_cookie else opened.text)


async def logout(call: Call[bodies.Nothing]) -> nouns.Whoami:
    """DELETE /sessions/current: the session that asks is refused from now on. NotFoundError("no-session") for who asks without one."""
    known = trace(call.request)
    if known.session is None:
        raise NotFoundError("this request bears no session", code="no-session")
    await call.services.sessions.end(known.session_text)
    known.cookie = "" if known.via is Via.COOKIE else None
    return _who(call.caller, known)


def local_user(known: Trace) -> str | None:
    """Which user of this node asks; None if it is none, or bears no session."""
    account = None if known.session is None else known.session.account
    return account.name if account is not None and account.source is Source.LOCAL else None


def _who(caller: Caller, known: Trace) -> nouns.Whoami:
    return nouns.Whoami(
        name=caller.name,
        role=caller.role,
        shares=None if caller.shares is None else sorted(caller.shares),
        path=caller.path,
        via=known.via or "",
        user=local_user(known),
        expires=None if known.session is None else nouns.date(ends_ms(known.session)),
        csrf=csrf_of(known.session_text) if known.via is Via.COOKIE else None,
    )
