"""The whole daemon: ground, services, doors, in this order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.assembly.ground import lay, monotonic_ms
from replicad.assembly.services import configure_log, furnish
from replicad.integrations.mirrors import Mirrors
from replicad.net.links import LinkTable
from replicad.server.admin import application as admin_door
from replicad.server.admin.services import Reloaded, Services
from replicad.server.downloads import application as downloads_door
from replicad.server.downloads.application import View
from replicad.server.downloads.arriving import Arrivals
from replicad.server.downloads.config import DownloadsConfig
from replicad.server.listening import admin_runner, open_downloads, open_socket, open_tcp, peer_tls, peers_runner, read_token
from replicad.server.peers import application as peer_door
from replicad.server.peers import data
from replicad.services.checksums import Checksums
from replicad.services.supervisor import Supervisor
from replicad.telemetry.access_log import AccessLog, Answered
from replicad.telemetry.metrics import Downloads

if TYPE_CHECKING:
    from replicad.config import Config


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


@asynccontextmanager
async def build(config: Config) -> AsyncIterator[Node]:
    """Everything, with all doors open. Raises ReplicadError; then nothing is left running."""
    configure_log(config)
    async with AsyncExitStack() as stack:
        token = read_token(config.admin_token)
        certificate, tls = peer_tls(config.peers.tls, own=(config.peer_certificate, config.peer_key))
        ground = await lay(stack, config, certificate)
        services, gossip = await furnish(stack, ground)
        await services.limits.load()
        tls_of = {door: following.context for door, following in services.certificates.items()}
        access_log = AccessLog(config.downloads.access_log)
        stack.callback(access_log.write)
        counts = Downloads(lambda share: share in ground.catalog.replica.trust.shares())
        services.metrics.registry.register(counts)

        def note(answered: Answered) -> None:
            counts.note(answered)
            access_log.note(answered)

        downloads = downloads_door.make(
            ground.catalog,
            ground.store,
            view=View(
                services.repositories.visible,
                Mirrors(services.node, members=ground.members, standing=services.standing, presence=ground.presence, now_ms=monotonic_ms),
            ),
            waiting_for=tuple,
            config=DownloadsConfig(proxies=config.downloads.trusted_proxies, url=config.downloads_url, listing=frozenset(config.downloads.listing)),
            note=note,
            arrivals=_arrivals(config, services),
        )
        peers = peer_door.make(
            links=services.links, identity=ground.identity, answer_join=services.membership.answer_join, routes=data.routes(services.fetch, services.links)
        )
        await open_downloads(
            stack,
            downloads,
            host=config.downloads.listen.host,
            port=config.downloads.listen.port,
            tls=tls_of.get("downloads"),
        )
        await open_tcp(stack, peers_runner(peers), host=config.peers.listen.host, port=config.peers.listen.port, key="peers.listen", tls=tls)
        await open_socket(stack, admin_runner(admin_door.make(services, token=None)), config.admin_socket)
        if (listen := config.admin.listen) is not None:
            await open_tcp(
                stack, admin_runner(admin_door.make(services, token=token)), host=listen.host, port=listen.port, key="admin.listen", tls=tls_of.get("admin")
            )
        running = {
            "links": services.dialing.run,
            "gossip": gossip.run,
            "fetch": services.fetch.run,
            "limits": services.limits.run,
            "membership": services.membership.run,
            "access log": access_log.run,
            "scrub": services.scrub.run,
            "collect": services.collect.run,
            "uploads": services.uploads.run,
            "checksums": Checksums(services.catalog, services.store, hub=services.hub, examine=services.scrub.check).run,
        }
        running |= {f"certificate of {door}": following.follow for door, following in services.certificates.items()}
        yield Node(Supervisor(running, metrics=services.metrics), services.links, services.renewal, services.reload)


def _arrivals(config: Config, services: Services) -> Arrivals | None:
    """Files are served while they arrive, if the administrator wants it."""
    if config.downloads.on_missing != "stream":
        return None
    return Arrivals(services.fetch.clients.waiting, possible=lambda: services.fetch.limiting.anybody() and not services.store.places.faults())
