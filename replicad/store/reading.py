"""Reading blobs again, chunk by chunk, to see whether the disk still has what was once verified.

Whoever looks after the disk drops what was read from the page cache before and after: before, because a copy in memory says nothing about the disk; after, because nobody asked for it.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from replicad.errors import IntegrityError
from replicad.model.checksums import NO_HASHES
from replicad.model.ids import Digest
from replicad.model.manifest import Manifest
from replicad.store.checking import Check
from replicad.store.disk import Disk, storage_errors
from replicad.store.hashing import Hashes
from replicad.store.hops import hop

if TYPE_CHECKING:
    from _hashlib import HASH

MEASURE_BYTES = 16 << 20
"""Read in one thread hop: about 12 ms, so that what is queued behind it does not wait long."""
STEP_BYTES = 4 << 20
"""Read between two calls of ``pace``: about 3 ms of a core, so that whoever waits for the thread waits little."""

Pace = Callable[[int], Awaitable[None]]
"""Called after each step with the bytes it read; waits as long as the reader should."""


def path_below(blobs: Path, content: Digest) -> Path:
    """Where the file of a content is, or would be, in the directory of all blobs."""
    name = str(content)
    return blobs / name[:2] / name


async def unpaced(_bytes: int) -> None:
    """As fast as the disk gives it."""


async def measured(
    fd: int, content: Digest, more: Mapping[str, HASH] = NO_HASHES, *, drop: bool = True, disk: Disk, executor: Executor, pace: Pace = unpaced
) -> Manifest:
    """The manifest of what the file holds; its bytes go to ``more``, too. IntegrityError if that is not ``content``, StorageError if it cannot be read."""
    size = os.fstat(fd).st_size
    hashes = await hashed(fd, size, Hashes.of_size(size, more), drop=drop, disk=disk, executor=executor, pace=pace)
    found = hashes.manifest(size)
    if found.content != content:
        raise IntegrityError(f"blob {content} holds other bytes")
    return found


class _Hasher(Protocol):
    def update(self, content: memoryview, /) -> object: ...


_H = TypeVar("_H", bound=_Hasher)


async def hashed(fd: int, stop: int, hasher: _H, *, drop: bool = True, disk: Disk, executor: Executor, pace: Pace = unpaced) -> _H:
    """The ``hasher``, of nothing before, after the bytes of the file up to ``stop``; ``drop``: they do not stay in the page cache. StorageError if they cannot be read."""

    def step(start: int, stop: int) -> None:
        with storage_errors("reading a content"):
            disk.feed(fd, hasher.update, start=start, stop=stop)
            if drop:
                os.posix_fadvise(fd, start, stop - start, os.POSIX_FADV_DONTNEED)

    for start in range(0, stop, MEASURE_BYTES):
        end = min(start + MEASURE_BYTES, stop)
        await hop(executor, step, start, end)
        await pace(end - start)
    return hasher


async def find_rotten(fd: int, manifest: Manifest, chunks: Sequence[int], *, disk: Disk, executor: Executor, pace: Pace = unpaced) -> list[int]:
    """Those of the chunks, in rising order, that are not what the manifest says or cannot be read, and not either when they are read once more after the others: errors of cables, controllers and network disks pass."""
    step = max(1, STEP_BYTES // manifest.chunk_size)
    for _ in range(2):
        rotten: list[int] = []
        for first in range(0, len(chunks), step):
            group = chunks[first : first + step]
            rotten += await hop(executor, _rotten, fd, manifest, group, disk)
            await pace(sum(manifest.chunk_length(index) for index in group))
        chunks = rotten
    return list(chunks)


def _rotten(fd: int, manifest: Manifest, chunks: Sequence[int], disk: Disk) -> list[int]:
    start, stop = chunks[0] * manifest.chunk_size, min((chunks[-1] + 1) * manifest.chunk_size, manifest.size)
    os.posix_fadvise(fd, start, stop - start, os.POSIX_FADV_DONTNEED)
    rotten = [index for index in chunks if not _reads_back(fd, manifest, index, disk)]
    os.posix_fadvise(fd, start, stop - start, os.POSIX_FADV_DONTNEED)
    return rotten


def _reads_back(fd: int, manifest: Manifest, index: int, disk: Disk) -> bool:
    check, start = Check(manifest, index), index * manifest.chunk_size
    try:
        disk.feed(fd, check.update, start=start, stop=start + manifest.chunk_length(index))
    except OSError:
        return False
    return check.good
