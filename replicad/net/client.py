"""The data client: chunks, manifests and batches from peers' doors, and sending them there, over few kept connections.

Every request is authorised by the link's session. TLS: the door must show the certificate that the link's handshake proved. What an answer means for the peer's honesty is in the error:
PeerError (``short-body``, ``long-body``, ``bad-answer``) no honest peer causes, ``cut-body`` only one that is dying; NotFoundError it lacks what was asked for; BusyError, NotAllowedError, UnreachableError say nothing about honesty.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, Self
from urllib.parse import urlsplit

from replicad.errors import BusyError, IntegrityError, NotAllowedError, NotFoundError, PeerError, ReplicadError, UnreachableError
from replicad.model.chunks import Extent
from replicad.model.entries import Wanted
from replicad.model.ids import Digest, NodeId
from replicad.model.limits import RATE_MIN
from replicad.model.manifest import MANIFEST_BYTES_MAX, Manifest
from replicad.net.exchange import Answer, Connection, Head, LostError
from replicad.net.pace import Pace, paced
from replicad.net.sendfile import Terms, send_file
from replicad.net.tls import TLS_HANDSHAKE_TIMEOUT_S, check_pin, client_context
from replicad.protocol.fetch import batch
from replicad.protocol.fetch.config import FIRST_REQUESTS
from replicad.protocol.wire import Small

BLOBS_PATH = "/peer/v1/blobs/"
MANIFESTS_PATH = "/peer/v1/manifests/"
BATCH_PATH = "/peer/v1/batch"
REFUSAL_BYTES_MAX = 4096
_REFUSALS: dict[int, type[ReplicadError]] = {401: NotAllowedError, 403: NotAllowedError, 404: NotFoundError, 416: NotFoundError, 429: BusyError, 503: BusyError}


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """``connect_s`` to connect including TLS. ``stall_s`` without a byte: given up; longer than a peer lets a request queue. Slower than ``rate_min`` bytes per second after ``grace_s``: given up
    (a guess: at 16 KiB/s a chunk takes a minute). An idle connection is kept ``idle_s``, less than the doors keep it; ``idle_max`` per peer.
    """

    connect_s: float = 10.0
    stall_s: float = 15.0
    rate_min: int = RATE_MIN
    grace_s: float = 30.0
    idle_s: float = 20.0
    idle_max: int = 8

    def limit_s(self, size_bytes: int) -> float:
        """How long so many bytes may take."""
        return self.grace_s + size_bytes / self.rate_min


class DataLink(Protocol):
    """What the client needs of a link."""

    node: NodeId
    certificate: Digest | None
    peer_url: str | None

    def authorize(self, method: str, target: str, range_: str = "") -> str:
        """The ``Authorization`` header for one request."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a body to send: ``count`` bytes of an open file."""

    fd: int
    offset: int
    count: int


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    target: str
    range: str = ""
    range_field: str = "Range"
    body: bytes = b""
    parts: tuple[Part, ...] = ()
    pace: Pace | None = None

    @property
    def body_bytes(self) -> int:
        return len(self.body) + sum(part.count for part in self.parts)


class PeerClient:
    """All connections to peers' doors. ``async with``; closing closes them."""

    def __init__(self, config: ClientConfig | None = None) -> None:
        self.config = config or ClientConfig()
        self._idle: dict[tuple[NodeId, str], list[Connection]] = {}
        self._open: dict[Connection, NodeId] = {}
        self._preparing: set[NodeId] = set()
        self._surplus: set[NodeId] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in list(self._open):
            connection.close()

    def forget(self, node: NodeId) -> None:
        """Close the idle connections to a peer whose link ended."""
        self._surplus.discard(node)
        for key in [key for key in self._idle if key[0] == node]:
            for connection in self._idle.pop(key):
                connection.close()

    @property
    def connections(self) -> int:
        """Open now."""
        return len(self._open)

    async def prepare(self, link: DataLink) -> None:
        """Have as many connections to the peer's door as there are first requests. For when a content begins to be sought: nothing queues on the way yet, so nobody waits for handshakes, and the kernel, which fits the size of what it sends at once to
        the shortest round trip that a connection has seen (tcp(7)), sends large pieces (ADR 0009). UnreachableError.
        """
        if link.peer_url is None or link.node in self._preparing:
            return
        self._preparing.add(link.node)
        try:
            key = link.node, link.peer_url
            self._kept(key)
            while list(self._open.values()).count(link.node) < FIRST_REQUESTS:
                connection = await self._connect(link, link.peer_url)
                self._idle.setdefault(key, []).append(connection)
        finally:
            self._preparing.discard(link.node)

    # -- what can be asked

    async def chunks(
        self, link: DataLink, manifest: Manifest, extent: Extent, into: memoryview, *, pace: Pace | None = None
    ) -> tuple[int, ReplicadError | None]:
        """Fill ``into`` (exactly the extent's bytes) with chunks, unverified. Returns how many bytes arrived, and why not all of them."""
        start, stop = manifest.byte_range(extent)
        request = _Request("GET", f"{BLOBS_PATH}{manifest.content}?manifest={manifest.id}", f"bytes={start}-{stop - 1}", pace=pace)
        answer = await self._exchange(link, request, lambda head: _ranged(head, into, f"bytes {start}-{stop - 1}/{manifest.size}"), expect_bytes=stop - start)
        return answer.received if answer.head is not None and answer.head.status == 206 else 0, answer.error

    async def manifest(self, link: DataLink, wanted: Wanted) -> Manifest:
        """The manifest that an entry names, checked against it: IntegrityError("bad-manifest") if it is another one."""
        buffer = memoryview(bytearray(MANIFEST_BYTES_MAX))
        request = _Request("GET", f"{MANIFESTS_PATH}{wanted.manifest}?content={wanted.content}")
        answer = await self._exchange(link, request, lambda head: _whole(head, buffer), expect_bytes=len(buffer))
        if answer.error is not None:
            raise answer.error
        return check_manifest(bytes(buffer[: answer.received]), wanted)

    async def batch(
        self, link: DataLink, contents: Sequence[Small], into: memoryview, *, patient: bool = False, pace: Pace | None = None
    ) -> list[memoryview | batch.Mark]:
        """Small contents, unverified, as parts of ``into`` (``batch.answer_bytes_max`` bytes); for the others what the peer says of them."""
        question = batch.ask(contents)
        target = f"{BATCH_PATH}?sha256={hashlib.sha256(question).hexdigest()}{'&patient=1' if patient else ''}"
        answer = await self._exchange(link, _Request("POST", target, body=question, pace=pace), lambda head: _whole(head, into), expect_bytes=len(into))
        if answer.error is not None:
            raise answer.error
        return batch.answered(contents, into[: answer.received], patient=patient)

    # -- what can be sent

    async def put_chunks(self, link: DataLink, manifest: Manifest, extent: Extent, *, transfer: int, fd: int, pace: Pace | None = None) -> None:
        """Send chunks that the peer asked for over the link, from an open file."""
        start, stop = manifest.byte_range(extent)
        request = _Request(
            "PUT",
            f"{BLOBS_PATH}{manifest.content}?transfer={transfer}",
            f"bytes {start}-{stop - 1}/{manifest.size}",
            "Content-Range",
            parts=(Part(fd, start, stop - start),),
            pace=pace,
        )
        await self._put(link, request)

    async def put_manifest(self, link: DataLink, manifest: Manifest, *, transfer: int) -> None:
        """Send a manifest that the peer asked for."""
        await self._put(link, _Request("PUT", f"{MANIFESTS_PATH}{manifest.id}?transfer={transfer}", body=manifest.encoded))

    async def put_batch(self, link: DataLink, answer: bytes, *, transfer: int, pace: Pace | None = None) -> None:
        """Send a batch answer that the peer asked for."""
        await self._put(link, _Request("PUT", f"{BATCH_PATH}?transfer={transfer}", body=answer, pace=pace))

    async def _put(self, link: DataLink, request: _Request) -> None:
        answer = await self._exchange(link, request, lambda head: _whole(head, memoryview(b"")))
        if answer.error is not None:
            raise answer.error

    # -- connections

    async def _exchange(self, link: DataLink, request: _Request, accept: Callable[[Head], memoryview], *, expect_bytes: int = 0) -> Answer:
        """One exchange; repeated once on a new connection if a kept one had been closed by the peer meanwhile. A refusal by status becomes the answer's error."""
        for fresh in (False, True):
            try:
                async with self._connection(link, fresh=fresh) as (connection, kept):
                    answer = await self._exchange_on(connection, link, request, accept, expect_bytes=expect_bytes)
                    stale = kept and isinstance(answer.error, LostError)
            except ReplicadError as error:
                return Answer(None, 0, error)
            if not stale:
                break
        return answer

    async def _exchange_on(
        self, connection: Connection, link: DataLink, request: _Request, accept: Callable[[Head], memoryview], *, expect_bytes: int
    ) -> Answer:
        refusal = memoryview(bytearray(REFUSAL_BYTES_MAX))

        def accept_or_refuse(head: Head) -> memoryview:
            if head.status < 300:
                return accept(head)
            if head.length > REFUSAL_BYTES_MAX:
                raise PeerError(f"refusal of {head.length} bytes", code="bad-answer")
            return refusal[: head.length]

        async def send() -> None:
            await _send(connection, link, request)

        limit_s = self.config.limit_s(request.body_bytes + expect_bytes)
        answer = await connection.exchange(send, accept_or_refuse, stall_s=self.config.stall_s, limit_s=limit_s, pace=request.pace)
        if answer.error is None and answer.head is not None and answer.head.status >= 300:
            return Answer(answer.head, 0, _refused(answer.head.status))
        return answer

    @asynccontextmanager
    async def _connection(self, link: DataLink, *, fresh: bool) -> AsyncIterator[tuple[Connection, bool]]:
        """A connection, and whether it was kept; afterwards it is kept again."""
        url = link.peer_url
        if url is None:
            raise UnreachableError("no address of the peer's door is known")
        key = link.node, url
        kept = None if fresh else self._take(key)
        connection = kept or await self._connect(link, url)
        try:
            yield connection, kept is not None
        except BaseException:
            connection.close()
            raise
        idle = self._idle.setdefault(key, [])
        if not connection.closed and len(idle) < self.config.idle_max:
            idle.append(connection)
        else:
            connection.close()

    def _take(self, key: tuple[NodeId, str]) -> Connection | None:
        """A kept connection that is still good. PeerError if one had to be closed because the peer sent what nobody had asked for."""
        if key[0] in self._surplus:
            self._surplus.discard(key[0])
            raise PeerError("the peer sent more than its last answer", code="long-body")
        kept = self._kept(key)
        return kept.pop() if kept else None

    def _kept(self, key: tuple[NodeId, str]) -> list[Connection]:
        """The idle connections that are still good; the others are closed."""
        kept = self._idle.setdefault(key, [])
        now_s = asyncio.get_running_loop().time()
        for connection in kept:
            if now_s - connection.idle_since_s > self.config.idle_s:
                connection.close()
        kept[:] = [connection for connection in kept if not connection.closed]
        return kept

    async def _connect(self, link: DataLink, url: str) -> Connection:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        try:
            async with asyncio.timeout(self.config.connect_s):
                loop = asyncio.get_running_loop()
                transport, connection = await loop.create_connection(
                    Connection,
                    parts.hostname or "",
                    parts.port or (443 if secure else 80),
                    ssl=client_context() if secure else None,
                    ssl_handshake_timeout=TLS_HANDSHAKE_TIMEOUT_S if secure else None,
                )
        except TimeoutError:
            raise UnreachableError(f"{parts.netloc} does not answer", code="connect") from None
        except OSError as error:
            raise UnreachableError(f"{error.strerror or error} at {parts.netloc}", code="connect") from None
        try:
            check_pin(transport, link.certificate)
        except PeerError as error:
            connection.close()
            raise UnreachableError(f"{parts.netloc}: {error.message}", code="connect") from None
        self._open[connection] = link.node
        connection.on_closed = lambda: self._ended(connection)
        connection.idle_since_s = loop.time()
        return connection

    def _ended(self, connection: Connection) -> None:
        node = self._open.pop(connection)
        if connection.surplus:
            self._surplus.add(node)


def check_manifest(encoded: bytes, wanted: Wanted) -> Manifest:
    """The manifest that an entry names; IntegrityError if these bytes are another one, or nonsense."""
    found = Manifest.decode(encoded)
    if found.id != wanted.manifest or found.content != wanted.content or found.size != wanted.size:
        raise IntegrityError("the manifest is not the one that the entry names")
    return found


def _ranged(head: Head, into: memoryview, content_range: str) -> memoryview:
    if head.length != len(into):
        raise PeerError(f"{head.length} bytes for {len(into)} asked", code="long-body" if head.length > len(into) else "short-body")
    if head.status != 206 or head.fields.get("content-range") != content_range:
        raise PeerError(f"another range than {content_range}", code="bad-answer")
    return into


def _whole(head: Head, into: memoryview) -> memoryview:
    if head.length > len(into):
        raise PeerError(f"{head.length} bytes where {len(into)} fit", code="long-body")
    return into[: head.length]


def _refused(status: int) -> ReplicadError:
    if status in _REFUSALS:
        return _REFUSALS[status](f"the peer answers {status}")
    if status >= 500:
        return UnreachableError(f"the peer answers {status}")
    return PeerError(f"the peer answers {status}", code="bad-answer")


async def _send(connection: Connection, link: DataLink, request: _Request) -> None:
    try:
        authorization = link.authorize(request.method, request.target, request.range)
    except PeerError as error:  # our own session is too old; the peer did nothing
        raise NotAllowedError(error.message, code=error.error_code) from None
    fields = [f"{request.method} {request.target} HTTP/1.1", f"Host: {urlsplit(link.peer_url or '').netloc}", f"Authorization: {authorization}"]
    if request.range:
        fields.append(f"{request.range_field}: {request.range}")
    if request.method != "GET":
        fields.append(f"Content-Length: {request.body_bytes}")
    head = "\r\n".join((*fields, "", "")).encode("ascii")
    if not request.parts:
        async for piece in paced(head + request.body, request.pace if request.method == "PUT" else None):
            connection.transport.write(piece)
            await connection.drain()
    for part in request.parts:
        await send_file(connection.transport, part.fd, offset=part.offset, count=part.count, head=head, drain=connection.drain, terms=Terms(pace=request.pace))
        head = b""
