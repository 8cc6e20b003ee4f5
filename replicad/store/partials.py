"""Partials: contents on their way in, chunk by chunk, in any order, from many peers.

A chunk counts as soon as it is verified and written; it is *safe* after the next ``sync``. The caller drives commit groups (64 MiB or 5 s): ``sync``, then persist the bitmap that it returned, so a bit
that survives a crash means bytes on the disk. Even so they are read and verified again before they count after a restart (0.6 s per GiB): a disk may lie, a row may be older than its file. A failed sync discards its group: Linux reports a lost write once and may drop the pages, so nothing written since the last good sync is believed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Self

from replicad.errors import IntegrityError, ReplicadError, StorageError
from replicad.model.chunks import chunk_count
from replicad.model.manifest import Manifest
from replicad.model.words import plural
from replicad.store.checking import is_false, is_good, proves
from replicad.store.commits import Commit, Committer
from replicad.store.disk import Disk, storage_error, storage_errors
from replicad.store.hops import hop, waited
from replicad.store.reading import find_rotten, hashed
from replicad.store.space import Space
from replicad.telemetry.log import get

log = get(__name__)

Buffer = bytes | bytearray | memoryview


class Partial:
    """One content being fetched under one manifest. Made by ``BlobStore.open_partial``; an async context manager that closes it and keeps the file.

    ``have`` is the bitmap of verified, written chunks (bit i of byte i // 8, least significant first); any of them may be served from ``fd``, which stays valid until ``close`` (duplicate it to use
    it longer). Everything except the work in threads happens on the event loop.
    """

    def __init__(self, manifest: Manifest, *, path: Path, target: Path, executor: Executor, disk: Disk, space: Space, committer: Committer) -> None:
        self.manifest = manifest
        self.fd = -1
        self.have = bytearray(-(-manifest.count // 8))
        self.count = 0
        self.finished = False
        self.on_closed: Callable[[], object] = lambda: None
        self._path = path
        self._target = target
        self._executor = executor
        self._disk = disk
        self._space = space
        self._committer = committer
        self._safe = bytes(self.have)
        self._group = 0
        self._syncing = asyncio.Lock()
        self._writing = threading.Lock()
        """One thread writes at a time: the kernel lets only one write a file, and others would spin for it."""
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()
        self._closing = False

    async def open(self, bitmap: bytes) -> None:
        """Open or make the file, and read again what ``bitmap`` says is in it: only chunks that still match count. Called once, by the store."""
        with self._using():
            if not await hop(self._executor, self._open):
                return
            claimed = _checked(bitmap, self.manifest.count)
            self._forget(claimed)
            rotten = await self._rotten([index for index in range(self.manifest.count) if self.has(index)])
            if rotten:
                log.warning("chunks of a partial do not read back and will be fetched again", content=self.manifest.content.short, chunks=len(rotten))
            self._safe = _without(claimed, rotten)
            self._forget(self._safe)

    def _open(self) -> bool:
        """Whether a file of the right size was there."""
        with storage_errors(f"opening the partial of {self.manifest.content}"):
            self.fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            size = os.fstat(self.fd).st_size
            if size == self.manifest.size and size > 0:
                return True
            os.ftruncate(self.fd, 0)
            self._space.release(size)
            self._disk.sync_directory(self._path.parent)
        try:
            self._space.allocate(self.fd, 0, self.manifest.size)
        except ReplicadError:
            self._path.unlink()
            raise
        return False

    @property
    def complete(self) -> bool:
        """All chunks are verified and written."""
        return self.count == self.manifest.count

    def has(self, index: int) -> bool:
        """Whether chunk ``index`` is verified and written."""
        return bool(self.have[index >> 3] >> (index & 7) & 1)

    async def write(self, first_chunk: int, content: Buffer) -> tuple[list[int], list[int]]:
        """Verify and write neighbouring whole chunks from ``first_chunk`` on. Returns the (good, bad) chunk indices; a chunk cut short is bad. Good ones are written and count at once.

        One thread hop. ``content`` must not change until this returns. Raises NoSpaceError or StorageError (nothing of this call counts), ValueError when the bytes reach beyond the content, and IntegrityError
        when the manifest contradicts itself, whoever sent the bytes: discard the partial.
        """
        view = memoryview(content).cast("B")
        if first_chunk < 0 or first_chunk * self.manifest.chunk_size + len(view) > self.manifest.size:
            raise ValueError(f"{len(view)} bytes at chunk {first_chunk} reach beyond the content's {self.manifest.size}")
        with self._using():
            group = self._group
            good, bad = await hop(self._executor, self._verify_and_write, first_chunk, view)
            if group != self._group:
                raise StorageError(f"a failed sync discarded chunks of {self.manifest.content} while they were written")
            for index in good:
                self._set(index)
            return good, bad

    @contextlib.contextmanager
    def _using(self) -> Iterator[None]:
        if self._closing:
            raise ValueError(f"the partial of {self.manifest.content} is closed")
        self._users += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._users -= 1
            if self._users == 0:
                self._unused.set()

    def _set(self, index: int) -> None:
        if not self.has(index):
            self.have[index >> 3] |= 1 << (index & 7)
            self.count += 1

    def _verify_and_write(self, first_chunk: int, view: memoryview) -> tuple[list[int], list[int]]:
        manifest, good, bad = self.manifest, list[int](), list[int]()
        start, count = 0, chunk_count(len(view), manifest.chunk_size)
        for at in range(count):
            index, offset = first_chunk + at, at * manifest.chunk_size
            chunk = view[offset : offset + manifest.chunk_size]
            if is_good(manifest, index, chunk):
                good.append(index)
            else:
                if is_false(manifest, index, chunk):
                    raise IntegrityError(f"chunk {index} is what manifest {manifest.id} calls it, and no part of {manifest.content}: the manifest is false")
                bad.append(index)
                self._write(first_chunk, view, start, offset)
                start = offset + manifest.chunk_size
        self._write(first_chunk, view, start, len(view))
        return good, bad

    def _write(self, first_chunk: int, view: memoryview, start: int, stop: int) -> None:
        if start < stop:
            size = self.manifest.chunk_size
            content, offset = view[start:stop], first_chunk * size + start
            with storage_errors(f"writing {self.manifest.content}"), self._writing:
                try:
                    self._disk.write(self.fd, content, offset)
                except OSError as error:
                    if error.errno != errno.EIO or not self._disk.renew(self.fd, offset, chunk_count(len(content), size) * size):
                        raise
                    self._disk.write(self.fd, content, offset)

    async def sync(self) -> bytes:
        """Make everything that counts now durable and return the bitmap that may be persisted. StorageError: nothing since the last good sync counts any more."""
        with self._using():
            async with self._syncing:
                safe = bytes(self.have)
                failed: list[ReplicadError] = []
                try:
                    await hop(self._executor, self._sync, failed)
                finally:
                    if failed:
                        self._discard_group()
                if failed:
                    raise failed[0]
                self._safe = safe
                return safe

    def _sync(self, failed: list[ReplicadError]) -> None:
        """Puts the error aside instead of raising it: a cancelled caller would not see it, and the kernel tells it only once."""
        try:
            self._disk.sync(self.fd)
        except OSError as error:
            failed.append(storage_error(f"making {self.manifest.content} durable", error))

    def _discard_group(self) -> None:
        self._group += 1
        self._forget(self._safe)

    def _forget(self, have: bytes) -> None:
        self.have[:] = have
        self.count = bits_set(have)

    async def finish(self) -> None:
        """Check the whole hash if the chunks do not prove it, make the bytes durable and give the blob its name, durably. On return it is a blob; ``fd`` stays usable until ``close``.

        IntegrityError: every chunk matches the manifest but the whole does not match the content's hash, so the manifest lies; the partial is closed and nothing is left of it. StorageError: the disk
        refused or lost bytes; what was lost does not count any more (look at ``have`` again) and can be fetched anew. Harmless when repeated.
        """
        if self.finished:
            return
        if not self.complete:
            raise ValueError(f"{self.manifest.content} has {self.count} of {self.manifest.count} chunks")
        if not proves(self.manifest):
            await self._prove()
        await self.sync()
        await self._name()

    async def _prove(self) -> None:
        """Read the file once, as a whole. Raises as ``finish``."""
        with self._using():
            whole = await self._whole()
            if not self.complete:
                raise StorageError(f"a failed sync discarded chunks of {self.manifest.content}")
            rotten = [] if whole == self.manifest.content else await self._rotten(range(self.manifest.count))
            if rotten:
                self._safe = _without(self._safe, rotten)
                self._forget(_without(self.have, rotten))
                raise StorageError(f"{plural(len(rotten), 'chunk')} of {self.manifest.content} did not read back as written")
            if whole is None:
                raise StorageError(f"{self.manifest.content} could not be read back")
        if whole != self.manifest.content:
            await self.discard()
            raise IntegrityError(f"every chunk matches manifest {self.manifest.id} but the whole is not {self.manifest.content}: the manifest is false")

    async def _whole(self) -> bytes | None:
        """SHA-256 of the file; None if it cannot be read."""
        try:
            return (await hashed(self.fd, self.manifest.size, hashlib.sha256(), drop=False, disk=self._disk, executor=self._executor)).digest()
        except StorageError:
            return None

    async def _rotten(self, chunks: Sequence[int]) -> list[int]:
        return await find_rotten(self.fd, self.manifest, chunks, disk=self._disk, executor=self._executor)

    async def _name(self) -> None:
        with self._using():
            file = Commit(str(self._path), str(self._target))
            try:
                await self._committer.commit([file])
            finally:
                self.finished = file.named
            if file.error is not None:
                raise file.error

    async def discard(self) -> None:
        """Close and remove the file. Harmless after ``finish``: the blob stays."""
        await self._close(remove=not self.finished)

    async def close(self) -> None:
        """Wait for work under way, then close the file and keep it. Harmless when repeated."""
        await self._close(remove=False)

    async def _close(self, *, remove: bool) -> None:
        if self._closing:
            return
        self._closing = True
        try:
            await waited(self._unused)
        finally:
            await hop(self._executor, self._close_file, remove)
            self.on_closed()

    def _close_file(self, remove: bool) -> None:
        if self.fd < 0:
            return
        os.close(self.fd)
        if remove:
            with storage_errors(f"removing the partial of {self.manifest.content}"):
                self._path.unlink(missing_ok=True)
            self._space.release(self.manifest.size)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _checked(bitmap: bytes, count: int) -> bytes:
    """The bitmap itself if it can be one of ``count`` chunks, else an empty one: garbage costs time, never trust."""
    if len(bitmap) == -(-count // 8) and not int.from_bytes(bitmap, "little") >> count:
        return bytes(bitmap)
    return bytes(-(-count // 8))


def _without(bitmap: bytes | bytearray, chunks: Sequence[int]) -> bytes:
    have = bytearray(bitmap)
    for index in chunks:
        have[index >> 3] &= ~(1 << (index & 7))
    return bytes(have)


def bits_set(bitmap: bytes | bytearray) -> int:
    """Number of chunks that a bitmap has."""
    return int.from_bytes(bitmap, "little").bit_count()


def every_chunk(count: int) -> bytes:
    """The bitmap of all of ``count`` chunks."""
    return ((1 << count) - 1).to_bytes(-(-count // 8), "little")
