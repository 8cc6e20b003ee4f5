"""Waiting for room to write, for whoever writes to a request's transport by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import web


async def drain(request: web.BaseRequest) -> None:
    """Return when the transport's buffer has room. ConnectionResetError when the client is gone: aiohttp's own drain returns at once then, and uvloop's TLS transport takes bytes for nobody for ever."""
    if request.transport is None:
        raise ConnectionResetError("the client is gone")
    await request.writer.drain()
