"""What becomes of errors: RFC 9457 problem documents with a stable code. A request whose body was not read to its end loses its connection."""

from __future__ import annotations

import math
from http import HTTPStatus

import msgspec
from aiohttp import web

from replicad.errors import BusyError, ChecksumError, NotFoundError, ReplicadError, UnauthorizedError
from replicad.server.admin.identity import Handler
from replicad.server.admin.nouns import Problem
from replicad.server.admin.trace import trace
from replicad.telemetry.log import get

log = get(__name__)

CONTENT_TYPE = "application/problem+json"
_PHRASES = {ChecksumError.http_status: "Checksum Mismatch"}
"""Of statuses that HTTP itself does not know: that one is tus's."""


@web.middleware
async def as_documents(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers whatever is raised below."""
    try:
        return await handler(request)
    except ReplicadError as error:
        return _answer(request, error)
    except web.HTTPNotFound:
        return response(request, problem(NotFoundError(f"there is no {request.path} here")))
    except web.HTTPMethodNotAllowed as error:
        detail = f"{request.path} does not take {request.method}, only {', '.join(sorted(error.allowed_methods))}"
        answer = response(request, Problem(error.status, error.reason, "method", detail))
        answer.headers["Allow"] = error.headers["Allow"]
        return answer
    except web.HTTPException:
        raise
    except ConnectionError:
        return _gone(request)
    except Exception:
        log.exception("admin request failed", method=request.method, path=request.path, request=trace(request).request_id)
        return response(request, Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal Server Error", "internal", "the daemon failed; its log says why"))


def _answer(request: web.Request, error: ReplicadError) -> web.Response:
    answer = response(request, problem(error))
    if isinstance(error, BusyError) and error.retry_s:
        answer.headers["Retry-After"] = str(math.ceil(error.retry_s))
    return answer


def problem(error: ReplicadError) -> Problem:
    """The document of an error."""
    return Problem(error.http_status, phrase(error.http_status), error.error_code, error.message, error.hint)


def phrase(status: int) -> str:
    """What a status is called."""
    return _PHRASES.get(status) or HTTPStatus(status).phrase


def response(request: web.Request, document: Problem) -> web.Response:
    """The answer. What is left of the request is read and dropped for a few seconds, so that the client gets to read it."""
    trace(request).code = document.code
    answer = web.Response(body=msgspec.json.encode(document), status=document.status, reason=document.title, content_type=CONTENT_TYPE)
    if document.status == UnauthorizedError.http_status:
        answer.headers["WWW-Authenticate"] = 'Bearer realm="replicad"'
    if not request.content.is_eof() or went_past(request):
        answer.force_close()
    return answer


def went_past(request: web.Request) -> bool:
    """Whether the body went past the library's parser (see ``content``), which still waits for it: the connection must end with the answer."""
    return (request.content_length or 0) > request.content.total_bytes


def _gone(request: web.Request) -> web.Response:
    """The client went away, or must be told by a broken connection that its answer is not whole: nothing more is sent."""
    trace(request).code = "cut-off"
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=HTTPStatus.BAD_REQUEST)
