"""Builds the daemon: everything is made here, once, in the order in which it is read, and ends in the reverse order. Nothing else constructs.

The pieces that services need of each other are handed over as functions, so that services stay strangers. What must be asked afresh because joining a network replaces it
(``catalog.network``, ``catalog.replica``) is never copied.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import UNSET

from replicad import __version__
from replicad.catalog import Catalog
from replicad.config.reloading import Reloading
from replicad.crypto.keys import SigningKey
from replicad.integrations.mirrors import Mirrors
from replicad.integrations.repositories import Repositories
from replicad.model.ids import Digest, NodeId
from replicad.model.members import Member
from replicad.net.dialer import Dialer
from replicad.net.links import LinkTable
from replicad.net.pace import Paces
from replicad.net.tls import LiveCertificate
from replicad.protocol.clock import check_may_author
from replicad.protocol.gossip.heads import Presence
from replicad.protocol.gossip.standing import Standing
from replicad.protocol.handshake import Identity
from replicad.protocol.joining import Door
from replicad.protocol.signed_urls import sign
from replicad.server.admin import application as admin_door
from replicad.server.admin.services import Facts, Reloaded, Services
from replicad.server.downloads import application as downloads_door
from replicad.server.downloads.application import View
from replicad.server.downloads.arriving import Arrivals
from replicad.server.downloads.config import DownloadsConfig
from replicad.server.listening import admin_runner, downloads_runner, open_socket, open_tcp, peer_tls, peers_runner, read_token
from replicad.server.peers import application as peer_door
from replicad.server.peers import data
from replicad.services.backup import Backups
from replicad.services.collect import Collect
from replicad.services.curation import Curation
from replicad.services.fetch import Fetch
from replicad.services.gossip import GossipService
from replicad.services.hub import Hub
from replicad.services.ingest import Ingest
from replicad.services.limits import LimitsService
from replicad.services.links import Links
from replicad.services.membership import Local, Membership, finish, next_key_path
from replicad.services.reconcile import reconcile
from replicad.services.scrub import Scrub
from replicad.services.supervisor import Supervisor
from replicad.services.tokens import Tokens
from replicad.store.blobs import BlobStore
from replicad.telemetry import log as logs
from replicad.telemetry.access_log import AccessLog
from replicad.telemetry.metrics import Metrics
from replicad.telemetry.priority import step_back

if TYPE_CHECKING:
    from replicad.config import Config

log = logs.get(__name__)

STORE_THREADS = 4
"""Both hashes of a stream, its writing, and one more so that another file need not wait (measured by bench/publish.py)."""


@dataclass
class Node:
    """What the daemon runs."""

    supervisor: Supervisor
    links: LinkTable
    renewal: asyncio.Event
    """Set when everything must be built anew."""
    reread: Callable[[], Reloaded]

    async def run(self) -> bool:
        """Run every service until cancelled, or (True) until everything must be built anew. Nobody serves a link after that, while the doors still drain."""
        try:
            async with asyncio.TaskGroup() as group:
                running = group.create_task(self.supervisor.run())
                await self.renewal.wait()
                running.cancel()
        finally:
            self.links.stop("this node stops")
        return True

    async def reload(self) -> None:
        """Apply what can change while running (logging, limits), say what needs a restart. Raises ConfigurationError; then nothing has changed."""
        self.reread()


@dataclass(frozen=True)
class _Ground:
    """What everything stands on, and the questions about it that services ask."""

    config: Config
    key: SigningKey
    certificate: Digest | None
    catalog: Catalog
    store: BlobStore
    hub: Hub

    def members(self) -> Mapping[NodeId, Member]:
        """The members now."""
        return self.catalog.replica.trust.members(clock_ms())

    def site_of(self, node: NodeId) -> str:
        """Where a member stands; empty if that is not known."""
        member = self.members().get(node)
        return member.site if member else ""

    def identity(self) -> Identity:
        """This node, for handshakes."""
        return Identity(self.key, self.catalog.network, self.certificate)

    def presence(self) -> Presence:
        """What this node's heads say about it."""
        used, free = self.store.used_bytes, max(0, self.store.free_bytes())
        return Presence(
            urls=(self.config.peers_url,),
            certificate=self.certificate,
            release=__version__,
            disk_used=used,
            disk_free=free,
            downloads=self.config.downloads_url if self.config.is_downloads_url_known else UNSET,
            networks=tuple(str(network) for network in self.config.downloads.networks),
        )

    def door(self) -> Door:
        """This node's peer door, for invitations."""
        return Door(self.key.id, (self.config.peers_url,), self.certificate)


@asynccontextmanager
async def build(config: Config) -> AsyncIterator[Node]:
    """Everything, with all doors open. Raises ReplicadError; then nothing is left running."""
    _configure_log(config)
    async with AsyncExitStack() as stack:
        token = read_token(config.admin_token)
        certificate, tls = peer_tls(config.peers.tls, own=(config.peer_certificate, config.peer_key))
        ground = await _ground(stack, config, certificate)
        services, gossip = await _services(stack, ground)
        await services.limits.load()
        following = services.certificate
        access_log = AccessLog(config.downloads.access_log)
        stack.callback(access_log.write)
        downloads = downloads_door.make(
            ground.catalog,
            ground.store,
            view=View(
                services.repositories.visible,
                Mirrors(services.node, members=ground.members, standing=services.standing, presence=ground.presence, now_ms=monotonic_ms),
            ),
            waiting_for=tuple,
            on_lost=services.scrub.lost,
            config=DownloadsConfig(proxies=config.downloads.trusted_proxies, url=config.downloads_url, listing=frozenset(config.downloads.listing)),
            note=access_log.note,
            arrivals=_arrivals(config, services),
        )
        peers = peer_door.make(
            links=services.links, identity=ground.identity, answer_join=services.membership.answer_join, routes=data.routes(services.fetch, services.links)
        )
        await open_tcp(
            stack,
            downloads_runner(downloads),
            host=config.downloads.listen.host,
            port=config.downloads.listen.port,
            key="downloads.listen",
            tls=following.context if following is not None else None,
        )
        await open_tcp(stack, peers_runner(peers), host=config.peers.listen.host, port=config.peers.listen.port, key="peers.listen", tls=tls)
        await open_socket(stack, admin_runner(admin_door.make(services, token=None)), config.admin_socket)
        if (listen := config.admin.listen) is not None:
            await open_tcp(stack, admin_runner(admin_door.make(services, token=token)), host=listen.host, port=listen.port, key="admin.listen")
        running = {
            "links": services.dialing.run,
            "gossip": gossip.run,
            "fetch": services.fetch.run,
            "limits": services.limits.run,
            "membership": services.membership.run,
            "access log": access_log.run,
            "scrub": services.scrub.run,
            "collect": services.collect.run,
        }
        if following is not None:
            running["certificate"] = following.follow
        yield Node(Supervisor(running, metrics=Metrics()), services.links, services.renewal, services.reload)


def _arrivals(config: Config, services: Services) -> Arrivals | None:
    """Files are served while they arrive, if the administrator wants it."""
    if config.downloads.on_missing != "stream":
        return None
    return Arrivals(services.fetch.clients.waiting, linked=lambda: bool(services.links.all()))


async def _ground(stack: AsyncExitStack, config: Config, certificate: Digest | None) -> _Ground:
    key = await _node_key(config)
    hub = Hub()
    executor = stack.enter_context(ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="store", initializer=step_back))
    catalog = await stack.enter_async_context(_catalog(config, key))
    catalog.on_event, catalog.retention = hub.publish, config.admin.retention
    store = await stack.enter_async_context(BlobStore.open(config.node.data, config=config.storage, executor=executor))
    await reconcile(catalog, store)
    return _Ground(config, key, certificate, catalog, store, hub)


def _catalog(config: Config, key: SigningKey) -> AbstractAsyncContextManager[Catalog]:
    return Catalog.open(config.catalog, node=key, clock_ms=clock_ms, random16=lambda: secrets.randbelow(1 << 16))


async def _node_key(config: Config) -> SigningKey:
    """This node's key; the new one if the process ended while it was being replaced."""
    key = SigningKey.load(config.node_key)
    if not next_key_path(config.node_key).exists():
        return key
    async with _catalog(config, key) as catalog:
        members = catalog.replica.trust.members(clock_ms())
    return finish(config.node_key, key, members)


async def _services(stack: AsyncExitStack, ground: _Ground) -> tuple[Services, GossipService]:
    config, key, catalog, hub = ground.config, ground.key, ground.catalog, ground.hub
    table = LinkTable(key.id, may_link=lambda node: node in ground.members())
    standing = Standing(lambda: catalog.replica.chains)
    dialer = await stack.enter_async_context(Dialer())
    links = Links(
        table=table,
        dialer=dialer,
        hub=hub,
        identity=ground.identity,
        members=ground.members,
        address=standing.address,
        dice=random.random,
        connect=config.peers.connect,
        own_urls=(config.peers_url,),
    )
    catalog.check_clock = lambda: check_may_author(links.skews().values())
    fetch, limits = await _transfers(stack, ground, table, standing)
    gossip = GossipService(
        catalog=catalog,
        links=table,
        standing=standing,
        hub=hub,
        key=key,
        percent=fetch.percent,
        presence=ground.presence,
        dice=random.random,
        clock_ms=clock_ms,
    )
    ingest = Ingest(catalog, ground.store, clock_ms=clock_ms)
    services = Services(
        facts=Facts(config.node.name, config.node.site, config.node.data, config.network_key, clock_ms(), config.peers_url, config.downloads_url),
        catalog=catalog,
        store=ground.store,
        ingest=ingest,
        curation=Curation(catalog, turn=ingest.turn, clock_ms=clock_ms),
        fetch=fetch,
        scrub=Scrub(catalog, ground.store, hub=hub, config=config.scrub, clock_ms=clock_ms),
        collect=Collect(catalog, ground.store, config=config.collect, quiet=ingest.quiet, clock_ms=clock_ms),
        backups=Backups(catalog, name=config.node.name, data=config.node.data, config=config.path, room=ground.store.free_bytes, clock_ms=clock_ms),
        limits=limits,
        membership=Membership(_local(ground, table, dialer, standing)),
        tokens=Tokens(catalog, clock_ms),
        links=table,
        dialing=links,
        standing=standing,
        hub=hub,
        clock_ms=clock_ms,
        monotonic_ms=monotonic_ms,
        renewal=asyncio.Event(),
        repositories=Repositories(catalog, ground.store.open_blob, now_ms=monotonic_ms),
        certificate=LiveCertificate(*config.downloads.tls) if config.downloads.tls else None,
        sign_url=lambda share, path_key, until_s: sign(key, catalog.network, share=share, path_key=path_key, until_s=until_s),
        reload=Reloading(config, lambda newer: _apply(newer, limits)).reload,
    )
    return services, gossip


async def _transfers(stack: AsyncExitStack, ground: _Ground, table: LinkTable, standing: Standing) -> tuple[Fetch, LimitsService]:
    """Fetching and serving, and what limits it."""
    config, catalog, paces = ground.config, ground.catalog, Paces(ground.site_of)
    fetch = await stack.enter_async_context(
        Fetch.open(
            catalog,
            ground.store,
            table,
            hub=ground.hub,
            config=config.fetch,
            paces=paces,
            clock_ms=clock_ms,
            present=lambda node: standing.linked(node, monotonic_ms()),
        )
    )
    return fetch, LimitsService(catalog, paces, configured=config.limits, zone=config.zone, clock_ms=clock_ms, changed=fetch.limiting.changed)


def _local(ground: _Ground, table: LinkTable, dialer: Dialer, standing: Standing) -> Local:
    config = ground.config
    return Local(
        catalog=ground.catalog,
        key=ground.key,
        name=config.node.name,
        site=config.node.site,
        door=ground.door,
        identity=ground.identity,
        links=table,
        dialer=dialer,
        standing=standing,
        hub=ground.hub,
        clock_ms=clock_ms,
        network_key=config.network_key,
        node_key=config.node_key,
    )


def clock_ms() -> int:
    """The wall clock, milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """The clock for intervals, in milliseconds."""
    return time.monotonic_ns() // 1_000_000


def _apply(config: Config, limits: LimitsService) -> None:
    """What can change while the daemon runs."""
    _configure_log(config)
    limits.configure(config.limits, config.zone)


def _configure_log(config: Config) -> None:
    logs.configure(style=config.log.format, level=config.log.level, journal="JOURNAL_STREAM" in os.environ)
