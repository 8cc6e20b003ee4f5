"""``/peer/v1/manifests/{id}``: the chunk list of a content, ``GET ...?content=<sha256>``, and by ``PUT ...?transfer=<n>`` when it was asked for over a link."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from replicad.model.ids import Digest
from replicad.net.client import MANIFESTS_PATH
from replicad.protocol.fetch.events import Target
from replicad.server.peers.blobs import take
from replicad.server.peers.requests import Answer, authenticated, transfer_of

if TYPE_CHECKING:
    from replicad.net.link import Link
    from replicad.net.links import LinkTable
    from replicad.services.fetch import Fetch


class Manifests:
    """Manifests out and in."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    async def get(self, request: web.Request, link: Link) -> Answer:
        """Send one."""
        target = Target(Digest.parse(request.query.get("content", "")), Digest.parse(request.match_info["manifest"]))
        async with self._fetch.provider.turn(link.node):
            manifest = await self._fetch.provider.manifest(link.node, target)
            return web.Response(body=manifest.encoded)

    async def put(self, request: web.Request, link: Link) -> Answer:
        """Take in what was asked for over the link."""
        return await take(request, self._fetch.inbox.find(link.node, transfer_of(request), (request.path, "")))


def routes(fetch: Fetch, links: LinkTable) -> list[web.RouteDef]:
    """What to mount."""
    manifests = Manifests(fetch)
    path = MANIFESTS_PATH + "{manifest}"
    return [web.get(path, authenticated(links, manifests.get), allow_head=False), web.put(path, authenticated(links, manifests.put))]
