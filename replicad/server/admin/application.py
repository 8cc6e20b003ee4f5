"""The admin application: the table of routes, and what happens around each.

Two applications are made of it: one for the Unix socket, trusted because of the socket's mode, one for TCP, where every call of the API needs a bearer token. What may be asked by whom stands in
the table; what is wrong is answered as an RFC 9457 problem document; what is written is written down.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from http import HTTPStatus
from typing import Any, TypedDict

import msgspec
from aiohttp import HttpVersion11, web

from replicad.errors import UnauthorizedError
from replicad.model.callers import AccessRole, Caller
from replicad.server.admin import (
    actions,
    audit,
    authority,
    backup,
    bodies,
    content,
    cookies,
    curation,
    editing,
    entries,
    limits,
    matrix,
    members,
    metrics,
    munki,
    oidc,
    openapi,
    people,
    problems,
    queries,
    repeating,
    sessions,
    shares,
    status,
    storage,
    tokens,
    ui,
    uploads,
    users,
    waiting,
)
from replicad.server.admin.identity import Handler, Identify, over_socket, over_tcp
from replicad.server.admin.routes import MANY_BYTES_MAX, PREFIX, Call, Route
from replicad.server.admin.services import Services
from replicad.server.admin.trace import Via, show_id, trace
from replicad.server.bad_requests import BadRequestLog

CREATED, NO_CONTENT = HTTPStatus.CREATED, HTTPStatus.NO_CONTENT
VIEWER, PUBLISHER, OPERATOR, ADMIN = AccessRole.VIEWER, AccessRole.PUBLISHER, AccessRole.OPERATOR, AccessRole.ADMIN

METRICS = Route("GET", "/metrics", metrics.exposition, bodies.Nothing, role=VIEWER)
"""Where Prometheus looks for it: not part of the API."""
ROUTES: tuple[Route[Any], ...] = (
    Route("GET", "/status", status.status, bodies.Nothing, role=VIEWER),
    Route("GET", "/node", status.node, bodies.Nothing, role=VIEWER, scoped=True),
    Route("POST", "/node/rotate", status.rotate, bodies.Rotate, role=ADMIN),
    Route("GET", "/doctor", status.doctor, bodies.Nothing, role=VIEWER),
    Route("GET", "/openapi.json", openapi.document, bodies.Nothing, role=VIEWER, scoped=True),
    Route("GET", "/whoami", sessions.whoami, bodies.Nothing, role=VIEWER, scoped=True),
    Route("POST", "/sessions", sessions.login, people.Login, role=VIEWER, scoped=True, open=True),
    Route("DELETE", "/sessions/current", sessions.logout, bodies.Nothing, role=VIEWER, scoped=True),
    Route("GET", "/users", users.list_, queries.PageQuery, role=ADMIN),
    Route("POST", "/users", users.add, people.NewUser, role=ADMIN),
    Route("GET", "/users/{user}", users.show, bodies.Nothing, role=ADMIN, state=users.show),
    Route("PATCH", "/users/{user}", users.change, people.UserChange, role=ADMIN, state=users.show),
    Route("DELETE", "/users/{user}", users.remove, bodies.Nothing, role=ADMIN, state=users.show),
    Route("PUT", "/users/{user}/password", users.set_password, people.NewPassword, role=VIEWER, scoped=True),
    Route("POST", "/users/{user}/totp", users.offer_totp, bodies.Nothing, role=VIEWER, scoped=True),
    Route("PUT", "/users/{user}/totp", users.confirm_totp, people.TotpCode, role=VIEWER, scoped=True),
    Route("DELETE", "/users/{user}/totp", users.drop_totp, bodies.Nothing, role=ADMIN),
    Route("GET", "/tokens", tokens.list_, queries.PageQuery, role=ADMIN),
    Route("POST", "/tokens", tokens.create, bodies.NewToken, role=ADMIN),
    Route("DELETE", "/tokens/{token}", tokens.revoke, bodies.Nothing, role=ADMIN),
    Route("GET", "/members", members.list_, queries.PageQuery, role=VIEWER),
    Route("POST", "/members/join", members.join, bodies.Join, role=ADMIN),
    Route("GET", "/members/{id}", members.show, bodies.Nothing, role=VIEWER, state=members.rights),
    Route("PATCH", "/members/{id}", members.change, bodies.MemberChange, role=ADMIN, state=members.rights),
    Route("DELETE", "/members/{id}", members.remove, bodies.Nothing, role=ADMIN, state=members.rights),
    Route("POST", "/members/{id}/approve", members.approve, bodies.MemberChange, role=ADMIN),
    Route("POST", "/members/{id}/revoke", members.revoke, bodies.Revoke, role=ADMIN),
    Route("POST", "/members/{id}/check", members.check, bodies.Nothing, role=OPERATOR, changes=False),
    Route("PUT", "/members/{id}/limit", limits.limit_peer, bodies.PeerLimit, role=OPERATOR),
    Route("POST", "/members/{id}/pause", limits.pause_peer, bodies.Nothing, role=OPERATOR),
    Route("POST", "/members/{id}/resume", limits.resume_peer, bodies.Nothing, role=OPERATOR),
    Route("GET", "/limits", limits.show, bodies.Nothing, role=VIEWER),
    Route("PATCH", "/limits", limits.change, bodies.LimitsChange, role=OPERATOR),
    Route("GET", "/config", status.configuration, bodies.Nothing, role=OPERATOR),
    Route("POST", "/reload", limits.reload, bodies.Nothing, role=OPERATOR),
    Route("POST", "/invites", members.invite, bodies.Invite, role=ADMIN),
    Route("GET", "/audit", audit.audit, queries.AuditQuery, role=VIEWER),
    Route("GET", "/audit/log", audit.log, queries.ActionsQuery, role=ADMIN),
    Route("GET", "/audit/verify", audit.verify, bodies.Nothing, role=ADMIN),
    Route("GET", "/shares", shares.list_, queries.PageQuery, role=VIEWER, scoped=True),
    Route("POST", "/shares", shares.create, bodies.NewShare, role=ADMIN),
    Route("GET", "/shares/{share}", shares.show, bodies.Nothing, role=VIEWER, scoped=True, state=shares.show),
    Route("PATCH", "/shares/{share}", shares.change, bodies.ShareChange, role=ADMIN, state=shares.show),
    Route("DELETE", "/shares/{share}", shares.remove, queries.RemoveShareQuery, role=ADMIN, state=shares.show),
    Route("POST", "/shares/{share}/tokens", shares.create_token, bodies.NewShareToken, role=ADMIN),
    Route("DELETE", "/shares/{share}/tokens/{name}", shares.revoke_token, bodies.Nothing, role=ADMIN),
    Route("POST", "/shares/{share}/urls", shares.sign_url, bodies.SignUrl, role=PUBLISHER),
    Route("GET", "/munki", munki.status, queries.MunkiQuery, role=VIEWER),
    Route("GET", "/entries", entries.list_, queries.EntriesQuery, role=VIEWER, scoped=True),
    Route("POST", "/shares/{share}/entries", entries.publish, bodies.Publish, body_bytes_max=MANY_BYTES_MAX, role=PUBLISHER),
    Route("GET", "/shares/{share}/entries/{path:.+}", entries.show, bodies.Nothing, role=VIEWER),
    Route("PUT", "/blobs", content.put, queries.BlobsQuery, raw=True, role=PUBLISHER, scoped=True, headers=(content.REPR_DIGEST,)),
    Route("POST", "/blobs", content.put_many, queries.BlobsQuery, raw=True, role=PUBLISHER, scoped=True),
    Route("PUT", "/shares/{share}/files/{path:.+}", content.put_file, queries.PutFileQuery, raw=True, role=PUBLISHER, headers=content.PUT_HEADERS),
    Route("GET", "/shares/{share}/files/{path:.+}", content.get_file, queries.GetFileQuery, role=VIEWER),
    Route("OPTIONS", "/uploads", uploads.abilities, bodies.Nothing, role=VIEWER, scoped=True, changes=False, answers=NO_CONTENT),
    Route("POST", "/uploads", uploads.begin, bodies.Nothing, raw=True, role=PUBLISHER, scoped=True, headers=uploads.BEGIN_HEADERS, answers=CREATED),
    Route("HEAD", "/uploads/{upload}", uploads.progress, bodies.Nothing, role=PUBLISHER, scoped=True, changes=False, headers=uploads.HEADERS),
    Route(
        "PATCH", "/uploads/{upload}", uploads.append, bodies.Nothing, raw=True, role=PUBLISHER, scoped=True, headers=uploads.APPEND_HEADERS, answers=NO_CONTENT
    ),
    Route("DELETE", "/uploads/{upload}", uploads.end, bodies.Nothing, role=PUBLISHER, scoped=True, headers=uploads.HEADERS, answers=NO_CONTENT),
    Route("POST", "/shares/{share}/promote", curation.promote, bodies.Promote, role=PUBLISHER),
    Route("POST", "/shares/{share}/remove", curation.remove, bodies.Remove, body_bytes_max=MANY_BYTES_MAX, role=PUBLISHER),
    Route("POST", "/shares/{share}/undelete", curation.undelete, bodies.Undelete, role=PUBLISHER),
    Route("POST", "/shares/{share}/rollback", curation.rollback, bodies.Rollback, role=PUBLISHER),
    Route("GET", "/shares/{share}/history/{path:.+}", curation.history, queries.PageQuery, role=VIEWER),
    Route("GET", "/takedowns", curation.takedowns, queries.PageQuery, role=VIEWER),
    Route("PUT", "/takedowns/{sha256}", curation.take_down, bodies.TakeDown, role=ADMIN),
    Route("DELETE", "/takedowns/{sha256}", curation.lift, bodies.Nothing, role=ADMIN),
    Route("GET", "/matrix", matrix.matrix, queries.MatrixQuery, role=VIEWER, scoped=True),
    Route("GET", "/transfers", matrix.transfers, bodies.Nothing, role=VIEWER, scoped=True),
    Route("GET", "/store/usage", storage.usage, bodies.Nothing, role=VIEWER),
    Route("POST", "/store/scrub", storage.scrub, bodies.Scrub, role=OPERATOR),
    Route("POST", "/store/gc", storage.collect, bodies.Collect, role=OPERATOR),
    Route("POST", "/store/repair", storage.repair, bodies.Nothing, role=OPERATOR),
    Route("GET", "/backup", backup.create, bodies.Nothing, role=ADMIN, changes=True),
    Route("POST", "/wait", waiting.wait, bodies.Wait, body_bytes_max=MANY_BYTES_MAX, role=VIEWER, scoped=True, changes=False),
)


class RunnerOptions(TypedDict):
    """Keyword arguments of ``aiohttp.web.AppRunner`` for this door."""

    access_log: None
    keepalive_timeout: float
    shutdown_timeout: float
    auto_decompress: bool
    logger: BadRequestLog
    max_line_size: int


IDLE_S = 75.0
"""A connection that sends no whole head for so long is closed: the first one after connecting, too. nginx's keepalive_timeout."""
LINE_BYTES_MAX = 32 * 1024
"""Of a request: a path and a prefix of the greatest length, percent-encoded, and a cursor, so that whatever is too long is told by its name."""
RUNNER: RunnerOptions = {
    "access_log": None,
    "keepalive_timeout": IDLE_S,
    "shutdown_timeout": 3.0,
    "auto_decompress": False,
    "logger": BadRequestLog(),
    "max_line_size": LINE_BYTES_MAX,
}


def make(services: Services, *, token: str | None) -> web.Application:
    """The application; run it with ``web.AppRunner(application, **RUNNER)``. ``token`` None: the listener is trusted (the Unix socket); otherwise every call of the API must bear it, or one of ``services.tokens``, or a session."""
    identify = over_socket() if token is None else over_tcp(token, services.tokens, services.sessions)
    application = web.Application(middlewares=[actions.Recorder(services).middleware(), problems.as_documents, _identified(identify)])
    application.on_response_prepare.extend([show_id, uploads.show_version])
    application[openapi.DOCUMENT] = document
    application[waiting.WAITS] = asyncio.Semaphore(waiting.WAITS_MAX)
    answers, edits = repeating.Answers(services.monotonic_ms), asyncio.Lock()
    for route in ROUTES:
        application.router.add_route(route.method, PREFIX + route.path, _handler(route, services, answers=answers, edits=edits), expect_handler=_go_on)
    application.router.add_route(METRICS.method, METRICS.path, _handler(METRICS, services, answers=answers, edits=edits))
    application.router.add_routes([*ui.routes(), *oidc.routes(services)])
    return application


async def _go_on(request: web.Request) -> None:
    """Ask for the body of whoever waits for that; anything else that is expected may be ignored (RFC 9110, section 10.1.1)."""
    if request.version >= HttpVersion11 and request.headers["Expect"].lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # that was no part of the answer


def document() -> msgspec.Raw:
    """What the API says about itself; docs/openapi.json is a copy (``make openapi``)."""
    return msgspec.Raw(openapi.describe(ROUTES, server=PREFIX))


_OPEN = {(route.method, PREFIX + route.path) for route in ROUTES if route.open}
_NOBODY = Caller("", VIEWER)
"""Who asks an open route, until it says who it is."""


def _identified(identify: Identify) -> Any:
    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        """The page at /ui/ holds nothing and is open: it asks with the token that the person gives it. Below /oidc/ are logins."""
        if not request.path.startswith(("/ui/", "/oidc/")) and (request.method, request.path) not in _OPEN:
            trace(request).caller = await identify(request)
        return await handler(request)

    return check


def _handler(route: Route[Any], services: Services, *, answers: repeating.Answers, edits: asyncio.Lock) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        known = trace(request)
        caller, known.writes = known.caller, route.writes
        if known.via is Via.COOKIE:
            cookies.check(request)
        if caller is None and route.open:
            caller = _NOBODY
        if caller is None:
            raise UnauthorizedError("nobody is known to ask")
        authority.check_role(route, caller)
        call = Call(services, request, await route.decode(request), caller)
        known.detail = actions.describe(call) if route.writes else ""
        authority.check_limits(route, call)
        work = functools.partial(_answer, route, call, edits)
        if route.repeatable and (key := repeating.given_key(request)) is not None:
            return await answers.once((caller.name, key), repeating.fingerprint(call), work)
        response = await work()
        cookies.put(request, response)
        return response

    return handle


async def _answer(route: Route[Any], call: Call[Any], edits: asyncio.Lock) -> web.StreamResponse:
    """What the handler answers. Writes of what has a state go one after the other, so that it is still what If-Match says when it is changed."""
    headers = {"Cache-Control": "no-store"}
    async with edits if route.state and route.writes else contextlib.nullcontext():
        if route.state and route.writes:
            editing.check(call.request, await editing.tag(route.state, call))
        answer = await route.handler(call)
        if route.state and route.method != "DELETE":
            headers["ETag"] = await editing.tag(route.state, call)
    response = (
        answer if isinstance(answer, web.StreamResponse) else web.Response(body=msgspec.json.encode(answer), content_type="application/json", headers=headers)
    )
    if problems.went_past(call.request):
        response.force_close()
    return response
