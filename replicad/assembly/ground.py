"""What everything stands on: key, catalog, store, hub, and the questions about them that services ask."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import UNSET

from replicad import __version__
from replicad.catalog import Catalog
from replicad.crypto import states
from replicad.crypto.keys import SigningKey
from replicad.model.ids import Digest, NodeId
from replicad.model.members import Member
from replicad.protocol.gossip.heads import Presence
from replicad.protocol.handshake import Identity
from replicad.protocol.joining import Door
from replicad.services.hub import Hub
from replicad.services.membership import finish, next_key_path
from replicad.services.reconcile import reconcile
from replicad.store.blobs import BlobStore
from replicad.telemetry.log import get
from replicad.telemetry.priority import step_back

if TYPE_CHECKING:
    from replicad.config import Config

log = get(__name__)

STORE_THREADS = 4
"""Both hashes of a stream, its writing, and one more so that another file need not wait (measured by bench/publish.py)."""


@dataclass(frozen=True)
class Ground:
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


async def lay(stack: AsyncExitStack, config: Config, certificate: Digest | None) -> Ground:
    """Open everything until the stack unwinds. Raises ReplicadError."""
    key = await _node_key(config)
    hub = Hub()
    executor = stack.enter_context(ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="store", initializer=step_back))
    catalog = await stack.enter_async_context(_catalog(config, key))
    catalog.on_event, catalog.retention = hub.publish, config.admin.retention
    store = await stack.enter_async_context(BlobStore.open(config.node.data, config=config.storage, executor=executor))
    await reconcile(catalog, store, opened=True)
    if not states.available():
        log.warning(
            "Python's OpenSSL does not let SHA-256 go on from a state: what is published here has none, and large contents are read once more when they are complete"
        )
    return Ground(config, key, certificate, catalog, store, hub)


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


def clock_ms() -> int:
    """The wall clock, milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """The clock for intervals, in milliseconds."""
    return time.monotonic_ns() // 1_000_000
