"""An admin door over a real catalog, store and ingest, on a real Unix socket and a real TCP port. Other members exist as signed grants and as heads that the test makes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from replicad.catalog import Catalog
from replicad.crypto.keys import SigningKey
from replicad.integrations.oidc import Provider
from replicad.integrations.repositories import Repositories
from replicad.model.callers import Authenticator
from replicad.model.entries import Listed
from replicad.model.ids import Digest, NodeId, Stamp
from replicad.model.limits import Limits
from replicad.model.records import Grant, Policy, Role
from replicad.net.links import LinkTable
from replicad.net.pace import Paces
from replicad.protocol.clock import check_may_author
from replicad.protocol.gossip.heads import Head, Missing, sign
from replicad.protocol.gossip.standing import Kept, Standing
from replicad.protocol.signed_urls import sign as sign_url
from replicad.server.admin import application, nouns
from replicad.server.admin.services import Facts, Reloaded, Services
from replicad.services.backup import Backups
from replicad.services.collect import Collect
from replicad.services.curation import Curation
from replicad.services.hub import Hub
from replicad.services.identity import Argon, Guesses, Logins, Sessions, Users
from replicad.services.ingest import Ingest, Uploads
from replicad.services.limits import LimitsService
from replicad.services.scrub import Scrub
from replicad.services.tokens import Tokens
from replicad.store.blobs import BlobStore
from replicad.store.care import CollectConfig, ScrubConfig
from replicad.store.space import StoreConfig
from replicad.telemetry.metrics import Metrics

TOKEN = "a-token-for-tests"


class Idle:
    """A fetcher and a dialler with nothing to do: this node's own progress is the catalog's, and there are no sockets between nodes here."""

    def __init__(self) -> None:
        self.clocks: dict[NodeId, int] = {}

    def percent(self, _content: Digest) -> int:
        return 0

    def transfers(self) -> list[Any]:
        return []

    def trouble(self, _node: NodeId) -> str:
        return "connection refused at 10.4.0.9:8440; next try in 4 min"

    async def pending(self) -> list[Any]:
        return []

    def skews(self) -> dict[NodeId, int]:
        return self.clocks


@dataclass(frozen=True)
class Reply:
    """One HTTP answer; ``cookies`` are its Set-Cookie headers."""

    status: int
    headers: dict[str, str]
    body: bytes
    cookies: tuple[str, ...] = ()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Door:
    """The door under test, and what stands behind it."""

    services: Services
    socket: Path
    port: int
    data: Path

    async def send(self, raw: bytes, *, over_tcp: bool = False, end: bool = False) -> Reply:
        """These bytes on a new connection, and the answer. ``end``: close the sending side afterwards."""
        reader, writer = await (asyncio.open_connection("127.0.0.1", self.port) if over_tcp else asyncio.open_unix_connection(str(self.socket)))
        try:
            with contextlib.suppress(ConnectionError):
                writer.write(raw)
                if end:
                    writer.write_eof()
                await writer.drain()
            return await self._reply(reader, bodiless=raw.startswith(b"HEAD "))
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    @staticmethod
    async def _reply(reader: asyncio.StreamReader, *, bodiless: bool) -> Reply:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in head[1:] if line)]
        content = await reader.readexactly(0 if bodiless else int(dict(headers).get("content-length", "0")))
        return Reply(int(head[0].split(" ")[1]), dict(headers), content, tuple(value for name, value in headers if name == "set-cookie"))

    async def ask(self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None, over_tcp: bool = False) -> Reply:
        """One API request; ``body`` is bytes or something for JSON."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        given = {"Host": "x", "Connection": "close", **({"Content-Length": str(len(content))} if body is not None else {}), **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        return await self.send(f"{method} /api/v1{path} HTTP/1.1\r\n{head}\r\n".encode() + content, over_tcp=over_tcp)

    async def upload(self, content: bytes) -> str:
        """PUT /blobs; the digest."""
        reply = await self.ask("PUT", "/blobs", content)
        assert reply.status == 200, reply.body
        return str(reply.json["sha256"])

    async def publish(self, share: str, path: str, content: bytes, **more: Any) -> Reply:
        """Upload and name."""
        return await self.ask(
            "POST", f"/shares/{share}/entries", {"entries": [{"path": path, "sha256": await self.upload(content), "size": len(content)}], **more}
        )

    async def listed(self, share: str, path: str, stage: str = "prod") -> Listed:
        """The winner of a register."""
        [found] = await self.services.catalog.registers(share, [(path.lower(), stage)])
        assert found is not None
        return found

    async def admit(self, name: str, **grant: Any) -> Member:
        """Another member."""
        key = SigningKey.generate()
        await self.services.catalog.author("", [Grant(key.id, name, **{"role": Role.MIRROR, **grant})])
        return Member(self, key)

    def left_behind(self) -> list[str]:
        """What is on the disk besides blobs that somebody was told about."""
        return [path.name for path in (self.data / "partials").iterdir()]


@dataclass
class Member:
    """Another node, as far as this one hears of it."""

    door: Door
    key: SigningKey
    counter: int = 0

    def says(self, share: str, *, missing: tuple[Missing, ...] = (), age_ms: int = 0, **more: Any) -> None:
        """A new head of this member: it has all records of the share and lacks these contents."""
        services = self.door.services
        self.counter += 1
        now_ms = services.monotonic_ms()
        head = Head(
            node=self.key.id,
            share=share,
            incarnation=Stamp.of(1),
            counter=self.counter,
            made_ms=services.clock_ms(),
            interval_ms=30_000,
            frontier=services.catalog.replica.chains.frontier_hash(share),
            missing=missing,
            missing_count=len(missing),
        )
        head = msgspec.structs.replace(head, **more)
        assert services.standing.add(Kept(head, sign(self.key, services.catalog.network, head), now_ms - age_ms))


@contextlib.asynccontextmanager
async def opened(data: Path, *, directories: Sequence[Authenticator] = (), provider: Provider | None = None) -> AsyncIterator[Door]:
    """The door of a node "ams1" with the shares munki (public) and jamf (immutable)."""
    data.mkdir()
    node, network = SigningKey.generate(), SigningKey.generate()

    def clock_ms() -> int:
        return time.time_ns() // 1_000_000

    async with contextlib.AsyncExitStack() as stack:
        executor = stack.enter_context(ThreadPoolExecutor(4))
        catalog = await stack.enter_async_context(
            Catalog.open(data / "catalog.sqlite", node=node, clock_ms=clock_ms, random16=lambda: secrets.randbelow(1 << 16), network=network.id)
        )
        store = await stack.enter_async_context(BlobStore.open(data, config=StoreConfig(), executor=executor))
        hub = Hub()
        catalog.on_event = hub.publish
        idle = Idle()
        catalog.check_clock = lambda: check_may_author(idle.clocks.values())
        await catalog.author_as(network, [Grant(node.id, "ams1", Role.ADMIN)])
        await catalog.author("", [Policy("munki", public=True), Policy("jamf", public=True, immutable=True)])
        ingest = Ingest(catalog, store)
        argon, sessions = Argon(), Sessions(catalog, clock_ms)
        services = Services(
            facts=Facts("ams1", "", data, data / "network.key", clock_ms(), "", "http://ams1:8480"),
            catalog=catalog,
            store=store,
            ingest=ingest,
            uploads=await stack.enter_async_context(Uploads.open(catalog, store, ingest, clock_ms=clock_ms)),
            curation=Curation(catalog, turn=ingest.turn),
            fetch=idle,  # type: ignore[arg-type]
            scrub=Scrub(catalog, store, hub=hub, config=ScrubConfig(), clock_ms=clock_ms),
            collect=Collect(catalog, store, config=CollectConfig(), quiet=ingest.quiet, clock_ms=clock_ms),
            backups=Backups(catalog, name="ams1", data=data, config=data.parent / "replicad.toml", room=store.free_bytes, clock_ms=clock_ms),
            limits=LimitsService(catalog, Paces(), configured=Limits(), zone=None, clock_ms=clock_ms, changed=lambda: None),
            membership=idle,  # type: ignore[arg-type]
            tokens=Tokens(catalog, clock_ms),
            users=Users(catalog, argon, clock_ms),
            sessions=sessions,
            logins=Logins(catalog, sessions, argon, Guesses(time.monotonic), clock_ms, directories),
            provider=provider,
            links=LinkTable(node.id),
            dialing=idle,  # type: ignore[arg-type]
            standing=Standing(lambda: catalog.replica.chains),
            hub=hub,
            metrics=Metrics(),
            clock_ms=clock_ms,
            renewal=asyncio.Event(),
            repositories=Repositories(catalog, store.open_blob, now_ms=lambda: time.monotonic_ns() // 1_000_000),
            sign_url=lambda share, path_key, until_s: sign_url(node, network.id, share=share, path_key=path_key, until_s=until_s),
            reload=lambda: Reloaded([], []),
            settings=lambda: nouns.Settings("/etc/replicad/replicad.toml", [nouns.Setting("node.name", '"ams1"', "default")]),
            monotonic_ms=lambda: time.monotonic_ns() // 1_000_000,
        )
        unix = web.AppRunner(application.make(services, token=None), **application.RUNNER)
        tcp = web.AppRunner(application.make(services, token=TOKEN), **application.RUNNER)
        for runner in (unix, tcp):
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
        await web.UnixSite(unix, str(data / "admin.sock")).start()
        await web.TCPSite(tcp, "127.0.0.1", 0).start()
        yield Door(services, data / "admin.sock", tcp.addresses[0][1], data)
