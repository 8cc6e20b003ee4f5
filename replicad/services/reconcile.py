"""Reconcile: at start the catalog and the disk are brought to agree, whatever a crash left between them.

    held, but no blob, or one of another size     lost: wanted again and fetched
    blob that is not held, but wanted             verified and adopted; a corrupt one is removed
    blob that nothing wants                       kept and counted: collecting garbage decides later
    partial file without a row                    removed
    row of a partial without a file, or of content that is held     dropped, the file with it

Cheap for what is as it should be: one stat per blob, no reading.
"""

from __future__ import annotations

from dataclasses import dataclass

from replicad.catalog.catalog import Catalog
from replicad.model.ids import Digest
from replicad.store.blobs import BlobStore
from replicad.telemetry.log import get

log = get(__name__)


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What was found. ``unclaimed`` are blobs that no name wants and nobody holds."""

    lost: tuple[Digest, ...]
    adopted: tuple[Digest, ...]
    corrupt: tuple[Digest, ...]
    unclaimed: tuple[Digest, ...]
    partials_removed: int


async def reconcile(catalog: Catalog, store: BlobStore) -> Reconciled:
    """Run once after opening both, before any service uses them. Idempotent."""
    on_disk = await store.contents()
    lost = await _lose(catalog, store, on_disk)
    adopted: list[Digest] = []
    corrupt: list[Digest] = []
    unclaimed: list[Digest] = []
    for content in on_disk.keys() - set(lost):
        if catalog.is_held(content):
            continue
        if not await catalog.is_wanted(content):
            unclaimed.append(content)
        elif (manifest := await store.adopt(content)) is not None:
            await catalog.hold([manifest])
            adopted.append(content)
        else:
            corrupt.append(content)
    found = Reconciled(tuple(lost), tuple(adopted), tuple(corrupt), tuple(unclaimed), await _partials(catalog, store))
    if lost or corrupt:
        log.warning("contents were not on the disk as they should be and will be fetched again", lost=len(lost), corrupt=len(corrupt))
    return found


async def _lose(catalog: Catalog, store: BlobStore, on_disk: dict[Digest, int]) -> list[Digest]:
    """Held contents that are not there, or not in full."""
    lost = [content async for content, size in catalog.held_contents() if on_disk.get(content) != size]
    for content in lost:
        await store.remove(content)
        await catalog.lose(content)
    return lost


async def _partials(catalog: Catalog, store: BlobStore) -> int:
    """Files without rows and rows without files; returns the number of files removed."""
    files = set(await store.partial_files())
    rows = {(row.content, row.manifest) for row in await catalog.partials()}
    useful = {pair for pair in files & rows if not catalog.is_held(pair[0])}
    for content, manifest in rows - useful:
        await catalog.drop_partial(content, manifest)
    for content, manifest in files - useful:
        await store.discard_partial(content, manifest)
    return len(files - useful)
