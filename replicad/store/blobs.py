"""The blob store: ``blobs/ab/<sha256>`` for whole verified contents, ``partials/`` for those on their way in. One copy of the bytes, ever.

    partials/<sha256>.<manifest id>    a content being fetched, preallocated; which chunks count is in the catalog
    partials/upload.<number>           a content being received; worthless after a crash, removed at the next start
    uploads/<id>                       a content being received over many requests and restarts (see ``resumable``)
    blobs/ab/<sha256>                  verified and durable; made by rename only, never written again
    aside/<sha256>                     what is left of a blob that was found damaged (see ``aside``)

A name under ``blobs/`` is the promise that the bytes match it. One daemon at a time: the directory is locked.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from replicad.errors import BusyError, InputError, IntegrityError, NotFoundError
from replicad.model.checksums import NO_HASHES, Checksum, begin, digests
from replicad.model.ids import Digest
from replicad.model.manifest import Manifest
from replicad.model.words import plural
from replicad.store.aside import Aside
from replicad.store.commits import Committer
from replicad.store.disk import Disk, file_sizes, storage_error, storage_errors
from replicad.store.hops import hop
from replicad.store.layout import ASIDE, BLOBS, PARTIALS, SHARDS, SHARDS_PER_HOP, UPLOADS, Places, prepare
from replicad.store.partials import Partial, every_chunk
from replicad.store.reading import Pace, find_rotten, measured, path_below, unpaced
from replicad.store.resumable import Resumables
from replicad.store.sources import Descriptor, Incoming, Pieces, Source
from replicad.store.space import Space, StoreConfig
from replicad.store.uploads import SMALL_BYTES_MAX, UPLOAD_PREFIX, Fresh, Uploads, small_groups, small_manifest

if TYPE_CHECKING:
    from _hashlib import HASH


class BlobStore:
    """The blobs of one node. Opened by ``open``; its methods belong to the event loop unless they say "blocks"."""

    def __init__(self, root: Path, *, config: StoreConfig, executor: Executor, disk: Disk, used_bytes: int) -> None:
        self.blobs = root / BLOBS
        self._blobs_text = str(self.blobs)
        self._partials = root / PARTIALS
        self.places = Places(root)
        self._executor = executor
        self._disk = disk
        self._config = config
        self._space = Space(root, config=config, disk=disk, used_bytes=used_bytes)
        self._committer = Committer(executor=executor, disk=disk, space=self._space)
        self._uploads = Uploads(self._partials, target=self._name_of, config=config, space=self._space, committer=self._committer, disk=disk, executor=executor)
        self.resumables = Resumables(
            root / UPLOADS, target=self._name_of, pool=self._uploads.pool, space=self._space, committer=self._committer, disk=disk, executor=executor
        )
        self._aside = Aside(root / ASIDE, space=self._space)
        self._open: dict[Path, Partial] = {}
        self._removed = itertools.count(1)

    @classmethod
    @asynccontextmanager
    async def open(cls, root: Path, *, config: StoreConfig, executor: Executor, disk: Disk | None = None) -> AsyncIterator[BlobStore]:
        """Open the store in the data directory ``root``, making what is missing and removing uploads that a crash cut off. ``executor`` needs four threads for the pipeline to keep both hashes, the writing
        and the reading going. ConfigurationError when another daemon has it or it cannot be used. Closes open partials at the end.
        """
        disk = disk or Disk()
        lock, used_bytes = await hop(executor, prepare, root, disk)
        store = cls(root, config=config, executor=executor, disk=disk, used_bytes=used_bytes)
        try:
            yield store
        finally:
            for partial in list(store._open.values()):
                await partial.close()
            os.close(lock)

    def path_of(self, content: Digest) -> Path:
        """Where the blob is, or would be."""
        return path_below(self.blobs, content)

    def _name_of(self, content: Digest) -> str:
        name = content.hex()
        return f"{self._blobs_text}/{name[:2]}/{name}"

    def size_of(self, content: Digest) -> int | None:
        """The length of a blob; None if it is not there. StorageError. One stat."""
        try:
            return os.stat(self._name_of(content)).st_size  # noqa: PTH116 - a Path costs more than the call
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(f"looking at {content}", error) from error

    def has(self, content: Digest) -> bool:
        """Whether the blob is there. One stat."""
        return self.size_of(content) is not None

    def open_blob(self, content: Digest) -> int:
        """A file descriptor for reading the blob; the caller closes it. NotFoundError if it is not there, StorageError. One open, no hop."""
        try:
            return os.open(self._name_of(content), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFoundError(f"content {content} is not on this node") from None
        except OSError as error:
            raise storage_error(f"opening {content}", error) from error

    async def receive(
        self, source: Incoming, *, size: int | None, expect: Digest | None = None, also: Checksum | None = None, more: Mapping[str, HASH] = NO_HASHES
    ) -> Manifest:
        """Store what ``source`` gives as a blob, durably, and return its manifest. ``size`` is exact, None if unknown; ``expect`` is the promised SHA-256, ``also`` another promise. The bytes go to ``more``, too:
        hashes before their first byte, each in a thread.

        Nothing is left of a failed or cancelled upload. IntegrityError: length or hashes are not as promised; NoSpaceError: disk, reserve or quota (at once if ``size`` is known); InputError: the source
        stalled, or ``size`` is beyond bounds; StorageError: the disk failed. Whatever ``source`` raises goes through.
        """
        return await self._uploads.receive(self.source(source), size=size, expect=expect, also=also, more=more)

    def source(self, incoming: Incoming) -> Source:
        """What fills buffers, and waits no longer than an upload may stall."""
        return Pieces(incoming, stall_s=self._config.stall_s) if isinstance(incoming, AsyncIterator) else incoming

    def from_socket(self, fd: int, *, prefix: bytes, size: int) -> Source:
        """From a non-blocking stream socket, read by a thread straight into the buffers: ``prefix`` (already read by somebody) and then ``fd``, of which nothing beyond ``size`` bytes may be
        asked, which stays the caller's, and which nobody else may read meanwhile.
        """
        return Descriptor(fd, prefix=prefix[:size], stall_s=self._config.stall_s, executor=self._executor)

    async def write_small(self, items: Sequence[tuple[Manifest, bytes | memoryview]]) -> list[Fresh | None]:
        """Write contents of at most one chunk each in one hop, verified, in the same order; None for those whose bytes do not match: they are not written. Each must go to ``name_small`` or ``drop_small``.
        NoSpaceError and StorageError: nothing was written. ValueError for a content of more than one chunk.
        """
        if any(manifest.count > 1 or manifest.size > SMALL_BYTES_MAX for manifest, _ in items):
            raise ValueError("write_small is for contents of one chunk")
        fitting = [(content, manifest.content) for manifest, content in items if len(content) == manifest.size]
        written = iter(await self._uploads.write(fitting))
        return [next(written) if len(content) == manifest.size else None for manifest, content in items]

    async def name_small(self, fresh: Sequence[Fresh]) -> None:
        """Make them blobs, durable on return, sharing hops and syncs. NoSpaceError and StorageError: some may be, the others are gone."""
        await self._uploads.name(fresh)

    async def drop_small(self, fresh: Sequence[Fresh]) -> None:
        """Remove what was written."""
        await self._uploads.drop(fresh)

    async def put_bodies(self, bodies: Sequence[bytes | memoryview]) -> list[Manifest]:
        """Store contents of at most one chunk whose hash is not known before, sharing hops and syncs; durable on return. Returns their manifests in the same order. InputError for one of more than 1 MiB."""
        if any(len(body) > SMALL_BYTES_MAX for body in bodies):
            raise InputError(f"a small content has at most {SMALL_BYTES_MAX} bytes")
        manifests: list[Manifest] = []
        for group in small_groups(bodies):
            written = [one for one in await self._uploads.write([(body, None) for body in group]) if one is not None]
            await self._uploads.name(written)
            manifests += (small_manifest(one.content, one.size) for one in written)
        return manifests

    async def open_partial(self, manifest: Manifest, bitmap: bytes = b"") -> Partial:
        """The partial of that content under that manifest. ``bitmap`` tells which chunks of an existing file should be there, as ``Partial.sync`` once returned it: they are verified again. A new file begins with the good chunks of
        a damaged copy that was set aside, or is preallocated: NoSpaceError. BusyError if it is open already.
        """
        path = self._partials / f"{manifest.content}.{manifest.id}"
        if path in self._open:
            raise BusyError(f"content {manifest.content} is being fetched already")
        partial = Partial(
            manifest, path=path, target=self.path_of(manifest.content), executor=self._executor, disk=self._disk, space=self._space, committer=self._committer
        )
        self._open[path] = partial
        partial.on_closed = lambda: self._open.pop(path)
        try:
            lent = self._aside.lend(manifest.content, manifest.size, path)
            await partial.open(every_chunk(manifest.count) if lent else bitmap)
        except BaseException:
            await partial.close()
            raise
        return partial

    async def discard_partial(self, content: Digest, manifest_id: Digest) -> None:
        """Remove the file of a partial that is not open; harmless if there is none."""
        path = self._partials / f"{content}.{manifest_id}"
        if path in self._open:
            raise BusyError(f"content {content} is being fetched")
        await hop(self._executor, self._remove, path)

    async def remove(self, content: Digest, counted: int | None = None) -> None:
        """Remove a blob, and what was set aside of it; harmless if it is not there. Gone under its name when this first waits; who still reads it through an open descriptor keeps it. ``counted``: as for ``set_aside``."""
        self._aside.drop(content)
        gone = self._partials / f"{UPLOAD_PREFIX}removed.{next(self._removed)}"
        with storage_errors(f"removing {content}"):
            try:
                self.path_of(content).rename(gone)
            except FileNotFoundError:
                self._space.release(counted or 0)
                return
        await hop(self._executor, self._remove, gone, counted)

    def _remove(self, path: Path, counted: int | None = None) -> None:
        with storage_errors(f"removing {path.name}"):
            try:
                size = path.stat().st_size
                path.unlink()
            except FileNotFoundError:
                return
            self._disk.sync_directory(path.parent)
        self._space.release(size if counted is None else counted)

    @property
    def aside(self) -> Mapping[Digest, int]:
        """Contents whose damaged copy was set aside, and its size in bytes."""
        return self._aside.sizes

    def set_aside(self, content: Digest, counted: int | None = None) -> None:
        """Move a damaged blob out of the way: at once nobody opens it any more. Harmless if it is not there. ``counted``: its size when it was counted as used, if somebody may have changed it since. StorageError."""
        self._aside.take(content, self.path_of(content), counted)

    def drop_aside(self, content: Digest) -> bool:
        """Remove what was set aside: the content is whole again, or nobody needs it. Whether something went."""
        return self._aside.drop(content)

    async def contents(self) -> dict[Digest, int]:
        """Every blob on the disk and its size in bytes."""
        found: dict[Digest, int] = {}
        for first in range(0, SHARDS, SHARDS_PER_HOP):
            found |= await hop(self._executor, self._shards, range(first, first + SHARDS_PER_HOP))
        return found

    async def shard(self, number: int) -> dict[Digest, int]:
        """The same for the blobs whose digest begins with that byte."""
        return await hop(self._executor, self._shard, number)

    def _shards(self, numbers: range) -> dict[Digest, int]:
        return {content: size for number in numbers for content, size in self._shard(number).items()}

    def _shard(self, number: int) -> dict[Digest, int]:
        with storage_errors(f"listing {self.blobs}"):
            found = [(_digest(name), size) for name, size in file_sizes(self.blobs / f"{number:02x}").items()]
        return {content: size for content, size in found if content is not None and content[0] == number}

    @property
    def open_partials(self) -> set[tuple[Digest, Digest]]:
        """(content, manifest id) of every partial that is open."""
        return {(partial.manifest.content, partial.manifest.id) for partial in self._open.values()}

    async def partial_files(self) -> list[tuple[Digest, Digest]]:
        """(content, manifest id) of every partial on the disk, open or not."""
        names = [name.partition(".") for name in await hop(self._executor, self._partial_sizes)]
        pairs = [(_digest(content), _digest(manifest)) for content, _, manifest in names]
        return [(content, manifest) for content, manifest in pairs if content is not None and manifest is not None]

    async def partial_sizes(self) -> list[int]:
        """What each content that is half fetched takes on the disk: all it will take, because it is preallocated."""
        return [size for name, size in (await hop(self._executor, self._partial_sizes)).items() if not name.startswith(UPLOAD_PREFIX)]

    def _partial_sizes(self) -> dict[str, int]:
        with storage_errors(f"listing {self._partials}"):
            return file_sizes(self._partials)

    async def adopt(self, content: Digest) -> Manifest | None:
        """The manifest of a blob that is on the disk, after reading and verifying all of it; None if there is none. One that holds other bytes is set aside, and None. StorageError: it cannot be read now and stays where it is, unverified."""
        if not self.has(content):
            return None
        try:
            return await self.measure(content)
        except IntegrityError:
            self.set_aside(content)
            return None

    async def measure(self, content: Digest, *, pace: Pace = unpaced) -> Manifest:
        """Read the blob again and return its manifest. IntegrityError if the bytes are not what the name promises, NotFoundError without a blob, StorageError if it cannot be read. Does not push other files
        out of the page cache.
        """
        fd = self.open_blob(content)
        try:
            return await measured(fd, content, disk=self._disk, executor=self._executor, pace=pace)
        finally:
            os.close(fd)

    async def checksums(self, content: Digest, algorithms: Iterable[str]) -> dict[str, bytes]:
        """Read the blob again for these, and to see that it is the content. Raises as ``measure``. It may stay in the page cache: clients want a content that is new."""
        fd, more = self.open_blob(content), begin(algorithms)
        try:
            await measured(fd, content, more, drop=False, disk=self._disk, executor=self._executor)
        finally:
            os.close(fd)
        return digests(more)

    async def examine(self, manifest: Manifest, *, pace: Pace = unpaced) -> str:
        """Read the blob of that manifest again; what is wrong with it in words, nothing if all is well. Chunks that cannot be read are wrong, too."""
        try:
            fd = self.open_blob(manifest.content)
        except NotFoundError:
            return "it is not on the disk any more"
        try:
            size = os.fstat(fd).st_size
            if size != manifest.size:
                return f"it has {size} bytes instead of {manifest.size}"
            rotten = await find_rotten(fd, manifest, range(manifest.count), disk=self._disk, executor=self._executor, pace=pace)
        finally:
            os.close(fd)
        return f"{len(rotten)} of {plural(manifest.count, 'chunk')} wrong" if rotten else ""

    @property
    def used_bytes(self) -> int:
        """What blobs, partials and uploads take."""
        return self._space.used_bytes

    def free_bytes(self) -> int:
        """What may still be stored: reserve and quota respected. One statvfs."""
        return self._space.free_bytes()

    def reserve_bytes(self) -> int:
        """What stays free on the file system. One statvfs."""
        return self._space.reserve_bytes()

    @property
    def quota_bytes(self) -> int:
        """The most that the store may hold; 0 for no such bound."""
        return self._config.quota_bytes

    def check_room(self, size: int) -> None:
        """NoSpaceError unless that many bytes may be stored now."""
        self._space.check(size)

    def room_for(self, size: int) -> bool:
        """Whether that many bytes may be stored now."""
        return size <= self.free_bytes()


def _digest(name: str) -> Digest | None:
    try:
        return Digest.parse(name)
    except InputError:
        return None
