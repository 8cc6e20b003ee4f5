"""Reconcile: the catalog and the disk are brought to agree, whatever a crash left between them.

    held, but no blob, or one of another size     damaged: set aside, wanted again and fetched
    blob that is not held, but wanted             verified and adopted; a corrupt one is set aside, one that cannot be read now is left for the next time
    blob that nothing wants                       kept and counted: collecting garbage decides later
    partial file without a row                    removed
    row of a partial without a file, or of content that is held     dropped, the file with it
    what was set aside of content that is held    removed

Cheap for what is as it should be: one stat per blob, no reading. At start, and again when a person asks for it (``replicad store repair``) while everything runs: what is under way is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from replicad.catalog.catalog import Catalog
from replicad.errors import StorageError
from replicad.model.ids import Digest
from replicad.store.blobs import BlobStore
from replicad.telemetry.log import get

log = get(__name__)

NAMED_MAX = 5
"""Files whose names one line of the log has. A guess: enough to see what they have in common."""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What was found. ``unclaimed`` are blobs that no name wants and nobody holds, ``unreadable`` those that are wanted and could not be verified."""

    lost: tuple[Digest, ...]
    adopted: tuple[Digest, ...]
    corrupt: tuple[Digest, ...]
    unclaimed: tuple[Digest, ...]
    partials_removed: int
    unreadable: tuple[Digest, ...] = ()


async def reconcile(catalog: Catalog, store: BlobStore, *, opened: bool = False) -> Reconciled:
    """Compare, and do what is needed. Idempotent. ``opened``: the store has just counted its files as they are; otherwise a held one counts as it was when it came."""
    on_disk = await store.contents()
    lost = await _lose(catalog, store, on_disk, opened=opened)
    adopted: list[Digest] = []
    corrupt: list[Digest] = []
    unclaimed: list[Digest] = []
    unreadable: dict[Digest, str] = {}
    for content in on_disk.keys() - set(lost):
        if catalog.is_held(content):
            continue
        if not await catalog.is_wanted(content):
            unclaimed.append(content)
            continue
        try:
            manifest = await store.adopt(content)
        except StorageError as error:
            unreadable[content] = error.message
            continue
        if manifest is not None:
            await catalog.hold([manifest])
            adopted.append(content)
        else:
            corrupt.append(content)
    for content in [content for content in store.aside if catalog.is_held(content)]:
        store.drop_aside(content)
    if lost or corrupt:
        names = await _names(catalog, [*lost, *corrupt])
        log.warning("contents were not on the disk as they should be and will be fetched again", lost=len(lost), corrupt=len(corrupt), files=names)
    if unreadable:
        names, first = await _names(catalog, list(unreadable)), next(iter(unreadable.values()))
        log.warning("files that are wanted could not be read and are looked at again at the next start or store repair", files=names, reason=first)
    return Reconciled(tuple(lost), tuple(adopted), tuple(corrupt), tuple(unclaimed), await _partials(catalog, store), tuple(unreadable))


async def _names(catalog: Catalog, contents: Sequence[Digest]) -> str:
    """The first few by name, and how many more there are."""
    named = ["/".join(await catalog.name_of(content) or (content.short,)) for content in contents[:NAMED_MAX]]
    more = len(contents) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


async def _lose(catalog: Catalog, store: BlobStore, on_disk: dict[Digest, int], *, opened: bool) -> list[Digest]:
    """Held contents that are not there, or not in full. Asked again one by one: what came after the listing is there."""
    suspects = [(content, size) async for content, size in catalog.held_contents() if on_disk.get(content) != size]
    lost = []
    missing = "it is not on the disk any more" if on_disk else f"there are no files in {store.blobs}: is its file system mounted?"
    for content, size in suspects:
        there = store.size_of(content)
        fault = missing if there is None else f"it has {there} bytes instead of {size}"
        if there != size and await catalog.damage(content, fault) is not None:
            store.set_aside(content, None if opened else size)
            lost.append(content)
    return lost


async def _partials(catalog: Catalog, store: BlobStore) -> int:
    """Files without rows and rows without files; returns the number of files removed."""
    under_way = store.open_partials
    files = set(await store.partial_files())
    rows = {(row.content, row.manifest) for row in await catalog.partials()}
    useful = {pair for pair in files & rows if not catalog.is_held(pair[0])} | under_way
    for content, manifest in rows - useful - store.open_partials:
        await catalog.drop_partial(content, manifest)
    removed = 0
    for pair in files - useful:
        if pair not in store.open_partials:
            await store.discard_partial(*pair)
            removed += 1
    return removed
