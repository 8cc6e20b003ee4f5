"""Before the network is asked: chunks that this disk has already, in other contents that stood under the same names.

An image of which a part was written over, a log that grew, an archive without compression: most of their chunks are where they were. Chunks are found by their hash alone and verified like any others: a list of hashes is only what its publisher says.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from typing import TYPE_CHECKING

from replicad.errors import NotFoundError, StorageError

if TYPE_CHECKING:
    from replicad.catalog import Catalog
    from replicad.model.manifest import Manifest
    from replicad.protocol.fetch.events import Target
    from replicad.services.fetch.partials import Partials
    from replicad.store.blobs import BlobStore

CHUNK_BYTES_MAX = 16 << 20
"""Of contents with larger chunks (beyond 64 GiB) so little is alike that the memory is not worth it (a guess)."""


async def reuse(catalog: Catalog, store: BlobStore, partials: Partials, target: Target, manifest: Manifest) -> None:
    """Write into a new partial what other versions of its file have of it. StorageError, NoSpaceError; IntegrityError: the manifest lies."""
    if manifest.chunk_size > CHUNK_BYTES_MAX:
        return
    places: dict[bytes, list[int]] = defaultdict(list)
    for index in range(manifest.count):
        places[manifest.chunk_digest(index)].append(index)
    for other in await catalog.relatives(target.content):
        known = [index for index in range(other.count) if other.chunk_digest(index) in places]
        if not known:
            continue
        try:
            fd = store.open_blob(other.content)
        except (NotFoundError, StorageError):
            continue
        try:
            for index in known:
                fitting = [place for place in places.pop(other.chunk_digest(index), []) if manifest.chunk_length(place) == other.chunk_length(index)]
                await _copy(fd, partials, target, other, index, fitting)
        finally:
            os.close(fd)


async def _copy(fd: int, partials: Partials, target: Target, other: Manifest, index: int, places: list[int]) -> None:
    if not places:
        return
    try:
        chunk = await asyncio.to_thread(os.pread, fd, other.chunk_length(index), index * other.chunk_size)
    except OSError:
        return
    for place in places:
        await partials.write(target, place, memoryview(chunk))
