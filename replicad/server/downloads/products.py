"""What the clients' door says about a file beside its bytes: where else it is, in which pieces, and, of a package, what an MDM server must say to have it installed."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

from replicad.errors import InputError, NotFoundError
from replicad.integrations import mdm, metalink, packages
from replicad.integrations.packages import Package
from replicad.server.downloads.access import parameters
from replicad.server.downloads.answers import Answer, document, field, page
from replicad.server.downloads.clients import address_of
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from replicad.integrations.mirrors import Mirror
    from replicad.model.addresses import Address
    from replicad.model.entries import Listed
    from replicad.model.ids import Digest
    from replicad.model.manifest import Manifest
    from replicad.model.members import Share
    from replicad.server.downloads.access import Replica
    from replicad.server.downloads.config import DownloadsConfig
    from replicad.server.downloads.requests import Request

log = get(__name__)
PACKAGES_MAX = 1024
HASHED_MAX = 32
"""Lists of up to 4096 hashes: 10 MiB at most."""
LINKED_BYTES_MIN = 1 << 20
"""Answers about smaller files do not say where else they are: one request is over before a second node is asked."""


class Mirrors(Protocol):
    """Which nodes there are for clients: ``integrations.mirrors.Mirrors``."""

    def everywhere(self) -> list[Mirror]:
        """All that live."""

    def holding(self, listed: Listed) -> list[Mirror]:
        """Those that hold the entry's content."""

    def nearest(self, mirrors: Sequence[Mirror], address: Address | None) -> list[Mirror]:
        """The same, nearest to that client first."""

    def nearer(self, listed: Listed, address: Address | None) -> Mirror | None:
        """The nearest node that holds the entry's content, if that client may be sent from here to there."""


class Contents(Protocol):
    """What is known of contents."""

    async def manifest(self, content: Digest, manifest_id: Digest) -> Manifest | None:
        """A manifest that is here."""

    async def checksums(self, contents: Sequence[Digest]) -> Mapping[Digest, Mapping[str, bytes]]:
        """Other hashes than SHA-256, by algorithm, of those of which any are known."""


class Products:
    """Answers about files that the client may see. ``replica`` is asked afresh for each request: joining a network replaces it."""

    def __init__(
        self, contents: Contents, open_blob: Callable[[Digest], int], mirrors: Mirrors, *, replica: Callable[[], Replica], config: DownloadsConfig
    ) -> None:
        self._contents = contents
        self._open_blob = open_blob
        self._mirrors = mirrors
        self._replica = replica
        self._url = config.url
        self._proxies = config.proxies
        self._packages: OrderedDict[Digest, Package | InputError] = OrderedDict()
        self._hashes: OrderedDict[tuple[Digest, int], list[str]] = OrderedDict()
        self._reading = asyncio.Lock()

    def nearest(self, request: Request) -> Answer:
        """All nodes with a door for clients, nearest to this client first."""
        found = self._mirrors.nearest(self._mirrors.everywhere(), address_of(request, self._proxies))
        return page(HTTPStatus.OK, request.method, {"nodes": [{"name": mirror.name, "site": mirror.site, "url": mirror.url} for mirror in found]})

    async def metalink(self, request: Request, listed: Listed) -> Answer:
        """The metalink of a file that some node holds; NotFoundError if none does."""
        query = self._query(request, listed)
        bases = self._bases(request, listed, query)
        if not bases or listed.taken_down:
            raise NotFoundError("nobody holds the content")
        manifest = await self._contents.manifest(listed.content, listed.manifest)
        checksums = (await self._contents.checksums([listed.content])).get(listed.content, {})
        return document(request.method, metalink.MEDIA_TYPE, metalink.render(listed, manifest, bases, checksums=checksums, query=query))

    async def mdm(self, request: Request, listed: Listed) -> Answer:
        """The manifest with which an MDM server has Macs install a package that is here; NotFoundError if it is no package. InputError for another chunk size than those that there are."""
        if not self._url.startswith("https://"):
            log.seldom("mdm", "MDM manifests need an https address: set url in [downloads]", url=self._url)
            raise NotFoundError("Macs take packages over https only")
        if not listed.available:
            raise NotFoundError("the content is not here")
        manifest = await self._contents.manifest(listed.content, listed.manifest)
        size = mdm.chunk_size(parameters(request.raw_path).get("chunk-size"), listed.size)
        async with self._reading:
            package = await self._package(listed)
            hashes = mdm.known_hashes(manifest, size) or await self._read_hashes(listed.content, size)
        title = listed.path.rpartition("/")[2].removesuffix(".pkg")
        url = metalink.address(self._url, listed, self._query(request, listed))
        encoded = mdm.render(package, title=title, url=url, size=size, hashes=hashes)
        return document(request.method, mdm.MEDIA_TYPE, encoded)

    async def _package(self, listed: Listed) -> Package:
        """What it says about itself, read once. NotFoundError if it is no package."""
        if listed.content not in self._packages:
            self._packages[listed.content] = await asyncio.to_thread(_read_package, self._open_blob(listed.content))
            if len(self._packages) > PACKAGES_MAX:
                self._packages.popitem(last=False)
        found = self._packages[listed.content]
        if isinstance(found, InputError):
            log.seldom(listed.content, "this is no package that an MDM server could install", share=listed.share, path=listed.path, reason=found.message)
            raise NotFoundError("no package")
        return found

    async def _read_hashes(self, content: Digest, size: int) -> list[str]:
        name = content, size
        if name not in self._hashes:
            self._hashes[name] = await asyncio.to_thread(mdm.read_hashes, self._open_blob(content), size)
            if len(self._hashes) > HASHED_MAX:
                self._hashes.popitem(last=False)
        return self._hashes[name]

    def links(self, request: Request, listed: Listed) -> bytes:
        """Complete fields, or nothing. For answers with a whole file: whoever asks for a part knows already."""
        if listed.size < LINKED_BYTES_MIN or len(self._mirrors.holding(listed)) < 2:
            return b""
        query = self._query(request, listed)
        return b"".join(field("Link", value) for value in metalink.links(listed, self._bases(request, listed, query), query=query))

    def _query(self, request: Request, listed: Listed) -> str:
        return query_of(request, self._replica().trust.shares().get(listed.share))

    def _bases(self, request: Request, listed: Listed, query: str) -> list[str]:
        """Those that hold it; what was shown over https is for https alone."""
        found = [mirror.url for mirror in self._mirrors.nearest(self._mirrors.holding(listed), address_of(request, self._proxies))]
        return [url for url in found if url.startswith("https:") or not (query and self._url.startswith("https:"))]


def _read_package(fd: int) -> Package | InputError:
    try:
        return packages.read(fd)
    except InputError as error:
        return error
    finally:
        os.close(fd)


def query_of(request: Request, share: Share | None) -> str:
    """What let the client in and was shown in the address, for the other nodes that have the share: they honour it, too. Empty for a public share, where nobody needs it.

    Nothing that could end a header field or an element gets through the parser, and nothing but ASCII is passed on.
    """
    if share is None or share.public:
        return ""
    query = request.raw_path.partition("?")[2]
    return query if query.isascii() and query.isprintable() and not set(query) & set("<>\"' ") else ""
