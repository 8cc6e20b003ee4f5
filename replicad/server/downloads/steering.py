"""Whether a client is sent elsewhere for a file (307): only where its share asks for that, once, and with nothing but what the target may know.

Whoever was sent says so (REDIRECTED in the address) and is served where it arrives: no two nodes send a client back and forth, and a cache that fetches from here what it was asked for gets the file; so does
a CDN, which says what it is (RFC 8586). To a node goes what the client showed in the address of a private file, which every node honours; who shows Authorization is served here, because clients leave that
behind on the way to another host. To anybody else goes the file's name alone: whether clients get it there is up to the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

from replicad.integrations import metalink
from replicad.model.access import check_network
from replicad.model.redirects import ANY, HERE, NEAREST
from replicad.server.downloads.answers import Answer, field, plain
from replicad.server.downloads.clients import address_of, is_in
from replicad.server.downloads.products import query_of

if TYPE_CHECKING:
    from replicad.model.addresses import Address
    from replicad.model.entries import Listed
    from replicad.model.members import Share
    from replicad.server.downloads.access import Replica
    from replicad.server.downloads.config import DownloadsConfig
    from replicad.server.downloads.products import Mirrors
    from replicad.server.downloads.requests import Request

REDIRECTED = "redirected=1"
_CDN = "CDN-Loop"


class Steering:
    """``replica`` is asked afresh for each request: joining a network replaces it."""

    def __init__(self, replica: Callable[[], Replica], mirrors: Mirrors, *, config: DownloadsConfig) -> None:
        self._replica = replica
        self._mirrors = mirrors
        self._config = config

    def elsewhere(self, request: Request, listed: Listed) -> Answer | None:
        """The answer that sends the client of that file away; None: it is served here. It depends on who asks, so nobody may keep it."""
        share = self._replica().trust.shares().get(listed.share)
        if share is None or not share.redirects:
            return None
        query = request.raw_path.partition("?")[2]
        if REDIRECTED in query.split("&") or _CDN in request.headers:
            return None
        location = self._location(request, listed, share)
        if location is None:
            return None
        return plain(HTTPStatus.TEMPORARY_REDIRECT, request.method, extra=field("Location", location) + b"Cache-Control: no-store\r\n")

    def _location(self, request: Request, listed: Listed, share: Share) -> str | None:
        address = address_of(request, self._config.proxies)
        target = _target(share.redirects, address)
        if target == HERE:
            return None
        if target != NEAREST:
            return metalink.address(target, listed, REDIRECTED)
        mirror = None if "Authorization" in request.headers else self._mirrors.nearer(listed, address)
        if mirror is None or (self._config.url.startswith("https:") and not mirror.url.startswith("https:")):
            return None
        return metalink.address(mirror.url, listed, "&".join(filter(None, (query_of(request, share), REDIRECTED))))


def _target(redirects: Mapping[str, str], address: Address | None) -> str:
    found = [network for network in map(check_network, redirects.keys() - {ANY}) if is_in(address, [network])]
    if not found:
        return redirects.get(ANY, HERE)
    return redirects[str(max(found, key=lambda network: network.prefixlen))]
