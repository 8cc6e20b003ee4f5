"""Content in and out: uploads that leave nothing behind unless they arrive whole, and the file behind a name.

A large upload is not read by the HTTP library: what it has already buffered goes first, then a thread of the store reads the rest straight from the socket. The library's parser never sees those
bytes, so such a connection ends with its answer.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import re
import struct
from collections.abc import AsyncIterator

from aiohttp import web

from replicad.errors import ConflictError, InputError, UnreachableError
from replicad.model import paths
from replicad.model.chunks import CHUNK_SIZE_MIN, CONTENT_SIZE_MAX
from replicad.model.ids import Digest
from replicad.model.manifest import Manifest
from replicad.server.admin import bodies, entries, nouns, queries, views
from replicad.server.admin.bodies import BLOB_BATCH_BYTES_MAX, BLOB_BATCH_ITEMS_MAX
from replicad.server.admin.routes import Call, read_bounded
from replicad.services.curation import taken_down
from replicad.services.ingest import Item
from replicad.telemetry.log import get

log = get(__name__)

FRAME_HEAD = struct.Struct(">I")
READ_BYTES = 1 << 20
_REPR_DIGEST = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]{1,64}):")


PUT_HEADERS = (
    ("Repr-Digest", "^sha-256=:[A-Za-z0-9+/]{43}=:$", "What the content must be (RFC 9530); otherwise nothing is kept."),
    ("If-None-Match", r"^\*$", "Only if there is no file of that name at that stage yet."),
)
"""Headers that ``put_file`` looks at, for the API's description."""


class PreconditionError(ConflictError):
    """``If-None-Match: *`` and there is a file of that name."""

    code = "exists"
    http_status = 412


async def put(call: Call[bodies.Nothing]) -> nouns.Blob:
    """PUT /blobs: one content of the announced length, verified and durable; it has no name yet."""
    manifest = await _receive(call.request, call, expect=None)
    return nouns.Blob(str(manifest.content), manifest.size)


async def put_many(call: Call[bodies.Nothing]) -> nouns.Blobs:
    """POST /blobs: up to BLOB_BATCH_ITEMS_MAX contents of at most one chunk each, as frames: length (4 bytes, big-endian), bytes."""
    _length(call.request)
    frames = split(await read_bounded(call.request, BLOB_BATCH_BYTES_MAX + FRAME_HEAD.size * BLOB_BATCH_ITEMS_MAX))
    manifests = await call.services.ingest.receive_small(frames)
    return nouns.Blobs([nouns.Blob(str(manifest.content), manifest.size) for manifest in manifests])


def split(body: bytes) -> list[bytes]:
    """The contents of a batch; InputError for anything but whole frames within the bounds."""
    found: list[bytes] = []
    offset = 0
    while offset < len(body):
        if len(body) - offset < FRAME_HEAD.size:
            raise InputError("batch: it ends in the middle of a frame")
        (length,) = FRAME_HEAD.unpack_from(body, offset)
        offset += FRAME_HEAD.size
        if length > CHUNK_SIZE_MIN or len(body) - offset < length:
            raise InputError(f"batch: a frame of {length} bytes; at most {CHUNK_SIZE_MIN}, and {len(body) - offset} are left")
        found.append(body[offset : offset + length])
        offset += length
        if len(found) > BLOB_BATCH_ITEMS_MAX:
            raise InputError(f"batch: more than {BLOB_BATCH_ITEMS_MAX} contents")
    return found


async def put_file(call: Call[queries.PutFileQuery]) -> nouns.Publication:
    """PUT /shares/{share}/files/{path}: content and name in one. ``Repr-Digest: sha-256=:...:`` is checked; with ``If-None-Match: *`` an existing file is left alone (412)."""
    share, path = views.find_share(call.services, call.share), call.path
    expect = _expected(call.request)
    stage = call.asked.stage or share.stages[-1]
    if call.request.headers.get("If-None-Match") == "*" and await call.services.catalog.register(share.name, paths.key(path), stage):
        raise PreconditionError(f"{share.name}/{path} exists at stage {stage}")
    manifest = await _receive(call.request, call, expect=expect)
    item = Item(path=path, content=manifest.content, size=manifest.size)
    published = await call.services.ingest.publish(share.name, [item], stage=call.asked.stage, publisher=call.asked.publisher, urgent=call.asked.urgent)
    return nouns.Publication(share.name, [entries.published_noun(one) for one in published])


def _expected(request: web.Request) -> Digest | None:
    """The SHA-256 of a ``Repr-Digest`` field (RFC 9530); other algorithms are ignored."""
    given = request.headers.get("Repr-Digest")
    if given is None:
        return None
    found = _REPR_DIGEST.search(given)
    try:
        return Digest(base64.b64decode(found[1], validate=True)) if found else None
    except (binascii.Error, InputError):
        raise InputError("Repr-Digest: sha-256=:...: with the base64 of 32 bytes expected") from None


def _length(request: web.Request) -> int:
    """The announced size of an upload, sent as it is."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise InputError("an upload must not have a Content-Encoding: the bytes are stored as they are sent", code="content-encoding")
    if request.content_length is None:
        raise InputError("an upload needs a Content-Length", code="length-required")
    if request.content_length > CONTENT_SIZE_MAX:
        raise InputError(f"Content-Length: at most {CONTENT_SIZE_MAX} bytes", code="too-long")
    return request.content_length


async def _receive(request: web.Request, call: Call[bodies.Nothing] | Call[queries.PutFileQuery], *, expect: Digest | None) -> Manifest:
    size, ingest = _length(request), call.services.ingest
    transport = request.transport
    if size <= CHUNK_SIZE_MIN or transport is None or transport.get_extra_info("ssl_object") is not None:
        return await ingest.receive(_pieces(request), size=size, expect=expect)
    prefix = _buffered(request)
    transport.pause_reading()
    descriptor = os.dup(transport.get_extra_info("socket").fileno())
    try:
        manifest = await ingest.receive_socket(descriptor, prefix=prefix, size=size, expect=expect)
    except BaseException:
        transport.resume_reading()
        raise
    finally:
        os.close(descriptor)
    request.content.feed_eof()
    return manifest


def _buffered(request: web.Request) -> bytes:
    """What the HTTP library has read of the body already. Reading may make its parser give up more, hence the loop; nothing new comes from the socket meanwhile, because nothing is awaited."""
    pieces: list[bytes] = []
    while piece := request.content.read_nowait():
        pieces.append(piece)
    return b"".join(pieces)


async def _pieces(request: web.Request) -> AsyncIterator[bytes]:
    async for piece in request.content.iter_any():
        yield piece


async def get_file(call: Call[queries.GetFileQuery]) -> web.StreamResponse:
    """GET /shares/{share}/files/{path}: the whole verified content; the ETag is its SHA-256. With ``record`` that of a sibling or an older version.

    UnreachableError("not-here-yet") while this node does not hold it, NotAllowedError if a takedown stands on it.
    """
    content, size = await (_shown(call) if call.asked.record is None else _version(call, call.asked.record))
    descriptor = call.services.store.open_blob(content)
    try:
        headers = {"ETag": f'"{content}"', "Content-Type": "application/octet-stream", "Content-Length": str(size), "Cache-Control": "no-store"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(call.request)
        await _send(response, descriptor, size)
    finally:
        os.close(descriptor)
    return response


async def _shown(call: Call[queries.GetFileQuery]) -> tuple[Digest, int]:
    listed = await entries.find(call)
    name = f"{listed.share}/{listed.path}"
    if listed.taken_down:
        raise taken_down(name, listed.content)
    if not listed.available:
        percent = call.services.fetch.percent(listed.content)
        raise UnreachableError(f"{name} is not on this node yet ({percent} %)", hint=f"replicad wait {name}", code="not-here-yet")
    return listed.content, listed.size


async def _version(call: Call[queries.GetFileQuery], record: str) -> tuple[Digest, int]:
    name = f"{call.share}/{call.path}"
    found = await call.services.curation.revision(call.share, call.path, record)
    if not found.held:
        origin = views.label(views.members_now(call.services), found.record.header.origin)
        raise UnreachableError(
            f"this version of {name} is not on this node; {origin} published it", hint=f"there: replicad get {name} --record {record}", code="not-here"
        )
    return found.entry.content, found.entry.size


async def _send(response: web.StreamResponse, descriptor: int, size: int) -> None:
    """Piece by piece; a file that is shorter than it should be ends the connection, so that the client notices."""
    loop = asyncio.get_running_loop()
    offset = 0
    while offset < size:
        piece = await loop.run_in_executor(None, os.pread, descriptor, min(READ_BYTES, size - offset), offset)
        if not piece:
            log.error("a blob is shorter than its entry says", digest=response.headers["ETag"], bytes=offset)
            raise ConnectionResetError
        await response.write(piece)
        offset += len(piece)
    await response.write_eof()
