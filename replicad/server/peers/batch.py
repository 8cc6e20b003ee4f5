"""``/peer/v1/batch``: many small contents in one answer, by ``POST ...?sha256=<of the question>[&patient=1]`` (so that the session's MAC covers the question), and by ``PUT ...?transfer=<n>`` when they were
asked for over a link.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from aiohttp import web

from replicad.errors import PeerError
from replicad.net.client import BATCH_PATH
from replicad.protocol.fetch import batch
from replicad.server.peers.blobs import take
from replicad.server.peers.requests import Answer, PiecesAnswer, authenticated, next_piece, transfer_of

if TYPE_CHECKING:
    from replicad.net.link import Link
    from replicad.net.links import LinkTable
    from replicad.services.fetch import Fetch


class Batches:
    """Small contents out and in."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    async def post(self, request: web.Request, link: Link) -> Answer:
        """Send those that are here. A blob that fails on the way cuts the connection."""
        if (request.content_length or 0) > batch.QUESTION_BYTES_MAX:
            raise PeerError("the question is too long", code="bad-request")
        question = b""
        while len(question) <= batch.QUESTION_BYTES_MAX and (piece := await next_piece(request)):
            question += piece
        if hashlib.sha256(question).hexdigest() != request.query.get("sha256"):
            raise PeerError("the question is not the one that was authenticated", code="bad-request")
        contents = batch.asked(question)
        async with self._fetch.provider.turn(link.node), self._fetch.provider.pacing(link.node, [small.content for small in contents]) as pace:
            # not for TLS, whose copies and the answer in the same heap make the allocator give memory back after each: 370 page faults instead of 15
            size, pieces = await self._fetch.provider.open_batch(link.node, contents, patient=request.query.get("patient") == "1", at_once=not request.secure)
            answer = PiecesAnswer(pieces, count=size, pace=pace)
            await answer.prepare(request)
        if not answer.whole:
            self._fetch.provider.undelivered(link.node, contents)
        return answer

    async def put(self, request: web.Request, link: Link) -> Answer:
        """Take in what was asked for over the link."""
        return await take(request, self._fetch.inbox.find(link.node, transfer_of(request), (request.path, "")))


def routes(fetch: Fetch, links: LinkTable) -> list[web.RouteDef]:
    """What to mount."""
    batches = Batches(fetch)
    return [web.post(BATCH_PATH, authenticated(links, batches.post)), web.put(BATCH_PATH, authenticated(links, batches.put))]
