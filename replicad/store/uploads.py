"""Uploads: a stream becomes a blob, or leaves no trace.

Small contents (at most one buffer) are hashed and written many in one hop (``write``), and become durable blobs together, later (``name``); bigger ones go through the pipeline. Either way the blob gets
its name only after its bytes match what was promised and are durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from replicad.errors import InputError, IntegrityError
from replicad.model.checksums import Checksum
from replicad.model.chunks import CHUNK_SIZE_MIN, CONTENT_SIZE_MAX, chunk_size_for
from replicad.model.ids import Digest
from replicad.model.manifest import Manifest
from replicad.store.commits import Commit, Committer
from replicad.store.disk import Disk, storage_errors
from replicad.store.hashing import ChunkHasher, Hashes
from replicad.store.hops import hop
from replicad.store.pipeline import PROMISED, BufferPool, Pipeline, run
from replicad.store.reading import hashed
from replicad.store.sources import Source
from replicad.store.space import Space, StoreConfig

if TYPE_CHECKING:
    from _hashlib import HASH

UPLOAD_PREFIX = "upload."
SMALL_BYTES_MAX = CHUNK_SIZE_MIN
"""Up to here a content has one chunk at most, so one hash serves for chunk and whole."""
SMALL_GROUP_MAX = 256
SMALL_GROUP_BYTES_MAX = 16 << 20


@dataclass(slots=True, eq=False)
class _Upload:
    """A temporary file. ``fd`` is -1 until it is open; ``allocated`` bytes are accounted for."""

    path: str
    fd: int = -1
    allocated: int = 0
    named: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Fresh:
    """A small content that is on the disk and matches its digest, but would not survive a power failure yet: between ``write`` and ``name``. ``path`` may be opened until then."""

    content: Digest
    size: int
    upload: _Upload

    @property
    def path(self) -> str:
        """Where its bytes are."""
        return self.upload.path


class Uploads:
    """Receives contents into one store. ``target(content)`` is where the blob belongs."""

    def __init__(
        self, directory: Path, *, target: Callable[[Digest], str], config: StoreConfig, space: Space, committer: Committer, disk: Disk, executor: Executor
    ) -> None:
        self._begins = f"{directory}/{UPLOAD_PREFIX}"
        self._target = target
        self._space = space
        self._committer = committer
        self._disk = disk
        self._executor = executor
        self.pool = BufferPool()
        self._slots = asyncio.Semaphore(config.uploads_max)
        self._numbers = itertools.count(1)

    async def receive(self, source: Source, *, size: int | None, expect: Digest | None, also: Checksum | None, more: Mapping[str, HASH]) -> Manifest:
        """One content from a stream; see ``BlobStore.receive``."""
        if size is not None and not 0 <= size <= CONTENT_SIZE_MAX:
            raise InputError(f"size {size}: 0 to {CONTENT_SIZE_MAX} bytes expected")
        promise = _Promise(expect, also, more)
        async with self._slots:
            upload = self._new()
            try:
                if size is not None and size <= SMALL_BYTES_MAX:
                    manifest = await self._receive_small(upload, source, size=size, promise=promise)
                else:
                    manifest = await self._receive_big(upload, source, size=size, promise=promise)
                    await hop(self._executor, self._sync, upload)
                await self._commit([(manifest.content, upload)])
            finally:
                await hop(self._executor, self._close, [upload])
        return manifest

    def _new(self) -> _Upload:
        return _Upload(f"{self._begins}{next(self._numbers)}")

    async def write(self, contents: Sequence[tuple[bytes | memoryview, Digest | None]]) -> list[Fresh | None]:
        """Hash and write small contents, in one hop, with what they are expected to be; None for those that are something else and were not written."""
        uploads = [self._new() for _ in contents]
        try:
            digests = await hop(self._executor, self._write_all, contents, uploads)
        except BaseException:
            await hop(self._executor, self._close, uploads)
            raise
        found = zip(digests, contents, uploads, strict=True)
        return [None if digest is None else Fresh(digest, len(content), upload) for digest, (content, _), upload in found]

    async def name(self, fresh: Sequence[Fresh]) -> None:
        """Make what was written durable, all of it together, and give it its names. What got none is gone afterwards."""
        try:
            await self._commit([(one.content, one.upload) for one in fresh])
        finally:
            await self.drop(fresh)

    async def drop(self, fresh: Sequence[Fresh]) -> None:
        """Close what was written; what has no name is gone."""
        await hop(self._executor, self._close, [one.upload for one in fresh])

    def _write_all(self, contents: Sequence[tuple[bytes | memoryview, Digest | None]], uploads: Sequence[_Upload]) -> list[Digest | None]:
        digests: list[Digest | None] = []
        for content, expect in contents:
            found = Digest(hashlib.sha256(content).digest())
            digests.append(found if expect in (None, found) else None)
        sizes = [0 if digest is None else len(content) for digest, (content, _) in zip(digests, contents, strict=True)]
        self._space.claim(sum(sizes))
        for upload, size in zip(uploads, sizes, strict=True):
            upload.allocated = size
        with storage_errors("writing an upload"):
            for (content, _), upload, digest in zip(contents, uploads, digests, strict=True):
                if digest is not None:
                    upload.fd = _created(upload.path)
                    self._disk.write(upload.fd, memoryview(content), 0)
        return digests

    async def _receive_small(self, upload: _Upload, source: Source, *, size: int, promise: _Promise) -> Manifest:
        buffer = await self.pool.take()
        try:
            content = buffer.memory[:size]
            check_length(await source.fill(content), size)
            await _check_end(source, size)
            found = await hop(self._executor, self._hash_and_write, upload, content, promise)
        finally:
            self.pool.give(buffer)
        return small_manifest(found, size)

    def _hash_and_write(self, upload: _Upload, content: memoryview, promise: _Promise) -> Digest:
        more = promise.hashes
        for one in more.values():
            one.update(content)
        found = promise.kept(hashlib.sha256(content).digest(), more)
        self._create(upload, len(content))
        with storage_errors("writing an upload"):
            self._disk.write(upload.fd, content, 0)
        return found

    def _create(self, upload: _Upload, size: int) -> None:
        with storage_errors("starting an upload"):
            upload.fd = _created(upload.path)
        self._space.allocate(upload.fd, 0, size)
        upload.allocated = size

    async def _receive_big(self, upload: _Upload, source: Source, *, size: int | None, promise: _Promise) -> Manifest:
        await hop(self._executor, self._create, upload, size or 0)
        pipeline = self._pipeline(upload, Hashes.of_size(size, promise.hashes))
        end = CONTENT_SIZE_MAX if size is None else size
        try:
            await run(pipeline, source, until=end)
            if size is not None:
                check_length(pipeline.received, size)
            await _check_end(source, end)
        finally:
            upload.allocated = pipeline.allocated
        hashes, received = pipeline.hashes, pipeline.received
        promise.kept(hashes.whole.digest(), hashes.more)
        if hashes.chunks.outgrown:
            again = ChunkHasher(chunk_size_for(received))
            hashes.chunks = await hashed(upload.fd, received, again, drop=False, disk=self._disk, executor=self._executor)
        await hop(self._executor, self._trim, upload, received)
        return hashes.manifest(received)

    def _pipeline(self, upload: _Upload, hashes: Hashes) -> Pipeline:
        return Pipeline(upload.fd, hashes=hashes, allocated=upload.allocated, pool=self.pool, space=self._space, disk=self._disk, executor=self._executor)

    def _trim(self, upload: _Upload, size: int) -> None:
        with storage_errors("ending an upload"):
            os.ftruncate(upload.fd, size)
        self._space.release(upload.allocated - size)
        upload.allocated = size

    def _sync(self, upload: _Upload) -> None:
        with storage_errors("making an upload durable"):
            self._disk.sync(upload.fd)

    async def _commit(self, uploads: Sequence[tuple[Digest, _Upload]]) -> None:
        files = [Commit(upload.path, self._target(content), upload.fd) for content, upload in uploads]
        try:
            await self._committer.commit(files)
        finally:
            for file, (_, upload) in zip(files, uploads, strict=True):
                upload.named = file.named
        for file in files:
            if file.error is not None:
                raise file.error

    def _close(self, uploads: Sequence[_Upload]) -> None:
        for upload in uploads:
            if upload.fd >= 0:
                os.close(upload.fd)
                if not upload.named:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(upload.path)  # noqa: PTH108 - a Path costs more than the call
            if not upload.named:
                self._space.release(upload.allocated)


def _created(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def small_manifest(content: Digest, size: int) -> Manifest:
    """The manifest of content of at most one chunk."""
    return Manifest(content, size, chunk_size_for(size), bytes(content) if size else b"")


def small_groups(bodies: Sequence[bytes | memoryview]) -> Iterator[list[bytes | memoryview]]:
    """Cut into groups of at most ``SMALL_GROUP_MAX`` files and about ``SMALL_GROUP_BYTES_MAX``."""
    group: list[bytes | memoryview] = []
    size = 0
    for body in bodies:
        group.append(body)
        size += len(body)
        if len(group) == SMALL_GROUP_MAX or size >= SMALL_GROUP_BYTES_MAX:
            yield group
            group, size = [], 0
    if group:
        yield group


async def _check_end(source: Source, size: int) -> None:
    if not await source.ended():
        raise IntegrityError(f"the upload goes on after its {size} bytes")


def check_length(received: int, size: int) -> None:
    """IntegrityError unless as many bytes came as were announced."""
    if received != size:
        raise IntegrityError(f"the upload ended after {received} of {size} bytes")


def check_digest(found: Digest, expect: Digest | None) -> None:
    """IntegrityError unless the content is what was promised."""
    if expect is not None and found != expect:
        raise IntegrityError(f"the upload has SHA-256 {found}, expected {expect}")


@dataclass(frozen=True, slots=True)
class _Promise:
    """What somebody said that a content is: ``expect`` and ``also``; and what else is to be hashed."""

    expect: Digest | None
    also: Checksum | None
    more: Mapping[str, HASH]

    @property
    def hashes(self) -> dict[str, HASH]:
        """Besides SHA-256, before the first byte."""
        return {**self.more, **({PROMISED: self.also.begin()} if self.also is not None else {})}

    def kept(self, whole: bytes, more: Mapping[str, HASH]) -> Digest:
        """The content's name, of its SHA-256 and the ``hashes`` besides; IntegrityError unless it is what was promised."""
        found = Digest(whole)
        check_digest(found, self.expect)
        if self.also is not None and (also := more[PROMISED]).digest() != self.also.digest:
            raise IntegrityError(f"the upload has {self.also.algorithm} {also.hexdigest()}, expected {self.also.digest.hex()}")
        return found
