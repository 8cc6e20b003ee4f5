"""A node without content: real keys, catalog, peer door, links, gossip and membership in this process, real sockets on loopback. What ``assembly`` builds, less store, fetch and the other doors."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from replicad.catalog import Catalog
from replicad.crypto import certificate as certificates
from replicad.crypto.hashing import sha256
from replicad.crypto.keys import SigningKey
from replicad.model.ids import Digest, NodeId
from replicad.model.manifest import Manifest
from replicad.model.records import Entry, Policy
from replicad.net.dialer import Dialer
from replicad.net.link import LinkConfig
from replicad.net.links import LinkTable
from replicad.net.tls import server_context
from replicad.protocol.gossip.heads import Presence
from replicad.protocol.gossip.parting import parting
from replicad.protocol.gossip.standing import Standing
from replicad.protocol.handshake import Identity
from replicad.protocol.joining import Door
from replicad.server.peers import application
from replicad.services.gossip import GossipService
from replicad.services.hub import Hub
from replicad.services.links import Links, RetryConfig
from replicad.services.membership import Local, Membership, found
from support.waiting import until

RETRY = RetryConfig(pause_first_s=0.05, pause_max_s=1.0)


@dataclass
class PeerNode:
    """One node. ``door_open`` False: it listens nowhere, so links must come from it."""

    name: str
    data: Path
    key: SigningKey
    catalog: Catalog
    hub: Hub
    table: LinkTable
    standing: Standing
    links: Links
    gossip: GossipService
    membership: Membership
    certificate: Digest | None
    url: str
    clock: Clock
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def id(self) -> NodeId:
        return self.key.id

    def members(self) -> set[str]:
        return {member.name for member in self.catalog.replica.trust.members(self.clock()).values()}

    def linked(self, *others: PeerNode) -> bool:
        return all(self.table.get(other.id) is not None for other in others)

    def hash(self, share: str = "") -> Digest:
        return self.catalog.replica.chains.frontier_hash(share)

    async def create_share(self, name: str) -> None:
        await self.catalog.author("", [Policy(name, public=True)])

    async def publish(self, share: str, *paths: str, content: bytes = b"x") -> None:
        await self.catalog.author(share, [entry(path, content) for path in paths])

    async def files(self) -> set[str]:
        return {f"{listed.share}/{listed.path}" for listed in await self.catalog.entries(limit=10_000, all_stages=True)}

    async def publish_and_wait(self, share: str, path: str, *others: PeerNode) -> None:
        await self.publish(share, path)
        for other in others:
            await until(lambda other=other: other.hash(share) == self.hash(share), what=f"{path} at {other.name}")


@dataclass
class Clock:
    """A wall clock that tests may move."""

    ahead_ms: int = 0

    def __call__(self) -> int:
        return int(time.time() * 1000) + self.ahead_ms


def entry(path: str, content: bytes = b"x") -> Entry:
    digest = sha256(content)
    manifest = Manifest.implied(digest, len(content))
    assert manifest is not None
    return Entry(path, "prod", digest, len(content), manifest.id, 1_700_000_000)


@asynccontextmanager
async def peer_node(
    data: Path,
    name: str,
    *,
    tls: bool = True,
    door_open: bool = True,
    wrap: Callable[[web.Application], None] | None = None,
    link_config: LinkConfig | None = None,
    port: int = 0,
) -> AsyncIterator[PeerNode]:
    """A node of a network of its own (or of the one its data directory belongs to), running."""
    async with AsyncExitStack() as stack:
        fresh = not (data / "node.key").exists()
        if fresh:
            data.mkdir(parents=True, exist_ok=True)
            SigningKey.generate().save(data / "node.key")
            SigningKey.generate().save(data / "network.key")
        key = SigningKey.load(data / "node.key")
        network = SigningKey.load(data / "network.key") if fresh else None
        certificate = certificates.ensure(data / "peer.crt", data / "peer.key") if tls else None
        clock = Clock()
        hub = Hub()
        catalog = await stack.enter_async_context(
            Catalog.open(
                data / "catalog.sqlite", node=key, clock_ms=clock, random16=lambda: secrets.randbelow(1 << 16), network=network.id if network else None
            )
        )
        catalog.on_event = hub.publish
        if network:
            await found(catalog, network, name=name, site="")
        standing = Standing(lambda: catalog.replica.chains)
        table = LinkTable(
            key.id,
            may_link=lambda node: node in catalog.replica.trust.members(clock()),
            was_cut=lambda node: catalog.replica.trust.ended(node) is not None,
            parting=lambda node: parting(catalog.replica.trust, node),
        )
        dialer = await stack.enter_async_context(Dialer(link_config=link_config))
        listener = socket.create_server(("127.0.0.1", port), backlog=256)
        url = f"http{'s' if tls else ''}://127.0.0.1:{listener.getsockname()[1]}"
        if not door_open:
            listener.close()

        def identity() -> Identity:
            return Identity(key, catalog.network, certificate)

        links = Links(
            table=table,
            dialer=dialer,
            hub=hub,
            identity=identity,
            members=lambda: catalog.replica.trust.members(clock()),
            address=standing.address,
            dice=random.random,
            own_urls=(url,),
            config=RETRY,
        )
        gossip = GossipService(
            catalog=catalog,
            links=table,
            standing=standing,
            hub=hub,
            key=key,
            percent=lambda _content: 0,
            presence=lambda: Presence(urls=(url,), certificate=certificate, release="test"),
            dice=random.random,
            clock_ms=clock,
        )
        membership = Membership(
            Local(
                catalog=catalog,
                key=key,
                name=name,
                site="",
                door=lambda: Door(key.id, (url,), certificate),
                identity=identity,
                links=table,
                dialer=dialer,
                standing=standing,
                hub=hub,
                clock_ms=clock,
                network_key=data / "network.key",
                node_key=data / "node.key",
            )
        )
        node = PeerNode(name, data, key, catalog, hub, table, standing, links, gossip, membership, certificate, url, clock)
        await stack.enter_async_context(_running(node))
        # The door closes before the links end: whoever dials again at once finds nobody, instead of being left half way through TLS.
        if door_open:
            app = application.make(links=table, identity=identity, answer_join=membership.answer_join, link_config=link_config)
            if wrap:
                wrap(app)
            runner = web.AppRunner(app, **application.RUNNER)
            await runner.setup()
            stack.callback(_let_go, listener.getsockname()[1])
            stack.push_async_callback(runner.cleanup)
            stack.push_async_callback(_stop_accepting, listener)
            await web.SockSite(runner, listener, ssl_context=server_context(data / "peer.crt", data / "peer.key") if tls else None).start()
        yield node


async def _stop_accepting(listener: socket.socket) -> None:
    """Before a door closes: asyncio loses a connection that it has accepted and not yet given a transport when its server closes (Python 3.11), and that is a warning, so a failure."""
    asyncio.get_running_loop().remove_reader(listener)
    for _ in range(3):
        await asyncio.sleep(0)


def _let_go(port: int) -> None:
    """End the connections to a closed door that were still half way through TLS, which no server keeps account of: whoever dials at the end of a test would leave them open."""
    transports = getattr(asyncio.get_running_loop(), "_transports", {})
    for transport in tuple(transports.values()):
        if (name := transport.get_extra_info("sockname")) and name[1:2] == (port,):
            transport.abort()


@asynccontextmanager
async def _running(node: PeerNode) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        node.tasks = [group.create_task(node.links.run()), group.create_task(node.gossip.run()), group.create_task(node.membership.run())]
        try:
            yield
        finally:
            for task in node.tasks:
                task.cancel()
            for task in node.tasks:
                with contextlib.suppress(asyncio.CancelledError):
                    await task


async def admit(inviter: PeerNode, *others: PeerNode, role: str = "publisher") -> None:
    """Let nodes join, one after the other."""
    for other in others:
        await other.membership.join(await inviter.membership.invite(role=role))


async def all_linked(*nodes: PeerNode) -> None:
    """Wait until everybody is linked with everybody."""
    for node in nodes:
        await until(lambda node=node: node.linked(*(other for other in nodes if other is not node)), what=f"the links of {node.name}")
