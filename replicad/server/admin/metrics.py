"""``/metrics``: what Prometheus scrapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from replicad.server.admin import bodies
    from replicad.server.admin.routes import Call


async def exposition(call: Call[bodies.Nothing]) -> web.StreamResponse:
    """GET /metrics: the node's metrics in the text format of Prometheus."""
    body, kind = call.services.metrics.exposition()
    return web.Response(body=body, headers={"Content-Type": kind, "Cache-Control": "no-store"})
