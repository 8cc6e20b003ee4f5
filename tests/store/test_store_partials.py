"""Partials: any order of extents, liars, failing disks and power failures; what counts is on the disk and right."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.errors import BusyError, IntegrityError, NoSpaceError, StorageError
from replicad.model.ids import Digest
from replicad.model.manifest import Manifest
from replicad.store.blobs import BlobStore
from replicad.store.disk import Disk
from replicad.store.partials import Partial
from replicad.store.space import StoreConfig
from support.storing import (
    MIB,
    NO_RESERVE,
    BadSector,
    FailingDisk,
    RecordingDisk,
    files_in,
    manifest_of,
    opened_store,
    random_bytes,
    states_of,
    verify_no_trace,
    without_states,
)

CHUNK = 1024
CONTENT = random_bytes(10 * CHUNK + 300)
MANIFEST = manifest_of(CONTENT, chunk_size=CHUNK)
BARE = manifest_of(CONTENT, chunk_size=CHUNK, with_states=False)
BOTH = pytest.mark.parametrize("manifest", [MANIFEST, BARE], ids=["states", "bare"])
ALL = list(range(11))


def chunks(first: int, count: int = 1, *, content: bytes = CONTENT) -> bytes:
    return content[first * CHUNK : (first + count) * CHUNK]


def bitmap(*indices: int) -> bytes:
    found = bytearray(2)
    for index in indices:
        found[index // 8] |= 1 << index % 8
    return bytes(found)


@asynccontextmanager
async def opened_partial(root: Path, *, disk: Disk | None = None, manifest: Manifest = MANIFEST) -> AsyncIterator[tuple[BlobStore, Partial]]:
    async with opened_store(root, disk=disk) as store, await store.open_partial(manifest) as partial:
        yield store, partial


ORDERS = {
    "in order": [(first, 1) for first in ALL],
    "extents in order": [(0, 4), (4, 4), (8, 3)],
    "backwards": [(first, 1) for first in reversed(ALL)],
    "gaps close late": [(1, 3), (5, 6), (4, 1), (0, 1)],
    "all at once": [(0, 11)],
    "twice": [(0, 11), (3, 2), (0, 11)],
}


@BOTH
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
async def test_chunks_in_any_order_become_the_blob(tmp_path: Path, order: list[tuple[int, int]], manifest: Manifest) -> None:
    async with opened_partial(tmp_path, manifest=manifest) as (store, partial):
        assert store.used_bytes == len(CONTENT)
        for first, count in order:
            assert await partial.write(first, chunks(first, count)) == (list(range(first, min(first + count, 11))), [])
        assert (partial.count, partial.complete, bytes(partial.have)) == (11, True, bitmap(*ALL))
        await partial.finish()
        assert partial.finished
        assert os.pread(partial.fd, 99, 300) == CONTENT[300:399]
        assert store.path_of(MANIFEST.content).read_bytes() == CONTENT
    assert files_in(tmp_path) == [f"blobs/{str(MANIFEST.content)[:2]}/{MANIFEST.content}"]
    assert store.used_bytes == len(CONTENT)


async def test_empty_content_is_complete_at_once(tmp_path: Path) -> None:
    async with opened_partial(tmp_path, manifest=manifest_of(b"")) as (store, partial):
        assert partial.complete
        await partial.finish()
        assert store.path_of(manifest_of(b"").content).read_bytes() == b""


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_any_buffer_is_taken(tmp_path: Path, kind: type[memoryview]) -> None:
    async with opened_partial(tmp_path) as (_, partial):
        assert await partial.write(2, kind(chunks(2, 3))) == ([2, 3, 4], [])


BAD = {
    "flipped": (chunks(2) + bytes([chunks(3)[0] ^ 1]) + chunks(3)[1:] + chunks(4), [2, 4], [3]),
    "cut short": (chunks(2, 3)[:-1], [2, 3], [4]),
    "another chunk's bytes": (chunks(3, 2), [], [2, 3]),
    "garbage": (random_bytes(3 * CHUNK, seed=9), [], [2, 3, 4]),
}


@pytest.mark.parametrize(("given_bytes", "good", "bad"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("before", [0, 2], ids=["first", "next in order"])
@BOTH
async def test_bad_chunks_do_not_count_and_are_not_written(
    tmp_path: Path, given_bytes: bytes, good: list[int], bad: list[int], before: int, manifest: Manifest
) -> None:
    async with opened_partial(tmp_path, manifest=manifest) as (store, partial):
        if before:
            await partial.write(0, chunks(0, before))
        assert await partial.write(2, given_bytes) == (good, bad)
        assert bytes(partial.have) == bitmap(*range(before), *good)
        for index in bad:
            assert os.pread(partial.fd, CHUNK, index * CHUNK) == bytes(CHUNK)
        await partial.write(0, CONTENT)
        await partial.finish()
        assert store.path_of(MANIFEST.content).read_bytes() == CONTENT


@pytest.mark.parametrize(("first", "given_bytes"), [(-1, b"x"), (0, CONTENT + b"x"), (10, chunks(0)), (11, b"x"), (4096, b"x")])
async def test_bytes_beyond_the_content_are_the_callers_mistake(tmp_path: Path, first: int, given_bytes: bytes) -> None:
    async with opened_partial(tmp_path) as (_, partial):
        with pytest.raises(ValueError, match="beyond"):
            await partial.write(first, given_bytes)
        assert (partial.count, os.fstat(partial.fd).st_size) == (0, len(CONTENT))


@BOTH
async def test_it_resumes_with_what_was_synced(tmp_path: Path, manifest: Manifest) -> None:
    async with opened_partial(tmp_path, manifest=manifest) as (_, partial):
        await partial.write(3, chunks(3, 4))
        assert await partial.sync() == bitmap(3, 4, 5, 6)
        await partial.write(0, chunks(0))
    async with opened_store(tmp_path) as store:
        async with await store.open_partial(manifest, bitmap(3, 4, 5, 6)) as partial:
            assert (partial.count, bytes(partial.have)) == (4, bitmap(3, 4, 5, 6))
            await partial.write(0, chunks(0, 3))
            await partial.write(7, chunks(7, 4))
            await partial.finish()
        assert store.path_of(MANIFEST.content).read_bytes() == CONTENT
        assert store.used_bytes == len(CONTENT)


BITMAPS = {"of another length": bytes(3), "empty": b"", "with chunks beyond the end": b"\xff\xff", "long": b"\xff" * 600}


@pytest.mark.parametrize("garbage", BITMAPS.values(), ids=BITMAPS)
async def test_a_bitmap_that_cannot_be_means_nothing(tmp_path: Path, garbage: bytes) -> None:
    async with opened_partial(tmp_path) as (store, partial):
        await partial.write(0, CONTENT)
        await partial.close()
        async with await store.open_partial(MANIFEST, garbage) as again:
            assert (again.count, bytes(again.have)) == (0, bytes(2))


@pytest.mark.parametrize("size", [None, 0, len(CONTENT) - 1, len(CONTENT) + 1])
async def test_a_bitmap_without_its_file_means_nothing(tmp_path: Path, size: int | None) -> None:
    async with opened_store(tmp_path) as store:
        if size is not None:
            (tmp_path / "partials" / f"{MANIFEST.content}.{MANIFEST.id}").write_bytes(bytes(size))
    async with opened_store(tmp_path) as store, await store.open_partial(MANIFEST, bitmap(*ALL)) as partial:
        assert partial.count == 0
        assert os.fstat(partial.fd).st_size == len(CONTENT)
        assert store.used_bytes == len(CONTENT)


async def test_one_partial_is_open_once(tmp_path: Path) -> None:
    async with opened_partial(tmp_path) as (store, partial):
        with pytest.raises(BusyError):
            await store.open_partial(MANIFEST)
        with pytest.raises(BusyError):
            await store.discard_partial(MANIFEST.content, MANIFEST.id)
        await partial.close()
        await partial.close()
        with pytest.raises(ValueError, match="closed"):
            await partial.write(0, CONTENT)
        async with await store.open_partial(MANIFEST):
            pass
        await store.discard_partial(MANIFEST.content, MANIFEST.id)
        verify_no_trace(store, tmp_path)


async def test_discarded_it_leaves_no_trace_unless_it_is_finished(tmp_path: Path) -> None:
    async with opened_store(tmp_path) as store:
        partial = await store.open_partial(MANIFEST)
        await partial.write(0, CONTENT)
        await partial.discard()
        verify_no_trace(store, tmp_path)
        partial = await store.open_partial(MANIFEST)
        await partial.write(0, CONTENT)
        await partial.finish()
        await partial.discard()
        assert store.path_of(MANIFEST.content).read_bytes() == CONTENT


async def test_a_manifest_that_lies_about_the_content_leaves_no_trace(tmp_path: Path) -> None:
    """Every chunk matches, the whole does not: somebody signed a manifest for a hash that is not its content's."""
    lie = Manifest(Digest(bytes(31) + b"x"), MANIFEST.size, CHUNK, MANIFEST.chunks)
    async with opened_partial(tmp_path, manifest=lie) as (store, partial):
        await partial.write(5, chunks(5, 6))
        await partial.write(0, chunks(0, 5))
        with pytest.raises(IntegrityError, match="manifest is false"):
            await partial.finish()
        verify_no_trace(store, tmp_path)
        assert not store.has(lie.content)


def false_states(after: int) -> Manifest:
    packed = bytearray(MANIFEST.states)
    packed[32 * after] ^= 1
    return replace(MANIFEST, states=bytes(packed))


CONTRADICTIONS = {
    "after the first chunk": (false_states(0), [0, 1]),
    "in the middle": (false_states(5), [5, 6]),
    "before the last chunk": (false_states(9), [9, 10]),
    "the content is another one": (replace(MANIFEST, content=Digest(bytes(31) + b"x")), [10]),
    "states of another content": (replace(MANIFEST, states=random_bytes(10 * 32)), ALL),
}


@pytest.mark.parametrize(("lie", "wrong"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
async def test_a_manifest_that_contradicts_itself_is_found_out_by_the_first_chunk_that_shows_it(tmp_path: Path, lie: Manifest, wrong: list[int]) -> None:
    """Its digest says that this is the chunk, its states say that it is not. Nothing is left when the partial is discarded, and nobody sent anything bad."""
    async with opened_partial(tmp_path, manifest=lie) as (store, partial):
        for index in ALL:
            if index in wrong:
                with pytest.raises(IntegrityError, match=f"chunk {index} .* the manifest is false"):
                    await partial.write(index, chunks(index))
            else:
                assert await partial.write(index, chunks(index)) == ([index], [])
        with pytest.raises(IntegrityError, match="the manifest is false"):
            await partial.write(0, CONTENT)
        assert bytes(partial.have) == bitmap(*(index for index in ALL if index not in wrong))
        await partial.discard()
        verify_no_trace(store, tmp_path)


async def test_bytes_that_neither_states_nor_digest_know_are_bad_and_the_manifest_is_not(tmp_path: Path) -> None:
    async with opened_partial(tmp_path, manifest=false_states(5)) as (_, partial):
        assert await partial.write(5, random_bytes(CHUNK, seed=9)) == ([], [5])


async def test_false_chunk_digests_do_not_keep_out_what_the_states_prove(tmp_path: Path) -> None:
    lie = replace(MANIFEST, chunks=random_bytes(11 * 32))
    async with opened_partial(tmp_path, manifest=lie) as (store, partial):
        assert await partial.write(0, CONTENT) == (ALL, [])
        await partial.finish()
        assert store.path_of(MANIFEST.content).read_bytes() == CONTENT


SHORT = CONTENT[: 3 * CHUNK + 64]
SHORTENED = {
    "its digest": replace(BARE, chunks=BARE.chunks[: 3 * 32] + hashlib.sha256(SHORT[3 * CHUNK :]).digest() + BARE.chunks[4 * 32 :]),
    "its state": replace(MANIFEST, states=MANIFEST.states[: 3 * 32] + states_of(SHORT + b"x", 64)[-32:] + MANIFEST.states[4 * 32 :]),
}


@pytest.mark.parametrize("lie", SHORTENED.values(), ids=SHORTENED)
async def test_a_chunk_that_is_too_short_is_bad_also_if_the_manifest_knows_it(tmp_path: Path, lie: Manifest) -> None:
    async with opened_partial(tmp_path, manifest=lie) as (_, partial):
        assert await partial.write(0, SHORT) == ([0, 1, 2], [3])


async def test_what_the_states_prove_is_not_read_again(tmp_path: Path) -> None:
    """With states one hash for each byte is all there is; without them the file is read once at the end, and its hash decides."""
    for manifest, reads in ((MANIFEST, 0), (BARE, 1), (manifest_of(b"one chunk"), 0)):
        disk = FailingDisk("read")
        before = disk.armed
        content = CONTENT if manifest.count > 1 else b"one chunk"
        async with opened_partial(tmp_path / str(reads + manifest.count), disk=disk, manifest=manifest) as (_, partial):
            await partial.write(0, content)
            if reads:
                with pytest.raises(StorageError):
                    await partial.finish()
                disk.armed = 0
            else:
                await partial.finish()
                assert disk.armed == before


@pytest.mark.parametrize("manifest", [MANIFEST, replace(MANIFEST, states=random_bytes(10 * 32))], ids=["true states", "false states"])
async def test_where_states_cannot_be_used_the_digests_and_the_whole_hash_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manifest: Manifest) -> None:
    without_states(monkeypatch)
    async with opened_partial(tmp_path, manifest=manifest) as (store, partial):
        await partial.write(4, chunks(4, 7))
        assert await partial.write(0, chunks(1, 4)) == ([], [0, 1, 2, 3])
        await partial.write(0, chunks(0, 4))
        await partial.finish()
        assert store.path_of(MANIFEST.content).read_bytes() == CONTENT


async def test_what_was_begun_without_states_goes_on_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as elsewhere:
        without_states(elsewhere)
        async with opened_partial(tmp_path) as (_, partial):
            await partial.write(2, chunks(2, 5))
            safe = await partial.sync()
    async with opened_store(tmp_path) as store, await store.open_partial(MANIFEST, safe) as partial:
        assert bytes(partial.have) == bitmap(2, 3, 4, 5, 6)
        await partial.write(0, chunks(0, 2))
        await partial.write(7, chunks(7, 4))
        await partial.finish()
        assert store.path_of(MANIFEST.content).read_bytes() == CONTENT


async def test_two_manifests_of_one_content_do_not_meet(tmp_path: Path) -> None:
    lie = Manifest(MANIFEST.content, MANIFEST.size, CHUNK, random_bytes(11 * 32))
    async with opened_partial(tmp_path) as (store, partial), await store.open_partial(lie) as other:
        await partial.write(0, CONTENT)
        assert await other.write(0, CONTENT) == ([], ALL)
        await partial.finish()
        await other.discard()
        assert store.path_of(MANIFEST.content).read_bytes() == CONTENT


async def test_it_cannot_finish_before_it_is_complete(tmp_path: Path) -> None:
    async with opened_partial(tmp_path) as (store, partial):
        await partial.write(0, chunks(0, 10))
        with pytest.raises(ValueError, match="10 of 11 chunks"):
            await partial.finish()
        assert not store.has(MANIFEST.content)


async def test_a_full_disk_refuses_the_partial_and_keeps_nothing(tmp_path: Path) -> None:
    async with opened_store(tmp_path, config=StoreConfig(reserve_fraction=0.0, quota_bytes=len(CONTENT) - 1)) as store:
        with pytest.raises(NoSpaceError):
            await store.open_partial(MANIFEST)
        verify_no_trace(store, tmp_path)


def rot(path: Path, *, chunk: int) -> None:
    with path.open("r+b") as file:
        file.seek(chunk * CHUNK + 5)
        file.write(b"rotten")


async def test_chunks_that_rotted_are_found_and_fetched_again(tmp_path: Path) -> None:
    """They were verified when they came, and the disk gives other bytes: the content must not count, and only they are lost."""
    async with opened_partial(tmp_path, manifest=BARE) as (store, partial):
        await partial.write(1, chunks(1, 10))
        safe = await partial.sync()
        rot(tmp_path / "partials" / f"{BARE.content}.{BARE.id}", chunk=4)
        await partial.write(0, chunks(0))
        with pytest.raises(StorageError, match=r"1 chunk of .* did not read back"):
            await partial.finish()
        assert bytes(partial.have) == bitmap(*(index for index in ALL if index != 4))
        assert await partial.sync() == bytes(partial.have) != safe
        assert not store.has(MANIFEST.content)
        await partial.write(4, chunks(4))
        await partial.finish()
        assert store.path_of(MANIFEST.content).read_bytes() == CONTENT


@BOTH
async def test_a_bitmap_is_believed_only_as_far_as_the_bytes_agree(tmp_path: Path, manifest: Manifest) -> None:
    """A row that is older than its file, or a disk that lied about a sync: not one wrong byte counts, and nothing right is lost."""
    async with opened_partial(tmp_path, manifest=manifest) as (store, partial):
        await partial.write(0, chunks(0, 7))
        await partial.sync()
        await partial.close()
        rot(tmp_path / "partials" / f"{manifest.content}.{manifest.id}", chunk=4)
        async with await store.open_partial(manifest, bitmap(*ALL)) as again:
            assert (again.count, bytes(again.have)) == (6, bitmap(0, 1, 2, 3, 5, 6))
            await again.write(4, chunks(4))
            await again.write(7, chunks(7, 4))
            await again.finish()
        assert store.path_of(MANIFEST.content).read_bytes() == CONTENT


async def test_a_file_that_cannot_be_read_back_loses_its_chunks(tmp_path: Path) -> None:
    disk = FailingDisk("read", armed=0)
    async with opened_partial(tmp_path, disk=disk, manifest=BARE) as (store, partial):
        disk.armed = 1_000_000
        await partial.write(1, chunks(1, 10))
        await partial.write(0, chunks(0))
        with pytest.raises(StorageError, match="11 chunks"):
            await partial.finish()
        assert partial.count == 0
        disk.armed = 0
        await partial.write(0, CONTENT)
        await partial.finish()
        assert store.has(MANIFEST.content)


async def test_a_failed_sync_discards_what_came_since_the_last_good_one(tmp_path: Path) -> None:
    disk = FailingDisk("sync", armed=0)
    async with opened_partial(tmp_path, disk=disk) as (store, partial):
        await partial.write(0, chunks(0, 2))
        assert await partial.sync() == bitmap(0, 1)
        await partial.write(2, chunks(2, 3))
        await partial.write(9, chunks(9, 2))
        disk.armed = 1
        with pytest.raises(StorageError, match="as the test asked"):
            await partial.sync()
        assert (partial.count, bytes(partial.have)) == (2, bitmap(0, 1))
        assert await partial.sync() == bitmap(0, 1)
        await partial.write(2, chunks(2, 9))
        disk.armed = 1
        with pytest.raises(StorageError):
            await partial.finish()
        assert (partial.count, store.has(MANIFEST.content)) == (2, False)
        await partial.write(2, chunks(2, 9))
        await partial.finish()
        assert store.path_of(MANIFEST.content).read_bytes() == CONTENT


async def test_what_is_written_during_a_failing_sync_is_discarded_too(tmp_path: Path) -> None:
    """Its pages may have been part of what was lost. Two syncs never run at once: the kernel tells only one of them."""
    wrote, may_fail = threading.Event(), threading.Event()
    syncs: list[str] = []

    def before(name: str) -> None:
        if name == "sync":
            syncs.append(name)
            may_fail.wait(30)
            raise OSError(5, "lost writes")
        if name == "write":
            wrote.set()

    async with opened_partial(tmp_path, disk=RecordingDisk(before)) as (_, partial):
        await partial.write(0, chunks(0))
        first = asyncio.ensure_future(partial.sync())
        second = asyncio.ensure_future(partial.sync())
        loop = asyncio.get_running_loop()
        wrote.clear()
        writing = asyncio.ensure_future(partial.write(5, chunks(5)))
        await loop.run_in_executor(None, wrote.wait, 30)
        assert (await writing, syncs) == (([5], []), ["sync"])
        may_fail.set()
        await asyncio.wait([first, second])
        assert isinstance(first.exception(), StorageError)
        assert isinstance(second.exception(), StorageError)
        assert (partial.count, bytes(partial.have)) == (0, bytes(2))


async def test_a_write_that_outlives_a_failed_sync_does_not_count(tmp_path: Path) -> None:
    wrote, go_on = threading.Event(), threading.Event()

    def before(name: str) -> None:
        if name == "write":
            wrote.set()
            go_on.wait(30)
        if name == "sync":
            raise OSError(5, "lost writes")

    async with opened_partial(tmp_path, disk=RecordingDisk(before)) as (_, partial):
        writing = asyncio.ensure_future(partial.write(0, chunks(0)))
        await asyncio.get_running_loop().run_in_executor(None, wrote.wait, 30)
        with pytest.raises(StorageError):
            await partial.sync()
        go_on.set()
        with pytest.raises(StorageError, match="discarded"):
            await writing
        assert partial.count == 0


async def test_what_is_written_during_a_sync_is_not_promised(tmp_path: Path) -> None:
    """Its bytes may have come too late for that sync."""
    syncing, go_on = threading.Event(), threading.Event()

    def before(name: str) -> None:
        if name == "sync":
            syncing.set()
            go_on.wait(30)

    async with opened_partial(tmp_path, disk=RecordingDisk(before)) as (_, partial):
        await partial.write(3, chunks(3))
        promised = asyncio.ensure_future(partial.sync())
        await asyncio.get_running_loop().run_in_executor(None, syncing.wait, 30)
        await partial.write(5, chunks(5))
        go_on.set()
        assert await promised == bitmap(3)
        assert await partial.sync() == bitmap(3, 5)


async def test_a_failed_sync_discards_its_group_also_when_nobody_waits_for_it_any_more(tmp_path: Path) -> None:
    syncing, go_on = threading.Event(), threading.Event()

    def before(name: str) -> None:
        if name == "sync":
            syncing.set()
            go_on.wait(30)
            raise OSError(5, "lost writes")

    async with opened_partial(tmp_path, disk=RecordingDisk(before)) as (_, partial):
        await partial.write(3, chunks(3))
        waiting = asyncio.ensure_future(partial.sync())
        await asyncio.get_running_loop().run_in_executor(None, syncing.wait, 30)
        waiting.cancel()
        go_on.set()
        await asyncio.wait([waiting])
        assert (waiting.cancelled(), partial.count) == (True, 0)


@pytest.mark.parametrize("step", ["sync", "rename", "sync_directory"])
async def test_a_cancelled_finish_is_done_or_not_and_known(tmp_path: Path, step: str) -> None:
    loop = asyncio.get_running_loop()
    finishing: list[asyncio.Future[None]] = []

    async def cancel() -> None:
        finishing[0].cancel()

    def before(name: str) -> None:
        if name == step and finishing:
            asyncio.run_coroutine_threadsafe(cancel(), loop).result()

    async with opened_partial(tmp_path, disk=RecordingDisk(before)) as (store, partial):
        await partial.write(0, CONTENT)
        finishing.append(asyncio.ensure_future(partial.finish()))
        await asyncio.wait(finishing)
        assert finishing[0].cancelled()
        assert partial.finished is store.has(MANIFEST.content) is (step != "sync")
        await partial.discard()
        assert store.used_bytes == (len(CONTENT) if partial.finished else 0)


async def test_a_disk_that_cannot_be_read_for_a_moment_proves_nothing_against_the_manifest(tmp_path: Path) -> None:
    disk = FailingDisk("read", armed=0)
    async with opened_partial(tmp_path, disk=disk, manifest=BARE) as (store, partial):
        await partial.write(0, CONTENT)
        disk.armed = 1
        with pytest.raises(StorageError, match="could not be read back"):
            await partial.finish()
        assert partial.complete
        await partial.finish()
        assert store.has(MANIFEST.content)


@pytest.mark.parametrize("fails", ["write", "rename", "sync_directory"])
async def test_a_failing_disk_loses_nothing_that_counts(tmp_path: Path, fails: str) -> None:
    disk = FailingDisk(fails, armed=0)
    async with opened_partial(tmp_path, disk=disk) as (store, partial):
        await partial.write(1, chunks(1, 10))
        disk.armed = 2 if fails == "write" else 1  # in other blocks, too
        try:
            await partial.write(0, chunks(0))
            await partial.finish()
        except StorageError:
            if not partial.complete:
                await partial.write(0, chunks(0))
        else:
            pytest.fail("the disk did not fail")
        assert partial.complete
    async with opened_store(tmp_path) as store:
        if fails == "sync_directory":
            assert await store.adopt(MANIFEST.content) is not None
        else:
            async with await store.open_partial(MANIFEST, bitmap(*ALL)) as again:
                await again.finish()


async def test_no_bit_is_handed_out_before_its_bytes_were_synced(tmp_path: Path) -> None:
    disk = RecordingDisk()
    async with opened_partial(tmp_path, disk=disk) as (_, partial):
        for order in ([3, 1], [0], [2, 10, 4]):
            for index in order:
                await partial.write(index, chunks(index))
            await partial.sync()
            assert disk.calls[-1] == "sync"
        await partial.write(0, CONTENT)
        await partial.finish()
        assert disk.calls[-3:] == ["sync", "rename", "sync_directory"]


async def test_cancelled_writes_count_fully_or_not_at_all_and_close_waits(tmp_path: Path) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def before(name: str) -> None:
        if name == "write":
            reached.set()
            go_on.wait(30)

    async with opened_partial(tmp_path, disk=RecordingDisk(before)) as (store, partial):
        writing = asyncio.ensure_future(partial.write(4, chunks(4, 3)))
        await asyncio.get_running_loop().run_in_executor(None, reached.wait, 30)
        writing.cancel()
        closing = asyncio.ensure_future(partial.close())
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        await asyncio.wait([writing, closing], return_when=asyncio.FIRST_COMPLETED)
        assert (writing.cancelled(), go_on.is_set()) == (True, True)
        await closing
        assert partial.count in {0, 3}
        async with await store.open_partial(MANIFEST) as again:
            await again.write(0, CONTENT)
            await again.finish()


async def test_many_writers_at_once(tmp_path: Path, dice: random.Random) -> None:
    content = random_bytes(24 * MIB + 11)
    manifest = manifest_of(content)
    async with opened_partial(tmp_path, manifest=manifest) as (store, partial):
        queue = [(first, 3) for first in range(0, 25, 3)] * 2
        dice.shuffle(queue)

        async def writer() -> None:
            while queue:
                first, count = queue.pop()
                good, bad = await partial.write(first, content[first * MIB : (first + count) * MIB])
                assert bad == []
                assert all(os.pread(partial.fd, 100, index * MIB) == content[index * MIB : index * MIB + 100] for index in good)

        async with asyncio.TaskGroup() as group:
            for _ in range(6):
                group.create_task(writer())
            group.create_task(partial.sync())
        await partial.finish()
        assert await store.adopt(manifest.content) == manifest


steps = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 10), st.integers(1, 11)),
    st.tuples(st.just("lie"), st.integers(0, 10), st.integers(0, 10)),
    st.tuples(st.just("sync")),
    st.tuples(st.just("failing sync")),
    st.tuples(st.just("power failure"), st.integers(0, 1000)),
    st.tuples(st.just("finish")),
)


@settings(max_examples=40)
@given(st.lists(steps, max_size=20))
def test_whatever_happens_what_counts_is_right(tmp_path_factory: pytest.TempPathFactory, story: list[tuple[str, int, int]]) -> None:
    """A model of what must count, through lies, failed syncs and power failures that scribble over everything not yet safe."""
    for manifest in (MANIFEST, BARE):
        asyncio.run(live_through(tmp_path_factory.mktemp("story"), story, manifest))


async def live_through(root: Path, story: list[tuple[str, int, int]], manifest: Manifest) -> None:
    disk = FailingDisk("sync", armed=0)
    path = root / "partials" / f"{manifest.content}.{manifest.id}"
    counts, safe = set[int](), b""
    async with opened_store(root, config=NO_RESERVE, disk=disk) as store:
        partial = await store.open_partial(manifest)
        for what, *numbers in story:
            if what == "write":
                first, count = numbers
                await partial.write(first, chunks(first, count))
                counts |= set(range(first, min(first + count, 11)))
            elif what == "lie":
                first, wrong = numbers
                given_bytes = bytearray(chunks(first, 11))
                given_bytes[min(wrong * CHUNK, len(given_bytes) - 1)] ^= 1
                good, bad = await partial.write(first, given_bytes)
                assert len(bad) == 1
                counts |= set(good)
            elif what == "sync":
                safe = await partial.sync()
                assert safe == bitmap(*counts)
            elif what == "failing sync":
                disk.armed = 1
                with pytest.raises(StorageError):
                    await partial.sync()
                counts = {index for index in ALL if safe and safe[index // 8] >> index % 8 & 1}
            elif what == "power failure":
                await partial.close()
                scribble(path, safe, random.Random(numbers[0]))
                partial = await store.open_partial(manifest, safe)
                counts = {index for index in ALL if safe and safe[index // 8] >> index % 8 & 1}
            elif counts == set(ALL):
                break
            assert bytes(partial.have) == bitmap(*counts)
            assert all(os.pread(partial.fd, CHUNK, index * CHUNK) == chunks(index) for index in counts)
        await partial.write(0, CONTENT)
        await partial.finish()
        await partial.close()
        assert store.path_of(MANIFEST.content).read_bytes() == CONTENT
        assert files_in(root) == [f"blobs/{str(MANIFEST.content)[:2]}/{MANIFEST.content}"]


def scribble(path: Path, safe: bytes, dice: random.Random) -> None:
    """What a power failure may do to unsynced bytes: keep, lose, tear or mix them up."""
    with path.open("r+b") as file:
        for index in ALL:
            if safe and safe[index // 8] >> index % 8 & 1:
                continue
            file.seek(index * CHUNK)
            length = min(CHUNK, len(CONTENT) - index * CHUNK)
            torn = dice.randrange(length)
            file.write(dice.choice([chunks(index), bytes(length), dice.randbytes(length), chunks(index)[:torn] + bytes(length - torn)]))


async def test_a_block_that_cannot_be_written_over_is_exchanged_and_nothing_else_changes(tmp_path: Path) -> None:
    """Also the last one, which the file has in part."""
    content, disk = random_bytes(2 * MIB + 300), BadSector(stuck=True)
    async with opened_store(tmp_path, disk=disk) as store, await store.open_partial(manifest_of(content)) as partial:
        [path] = (tmp_path / "partials").iterdir()
        taken = path.stat().st_blocks
        await partial.write(0, content[: 2 * MIB])
        disk.spoil(path, at=len(content) - 1)
        assert await partial.write(2, content[2 * MIB :]) == ([2], [])
        await partial.sync()
        assert (path.read_bytes(), path.stat().st_blocks, store.used_bytes) == (content, taken, len(content))
        assert disk.renewed == [(2 * MIB, MIB)]


async def test_another_block_is_one_of_zeros(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * (2 * MIB + 300))
    taken = path.stat().st_blocks
    with path.open("r+b") as file:
        assert Disk().renew(file.fileno(), 2 * MIB, MIB)
    assert (path.read_bytes(), path.stat().st_blocks) == (b"x" * 2 * MIB + bytes(300), taken)
