"""Resumable uploads: a content comes in over many requests and restarts, takes its room once, and is published when it is whole.

What an upload is for and how far it is stand in the catalog, its bytes lie in the store: first the bytes are synced, then the row says so, and only what the row says is told to the client. An upload
whose last byte is here is told to be whole only once it is published, so a client that lost the last answer asks again and learns what became of it.

    row and file          goes on at what the row says, after that was read again
    row without a file    whole, and its blob is there: the crash came after the file got its name. Otherwise forgotten
    file without a row    removed
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from replicad.catalog import Catalog, Upload
from replicad.errors import BusyError, ConflictError, IntegrityError, LockedError, NotFoundError, ReplicadError, TooLargeError
from replicad.model.checksums import Checksum
from replicad.model.chunks import CONTENT_SIZE_MAX
from replicad.model.ids import Digest
from replicad.services.ingest.ingest import Ingest, Item
from replicad.store.blobs import BlobStore
from replicad.store.resumable import Resumable, Safe
from replicad.store.sources import Incoming, Source
from replicad.telemetry.log import get

log = get(__name__)

GROUP_BYTES = 64 << 20
GROUP_S = 5.0
"""What is synced together: at most so much is sent again after a crash. As when content is fetched."""
PAUSE_S = 600.0
"""Between two looks for uploads that have expired."""
ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class UploadsConfig:
    """``expires_s`` after its last byte an upload that is not whole is dropped (a day: a client that lost its network in the evening goes on the next morning). ``open_max`` at once, ``caller_max`` of them of one caller
    (guesses: a build farm has some dozens of jobs, and each upload takes its whole room at once); ``published_max`` are remembered until they expire.
    """

    expires_s: float = 86_400.0
    open_max: int = 128
    caller_max: int = 32
    published_max: int = 1000


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the whole upload is published. ``stage`` None: the share's last. ``expect``: the SHA-256 that is promised of it, if any. ``metadata`` is given back as it is."""

    share: str
    path: str
    stage: str | None = None
    publisher: str = ""
    urgent: bool = False
    expect: Digest | None = None
    metadata: str = ""


@dataclass(slots=True, eq=False)
class _Open:
    """One upload. ``row`` is what the catalog has. ``file`` None: not read since the start; ``named``: the file is a blob by now. Who changes any of it holds the ``lock``."""

    row: Upload
    file: Resumable | None = None
    named: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def whole(self) -> bool:
        """Every byte is safe."""
        return self.row.offset == self.row.size


class Uploads:
    """The resumable uploads of this node. Opened by ``open``. ``clock_ms`` is the wall clock, milliseconds since 1970."""

    def __init__(self, catalog: Catalog, store: BlobStore, ingest: Ingest, *, clock_ms: Callable[[], int], config: UploadsConfig) -> None:
        self._catalog = catalog
        self._store = store
        self._ingest = ingest
        self._clock_ms = clock_ms
        self._config = config
        self._known: dict[str, _Open] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls, catalog: Catalog, store: BlobStore, ingest: Ingest, *, clock_ms: Callable[[], int], config: UploadsConfig | None = None
    ) -> AsyncIterator[Uploads]:
        """Find what was under way, and clear away what cannot go on. Closes the files at the end."""
        uploads = cls(catalog, store, ingest, clock_ms=clock_ms, config=config or UploadsConfig())
        await uploads._load()
        try:
            yield uploads
        finally:
            for upload in uploads._known.values():
                _close(upload)

    async def _load(self) -> None:
        sizes, gone = await self._store.resumables.sizes(), []
        for row in await self._catalog.uploads():
            upload = _Open(row, named=row.id not in sizes)
            if sizes.get(row.id) == row.size or row.published or (upload.named and upload.whole and self._store.has(row.digest)):
                self._known[row.id] = upload
            else:
                gone.append(row.id)
        await self._catalog.drop_uploads(gone)
        for name in sizes.keys() - {row_id for row_id, upload in self._known.items() if not upload.row.published}:
            await self._store.resumables.discard(name)

    async def run(self) -> None:
        """Drop what has expired, now and then, until cancelled."""
        while True:
            try:
                await self.expire()
            except ReplicadError as error:
                log.seldom("uploads", "expired uploads are not removed; it will be tried again", reason=error.message)
            await asyncio.sleep(PAUSE_S)

    async def expire(self) -> None:
        """Drop what has expired and nobody is at."""
        now_ms = self._clock_ms()
        for upload in list(self._known.values()):
            if upload.row.expires_ms <= now_ms and not upload.lock.locked():
                async with upload.lock:
                    await self._drop(upload)

    def find(self, upload_id: str, caller: str) -> Upload:
        """What is known of it. NotFoundError unless that caller began it."""
        return self._find(upload_id, caller).row

    def _find(self, upload_id: str, caller: str) -> _Open:
        upload = self._known.get(upload_id)
        if upload is None or upload.row.caller != caller or upload.row.expires_ms <= self._clock_ms():
            raise _unknown(upload_id)
        return upload

    async def begin(self, caller: str, to: Destination, size: int) -> Upload:
        """A new upload of ``size`` bytes; one of none is published at once. Raises what ``Ingest.publish`` would as far as it can be known yet, TooLargeError, BusyError beyond the bounds, NoSpaceError."""
        if size > CONTENT_SIZE_MAX:
            raise TooLargeError(f"Upload-Length: {size} bytes; at most {CONTENT_SIZE_MAX}")
        await self._check(to, size)
        await self.expire()
        nothing = Safe()
        row = Upload(
            id=secrets.token_hex(ID_BYTES),
            caller=caller,
            share=to.share,
            path=to.path,
            stage=to.stage,
            publisher=to.publisher,
            urgent=to.urgent,
            metadata=to.metadata,
            size=size,
            expect=to.expect,
            offset=nothing.offset,
            digest=nothing.digest,
            published=False,
            expires_ms=self._expires_ms(),
        )
        self._check_bounds(caller)
        upload = self._known[row.id] = _Open(row)
        async with upload.lock:
            try:
                await self._store.resumables.create(row.id, size)
                await self._catalog.put_upload(row)
                if size == 0:
                    await self._publish(upload)
            except BaseException:
                await self._drop(upload)
                raise
        return upload.row

    async def _check(self, to: Destination, size: int) -> None:
        """Whether it could be published now. Without a promise nobody knows yet whether it is what an immutable share has already."""
        item = Item(to.path, to.expect or Safe().digest, size)
        try:
            await self._ingest.publish(to.share, [item], stage=to.stage, publisher=to.publisher, urgent=to.urgent, dry_run=True)
        except ConflictError as error:
            if to.expect is not None or error.error_code != "immutable":
                raise
            raise ConflictError(
                f"{to.share}/{to.path} already exists (the share is immutable)",
                hint="publish it under a new name; if it is the same file, say so with its sha256",
                code="immutable",
            ) from None

    def _check_bounds(self, caller: str) -> None:
        """Also makes room for one more that is remembered."""
        unpublished = [upload.row for upload in self._known.values() if not upload.row.published]
        for count, most, whose in (
            (len(unpublished), self._config.open_max, "this node"),
            (sum(row.caller == caller for row in unpublished), self._config.caller_max, caller),
        ):
            if count >= most:
                raise BusyError(f"{whose} has {count} uploads under way already", hint="end or terminate some", code="too-many-uploads")

    async def append(self, upload_id: str, caller: str, incoming: Incoming, *, offset: int, size: int | None, checksum: Checksum | None = None) -> Upload:
        """Receive what follows ``offset``: ``size`` bytes, or None for up to the end. The last byte publishes it.

        What came before the sender or the disk failed counts as far as it is safe; with a ``checksum`` all of it or nothing. ConflictError("wrong-offset"), TooLargeError, LockedError while another
        request is at it, ChecksumError, and whatever publishing raises: the upload stays, and its progress asks again.
        """
        upload = self._find(upload_id, caller)
        if upload.lock.locked():
            raise LockedError(f"another request is at upload {upload_id}", hint="ask again a little later")
        async with self._at(upload):
            if not upload.whole:
                await self._opened(upload)
            row = upload.row
            if offset != row.offset:
                raise ConflictError(f"Upload-Offset: {offset}, but {row.offset} bytes are here", code="wrong-offset")
            until = row.size if size is None else offset + size
            if until > row.size:
                raise TooLargeError(f"{size} bytes at offset {offset}: the upload has {row.size}")
            source = self._store.source(incoming)
            if until > offset:
                await self._receive(upload, source, until=until, checksum=checksum)
            if size is None and upload.whole and not await source.ended():
                await self._drop(upload)
                raise TooLargeError(f"the upload goes on after its {row.size} bytes: nothing of it is kept")
            if upload.whole:
                await self._publish(upload)
        return upload.row

    async def _receive(self, upload: _Open, source: Source, *, until: int, checksum: Checksum | None) -> None:
        file = await self._opened(upload)
        if checksum is not None:
            await file.append_checked(source, checksum, until=until)
            await self._keep(upload, file)
            return
        while (before := file.offset) < until:
            try:
                await file.append(source, until=min(until, before + GROUP_BYTES), seconds=GROUP_S)
            finally:
                if file.intact:
                    await self._keep(upload, file)
            if file.offset == before:
                break

    async def _keep(self, upload: _Open, file: Resumable) -> None:
        """Make what was received safe, and then say so."""
        safe = await file.sync()
        await self._put(upload, replace(upload.row, offset=safe.offset, digest=safe.digest, expires_ms=self._expires_ms()))

    async def progress(self, upload_id: str, caller: str) -> Upload:
        """How far it is: what is safe, read again if that was not done since the start. One that is whole is published if it could not be before: raises what that raises."""
        upload = self._find(upload_id, caller)
        if not upload.row.published and (upload.whole or upload.file is None or not upload.lock.locked()):
            async with self._at(upload):
                await (self._publish(upload) if upload.whole else self._opened(upload))
        return upload.row

    async def end(self, upload_id: str, caller: str) -> None:
        """Terminate it: nothing of it is kept, unless it is published already. LockedError."""
        upload = self._find(upload_id, caller)
        if upload.lock.locked():
            raise LockedError(f"another request is at upload {upload_id}", hint="ask again a little later")
        async with self._at(upload):
            await self._drop(upload)

    @asynccontextmanager
    async def _at(self, upload: _Open) -> AsyncIterator[None]:
        async with upload.lock:
            if self._known.get(upload.row.id) is not upload:
                raise _unknown(upload.row.id)
            yield

    async def _opened(self, upload: _Open) -> Resumable:
        """Its file, at what is safe: read again when it was not open, or is not there any more."""
        row = upload.row
        if upload.file is not None and not (upload.file.intact and upload.file.offset == row.offset):
            _close(upload)
        if upload.file is None:
            upload.file = await self._store.resumables.open(row.id, row.size, Safe(row.offset, row.digest), self._ingest.algorithms(row.share))
            if upload.file.offset != row.offset:
                await self._put(upload, replace(row, offset=Safe().offset, digest=Safe().digest))
        return upload.file

    async def _publish(self, upload: _Open) -> None:
        """The whole upload becomes a blob and gets its name. IntegrityError, and nothing of it is kept, unless it is what was promised."""
        row = upload.row
        if row.published:
            return
        if row.expect is not None and row.digest != row.expect:
            await self._drop(upload)
            raise IntegrityError(f"the upload has SHA-256 {row.digest}, expected {row.expect}: nothing of it is kept")
        if not await self._held(upload):
            return
        await self._ingest.publish(row.share, [Item(row.path, row.digest, row.size)], stage=row.stage, publisher=row.publisher, urgent=row.urgent)
        await self._put(upload, replace(row, published=True, expires_ms=self._expires_ms()))
        await self._forget_oldest()

    async def _held(self, upload: _Open) -> bool:
        """See to it that its content is held; False if it turned out not to be whole."""
        row = upload.row
        if not upload.named:
            file = await self._opened(upload)
            if not upload.whole:
                return False
            try:
                manifest = await file.finish()
            finally:
                upload.named = file.named
            _close(upload)
            await self._ingest.hold([manifest], {manifest.content: file.checksums})
        elif not self._catalog.is_held(row.digest):
            if (found := await self._store.adopt(row.digest)) is None:
                await self._drop(upload)
                raise _unknown(row.id)
            await self._ingest.hold([found], {})
        return True

    async def _forget_oldest(self) -> None:
        published = [upload.row for upload in self._known.values() if upload.row.published]
        if len(published) > self._config.published_max:
            await self._drop(self._known[min(published, key=lambda row: row.expires_ms).id])

    async def _put(self, upload: _Open, row: Upload) -> None:
        await self._catalog.put_upload(row)
        upload.row = row

    async def _drop(self, upload: _Open) -> None:
        """Forget it; its room is free. The row goes first: a file without a row is removed at the next start. If the catalog fails, a row without a file is."""
        self._known.pop(upload.row.id, None)
        _close(upload)
        try:
            await self._catalog.drop_uploads([upload.row.id])
        finally:
            if not upload.named:
                await self._store.resumables.discard(upload.row.id)

    def _expires_ms(self) -> int:
        return self._clock_ms() + int(self._config.expires_s * 1000)


def _close(upload: _Open) -> None:
    if upload.file is not None:
        upload.file.close()
    upload.file = None


def _unknown(upload_id: str) -> NotFoundError:
    return NotFoundError(f"there is no upload {upload_id[:80]}: it ended, expired, or is somebody else's", code="no-such-upload")
