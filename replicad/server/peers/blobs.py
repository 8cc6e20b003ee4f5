"""``/peer/v1/blobs/{sha256}``: verified chunks of a content by Range, and chunks that were asked for over a link, by PUT.

``GET ...?manifest=<id>`` with one plain ``Range: bytes=a-b``; nothing else is understood, because only nodes ask. ``PUT ...?transfer=<n>`` with ``Content-Range``.
"""

from __future__ import annotations

import functools
import os
import re
from typing import TYPE_CHECKING

from aiohttp import web

from replicad.errors import NotFoundError, PeerError, UnreachableError
from replicad.model.ids import Digest
from replicad.net.client import BLOBS_PATH
from replicad.protocol.fetch.events import Target
from replicad.server.peers.requests import Answer, FileAnswer, authenticated, next_piece, transfer_of

if TYPE_CHECKING:
    from replicad.net.link import Link
    from replicad.net.links import LinkTable
    from replicad.services.fetch import Fetch
    from replicad.services.fetch.inbox import Expectation

_RANGE = re.compile(r"bytes=(0|[1-9][0-9]{0,17})-(0|[1-9][0-9]{0,17})")


class Blobs:
    """Chunks out and in."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    async def get(self, request: web.Request, link: Link) -> Answer:
        """Send verified bytes."""
        target = Target(Digest.parse(request.match_info["content"]), Digest.parse(request.query.get("manifest", "")))
        match = _RANGE.fullmatch(request.headers.get("Range", ""))
        if match is None:
            raise PeerError("one range of bytes expected", code="bad-request")
        start, stop = int(match[1]), int(match[2]) + 1
        async with self._fetch.provider.turn(link.node), self._fetch.provider.pacing(link.node, [target.content]) as pace:
            fd, size = await self._fetch.provider.open_chunks(link.node, target, start=start, stop=stop)
            try:
                failed = functools.partial(self._fetch.provider.doubt, target.content)
                answer = FileAnswer(fd, offset=start, count=stop - start, size=size, pace=pace, on_failure=failed)
                await answer.prepare(request)
            finally:
                os.close(fd)
        return answer

    async def put(self, request: web.Request, link: Link) -> Answer:
        """Take in what was asked for over the link."""
        expected = self._fetch.inbox.find(link.node, transfer_of(request), (request.path, request.headers.get("Content-Range", "")))
        return await take(request, expected)


async def take(request: web.Request, expected: Expectation) -> Answer:
    """Move a request's body into what waits for it; 204 when all of it fitted. A body that ends early says nothing about honesty: only a connection that breaks does that to a request."""
    length = request.content_length
    if length is None:
        raise PeerError("a body of a known length expected", code="bad-request")
    expected.begin(length)
    try:
        while piece := await next_piece(request):
            if not expected.put(piece):
                raise NotFoundError("nobody waits for it any more")
            await expected.wait_leave(len(piece))
        expected.end()
    except NotFoundError:
        raise
    except BaseException:
        expected.end(UnreachableError("the connection was lost while the answer came"))
        raise
    return web.Response(status=204)


def routes(fetch: Fetch, links: LinkTable) -> list[web.RouteDef]:
    """What to mount."""
    blobs = Blobs(fetch)
    path = BLOBS_PATH + "{content}"
    return [web.get(path, authenticated(links, blobs.get), allow_head=False), web.put(path, authenticated(links, blobs.put))]
