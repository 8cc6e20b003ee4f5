"""A downloads door over a directory of real files: the catalog and the store of these tests, and raw HTTP to talk to it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import os
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Self
from urllib.parse import urlencode

from replicad.crypto import certificate
from replicad.crypto.keys import SigningKey
from replicad.errors import NotFoundError, StorageError
from replicad.integrations.mirrors import Mirror
from replicad.model import paths
from replicad.model.access import OPEN, Access
from replicad.model.entries import Listed
from replicad.model.ids import Digest, NodeId, RecordId, Stamp
from replicad.model.manifest import Manifest
from replicad.model.members import Member, Share
from replicad.model.records import Role
from replicad.protocol.signed_urls import sign
from replicad.server.downloads import application
from replicad.server.downloads.config import DownloadsConfig
from replicad.server.downloads.server import DownloadServer
from replicad.telemetry.access_log import Answered

MODIFIED = 1_700_000_000
MODIFIED_DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
EARLIER_DATE = "Tue, 14 Nov 2023 22:13:19 GMT"
LATER_DATE = "Tue, 14 Nov 2023 22:13:21 GMT"


PUBLISHER = SigningKey(bytes([77]) * 32)
NETWORK = NodeId(bytes(32))


def signed(share: str, path: str) -> str:
    """The query of a URL that lets whoever shows it download this file from any node."""
    return urlencode(sign(PUBLISHER, NETWORK, share=share, path_key=paths.key(path), until_s=4_000_000_000))


class World:
    """Shares, names and contents. Blobs are files under ``root`` named by their digest; who is held is what was put and not lost."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shares: dict[str, Share] = {}
        self.names: dict[tuple[str, str], Listed] = {}
        self.held: set[Digest] = set()
        self.lost: list[Digest] = []
        self.read = 0
        """Pages of names that were asked for."""
        self.noted: list[Answered] = []
        self.waiting_for: list[str] = []
        self.open_error: StorageError | OSError | None = None
        self.manifests: dict[Digest, Manifest] = {}
        self.known: dict[Digest, dict[str, bytes]] = {}
        """Checksums."""
        self.mirrors: list[Mirror] = []
        self.closer: Mirror | None = None
        """To whoever asks, than this node."""
        self.members = {PUBLISHER.id: Member(PUBLISHER.id, "publisher", Role.PUBLISHER, "", None, None, Stamp.of(0), PUBLISHER.id)}
        self.network = NETWORK
        self.replica = SimpleNamespace(network=self.network, trust=SimpleNamespace(shares=lambda: self.shares, members=lambda _now_ms: self.members))

    def share(
        self, name: str, *, public: bool = True, stages: tuple[str, ...] = ("prod",), access: Access = OPEN, redirects: Mapping[str, str] | None = None
    ) -> None:
        """Everything is put at stage prod; a share of other stages is one whose prod is not carried here."""
        made = Share(name, public=public, immutable=False, stages=stages, created=Stamp.of(0), access=access, redirects=redirects or {})
        self.shares = {**self.shares, name: made}

    def put(self, share: str, path: str, body: bytes, *, modified: int = MODIFIED, held: bool = True) -> Digest:
        """Publish ``body``; without ``held`` the name is known and the content is not here."""
        content = Digest(hashlib.sha256(body).digest())
        if held:
            self.path_of(content).write_bytes(body)
            self.held.add(content)
        self.name(share, path, content, size=len(body), modified=modified)
        return content

    def name(self, share: str, path: str, content: Digest, *, size: int, modified: int = MODIFIED) -> None:
        zero = bytes(32)
        key = paths.key(paths.check(path))
        self.names[share, key] = Listed(
            record=RecordId(zero),
            origin=NodeId(zero),
            hlc=Stamp.of(modified * 1000),
            share=share,
            key=key,
            path=path,
            stage="prod",
            content=content,
            size=size,
            manifest=Digest(zero),
            modified=modified,
            publisher="test",
            available=content in self.held,
        )

    def path_of(self, content: Digest) -> Path:
        return self.root / str(content)

    # the catalog

    async def visible(self, share: str, key: str) -> Listed | None:
        listed = self.names.get((share, key))
        return listed and dataclasses.replace(listed, available=listed.content in self.held)

    async def entries(self, share: str | None = None, *, prefix: str = "", after: tuple[str, str] | None = None, limit: int = 1000) -> list[Listed]:
        start = after[1] if after else ""
        keys = sorted(key for owner, key in self.names if owner == share and key > start and (not prefix or key == prefix or key.startswith(f"{prefix}/")))
        self.read += 1
        return [dataclasses.replace(one, available=one.content in self.held) for one in (self.names[share or "", key] for key in keys[:limit])]

    async def is_named(self, content: Digest, shares: Iterable[str]) -> bool:
        return any(
            listed.content == content and listed.share in set(shares) and listed.stage in self.shares[listed.share].stages for listed in self.names.values()
        )

    def serves(self, content: Digest) -> bool:
        return content in self.held

    def held_sizes(self, contents: Sequence[Digest]) -> dict[Digest, int]:
        return {listed.content: listed.size for listed in self.names.values() if listed.content in self.held and listed.content in contents}

    async def manifest(self, content: Digest, manifest_id: Digest) -> Manifest | None:
        """The one that is asked for; names that were just ``put`` ask for any."""
        found = self.manifests.get(content)
        return found if found is not None and manifest_id in {found.id, Digest(bytes(32))} else None

    async def checksums(self, contents: Sequence[Digest]) -> dict[Digest, dict[str, bytes]]:
        return {content: self.known[content] for content in contents if content in self.known}

    # the mirrors

    def everywhere(self) -> list[Mirror]:
        return list(self.mirrors)

    def holding(self, _listed: Listed) -> list[Mirror]:
        return list(self.mirrors)

    def nearest(self, mirrors: Sequence[Mirror], _address: object) -> list[Mirror]:
        return list(mirrors)

    def nearer(self, _listed: Listed, _address: object) -> Mirror | None:
        return self.closer

    def doubt(self, content: Digest) -> None:
        self.held.discard(content)
        self.lost.append(content)

    # the store

    def open_blob(self, content: Digest) -> int:
        if self.open_error is not None:
            raise self.open_error
        try:
            return os.open(self.path_of(content), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFoundError("not here") from None

    def server(self, config: DownloadsConfig | None = None) -> DownloadServer:
        """What answers, for whoever listens."""
        return application.make(
            self,
            self,
            view=application.View(self.visible, self),
            waiting_for=lambda: self.waiting_for,
            config=config,
            note=self.noted.append,
        )

    @asynccontextmanager
    async def serve(self, *, tls: bool = False, config: DownloadsConfig | None = None) -> AsyncIterator[Client]:
        """The door on a loopback port, and somebody to talk to it."""
        server = self.server(config)
        async with listening(server, tls=self.server_context() if tls else None) as port, Client(port, tls=tls, server=server) as client:
            yield client

    def server_context(self) -> ssl.SSLContext:
        certificate.ensure(self.root / "tls.crt", self.root / "tls.key")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.root / "tls.crt", self.root / "tls.key")
        return context


@asynccontextmanager
async def listening(server: DownloadServer, *, tls: ssl.SSLContext | None = None, timeout_s: float = 2) -> AsyncIterator[int]:
    """The port on which it listens; its answers under way have ``timeout_s`` to end."""
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0, backlog=1024, ssl=tls)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await server.close(timeout_s=timeout_s)


@dataclass
class Reply:
    """A parsed answer. ``fields`` by lower-case name; ``raw`` is the head as it came."""

    status: int
    fields: dict[str, str]
    body: bytes
    raw: bytes
    closed: bool = field(default=False, compare=False)

    def parts(self) -> list[tuple[str, bytes]]:
        """(Content-Range, bytes) of a multipart/byteranges body, checked against RFC 2046's form."""
        kind, _, boundary = self.fields["content-type"].partition("; boundary=")
        assert kind == "multipart/byteranges"
        assert boundary
        opening = f"\r\n--{boundary}".encode()
        assert self.body.startswith(opening)
        assert self.body.endswith(opening + b"--\r\n")
        found = []
        for part in self.body[: -len(opening) - 4].split(opening + b"\r\n")[1:]:
            head, _, body = part.partition(b"\r\n\r\n")
            named = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
            assert set(named) == {"Content-Type", "Content-Range"}
            found.append((named["Content-Range"], body))
        return found


class Client:
    """Raw HTTP over a socket, nothing corrected on the way."""

    def __init__(self, port: int, *, tls: bool, server: DownloadServer) -> None:
        self.port = port
        self.server = server
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if tls else None
        if self._context:
            self._context.check_hostname = False
            self._context.verify_mode = ssl.CERT_NONE

        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """No connection outlives its test, however that ends."""
        for writer in self._writers:
            with contextlib.suppress(AttributeError):  # Python 3.11.2 and TLS: of a connection that is lost already
                writer.transport.abort()
        for writer in self._writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self._context, limit=1 << 20)
        self._writers.append(writer)
        return reader, writer

    async def ask(self, request: bytes, *, method: str | None = None) -> Reply:
        """One request on a connection of its own; ``closed`` tells whether the server then ended it."""
        reader, writer = await self.connect()
        try:
            writer.write(request)
            reply = await read_reply(reader, method or request.split(b" ", 1)[0].decode("latin-1"))
            if reply.fields.get("connection") == "close":
                async with asyncio.timeout(10):
                    assert await reader.read() == b""
                reply.closed = True
            return reply
        finally:
            writer.close()

    async def get(self, target: str, *headers: str, method: str = "GET") -> Reply:
        return await self.ask(request_of(target, *headers, method=method))


def request_of(target: str, *headers: str, method: str = "GET") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: test", *headers]
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n"


async def read_reply(reader: asyncio.StreamReader, method: str = "GET") -> Reply:
    """The next answer on a connection; fails if anything about its framing is not exact."""
    async with asyncio.timeout(20):
        raw = await reader.readuntil(b"\r\n\r\n")
        status_line, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        version, status, _ = status_line.split(" ", 2)
        assert version == "HTTP/1.1"
        fields: dict[str, str] = {}
        for line in lines:
            name, value = line.split(": ", 1)
            assert name.lower() not in fields, f"{name} twice"
            fields[name.lower()] = value
        assert "transfer-encoding" not in fields
        assert "date" in fields
        body = b""
        if int(status) == 304:
            assert "content-length" not in fields
        elif method != "HEAD":
            body = await reader.readexactly(int(fields["content-length"]))
        else:
            assert "content-length" in fields
    return Reply(int(status), fields, body, raw)
