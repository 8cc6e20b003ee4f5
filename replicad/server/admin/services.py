"""What the admin door works with; assembly fills it once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from replicad.server.admin import nouns

if TYPE_CHECKING:
    from replicad.catalog import Catalog
    from replicad.integrations.oidc import Provider
    from replicad.integrations.repositories import Repositories
    from replicad.model.ids import NodeId
    from replicad.net.links import LinkTable
    from replicad.net.tls import LiveCertificate
    from replicad.protocol.gossip.standing import Standing
    from replicad.services.backup import Backups
    from replicad.services.collect import Collect
    from replicad.services.curation import Curation
    from replicad.services.fetch import Fetch
    from replicad.services.hub import Hub
    from replicad.services.identity import Logins, Sessions, Users
    from replicad.services.ingest import Ingest, Uploads
    from replicad.services.limits import LimitsService
    from replicad.services.links import Links
    from replicad.services.membership import Membership
    from replicad.services.scrub import Scrub
    from replicad.services.tokens import Tokens
    from replicad.store.blobs import BlobStore
    from replicad.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Facts:
    """What does not change while the daemon runs. ``network_key`` is where the network's private key would lie. ``started_ms`` is wall clock time."""

    name: str
    site: str
    data: Path
    network_key: Path
    started_ms: int
    peers_url: str
    downloads_url: str


@dataclass(frozen=True, slots=True)
class Reloaded:
    """Changed keys of the configuration: those that count now, and those that need a restart."""

    applied: list[str]
    restart: list[str]


@dataclass(frozen=True, slots=True)
class Services:
    """``clock_ms`` is wall clock time in milliseconds, ``monotonic_ms`` the clock of ``standing``. Setting ``renewal`` has the daemon built anew.
    ``sign_url(share, path_key, until_s)`` gives the parameters of a URL that this node vouches for. ``reload`` reads the configuration again; ConfigurationError: nothing has changed. ``settings``: what of it counts now.
    """

    facts: Facts
    catalog: Catalog
    store: BlobStore
    ingest: Ingest
    uploads: Uploads
    curation: Curation
    fetch: Fetch
    limits: LimitsService
    scrub: Scrub
    collect: Collect
    backups: Backups
    membership: Membership
    tokens: Tokens
    users: Users
    sessions: Sessions
    logins: Logins
    links: LinkTable
    dialing: Links
    standing: Standing
    hub: Hub
    metrics: Metrics
    clock_ms: Callable[[], int]
    monotonic_ms: Callable[[], int]
    renewal: asyncio.Event
    repositories: Repositories
    reload: Callable[[], Reloaded]
    settings: Callable[[], nouns.Settings]
    sign_url: Callable[[str, str, int], dict[str, str]]
    certificates: Mapping[str, LiveCertificate] = field(default_factory=dict)
    """Of the doors that speak TLS with a certificate of the operator's, by the door's name."""
    provider: Provider | None = None
    """Of OpenID Connect, if one is configured."""

    @property
    def node(self) -> NodeId:
        """This node."""
        return self.catalog.node
