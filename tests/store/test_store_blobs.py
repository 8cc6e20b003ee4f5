"""The store as a whole: layout, lock, leftovers, small groups, adoption, a disk that is really full."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from replicad.errors import BusyError, ConfigurationError, InputError, IntegrityError, NoSpaceError, NotFoundError, StorageError
from replicad.model.ids import Digest
from replicad.model.manifest import Manifest
from replicad.store.blobs import BlobStore
from replicad.store.space import StoreConfig
from support.storing import (
    MIB,
    NO_RESERVE,
    FailingDisk,
    RecordingDisk,
    corrupted,
    files_in,
    flip,
    manifest_of,
    opened_store,
    pieces,
    put_small,
    random_bytes,
    verify_no_trace,
)

CONTENT = random_bytes(2 * MIB + 5)
MANIFEST = manifest_of(CONTENT)
NOBODY = Digest(bytes(32))


def small(count: int, size: int = 5000) -> list[tuple[Manifest, bytes]]:
    contents = [random_bytes(size + number, seed=number) for number in range(count)]
    return [(manifest_of(content), content) for content in contents]


async def test_small_contents_are_stored_in_groups(tmp_path: Path) -> None:
    items = [*small(600, 100), (manifest_of(b""), b""), (manifest_of(CONTENT[:MIB]), CONTENT[:MIB])]
    disk = RecordingDisk()
    async with opened_store(tmp_path, disk=disk) as store:
        assert await put_small(store, items) == []
        assert await store.contents() == {manifest.content: len(content) for manifest, content in items}
        assert all(store.path_of(manifest.content).read_bytes() == content for manifest, content in items)
        assert store.used_bytes == sum(len(content) for _, content in items)
        assert sorted(files_in(tmp_path)) == sorted(f"blobs/{str(manifest.content)[:2]}/{manifest.content}" for manifest, _ in items)
    assert disk.calls.count("sync") == disk.calls.count("rename") == len(items)
    assert disk.calls.count("sync_directory") < 3 * 256 + 10


async def test_small_contents_that_are_something_else_are_refused_alone(tmp_path: Path) -> None:
    items = small(5)
    lies = [
        (items[1][0], items[1][1][:-1]),
        (items[2][0], items[2][1] + b"x"),
        (items[3][0], items[4][1]),
        (Manifest(items[4][0].content, 1, MIB, items[4][0].chunks), items[4][1]),
    ]
    async with opened_store(tmp_path) as store:
        assert await put_small(store, [items[0], *lies]) == [manifest.content for manifest, _ in items[1:]]
        assert store.path_of(items[0][0].content).read_bytes() == items[0][1]
        for manifest in await store.contents():
            assert await store.adopt(manifest) is not None
        with pytest.raises(ValueError, match="one chunk"):
            await put_small(store, [(MANIFEST, CONTENT)])


async def test_small_contents_of_unknown_hash_get_their_manifests(tmp_path: Path) -> None:
    items = small(300)
    async with opened_store(tmp_path) as store:
        bodies = [content for _, content in items]
        assert await store.put_bodies([*bodies, b"", bodies[0]]) == [manifest for manifest, _ in [*items, (manifest_of(b""), b""), items[0]]]
        assert store.used_bytes == sum(map(len, bodies))
        with pytest.raises(InputError, match=str(MIB)):
            await store.put_bodies([bytes(MIB + 1)])


@pytest.mark.parametrize("fails", ["write", "sync", "rename"])
async def test_a_failing_disk_leaves_nothing_of_a_small_group_that_failed(tmp_path: Path, fails: str) -> None:
    items = small(20)
    disk = FailingDisk(fails)
    async with opened_store(tmp_path, disk=disk) as store:
        with pytest.raises(StorageError):
            await put_small(store, items)
        verify_no_trace(store, tmp_path)
        disk.armed = 1
        with pytest.raises(StorageError):
            await put_small(store, items)
        for content in await store.contents():
            assert await store.adopt(content) is not None
        assert await put_small(store, items) == []
        assert store.used_bytes == sum(len(content) for _, content in items)


async def test_a_lone_file_waits_for_nobody_and_a_crowd_shares_its_directory_syncs(tmp_path: Path) -> None:
    disk = RecordingDisk()
    contents = [random_bytes(1000, seed=number) for number in range(200)]
    async with opened_store(tmp_path, config=StoreConfig(reserve_fraction=0.0, uploads_max=64), disk=disk) as store:
        before = disk.calls.count("sync_directory")
        await store.receive(pieces(b"alone"), size=5)
        assert disk.calls.count("sync_directory") == before + 1
        async with asyncio.TaskGroup() as group:
            for content in contents:
                group.create_task(store.receive(pieces(content), size=len(content)))
        assert set(await store.contents()) == {manifest_of(content).content for content in [b"alone", *contents]}
    groups = "".join({"sync": "s", "rename": "r", "sync_directory": "d"}.get(call, "") for call in disk.calls).split("d")
    assert max(run.count("r") for run in groups) > 4


async def test_only_one_daemon_has_it(tmp_path: Path) -> None:
    async with opened_store(tmp_path):
        with pytest.raises(ConfigurationError, match="in use by another replicad"):
            async with opened_store(tmp_path):
                pass
    async with opened_store(tmp_path) as store:
        assert store.free_bytes() > 0


@pytest.mark.parametrize("obstacle", ["blobs", "partials", "blobs/7f"])
async def test_a_data_directory_that_cannot_be_used_is_a_configuration_error(tmp_path: Path, obstacle: str) -> None:
    (tmp_path / obstacle).parent.mkdir(exist_ok=True)
    (tmp_path / obstacle).write_text("not a directory")
    with pytest.raises(ConfigurationError, match=str(tmp_path)):
        async with opened_store(tmp_path):
            pass


async def test_opening_removes_uploads_that_a_crash_cut_off_and_nothing_else(tmp_path: Path) -> None:
    async with opened_store(tmp_path) as store:
        await store.receive(pieces(CONTENT), size=None)
        async with await store.open_partial(manifest_of(CONTENT[1:])):
            pass
    (tmp_path / "partials" / "upload.7").write_bytes(b"half")
    async with opened_store(tmp_path) as store:
        assert len(files_in(tmp_path)) == 2
        assert await store.partial_files() == [(manifest_of(CONTENT[1:]).content, manifest_of(CONTENT[1:]).id)]
        assert store.used_bytes == 2 * len(CONTENT) - 1


async def test_files_that_are_not_ours_are_not_blobs(tmp_path: Path) -> None:
    async with opened_store(tmp_path) as store:
        name = str(MANIFEST.content)
        for path in (f"blobs/{name[:2]}/.{name}", f"blobs/{name[:2]}/{name.upper()}", f"blobs/{name[:2]}/{name}x", "blobs/00/" + name, "partials/README"):
            (tmp_path / path).write_bytes(b"?")
        assert await store.contents() == {}
        assert await store.partial_files() == []
        assert not store.has(MANIFEST.content)


async def test_blobs_are_opened_measured_and_removed(tmp_path: Path) -> None:
    async with opened_store(tmp_path) as store:
        await store.receive(pieces(CONTENT), size=None)
        fd = store.open_blob(MANIFEST.content)
        assert await store.measure(MANIFEST.content) == MANIFEST
        await store.remove(MANIFEST.content)
        await store.remove(MANIFEST.content)
        assert os.pread(fd, 10, MIB) == CONTENT[MIB : MIB + 10]
        os.close(fd)
        with pytest.raises(NotFoundError, match="not on this node"):
            store.open_blob(NOBODY)
        with pytest.raises(NotFoundError, match="not on this node"):
            await store.measure(NOBODY)
        assert (store.used_bytes, store.has(MANIFEST.content)) == (0, False)


async def test_a_rotten_blob_is_never_adopted(tmp_path: Path) -> None:
    async with opened_store(tmp_path) as store:
        await store.receive(pieces(CONTENT), size=None)
        with corrupted(store.path_of(MANIFEST.content), at=MIB + 3), pytest.raises(IntegrityError, match="other bytes"):
            await store.measure(MANIFEST.content)
        assert await store.adopt(MANIFEST.content) == MANIFEST
        os.truncate(store.path_of(MANIFEST.content), MIB)
        assert await store.adopt(MANIFEST.content) is None
        assert files_in(tmp_path) == [f"aside/{MANIFEST.content}"]
        assert await store.adopt(NOBODY) is None


async def test_what_is_set_aside_is_counted_lent_and_dropped(tmp_path: Path) -> None:
    """A damaged copy stays until the content is whole: the next partial begins with its good chunks and writes over the bad ones, across a restart, too."""
    async with opened_store(tmp_path) as store:
        await store.receive(pieces(CONTENT), size=None)
        flip(store.path_of(MANIFEST.content), at=MIB + 3)
        assert await store.examine(MANIFEST) == f"1 of {MANIFEST.count} chunks wrong"
        store.set_aside(MANIFEST.content)
        store.set_aside(MANIFEST.content)
        assert await store.examine(MANIFEST) == "it is not on the disk any more"
    async with opened_store(tmp_path) as store:
        assert (store.aside, store.used_bytes) == ({MANIFEST.content: MANIFEST.size}, MANIFEST.size)
        partial = await store.open_partial(MANIFEST)
        assert [index for index in range(MANIFEST.count) if not partial.has(index)] == [1]
        await partial.discard()
        assert (store.used_bytes, files_in(tmp_path)) == (MANIFEST.size, [f"aside/{MANIFEST.content}"])
        partial = await store.open_partial(MANIFEST)
        await partial.write(1, CONTENT[MIB : 2 * MIB])
        await partial.finish()
        await partial.close()
        assert store.aside[MANIFEST.content] == MANIFEST.size
        store.drop_aside(MANIFEST.content)
        assert store.path_of(MANIFEST.content).read_bytes() == CONTENT
        assert (store.used_bytes, store.aside) == (MANIFEST.size, {})
        await store.remove(MANIFEST.content)
        assert (store.used_bytes, files_in(tmp_path)) == (0, [])


async def test_a_copy_of_another_length_is_not_lent(tmp_path: Path) -> None:
    async with opened_store(tmp_path) as store:
        await store.receive(pieces(CONTENT), size=None)
        os.truncate(store.path_of(MANIFEST.content), MIB)
        assert await store.examine(MANIFEST) == f"it has {MIB} bytes instead of {MANIFEST.size}"
        store.set_aside(MANIFEST.content)
        async with await store.open_partial(MANIFEST) as partial:
            assert partial.count == 0
        assert store.aside == {MANIFEST.content: MIB}


@pytest.mark.parametrize("error", [errno.EIO, errno.EMFILE, errno.ENOMEM, errno.EINTR], ids=errno.errorcode.get)
async def test_a_blob_that_cannot_be_read_stays_and_what_is_fetched_instead_takes_its_place(tmp_path: Path, error: int) -> None:
    """Nobody knows whether it is wrong; its bytes count once, whichever they are."""
    disk = FailingDisk("read", error=error, armed=0)
    async with opened_store(tmp_path, disk=disk) as store:
        await store.receive(pieces(CONTENT), size=None)
        disk.armed = 1
        with pytest.raises(StorageError, match="reading a content"):
            await store.adopt(MANIFEST.content)
        assert (store.aside, files_in(tmp_path / "blobs")) == ({}, [f"{str(MANIFEST.content)[:2]}/{MANIFEST.content}"])
        async with await store.open_partial(MANIFEST) as partial:
            assert partial.count == 0
            await partial.write(0, CONTENT)
            await partial.finish()
        assert await store.adopt(MANIFEST.content) == MANIFEST
        assert store.used_bytes == MANIFEST.size


async def test_closing_the_store_closes_its_partials(tmp_path: Path) -> None:
    async with opened_store(tmp_path) as store:
        partial = await store.open_partial(MANIFEST)
        await partial.write(0, CONTENT)
    with pytest.raises(ValueError, match="closed"):
        await partial.sync()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(partial.fd)


@contextmanager
def small_disk(root: Path) -> Iterator[Path]:
    """A file system of 12 MiB, if we may mount one; otherwise just the directory."""
    root.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "replicad-test", str(root)], check=False, capture_output=True).returncode == 0
    try:
        yield root
    finally:
        if mounted:
            subprocess.run(["umount", str(root)], check=True)


async def test_a_disk_that_is_really_full_keeps_what_it_has_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as root:
        quota = 0 if root.is_mount() else 12 * MIB
        async with opened_store(root, config=StoreConfig(reserve_fraction=0.0, quota_bytes=quota)) as store:
            first = await store.receive(pieces(CONTENT), size=len(CONTENT))
            big = random_bytes(11 * MIB)
            for size in (len(big), None):
                with pytest.raises(NoSpaceError):
                    await store.receive(pieces(big), size=size)
                assert len(files_in(root)) == 1
            with pytest.raises(NoSpaceError):
                await store.open_partial(manifest_of(big))
            with pytest.raises(NoSpaceError):
                await put_small(store, small(11, MIB - 100))
            assert files_in(root) == [f"blobs/{str(first.content)[:2]}/{first.content}"]
            assert store.used_bytes == len(CONTENT)
            await store.remove(first.content)
            assert await store.receive(pieces(big), size=None) == manifest_of(big)


async def test_bytes_that_no_longer_fit_are_no_space_while_writing(tmp_path: Path) -> None:
    """Somebody else took the room after it was promised."""
    with small_disk(tmp_path / "disk") as root:
        disk = RecordingDisk()
        disk.allocate = lambda fd, offset, length: os.ftruncate(fd, offset + length)  # type: ignore[method-assign]
        if not root.is_mount():
            disk.write = FailingDisk("write", error=28).write  # type: ignore[method-assign]
        async with opened_store(root, config=NO_RESERVE, disk=disk) as store:
            disk.room = lambda _: (1 << 40, 1 << 40)  # type: ignore[method-assign]
            with pytest.raises(NoSpaceError):
                await store.receive(pieces(random_bytes(14 * MIB)), size=14 * MIB)
            verify_no_trace(store, root)
            async with await store.open_partial(manifest_of(random_bytes(14 * MIB))) as partial:
                with pytest.raises(NoSpaceError):
                    await partial.write(0, random_bytes(14 * MIB))
                assert partial.count == 0
                await partial.discard()
            verify_no_trace(store, root)


def test_the_interpreter_ends_when_opening_fails(tmp_path: Path) -> None:
    """No thread and no lock is left behind by a failed start."""
    (tmp_path / "blobs").write_text("")
    program = f"""
import asyncio, pathlib
from support.storing import flip, opened_store
async def main():
    async with opened_store(pathlib.Path({str(tmp_path)!r})):
        pass
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=30, cwd=Path(__file__).parents[1])
    assert "ConfigurationError" in done.stderr.splitlines()[-1]


async def test_a_store_shares_its_executor(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        async with BlobStore.open(tmp_path, config=NO_RESERVE, executor=executor) as store, asyncio.TaskGroup() as group:
            uploads = [group.create_task(store.receive(pieces(CONTENT), size=None)) for _ in range(3)]
        assert {upload.result() for upload in uploads} == {MANIFEST}
        with pytest.raises(BusyError):
            async with BlobStore.open(tmp_path, config=NO_RESERVE, executor=executor) as store, await store.open_partial(MANIFEST):
                await store.open_partial(MANIFEST)


async def test_a_file_that_goes_while_files_are_listed_is_left_out(tmp_path: Path) -> None:
    """A link that leads nowhere is what a file is that was removed or named after its directory was read."""
    async with opened_store(tmp_path) as store, await store.open_partial(MANIFEST):
        for directory in (tmp_path / "partials", tmp_path / "uploads", store.path_of(MANIFEST.content).parent):
            (directory / str(MANIFEST.content)).symlink_to("gone")
        assert await store.partial_sizes() == [len(CONTENT)]
        assert await store.resumables.sizes() == {}
        assert await store.contents() == {}
