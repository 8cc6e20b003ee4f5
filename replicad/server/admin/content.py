"""Content in and out: uploads that leave nothing behind unless they arrive whole, and the file behind a name.

A large upload is not read by the HTTP library: what it has already buffered goes first, then a thread of the store reads the rest straight from the socket. The library's parser never sees those
bytes, so such a connection ends with its answer.
"""

from __future__ import annotations

import asyncio
import os
import re
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from replicad.errors import ConflictError, InputError, UnreachableError
from replicad.model import paths
from replicad.model.checksums import Checksum
from replicad.model.chunks import CHUNK_SIZE_MIN, CONTENT_SIZE_MAX
from replicad.model.ids import Digest
from replicad.model.manifest import Manifest
from replicad.server.admin import entries, nouns, queries, views
from replicad.server.admin.bodies import BLOB_BATCH_BYTES_MAX, BLOB_BATCH_ITEMS_MAX
from replicad.server.admin.routes import Call, too_long
from replicad.server.admin.tus import from_base64
from replicad.services.curation import taken_down
from replicad.services.ingest import Item
from replicad.store.uploads import check_length
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from replicad.server.admin.services import Services
    from replicad.store.blobs import BlobStore
    from replicad.store.sources import Incoming

log = get(__name__)

FRAME_HEAD = struct.Struct(">I")
BATCH_BYTES_MAX = BLOB_BATCH_BYTES_MAX + FRAME_HEAD.size * BLOB_BATCH_ITEMS_MAX
READ_BYTES = 1 << 20
_REPR_DIGEST = re.compile(r"(?:^|,)[ \t]*(sha-256|sha-512)(?=[=;,]|$)=?([^,;]*)")
_BYTE_SEQUENCE = re.compile(r":([A-Za-z0-9+/=]*):[ \t]*")
_DIGEST_BYTES = {"sha-256": 32, "sha-512": 64}

REPR_DIGEST = ("Repr-Digest", "^sha-256=:[A-Za-z0-9+/]{43}=:$", "What the content must be (RFC 9530): SHA-256, SHA-512 or both; otherwise nothing is kept.")
PUT_HEADERS = (
    REPR_DIGEST,
    ("If-None-Match", r"^\*$", "Only if there is no file of that name at that stage yet."),
)
"""Headers that ``put_file`` looks at, for the API's description."""


class PreconditionError(ConflictError):
    """``If-None-Match: *`` and there is a file of that name."""

    code = "exists"
    http_status = 412


async def put(call: Call[queries.BlobsQuery]) -> nouns.Blob:
    """PUT /blobs: one content of the announced length, verified and durable; it has no name yet."""
    manifest = await _receive(call.request, call.services, _share(call))
    call.services.ingest.sent.add(call.caller, [manifest.content])
    return nouns.Blob(str(manifest.content), manifest.size)


async def put_many(call: Call[queries.BlobsQuery]) -> nouns.Blobs:
    """POST /blobs: up to BLOB_BATCH_ITEMS_MAX contents of at most one chunk each, as frames: length (4 bytes, big-endian), bytes."""
    size, share = _length(call.request), _share(call)
    if size > BATCH_BYTES_MAX:
        raise too_long(BATCH_BYTES_MAX)
    whole = memoryview(bytearray(size))
    async with body(call.request, call.services.store, size) as incoming:
        check_length(await call.services.store.source(incoming).fill(whole), size)
        manifests = await call.services.ingest.receive_small(split(whole), share=share)
    call.services.ingest.sent.add(call.caller, [manifest.content for manifest in manifests])
    return nouns.Blobs([nouns.Blob(str(manifest.content), manifest.size) for manifest in manifests])


def _share(call: Call[queries.BlobsQuery]) -> str | None:
    """Where the contents shall go, if that was said. NotFoundError."""
    return None if call.asked.share is None else views.find_share(call.services, call.asked.share).name


def split(whole: memoryview) -> list[memoryview]:
    """The contents of a batch, where they are; InputError for anything but whole frames within the bounds."""
    found: list[memoryview] = []
    offset = 0
    while offset < len(whole):
        if len(whole) - offset < FRAME_HEAD.size:
            raise InputError("batch: it ends in the middle of a frame")
        (length,) = FRAME_HEAD.unpack_from(whole, offset)
        offset += FRAME_HEAD.size
        if length > CHUNK_SIZE_MIN or len(whole) - offset < length:
            raise InputError(f"batch: a frame of {length} bytes; at most {CHUNK_SIZE_MIN}, and {len(whole) - offset} are left")
        found.append(whole[offset : offset + length])
        offset += length
        if len(found) > BLOB_BATCH_ITEMS_MAX:
            raise InputError(f"batch: more than {BLOB_BATCH_ITEMS_MAX} contents")
    return found


async def put_file(call: Call[queries.PutFileQuery]) -> nouns.Publication:
    """PUT /shares/{share}/files/{path}: content and name in one. ``Repr-Digest: sha-256=:...:`` and ``sha-512`` are checked; with ``If-None-Match: *`` an existing file is left alone (412)."""
    share, path = views.find_share(call.services, call.share), call.path
    stage = call.asked.stage or share.stages[-1]
    if call.request.headers.get("If-None-Match") == "*" and await call.services.catalog.register(share.name, paths.key(path), stage):
        raise PreconditionError(f"{share.name}/{path} exists at stage {stage}")
    manifest = await _receive(call.request, call.services, share.name)
    item = Item(path=path, content=manifest.content, size=manifest.size)
    published = await call.services.ingest.publish(share.name, [item], stage=call.asked.stage, publisher=call.asked.publisher, urgent=call.asked.urgent)
    return nouns.Publication(share.name, [entries.published_noun(one) for one in published])


def promised(fields: Sequence[str]) -> tuple[Digest | None, Checksum | None]:
    """SHA-256 and SHA-512 of ``Repr-Digest`` fields (RFC 9530); other algorithms are ignored. InputError for one of these that is none."""
    found: dict[str, bytes] = {}
    for algorithm, text in _REPR_DIGEST.findall(",".join(fields)):
        item = _BYTE_SEQUENCE.fullmatch(text)
        digest = None if item is None else from_base64(item[1])
        if digest is None or len(digest) != _DIGEST_BYTES[algorithm]:
            raise InputError(f"Repr-Digest: {algorithm}=:...: with the base64 of {_DIGEST_BYTES[algorithm]} bytes expected")
        found[algorithm] = digest
    whole, also = found.get("sha-256"), found.get("sha-512")
    return None if whole is None else Digest(whole), None if also is None else Checksum("sha512", also)


def _length(request: web.Request) -> int:
    """The announced size of an upload, sent as it is."""
    check_encoding(request)
    if request.content_length is None:
        raise InputError("an upload needs a Content-Length", code="length-required")
    if request.content_length > CONTENT_SIZE_MAX:
        raise InputError(f"Content-Length: at most {CONTENT_SIZE_MAX} bytes", code="too-long")
    return request.content_length


def check_encoding(request: web.Request) -> None:
    """InputError for a body that is not the content itself."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise InputError("an upload must not have a Content-Encoding: the bytes are stored as they are sent", code="content-encoding")


async def _receive(request: web.Request, services: Services, share: str | None) -> Manifest:
    size = _length(request)
    expect, also = promised(request.headers.getall("Repr-Digest", []))
    async with body(request, services.store, size) as incoming:
        return await services.ingest.receive(incoming, size=size, expect=expect, also=also, share=share)


@asynccontextmanager
async def body(request: web.Request, store: BlobStore, size: int | None) -> AsyncIterator[Incoming]:
    """The request's body of ``size`` bytes (None: chunked), to be read inside."""
    transport = request.transport
    if size is None or size <= CHUNK_SIZE_MIN or transport is None or transport.get_extra_info("ssl_object") is not None:
        yield _pieces(request)
        return
    prefix = _buffered(request)
    transport.pause_reading()
    descriptor = os.dup(transport.get_extra_info("socket").fileno())
    try:
        yield store.from_socket(descriptor, prefix=prefix, size=size)
    except BaseException:
        transport.resume_reading()
        raise
    finally:
        os.close(descriptor)
    request.content.feed_eof()


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
