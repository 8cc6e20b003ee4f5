"""The admin application: the table of routes, who may use it, and what becomes of errors.

Two applications are made of it: one for the Unix socket, trusted because of the socket's mode, one for TCP, where every call of the API needs the bearer token. What is wrong is answered as an
RFC 9457 problem document with a stable code. A request whose body was not read to its end loses its connection.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, TypedDict

import msgspec
from aiohttp import web

from replicad.errors import NotFoundError, ReplicadError
from replicad.server.admin import audit, bodies, content, curation, entries, limits, matrix, members, munki, shares, status, storage, ui, waiting
from replicad.server.admin.nouns import Problem
from replicad.server.admin.routes import MANY_BYTES_MAX, Call, Route
from replicad.server.admin.services import Services
from replicad.server.bad_requests import BadRequestLog
from replicad.telemetry.log import get

log = get(__name__)

PREFIX = "/api/v1"
PROBLEM = "application/problem+json"

ROUTES: tuple[Route[Any], ...] = (
    Route("GET", "/status", status.status, bodies.Nothing),
    Route("GET", "/node", status.node, bodies.Nothing),
    Route("POST", "/node/rotate", status.rotate, bodies.Rotate),
    Route("GET", "/doctor", status.doctor, bodies.Nothing),
    Route("GET", "/members", members.list_, bodies.Nothing),
    Route("POST", "/members/join", members.join, bodies.Join),
    Route("GET", "/members/{id}", members.show, bodies.Nothing),
    Route("PATCH", "/members/{id}", members.change, bodies.MemberChange),
    Route("DELETE", "/members/{id}", members.remove, bodies.Nothing),
    Route("POST", "/members/{id}/approve", members.approve, bodies.MemberChange),
    Route("POST", "/members/{id}/revoke", members.revoke, bodies.Revoke),
    Route("POST", "/members/{id}/check", members.check, bodies.Nothing),
    Route("PUT", "/members/{id}/limit", limits.limit_peer, bodies.PeerLimit),
    Route("POST", "/members/{id}/pause", limits.pause_peer, bodies.Nothing),
    Route("POST", "/members/{id}/resume", limits.resume_peer, bodies.Nothing),
    Route("GET", "/limits", limits.show, bodies.Nothing),
    Route("PATCH", "/limits", limits.change, bodies.LimitsChange),
    Route("POST", "/reload", limits.reload, bodies.Nothing),
    Route("POST", "/invites", members.invite, bodies.Invite),
    Route("GET", "/audit", audit.audit, bodies.AuditQuery),
    Route("GET", "/shares", shares.list_, bodies.Nothing),
    Route("POST", "/shares", shares.create, bodies.NewShare),
    Route("GET", "/shares/{share}", shares.show, bodies.Nothing),
    Route("PATCH", "/shares/{share}", shares.change, bodies.ShareChange),
    Route("POST", "/shares/{share}/tokens", shares.create_token, bodies.NewShareToken),
    Route("DELETE", "/shares/{share}/tokens/{name}", shares.revoke_token, bodies.Nothing),
    Route("POST", "/shares/{share}/urls", shares.sign_url, bodies.SignUrl),
    Route("GET", "/munki", munki.status, bodies.MunkiQuery),
    Route("GET", "/entries", entries.list_, bodies.EntriesQuery),
    Route("POST", "/shares/{share}/entries", entries.publish, bodies.Publish, body_bytes_max=MANY_BYTES_MAX),
    Route("GET", "/shares/{share}/entries/{path:.+}", entries.show, bodies.Nothing),
    Route("PUT", "/blobs", content.put, bodies.Nothing, raw=True),
    Route("POST", "/blobs", content.put_many, bodies.Nothing, raw=True),
    Route("PUT", "/shares/{share}/files/{path:.+}", content.put_file, bodies.PutFileQuery, raw=True),
    Route("GET", "/shares/{share}/files/{path:.+}", content.get_file, bodies.GetFileQuery),
    Route("POST", "/shares/{share}/promote", curation.promote, bodies.Promote),
    Route("POST", "/shares/{share}/remove", curation.remove, bodies.Remove, body_bytes_max=MANY_BYTES_MAX),
    Route("POST", "/shares/{share}/undelete", curation.undelete, bodies.Undelete),
    Route("POST", "/shares/{share}/rollback", curation.rollback, bodies.Rollback),
    Route("GET", "/shares/{share}/history/{path:.+}", curation.history, bodies.HistoryQuery),
    Route("GET", "/takedowns", curation.takedowns, bodies.Nothing),
    Route("PUT", "/takedowns/{sha256}", curation.take_down, bodies.TakeDown),
    Route("DELETE", "/takedowns/{sha256}", curation.lift, bodies.Nothing),
    Route("GET", "/matrix", matrix.matrix, bodies.MatrixQuery),
    Route("GET", "/transfers", matrix.transfers, bodies.Nothing),
    Route("GET", "/store/usage", storage.usage, bodies.Nothing),
    Route("POST", "/store/scrub", storage.scrub, bodies.Scrub),
    Route("POST", "/store/gc", storage.collect, bodies.Collect),
    Route("POST", "/store/repair", storage.repair, bodies.Nothing),
    Route("POST", "/wait", waiting.wait, bodies.Wait, body_bytes_max=MANY_BYTES_MAX),
)


class RunnerOptions(TypedDict):
    """Keyword arguments of ``aiohttp.web.AppRunner`` for this door."""

    access_log: None
    keepalive_timeout: float
    shutdown_timeout: float
    auto_decompress: bool
    logger: BadRequestLog


IDLE_S = 75.0
"""A connection that sends no whole head for so long is closed: the first one after connecting, too. nginx's keepalive_timeout."""
RUNNER: RunnerOptions = {"access_log": None, "keepalive_timeout": IDLE_S, "shutdown_timeout": 3.0, "auto_decompress": False, "logger": BadRequestLog()}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make(services: Services, *, token: str | None) -> web.Application:
    """The application; run it with ``web.AppRunner(application, **RUNNER)``. ``token`` None: the listener is trusted (the Unix socket); otherwise every call of the API must bear it."""
    application = web.Application(middlewares=[_errors, *([_bearer(token)] if token is not None else [])])
    application[waiting.WAITS] = asyncio.Semaphore(waiting.WAITS_MAX)
    for route in ROUTES:
        application.router.add_route(route.method, PREFIX + route.path, _handler(route, services))
    application.router.add_routes(ui.routes())
    return application


def _handler(route: Route[Any], services: Services) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        answer = await route.handler(Call(services, request, await route.decode(request)))
        if isinstance(answer, web.StreamResponse):
            return answer
        response = web.Response(body=msgspec.json.encode(answer), content_type="application/json", headers={"Cache-Control": "no-store"})
        if (request.content_length or 0) > request.content.total_bytes:
            response.force_close()  # the body went past the library's parser (see content), which still waits for it
        return response

    return handle


def _bearer(token: str) -> Any:
    expected = f"Bearer {token}".encode()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Compares in constant time. The page at /ui/ holds nothing and is open: it asks with the token that the person gives it."""
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        if request.path.startswith("/ui/") or hmac.compare_digest(given, expected):
            return await handler(request)
        detail = "this listener needs the bearer token of the file admin.token in the data directory"
        problem = Problem(HTTPStatus.UNAUTHORIZED, "Unauthorized", "unauthorized", detail, "set REPLICAD_TOKEN to it")
        response = _response(request, problem)
        response.headers["WWW-Authenticate"] = 'Bearer realm="replicad"'
        return response

    return check


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ReplicadError as error:
        return _response(request, _problem(error))
    except web.HTTPNotFound:
        return _response(request, _problem(NotFoundError(f"there is no {request.path} here")))
    except web.HTTPMethodNotAllowed as error:
        problem = Problem(
            error.status, error.reason, "method", f"{request.path} does not take {request.method}, only {', '.join(sorted(error.allowed_methods))}"
        )
        response = _response(request, problem)
        response.headers["Allow"] = error.headers["Allow"]
        return response
    except web.HTTPException:
        raise
    except ConnectionError:
        return _gone(request)
    except Exception:
        log.exception("admin request failed", method=request.method, path=request.path)
        return _response(request, Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal Server Error", "internal", "the daemon failed; its log says why"))


def _gone(request: web.Request) -> web.Response:
    """The client went away, or must be told by a broken connection that its answer is not whole: nothing more is sent."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=HTTPStatus.BAD_REQUEST)


def _problem(error: ReplicadError) -> Problem:
    return Problem(error.http_status, HTTPStatus(error.http_status).phrase, error.error_code, error.message, error.hint)


def _response(request: web.Request, problem: Problem) -> web.Response:
    """The document. What is left of the request is read and dropped for a few seconds, so that the client gets to read it."""
    response = web.Response(body=msgspec.json.encode(problem), status=problem.status, content_type=PROBLEM)
    if not request.content.is_eof():
        response.force_close()
    return response
