"""Uploads over restarts: the row never claims more than what was synced, and whatever a crash left between row, file and name is brought to its end."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from ingest_world import Node, running_node

from replicad.catalog import Upload
from replicad.errors import CatalogError, NotFoundError, StorageError
from replicad.model.ids import Digest
from replicad.services.ingest import Destination, Uploads, UploadsConfig
from replicad.services.ingest import uploads as module
from replicad.store.disk import Disk
from support.storing import MIB, FailingDisk, RecordingDisk, files_in, pieces, random_bytes
from support.waiting import until

CONTENT = random_bytes(5 * MIB + 9)
DIGEST = Digest(hashlib.sha256(CONTENT).digest())
TO = Destination("munki", "a.pkg")


@asynccontextmanager
async def running(root: Path, *, disk: Disk | None = None, config: UploadsConfig | None = None) -> AsyncIterator[tuple[Node, Uploads]]:
    async with (
        running_node(root, disk=disk) as node,
        Uploads.open(node.catalog, node.store, node.ingest, clock_ms=node.clock, config=config) as uploads,
    ):
        yield node, uploads


async def append(uploads: Uploads, upload: Upload, stop: int) -> Upload:
    return await uploads.append(upload.id, "jane", pieces(CONTENT[upload.offset : stop]), offset=upload.offset, size=stop - upload.offset)


async def test_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, uploads):
        upload = await append(uploads, await uploads.begin("jane", TO, len(CONTENT)), 3 * MIB)
    async with running(tmp_path) as (node, uploads):
        with pytest.raises(NotFoundError):
            await uploads.progress(upload.id, "joe")
        assert await uploads.progress(upload.id, "jane") == upload
        assert (await append(uploads, upload, len(CONTENT))).published
        assert await node.listed("munki") == {"a.pkg@prod": DIGEST}
        assert node.store.used_bytes == len(CONTENT)
    async with running(tmp_path) as (_, uploads):
        assert (await uploads.progress(upload.id, "jane")).published


async def test_groups_are_synced_before_they_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP_BYTES", 2 * MIB)
    disk = RecordingDisk()
    async with running(tmp_path, disk=disk) as (node, uploads):
        upload = await uploads.begin("jane", TO, len(CONTENT))
        said: list[tuple[int, int]] = []
        put = node.catalog.put_upload

        async def record(row: Upload) -> None:
            said.append((row.offset, disk.calls.count("sync")))
            await put(row)

        monkeypatch.setattr(node.catalog, "put_upload", record)
        before = disk.calls.count("sync")
        await append(uploads, upload, len(CONTENT) - 1)
        assert said == [(2 * MIB, before + 1), (4 * MIB, before + 2), (len(CONTENT) - 1, before + 3)]


async def test_a_failed_sync_is_not_told_as_progress(tmp_path: Path) -> None:
    disk = FailingDisk("sync", armed=0)
    async with running(tmp_path, disk=disk) as (node, uploads):
        upload = await append(uploads, await uploads.begin("jane", TO, len(CONTENT)), MIB)
        disk.armed = 1
        with pytest.raises(StorageError):
            await append(uploads, upload, 3 * MIB)
        assert (await uploads.progress(upload.id, "jane")).offset == MIB
        assert (await append(uploads, upload, len(CONTENT))).published
        assert await node.listed("munki") == {"a.pkg@prod": DIGEST}


async def whole_but_not_named(root: Path) -> Upload:
    async with running(root) as (node, uploads):
        upload = await append(uploads, await uploads.begin("jane", TO, len(CONTENT)), len(CONTENT) - 1)
        file = await uploads._opened(uploads._known[upload.id])
        await file.append(node.store.source(pieces(CONTENT[-1:])), until=len(CONTENT), seconds=60)
        await uploads._keep(uploads._known[upload.id], file)
        return uploads.find(upload.id, "jane")


@pytest.mark.parametrize("named", [False, True], ids=["file", "blob"])
async def test_a_crash_before_it_was_published(tmp_path: Path, named: bool) -> None:
    """Whole, and perhaps renamed: whoever asks hears that it is done only when it is."""
    upload = await whole_but_not_named(tmp_path)
    assert (upload.offset, upload.published) == (len(CONTENT), False)
    if named:
        (tmp_path / "uploads" / upload.id).rename(tmp_path / "blobs" / str(DIGEST)[:2] / str(DIGEST))
    async with running(tmp_path) as (node, uploads):
        assert await node.listed("munki") == {}
        assert (await uploads.progress(upload.id, "jane")).published
        assert await node.listed("munki") == {"a.pkg@prod": DIGEST}
        assert await node.store.examine(await node.store.measure(DIGEST)) == ""
        assert node.store.used_bytes == len(CONTENT)


async def test_while_it_is_being_published_nobody_hears_that_it_is_whole(tmp_path: Path) -> None:
    upload = await whole_but_not_named(tmp_path)
    async with running(tmp_path) as (_, uploads), asyncio.TaskGroup() as group:
        known = uploads._known[upload.id]
        await uploads._opened(known)
        async with known.lock:
            asked = group.create_task(uploads.progress(upload.id, "jane"))
            await until(lambda: known.lock._waiters, what="the question to wait")
        assert (await asked).published


async def test_leftovers_are_cleared_away_at_the_start(tmp_path: Path) -> None:
    async with running(tmp_path) as (node, uploads):
        kept, lost, short = [await uploads.begin("jane", replace(TO, path=f"{number}.pkg"), 100) for number in range(3)]
        await node.store.resumables.create("without-a-row", 10)
    (tmp_path / "uploads" / lost.id).unlink()
    (tmp_path / "uploads" / short.id).write_bytes(b"")
    async with running(tmp_path) as (node, uploads):
        assert [row.id for row in await node.catalog.uploads()] == [kept.id]
        assert [name for name in files_in(tmp_path) if name.startswith("uploads/")] == [f"uploads/{kept.id}"]
        assert node.store.used_bytes == 100


async def test_without_the_catalog_none_begins_goes_on_or_leaves_anything(tmp_path: Path) -> None:
    """Else each refused one would keep its room until the next start."""
    async with running(tmp_path) as (node, uploads):
        begun = await append(uploads, await uploads.begin("jane", TO, len(CONTENT)), 2 * MIB)
        (tmp_path / "catalog.sqlite").unlink()
        with pytest.raises(CatalogError):
            await uploads.begin("jane", replace(TO, path="another"), 100)
        with pytest.raises(CatalogError):
            await append(uploads, begun, 3 * MIB)
        assert uploads.find(begun.id, "jane") == begun
        assert [name for name in files_in(tmp_path) if name.startswith("uploads/")] == [f"uploads/{begun.id}"]
        assert node.store.used_bytes == len(CONTENT)


async def test_only_so_many_are_remembered(tmp_path: Path) -> None:
    async with running(tmp_path, config=UploadsConfig(published_max=2)) as (node, uploads):
        made = []
        for number in range(3):
            node.clock.now_ms += 1000
            made.append(await uploads.begin("jane", replace(TO, path=f"{number}"), 0))
        with pytest.raises(NotFoundError):
            uploads.find(made[0].id, "jane")
        assert [uploads.find(one.id, "jane").published for one in made[1:]] == [True, True]
        assert len(await node.listed("munki")) == 3
