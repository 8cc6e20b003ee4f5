"""The services, each made once and handed to the others as functions."""

from __future__ import annotations

import asyncio
import os
import random
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from replicad.assembly.ground import Ground, clock_ms, monotonic_ms
from replicad.config.reloading import Reloading
from replicad.integrations.repositories import Repositories
from replicad.integrations.vouching import open_vouchers
from replicad.net.dialer import Dialer
from replicad.net.links import LinkTable
from replicad.net.pace import Paces
from replicad.net.tls import LiveCertificate
from replicad.protocol.clock import check_may_author
from replicad.protocol.gossip.parting import parting
from replicad.protocol.gossip.standing import Standing
from replicad.protocol.signed_urls import sign
from replicad.server.admin.services import Facts, Services
from replicad.services.backup import Backups
from replicad.services.collect import Collect
from replicad.services.curation import Curation
from replicad.services.fetch import Fetch
from replicad.services.gossip import GossipService
from replicad.services.identity import Argon, Guesses, Logins, Sessions, Users
from replicad.services.ingest import Ingest, Uploads
from replicad.services.limits import LimitsService
from replicad.services.links import Links
from replicad.services.membership import Local, Membership
from replicad.services.scrub import Scrub
from replicad.services.tokens import Tokens
from replicad.telemetry import log as logs
from replicad.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from replicad.config import Config


async def furnish(stack: AsyncExitStack, ground: Ground) -> tuple[Services, GossipService]:
    """All of them, nothing running yet."""
    config, key, catalog, hub = ground.config, ground.key, ground.catalog, ground.hub
    table = _table(ground)
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
    argon, sessions = Argon(), Sessions(catalog, clock_ms)
    directories, provider = await stack.enter_async_context(open_vouchers(config.ldap, config.oidc))
    reloading = Reloading(config, lambda newer: _apply(newer, limits))
    services = Services(
        facts=Facts(config.node.name, config.node.site, config.node.data, config.network_key, clock_ms(), config.peers_url, config.downloads_url),
        catalog=catalog,
        store=ground.store,
        ingest=ingest,
        uploads=await stack.enter_async_context(Uploads.open(catalog, ground.store, ingest, clock_ms=clock_ms)),
        curation=Curation(catalog, turn=ingest.turn, clock_ms=clock_ms),
        fetch=fetch,
        scrub=Scrub(catalog, ground.store, hub=hub, config=config.scrub, clock_ms=clock_ms),
        collect=Collect(catalog, ground.store, config=config.collect, quiet=ingest.quiet, clock_ms=clock_ms),
        backups=Backups(catalog, name=config.node.name, data=config.node.data, config=config.path, room=ground.store.free_bytes, clock_ms=clock_ms),
        limits=limits,
        membership=Membership(_local(ground, table, dialer, standing)),
        tokens=Tokens(catalog, clock_ms),
        users=Users(catalog, argon, clock_ms),
        sessions=sessions,
        logins=Logins(catalog, sessions, argon, Guesses(time.monotonic), clock_ms, directories),
        provider=provider,
        links=table,
        dialing=links,
        standing=standing,
        hub=hub,
        metrics=Metrics(),
        clock_ms=clock_ms,
        monotonic_ms=monotonic_ms,
        renewal=asyncio.Event(),
        repositories=Repositories(catalog, ground.store.open_blob, now_ms=monotonic_ms),
        certificates={door: LiveCertificate(*tls) for door, tls in (("downloads", config.downloads.tls), ("admin", config.admin.tls)) if tls},
        sign_url=lambda share, path_key, until_s: sign(key, catalog.network, share=share, path_key=path_key, until_s=until_s),
        reload=reloading.reload,
        settings=reloading.settings,
    )
    return services, gossip


def _table(ground: Ground) -> LinkTable:
    """The table of links, which asks the records who belongs to the network."""
    catalog = ground.catalog
    return LinkTable(
        ground.key.id,
        may_link=lambda node: node in ground.members(),
        was_cut=lambda node: catalog.replica.trust.ended(node) is not None,
        parting=lambda node: parting(catalog.replica.trust, node),
    )


async def _transfers(stack: AsyncExitStack, ground: Ground, table: LinkTable, standing: Standing) -> tuple[Fetch, LimitsService]:
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


def _local(ground: Ground, table: LinkTable, dialer: Dialer, standing: Standing) -> Local:
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


def _apply(config: Config, limits: LimitsService) -> None:
    """What can change while the daemon runs."""
    configure_log(config)
    limits.configure(config.limits, config.zone)


def configure_log(config: Config) -> None:
    """Style and level, from now on."""
    logs.configure(style=config.log.format, level=config.log.level, journal="JOURNAL_STREAM" in os.environ)
