"""The downloads door: GET and HEAD of ``/{share}/{path}``, of ``/{share}/`` and directories below where they may be listed, ``/-/blob/{sha256}``, ``/-/metalink/{share}/{path}.meta4``,
``/-/mdm/{share}/{path}.plist``, ``/-/nearest``, ``/-/health`` and ``/-/ready``. Public, read only.

One walk: request -> entry -> blob file -> sendfile. A bare protocol with a parser in C, without router, middlewares and writers, which cost more than everything here (docs/adr/0015). What is not
shown here - a stage that this node does not carry, a path that could never exist, content that is not here and does not arrive - gets the same 404, byte by byte; ``access`` says what becomes of an unknown share
and of one that this client may not see.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple, Protocol

from replicad.errors import InputError, NotFoundError, StorageError
from replicad.model.entries import Wanted
from replicad.server.downloads import listings, targets
from replicad.server.downloads.access import Gate, RefusedError
from replicad.server.downloads.answers import METHODS, MODIFIED_MAX, OK, PARTIAL, Answer, Version, answer, document, page, plain
from replicad.server.downloads.arriving import Arrivals, ArrivingResponse
from replicad.server.downloads.config import DownloadsConfig
from replicad.server.downloads.content_type import content_type
from replicad.server.downloads.passwords import TooManyGuessesError
from replicad.server.downloads.products import Products
from replicad.server.downloads.respond import NO_FILE, Response
from replicad.server.downloads.server import DownloadServer
from replicad.server.downloads.steering import Steering
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from replicad.model.entries import Listed
    from replicad.model.ids import Digest
    from replicad.model.manifest import Manifest
    from replicad.server.downloads.access import Replica
    from replicad.server.downloads.products import Mirrors
    from replicad.server.downloads.requests import Request
    from replicad.telemetry.access_log import Answered

log = get(__name__)
ALLOW = f"Allow: {', '.join(METHODS)}\r\n".encode()
BUSY = b"Retry-After: 1\r\n"
WITH_CONTENT = (OK, PARTIAL)


class View(NamedTuple):
    """What clients are shown under (share, collision key) with whether its content is here now, and where else files are."""

    visible: Callable[[str, str], Awaitable[Listed | None]]
    mirrors: Mirrors


class Catalog(Protocol):
    """What this door asks the catalog."""

    @property
    def replica(self) -> Replica:
        """Read afresh for each request: joining a network replaces it."""

    async def entries(self, share: str | None = None, *, prefix: str = "", after: tuple[str, str] | None = None, limit: int = 1000) -> Sequence[Listed]:
        """A page of what this node shows of a share, in order of key."""

    async def is_named(self, content: Digest, shares: Iterable[str]) -> bool:
        """Whether one of these shares shows a file with that content here."""

    def serves(self, content: Digest) -> bool:
        """Whether the content is here, verified, and may be given away."""

    def held_sizes(self, contents: Sequence[Digest]) -> Mapping[Digest, int]:
        """The sizes in bytes of those of the contents that are here."""

    def doubt(self, content: Digest) -> None:
        """The disk does not give it as it should."""

    async def manifest(self, content: Digest, manifest_id: Digest) -> Manifest | None:
        """A manifest that is here."""

    async def checksums(self, contents: Sequence[Digest]) -> Mapping[Digest, Mapping[str, bytes]]:
        """Other hashes than SHA-256, by algorithm, of those of which any are known."""


class Store(Protocol):
    """What this door asks the store."""

    def open_blob(self, content: Digest) -> int:
        """A descriptor to read; NotFoundError."""


class Door:
    """Answers requests. Keeps nothing between them."""

    def __init__(
        self,
        catalog: Catalog,
        store: Store,
        *,
        view: View,
        config: DownloadsConfig,
        waiting_for: Callable[[], Sequence[str]],
        arrivals: Arrivals | None,
    ) -> None:
        self._arrivals = arrivals
        self._catalog = catalog
        self._store = store
        self._visible = view.visible
        self._config = config
        self._waiting_for = waiting_for
        self._products = Products(catalog, store.open_blob, view.mirrors, replica=lambda: catalog.replica, config=config)
        self._steering = Steering(lambda: catalog.replica, view.mirrors, config=config)
        self._gate = Gate(lambda: catalog.replica, proxies=config.proxies)

    async def handle(self, request: Request) -> Response:
        """The answer to one request."""
        try:
            return await self._found(request)
        except InputError:
            refusal = plain(HTTPStatus.BAD_REQUEST, request.method)
        except NotFoundError:
            refusal = plain(HTTPStatus.NOT_FOUND, request.method)
        except RefusedError:
            refusal = self._gate.refusal(request.method)
        except TooManyGuessesError as error:
            refusal = self._gate.slow_down(error, request.method)
        except (OSError, StorageError) as error:
            log.seldom("open", "a file cannot be opened", reason=str(error))
            refusal = plain(HTTPStatus.SERVICE_UNAVAILABLE, request.method, extra=BUSY)
        return self._respond(refusal)

    async def _found(self, request: Request) -> Response:
        """Raises InputError for a bad target, NotFoundError for whatever this node does not show, RefusedError for what this client may not see, OSError and StorageError when a file cannot be opened for now."""
        if request.method not in METHODS:
            return self._respond(plain(HTTPStatus.METHOD_NOT_ALLOWED, request.method, extra=ALLOW))
        target = targets.parse(request.raw_path)
        if isinstance(target, targets.FileTarget):
            return await self._file(request, target)
        if isinstance(target, targets.DirectoryTarget):
            return await self._directory(request, target)
        if isinstance(target, targets.BlobTarget):
            return await self._blob(request, target.content)
        if target is None:
            raise NotFoundError("nothing could have this name")
        return self._respond(await self._about(request, target))

    async def _about(self, request: Request, target: targets.MetalinkTarget | targets.MdmTarget | targets.Page) -> Answer:
        """What this node says about a file, or about itself."""
        if isinstance(target, targets.MetalinkTarget):
            return await self._products.metalink(request, await self._listed(request, target.file))
        if isinstance(target, targets.MdmTarget):
            return await self._products.mdm(request, await self._listed(request, target.file))
        if target is targets.Page.NEAREST:
            return self._products.nearest(request)
        return self._page(target, request.method)

    async def _file(self, request: Request, target: targets.FileTarget) -> Response:
        listed = await self._listed(request, target)
        if listed.taken_down or not (listed.available or self._arrivals):
            raise NotFoundError("nothing to show under this name")
        if (elsewhere := self._steering.elsewhere(request, listed)) is not None:
            return self._respond(elsewhere)
        version = Version(listed.content, listed.size, min(listed.modified, MODIFIED_MAX), content_type(listed.path))
        found = self._answer(request, version)
        if found.status not in WITH_CONTENT:
            return self._respond(found)
        links = self._products.links(request, listed) if listed.available and found.status == OK else b""
        fd = self._open(listed.content, listed.size) if listed.available else NO_FILE
        if fd == NO_FILE:
            return self._arriving(found, listed)
        return self._send(found._replace(fields=found.fields + links), fd, listed.content)

    async def _listed(self, request: Request, target: targets.FileTarget) -> Listed:
        """What this client is shown under a name."""
        await self._gate.check(request, target.share, target.key)
        listed = await self._visible(target.share, target.key)
        if listed is None:
            raise NotFoundError("nothing to show under this name")
        return listed

    def _arriving(self, found: Answer, listed: Listed) -> Response:
        """Content that is not here, or not any more."""
        if self._arrivals is None:
            raise NotFoundError("the content is not here")
        if not found.pieces or not listed.size:
            return self._respond(found)
        return ArrivingResponse(found, self._arrivals, Wanted(listed.content, listed.size, listed.manifest, listed.hlc), config=self._config)

    async def _directory(self, request: Request, target: targets.DirectoryTarget) -> Response:
        await self._gate.check(request, target.share, target.key)
        if target.share not in self._config.listing:
            raise NotFoundError("the directories of this share are not listed")

        async def entries(prefix: str, after: str) -> Sequence[Listed]:
            return await self._catalog.entries(target.share, prefix=prefix, after=(target.share, after), limit=listings.ROWS)

        def shows(listed: Listed) -> bool:
            return listed.available or (self._arrivals is not None and not listed.taken_down)

        found = await listings.read(target, entries, after=listings.after_of(request.raw_path), shows=shows)
        made = (listings.JSON, listings.as_json(found)) if listings.wants_json(request.headers) else (listings.HTML, listings.as_html(found))
        return self._respond(document(request.method, *made, extra=listings.EXTRA))

    async def _blob(self, request: Request, content: Digest) -> Response:
        """Asks only about shares that this client may see, so that nobody hears by a stopwatch what others have."""
        if not await self._catalog.is_named(content, self._gate.open_to(request)) and not await self._catalog.is_named(
            content, await self._gate.opened_by(request)
        ):
            raise RefusedError
        size = self._catalog.held_sizes([content]).get(content)
        if size is None or not self._catalog.serves(content):
            raise RefusedError
        if (fd := self._open(content, size)) == NO_FILE:
            raise RefusedError
        return self._send(self._answer(request, Version(content, size, None, lasting=True)), fd, content)

    def _answer(self, request: Request, version: Version) -> Answer:
        return answer(request.method, request.headers, version, now_s=time.time(), boundary=lambda: secrets.token_hex(16))

    def _open(self, content: Digest, size: int) -> int:
        """A descriptor of content that should be here; ``NO_FILE``, reported, if it is not, or not with that size."""
        try:
            fd = self._store.open_blob(content)
        except NotFoundError:
            self._doubt(content, "missing")
            return NO_FILE
        if (found := os.fstat(fd).st_size) != size:
            os.close(fd)
            self._doubt(content, f"{found} bytes instead of {size}")
            return NO_FILE
        return fd

    def _doubt(self, content: Digest, detail: str) -> None:
        """The disk does not give what the catalog promised."""
        log.seldom(content, "content on this disk cannot be read as it should be", digest=content, detail=detail)
        self._catalog.doubt(content)

    def _send(self, found: Answer, fd: int, content: Digest) -> Response:
        if not found.pieces:
            os.close(fd)
            return self._respond(found)
        return self._respond(found, fd=fd, on_failure=lambda error: self._doubt(content, error.message))

    def _respond(self, found: Answer, *, fd: int = NO_FILE, on_failure: Callable[[StorageError], object] = lambda _: None) -> Response:
        return Response(found, fd=fd, stall_s=self._config.stall_s, on_failure=on_failure)

    def _page(self, asked: targets.Page, method: str) -> Answer:
        if asked is targets.Page.HEALTH:
            return page(HTTPStatus.OK, method, {"status": "ok"})
        waiting_for = list(self._waiting_for())
        status = HTTPStatus.SERVICE_UNAVAILABLE if waiting_for else HTTPStatus.OK
        return page(status, method, {"ready": not waiting_for, "waiting_for": waiting_for})


def make(
    catalog: Catalog,
    store: Store,
    *,
    view: View,
    waiting_for: Callable[[], Sequence[str]],
    config: DownloadsConfig | None = None,
    note: Callable[[Answered], object] = lambda _: None,
    arrivals: Arrivals | None = None,
) -> DownloadServer:
    """The server, for ``loop.create_server``. ``waiting_for`` names what this node is not ready for yet (``/-/ready``); ``note`` hears of every answer; with ``arrivals`` files
    are served while they arrive.
    """
    config = config or DownloadsConfig()
    door = Door(catalog, store, view=view, config=config, waiting_for=waiting_for, arrivals=arrivals)
    return DownloadServer(door.handle, config, note=note)
