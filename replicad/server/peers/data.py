"""Everything that moves content between nodes, as one list of routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.server.peers import batch, blobs, manifests

if TYPE_CHECKING:
    from aiohttp import web

    from replicad.net.links import LinkTable
    from replicad.services.fetch import Fetch


def routes(fetch: Fetch, links: LinkTable) -> list[web.RouteDef]:
    """Blobs, manifests and batches."""
    return [*blobs.routes(fetch, links), *manifests.routes(fetch, links), *batch.routes(fetch, links)]
