"""Nodes that exchange content in this process: real catalog, store, fetch service, sessions and peer doors on loopback; links run in memory and records are copied by hand.

What ``assembly`` builds, less gossip and membership, so that a test decides who knows what and who is linked to whom.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from msgspec import UNSET, UnsetType

from replicad.catalog import Catalog
from replicad.crypto import certificate as certificates
from replicad.crypto.keys import SigningKey
from replicad.errors import StorageError
from replicad.model.events import PeerBlamed
from replicad.model.ids import Digest, NodeId
from replicad.model.manifest import Manifest
from replicad.model.records import Body, Entry, Grant, Policy, Role
from replicad.net.establish import accept_link, open_link
from replicad.net.link import Link
from replicad.net.links import LinkTable
from replicad.net.memory import pipe
from replicad.net.pace import Paces
from replicad.net.tls import server_context
from replicad.protocol.fetch.config import FetchConfig
from replicad.protocol.handshake import Identity
from replicad.server.peers import application, data
from replicad.services.fetch import Fetch
from replicad.services.hub import Hub
from replicad.store.blobs import BlobStore
from replicad.store.disk import Disk
from replicad.store.space import StoreConfig
from support.storing import NO_RESERVE, pieces
from support.waiting import until

Door = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def clock_ms() -> int:
    return int(time.time() * 1000)


@dataclass(eq=False)
class DataNode:
    """One node. ``url`` is its peer door."""

    name: str
    key: SigningKey
    catalog: Catalog
    store: BlobStore
    hub: Hub
    table: LinkTable
    fetch: Fetch
    paces: Paces
    url: str
    certificate: Digest | None
    stack: AsyncExitStack
    task: asyncio.Task[None] | None = None
    links: dict[NodeId, asyncio.Task[str]] = field(default_factory=dict)
    blamed: list[PeerBlamed] = field(default_factory=list)

    @property
    def id(self) -> NodeId:
        return self.key.id

    async def add(self, content: bytes) -> Manifest:
        """Store and hold a content."""
        manifest = await self.store.receive(pieces(content, 1 << 20), size=len(content))
        await self.catalog.hold([manifest])
        return manifest

    def holds(self, *manifests: Manifest) -> bool:
        return all(self.catalog.is_held(manifest.content) for manifest in manifests)

    async def wait_for(self, *manifests: Manifest, deadline_s: float = 30) -> None:
        await until(lambda: self.holds(*manifests), what=f"{len(manifests)} contents at {self.name}", deadline_s=deadline_s)

    def offences(self) -> set[tuple[NodeId, str]]:
        return {(blame.node, blame.offence) for blame in self.blamed}


class DataNetwork:
    """Founds the network, makes nodes, copies records, links nodes."""

    def __init__(self, root: Path, stack: AsyncExitStack) -> None:
        self._root = root
        self._stack = stack
        self._network = SigningKey.generate()
        self._random16 = lambda: secrets.randbelow(1 << 16)
        self.nodes: list[DataNode] = []

    async def node(
        self,
        name: str,
        *,
        role: Role = Role.PUBLISHER,
        shares: tuple[str, ...] | None = None,
        tls: bool = False,
        door: Door | None = None,
        config: FetchConfig | None = None,
        disk: Disk | None = None,
        store: StoreConfig = NO_RESERVE,
        wrap: Callable[[web.Application], None] | None = None,
    ) -> DataNode:
        """A running member; the first one founds. ``door`` replaces what listens at its url. With the name of an earlier node: the same node again, after a restart."""
        home = self._root / name
        fresh = not home.exists()
        home.mkdir(exist_ok=True)
        if fresh:
            SigningKey.generate().save(home / "node.key")
        key = SigningKey.load(home / "node.key")
        stack = await self._stack.enter_async_context(AsyncExitStack())
        certificate = certificates.ensure(home / "peer.crt", home / "peer.key") if tls else None
        hub = Hub()
        catalog = await stack.enter_async_context(
            Catalog.open(home / "catalog.sqlite", node=key, clock_ms=clock_ms, random16=self._random16, network=self._network.id)
        )
        catalog.on_event = hub.publish
        executor = stack.enter_context(ThreadPoolExecutor(4))
        blobs = await stack.enter_async_context(BlobStore.open(home, config=store, executor=executor, disk=disk))
        table = LinkTable(key.id, may_link=lambda node: node in catalog.replica.trust.members(clock_ms()))
        paces = Paces()
        fetch = await stack.enter_async_context(Fetch.open(catalog, blobs, table, hub=hub, config=config, paces=paces, clock_ms=clock_ms))
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        url = f"http{'s' if tls else ''}://127.0.0.1:{listener.getsockname()[1]}"
        node = DataNode(name, key, catalog, blobs, hub, table, fetch, paces, url, certificate, stack)
        context = server_context(home / "peer.crt", home / "peer.key") if tls else None
        if door is None:
            identity = Identity(key, self._network.id, certificate)
            app = application.make(links=table, identity=lambda: identity, answer_join=_no_join, routes=data.routes(fetch, table))
            if wrap:
                wrap(app)
            runner = web.AppRunner(app, **application.RUNNER)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.SockSite(runner, listener, ssl_context=context).start()
        else:
            await stack.enter_async_context(_raw_door(listener, door))
        if fresh:
            await self._admit(node, role=role, shares=shares)
            self.nodes.append(node)
        else:
            self.nodes = [node if other.name == name else other for other in self.nodes]
        stack.push_async_callback(self._end, node)
        node.task = asyncio.create_task(_run(node))
        return node

    async def _admit(self, node: DataNode, *, role: Role, shares: tuple[str, ...] | None) -> None:
        if not self.nodes:
            await node.catalog.author_as(self._network, [Grant(node.id, node.name, Role.ADMIN)])
        else:
            await self.nodes[0].catalog.author("", [Grant(node.id, node.name, role, shares=shares)])
        await self.spread(extra=(node,))

    async def author(self, node: DataNode, share: str, *bodies: Body) -> None:
        """Sign records and spread them to everybody."""
        await node.catalog.author(share, bodies)
        await self.spread()

    async def share(self, name: str) -> None:
        await self.author(self.nodes[0], "", Policy(name, public=True))

    async def publish(self, node: DataNode, share: str, *, urgent: bool | UnsetType = UNSET, **contents: Manifest) -> None:
        """Name contents; everybody hears of it."""
        await self.author(node, share, *(Entry(path, "prod", one.content, one.size, one.id, 1_700_000_000, urgent=urgent) for path, one in contents.items()))

    async def spread(self, *, extra: tuple[DataNode, ...] = ()) -> None:
        """Copy all records everywhere they may go."""
        everybody = {node.id: node for node in (*self.nodes, *extra)}.values()
        for share in ("", *sorted({share for node in everybody for share in node.catalog.replica.trust.shares()})):
            for node in everybody:
                for origin in tuple(node.catalog.replica.chains.frontier(share)):
                    for other in everybody:
                        if other is not node:
                            await _copy(node, other, share, origin)

    async def link(self, one: DataNode, other: DataNode, *, reachable: tuple[bool, bool] = (True, True)) -> tuple[Link, Link]:
        """A link between two nodes. ``reachable``: whether each can reach the other's door."""
        there, back = pipe()
        identities = [Identity(node.key, self._network.id, node.certificate) for node in (one, other)]
        async with asyncio.TaskGroup() as group:
            accepted = group.create_task(accept_link(back, identities[1], may_prove=lambda _node: True))
            opened = group.create_task(open_link(there, identities[0], saw=other.certificate, expect=other.id))
        links = opened.result(), accepted.result()
        for link, owner, peer, can in ((links[0], one, other, reachable[0]), (links[1], other, one, reachable[1])):
            link.peer_url, link.reachable, link.certificate = peer.url, can, peer.certificate
            owner.links[peer.id] = asyncio.create_task(owner.table.run(link))
        await until(lambda: one.table.get(other.id) is not None and other.table.get(one.id) is not None, what="a link")
        return links

    async def unlink(self, one: DataNode, other: DataNode) -> None:
        """End the link between two nodes."""
        for node, peer in ((one, other), (other, one)):
            if (link := node.table.get(peer.id)) is not None:
                link.close("as the test asked")
        for node, peer in ((one, other), (other, one)):
            if (task := node.links.pop(peer.id, None)) is not None:
                await task

    async def stop(self, node: DataNode) -> None:
        """Stop it well. ``node`` with the same name starts it again."""
        await node.stack.aclose()

    async def crash(self, node: DataNode) -> None:
        """Stop it so that nothing is saved on the way, as SIGKILL would: what was written stays in the files, what was not committed is not in the catalog."""

        async def not_any_more() -> None:
            raise StorageError("the process is gone")

        node.fetch._partials.commit = not_any_more  # type: ignore[method-assign]
        await node.stack.aclose()

    async def _end(self, node: DataNode) -> None:
        for other in self.nodes:
            await self.unlink(node, other)
        if node.task is not None:
            node.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await node.task
            node.task = None


async def _copy(node: DataNode, other: DataNode, share: str, origin: NodeId) -> None:
    more = True
    while more:
        envelopes, more = await node.catalog.records_for_pull(share, origin, other.catalog.replica.chains.have(origin, share), bytes_max=1 << 22)
        if envelopes:
            await other.catalog.receive(envelopes, source=node.id)


async def _run(node: DataNode) -> None:
    with node.hub.subscribe(PeerBlamed) as blames:
        listening = asyncio.create_task(_note(node, blames))
        try:
            await node.fetch.run()
        finally:
            listening.cancel()


async def _note(node: DataNode, blames: object) -> None:
    while True:
        node.blamed += await blames.wait()  # type: ignore[attr-defined]


async def _no_join(_body: bytes) -> bytes:
    return b""


@asynccontextmanager
async def _raw_door(listener: socket.socket, door: Door) -> AsyncIterator[None]:
    """A door that does what the test wants with every connection."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        tasks.add(task)  # type: ignore[arg-type]
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await door(reader, writer)
        tasks.discard(task)  # type: ignore[arg-type]
        writer.close()

    server = await asyncio.start_server(connected, sock=listener)
    try:
        yield
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tuple(tasks))


@asynccontextmanager
async def data_network(root: Path) -> AsyncIterator[DataNetwork]:
    """A network without nodes."""
    async with AsyncExitStack() as stack:
        yield DataNetwork(root, stack)
