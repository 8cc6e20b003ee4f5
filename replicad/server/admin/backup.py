"""The backup of this node, as long as its secrets are no part of it."""

from __future__ import annotations

import asyncio

from aiohttp import web

from replicad.server.admin import bodies
from replicad.server.admin.routes import Call

STALL_S = 60.0
"""A client that takes nothing for that long is given up: others wait for its turn. As for uploads."""


async def create(call: Call[bodies.Nothing]) -> web.StreamResponse:
    """GET /backup: catalog and configuration of this moment as one tar archive (docs/backup.md); without keys, and without content. BusyError while another one is made, NoSpaceError unless there is room
    for the catalog once more.
    """
    async with call.services.backups.make() as made:
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream", "Content-Length": str(made.size), "Cache-Control": "no-store"})
        await response.prepare(call.request)
        async for piece in made.pieces():
            try:
                async with asyncio.timeout(STALL_S):
                    await response.write(piece)
            except TimeoutError:
                raise ConnectionResetError from None
        await response.write_eof()
    return response
