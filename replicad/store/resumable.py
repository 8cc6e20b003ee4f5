"""Resumable uploads: files that grow from the front, over many requests and restarts, and become blobs where they lie.

    uploads/<id>    all its room is taken from the beginning; how much of it counts is in the catalog

What was received counts at once for this process, and is *safe* after the next ``sync``. The caller persists what that returned, so that it never claims more than the disk has. After a restart the safe
bytes are read again, which also brings the hashes back: their SHA-256 must be what it was when they were synced.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from replicad.errors import ChecksumError, ReplicadError, StorageError
from replicad.model.checksums import Checksum, begin, digests
from replicad.model.ids import Digest
from replicad.model.manifest import Manifest
from replicad.store.commits import Commit, Committer
from replicad.store.disk import Disk, file_sizes, storage_errors
from replicad.store.hashing import Hashes
from replicad.store.hops import hop
from replicad.store.pipeline import PROMISED, BufferPool, Pipeline, run
from replicad.store.reading import hashed
from replicad.store.sources import Source
from replicad.store.space import Space
from replicad.telemetry.log import get

log = get(__name__)


@dataclass(frozen=True, slots=True)
class Safe:
    """What would survive a crash: the first ``offset`` bytes, whose SHA-256 is ``digest``. Of a whole upload that is its content."""

    offset: int = 0
    digest: Digest = Digest(hashlib.sha256().digest())  # noqa: RUF009 - immutable


@dataclass(frozen=True, slots=True)
class _Means:
    """What every file of the directory works with."""

    target: Callable[[Digest], str]
    pool: BufferPool
    space: Space
    committer: Committer
    disk: Disk
    executor: Executor


class Resumable:
    """One upload that is open. Made by ``Resumables.open``; used by one caller at a time, on the event loop. ``offset`` bytes were received. When ``intact`` is False the disk failed: close it, and open it
    again at what was safe. ``named``: it is a blob by now. ``algorithms`` are hashed besides SHA-256.
    """

    def __init__(self, path: Path, *, size: int, algorithms: Sequence[str], means: _Means) -> None:
        self.size = size
        self.offset = 0
        self.intact = True
        self.named = False
        self._path = path
        self._fd = -1
        self._algorithms = algorithms
        self._hashes = self._begin()
        self._means = means

    def _begin(self) -> Hashes:
        return Hashes.of_size(self.size, begin(self._algorithms))

    async def open(self, safe: Safe) -> None:
        """Open the file and read what should be safe in it. If it is not there any more, nothing counts. StorageError."""
        means = self._means
        with storage_errors("opening an upload"):
            self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        found: Hashes | None = None
        with contextlib.suppress(StorageError):
            found = await hashed(self._fd, safe.offset, self._begin(), disk=means.disk, executor=means.executor)
        if found is not None and found.whole.digest() == safe.digest:
            self.offset, self._hashes = safe.offset, found
        else:
            log.warning("an upload does not read back and begins again", upload=self._path.name, bytes=safe.offset)

    async def append(self, source: Source, *, until: int, seconds: float) -> None:
        """Receive until that many bytes are there, the source ends, or so many seconds are over. Whatever the source raises goes through, after what came before it counts. StorageError, NoSpaceError: not ``intact`` any more."""
        self._hashes = await self._append(source, self._hashes, until=until, seconds=seconds)

    async def append_checked(self, source: Source, checksum: Checksum, *, until: int) -> None:
        """Receive until that many bytes are there or the source ends: all of it counts, or nothing. ChecksumError unless the bytes have that checksum."""
        start, hashes = self.offset, self._hashes.copy()
        hashes.more[PROMISED] = checksum.begin()
        try:
            found = await self._append(source, hashes, until=until)
            if found.more.pop(PROMISED).digest() != checksum.digest:
                raise ChecksumError(f"the {self.offset - start} bytes at offset {start} do not have that {checksum.algorithm}: nothing of them counts")
        except BaseException:
            self.offset = start
            raise
        self._hashes = found

    async def _append(self, source: Source, hashes: Hashes, *, until: int, seconds: float = float("inf")) -> Hashes:
        """The hashes afterwards: those that were given, further on."""
        means = self._means
        pipeline = Pipeline(
            self._fd, hashes=hashes, start=self.offset, allocated=self.size, pool=means.pool, space=means.space, disk=means.disk, executor=means.executor
        )
        try:
            await run(pipeline, source, until=until, seconds=seconds)
        finally:
            self.offset = pipeline.received
            self.intact = self.intact and not pipeline.failed
        return hashes

    @property
    def checksums(self) -> dict[str, bytes]:
        """Of what was received, by algorithm."""
        return digests(self._hashes.more)

    async def sync(self) -> Safe:
        """Make what was received durable. StorageError: not ``intact`` any more, because the kernel may have dropped what it could not write."""
        received = Safe(self.offset, Digest(self._hashes.whole.digest()))
        try:
            await hop(self._means.executor, self._sync)
        except ReplicadError:
            self.intact = False
            raise
        return received

    def _sync(self) -> None:
        with storage_errors("making an upload durable"):
            self._means.disk.sync(self._fd)

    async def finish(self) -> Manifest:
        """Give the whole file, which is safe, its name as a blob, durably. StorageError; when it is ``named`` even so, only a power failure may take the name."""
        manifest = self._hashes.manifest(self.size)
        file = Commit(str(self._path), self._means.target(manifest.content))
        try:
            await self._means.committer.commit([file])
        finally:
            self.named = file.named
        if file.error is not None:
            raise file.error
        return manifest

    def close(self) -> None:
        """Close the file and keep it. Harmless when repeated."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


class Resumables:
    """The directory of them, under their ids. ``target(content)`` is where the blob belongs; ``space`` counts the files already."""

    def __init__(
        self, directory: Path, *, target: Callable[[Digest], str], pool: BufferPool, space: Space, committer: Committer, disk: Disk, executor: Executor
    ) -> None:
        self._directory = directory
        self._means = _Means(target, pool, space, committer, disk, executor)

    async def sizes(self) -> dict[str, int]:
        """Every upload on the disk, and the bytes it takes."""
        return await hop(self._means.executor, self._sizes)

    def _sizes(self) -> dict[str, int]:
        with storage_errors(f"listing {self._directory}"):
            return file_sizes(self._directory)

    async def create(self, name: str, size: int) -> None:
        """A new one with room for ``size`` bytes. NoSpaceError."""
        await hop(self._means.executor, self._create, self._directory / name, size)

    def _create(self, path: Path, size: int) -> None:
        means = self._means
        with storage_errors("starting an upload"):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with storage_errors("starting an upload"):
                means.disk.sync_directory(self._directory)
            means.space.allocate(fd, 0, size)
        except BaseException:
            path.unlink()
            raise
        finally:
            os.close(fd)

    async def open(self, name: str, size: int, safe: Safe, algorithms: Sequence[str] = ()) -> Resumable:
        """Go on with one; see ``Resumable.open``."""
        upload = Resumable(self._directory / name, size=size, algorithms=algorithms, means=self._means)
        try:
            await upload.open(safe)
        except BaseException:
            upload.close()
            raise
        return upload

    async def discard(self, name: str) -> None:
        """Remove one that is not open. Harmless if it is not there."""
        await hop(self._means.executor, self._discard, self._directory / name)

    def _discard(self, path: Path) -> None:
        with storage_errors("removing an upload"):
            try:
                size = path.stat().st_size
                path.unlink()
            except FileNotFoundError:
                return
        self._means.space.release(size)
