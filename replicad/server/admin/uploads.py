"""Resumable uploads as tus 1.0 has them: creation (also with the first bytes), checksum, expiration, termination.

Only whoever began an upload sees it, and only with rights to its share and name: a token that was restricted or revoked meanwhile ends that, too.
"""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import web

from replicad.model.chunks import CONTENT_SIZE_MAX
from replicad.server.admin import bodies, tus
from replicad.server.admin.authority import check_names
from replicad.server.admin.content import body, check_encoding
from replicad.server.admin.routes import PREFIX, Call
from replicad.server.admin.trace import trace

if TYPE_CHECKING:
    from replicad.catalog import Upload

PLACE = f"{PREFIX}/uploads"
_NUMBER = "^[0-9]{1,18}$"
HEADERS = (("Tus-Resumable", "^1\\.0\\.0$", "The version of tus that the client speaks; must be there."),)
BEGIN_HEADERS = (
    *HEADERS,
    ("Upload-Length", _NUMBER, "The bytes of the whole; must be there. They take their room at once."),
    ("Upload-Metadata", "^[ -~]{1,4096}$", "Keys and base64 of values: share; path (or filename); stage, publisher, urgent, sha256 if wanted."),
    ("Upload-Checksum", "^(sha1|sha256) [A-Za-z0-9+/]+=*$", "Of the body, if there is one."),
)
APPEND_HEADERS = (
    *HEADERS,
    ("Upload-Offset", _NUMBER, "Where the body begins; must be what HEAD says."),
    ("Upload-Checksum", "^(sha1|sha256) [A-Za-z0-9+/]+=*$", "Of the body: all of it counts, or nothing."),
)
"""For the API's description."""


async def show_version(request: web.Request, response: web.StreamResponse) -> None:
    """Every answer about uploads says which version is spoken. For ``on_response_prepare``."""
    if request.path.startswith(PLACE):
        response.headers["Tus-Resumable"] = tus.VERSION
        if response.status == tus.VersionError.http_status:
            response.headers["Tus-Version"] = tus.VERSION


async def abilities(_: Call[bodies.Nothing]) -> web.Response:
    """OPTIONS /uploads: what of tus is understood, in the answer's headers."""
    headers = {
        "Tus-Version": tus.VERSION,
        "Tus-Extension": tus.EXTENSIONS,
        "Tus-Max-Size": str(CONTENT_SIZE_MAX),
        "Tus-Checksum-Algorithm": ",".join(tus.ALGORITHMS),
    }
    return web.Response(status=HTTPStatus.NO_CONTENT, headers=headers)


async def begin(call: Call[bodies.Nothing]) -> web.Response:
    """POST /uploads: a new upload; its address is in ``Location``, when it ends unless bytes come in ``Upload-Expires``. The body, if there is one, are its first bytes. When the last byte has come it is
    published as PUT /shares/{share}/files/{path} does it.

    TooLargeError, BusyError("too-many-uploads"), NoSpaceError, and what publishing would raise.
    """
    request = _checked(call)
    to, size = tus.destination(request.headers.get("Upload-Metadata")), tus.number("Upload-Length", request.headers.get("Upload-Length"))
    check_names(call, to.share, [to.path])
    trace(request).detail = f"{to.share}/{to.path}; {size} bytes"
    if request.can_read_body:
        _check_body(request)
    upload = await call.services.uploads.begin(call.caller.name, to, size)
    if request.can_read_body:
        try:
            upload = await _append(call, upload.id, offset=0)
        except BaseException:  # the client does not know its address
            await call.services.uploads.end(upload.id, call.caller.name)
            raise
    headers = {"Location": f"{PLACE}/{upload.id}", **_progress(upload)}
    return web.Response(status=HTTPStatus.CREATED, headers=headers)


async def progress(call: Call[bodies.Nothing]) -> web.Response:
    """HEAD /uploads/{upload}: how many bytes are safe, in ``Upload-Offset``. All of them only when the file is published: if that failed before, it is tried again, and this says why it cannot be."""
    _checked(call)
    before = _found(call)
    upload = await call.services.uploads.progress(before.id, call.caller.name)
    trace(call.request).writes = upload.published and not before.published
    headers = {"Upload-Length": str(upload.size), **({"Upload-Metadata": upload.metadata} if upload.metadata else {}), **_progress(upload)}
    return web.Response(headers=headers)


async def append(call: Call[bodies.Nothing]) -> web.Response:
    """PATCH /uploads/{upload}: the bytes from ``Upload-Offset`` on; the answer's says how many are safe now.

    ConflictError("wrong-offset"), LockedError while another request is at it, ChecksumError, TooLargeError beyond the announced length; for the last byte what publishing raises.
    """
    request = _checked(call)
    _check_body(request)
    before = _found(call)
    upload = await _append(call, before.id, offset=tus.number("Upload-Offset", request.headers.get("Upload-Offset")))
    trace(request).writes = upload.published
    return web.Response(status=HTTPStatus.NO_CONTENT, headers=_progress(upload))


async def end(call: Call[bodies.Nothing]) -> web.Response:
    """DELETE /uploads/{upload}: nothing of it is kept, unless it is published already. LockedError while another request is at it."""
    _checked(call)
    await call.services.uploads.end(_found(call).id, call.caller.name)
    return web.Response(status=HTTPStatus.NO_CONTENT)


def _checked(call: Call[Any]) -> web.Request:
    tus.check_version(call.request.headers.get("Tus-Resumable"))
    return call.request


def _check_body(request: web.Request) -> None:
    check_encoding(request)
    tus.check_content_type(request.headers.get("Content-Type"))
    tus.checksum(request.headers.get("Upload-Checksum"))


def _found(call: Call[Any]) -> Upload:
    upload = call.services.uploads.find(call.request.match_info["upload"], call.caller.name)
    check_names(call, upload.share, [upload.path])
    trace(call.request).detail = f"{upload.share}/{upload.path}"
    return upload


async def _append(call: Call[Any], upload_id: str, *, offset: int) -> Upload:
    request = call.request
    size = request.content_length if request.content_length is not None or request.can_read_body else 0
    async with body(request, call.services.store, size) as incoming:
        return await call.services.uploads.append(
            upload_id, call.caller.name, incoming, offset=offset, size=size, checksum=tus.checksum(request.headers.get("Upload-Checksum"))
        )


def _progress(upload: Upload) -> dict[str, str]:
    return {"Upload-Offset": str(upload.offset), "Upload-Expires": formatdate(upload.expires_ms / 1000, usegmt=True), "Cache-Control": "no-store"}
