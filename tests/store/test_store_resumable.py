"""Uploads that go on: what counts is what was received without a gap, what is safe survives, and the blob is the file itself."""

from __future__ import annotations

import asyncio
import errno
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.errors import ChecksumError, NoSpaceError, ReplicadError, StorageError
from replicad.model.checksums import Checksum
from replicad.model.ids import Digest
from replicad.store.blobs import BlobStore
from replicad.store.disk import Disk
from replicad.store.resumable import Resumable, Safe
from replicad.store.space import StoreConfig
from support.storing import MIB, FailingDisk, flip, manifest_of, opened_store, pieces, random_bytes, verify_no_trace

NAME = "an-upload"
LONG_S = 3600.0


async def append(store: BlobStore, upload: Resumable, part: bytes, *, cut: bool = False) -> None:
    source = store.source(broken(part) if cut else pieces(part))
    await upload.append(source, until=upload.offset + len(part) + cut, seconds=LONG_S)


async def append_and_sync(store: BlobStore, upload: Resumable, part: bytes) -> None:
    await append(store, upload, part)
    await upload.sync()


async def broken(part: bytes) -> AsyncIterator[bytes]:
    yield part
    raise ConnectionResetError("the client went away")


async def test_parts_become_a_blob_where_they_lie(tmp_path: Path) -> None:
    content = random_bytes(7 * MIB + 5)
    async with opened_store(tmp_path) as store:
        await store.resumables.create(NAME, len(content))
        assert store.used_bytes == len(content)
        inode = (tmp_path / "uploads" / NAME).stat().st_ino
        upload = await store.resumables.open(NAME, len(content), Safe())
        for start, stop in ((0, 1), (1, 3 * MIB + 7), (3 * MIB + 7, len(content))):
            await append(store, upload, content[start:stop])
            assert await upload.sync() == Safe(stop, Digest(hashlib.sha256(content[:stop]).digest()))
        assert await upload.finish() == manifest_of(content)
        upload.close()
        blob = store.path_of(manifest_of(content).content)
        assert (blob.read_bytes(), blob.stat().st_ino, store.used_bytes) == (content, inode, len(content))
        assert await store.resumables.sizes() == {}


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3 * MIB), st.sampled_from(["kept", "cut off", "crash", "refused"])), max_size=6), st.integers(0, 5 * MIB))
def test_however_it_is_interrupted_it_is_the_same_content(tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[int, str]], size: int) -> None:
    """A crash loses what was not safe, a lost connection loses nothing that came, a part with another checksum counts for nothing."""
    root = tmp_path_factory.mktemp("store")
    content = random_bytes(size)

    async def receive() -> None:
        async with opened_store(root) as store:
            await store.resumables.create(NAME, size)
            safe = Safe()
            upload = await store.resumables.open(NAME, size, safe)
            for length, ends in [*parts, (size, "kept")]:
                part = content[upload.offset : upload.offset + length]
                expected = upload.offset + len(part)
                if ends == "refused":
                    expected = upload.offset
                    with pytest.raises(ChecksumError):
                        await upload.append_checked(store.source(pieces(part)), Checksum("sha1", b""), until=upload.offset + len(part))
                elif ends == "cut off":
                    with pytest.raises(ConnectionResetError):
                        await append(store, upload, part, cut=True)
                else:
                    await append(store, upload, part)
                assert (upload.offset, upload.intact) == (expected, True)
                if ends == "crash":
                    upload.close()
                    upload = await store.resumables.open(NAME, size, safe)
                    assert upload.offset == safe.offset
                else:
                    safe = await upload.sync()
            assert await upload.finish() == manifest_of(content)
            upload.close()
            assert store.path_of(manifest_of(content).content).read_bytes() == content

    asyncio.run(receive())


async def test_a_checksum_is_for_the_part_only(tmp_path: Path) -> None:
    content = random_bytes(4 * MIB)
    async with opened_store(tmp_path) as store:
        await store.resumables.create(NAME, len(content))
        upload = await store.resumables.open(NAME, len(content), Safe())
        await append(store, upload, content[:1000])
        for algorithm in ("sha1", "sha256"):
            part = content[upload.offset : upload.offset + 2 * MIB - 500]
            await upload.append_checked(store.source(pieces(part)), Checksum(algorithm, hashlib.new(algorithm, part).digest()), until=upload.offset + len(part))
        with pytest.raises(ConnectionResetError):
            await upload.append_checked(store.source(broken(b"1234")), Checksum("sha1", hashlib.sha1(b"1234").digest()), until=upload.offset + 5)
        assert upload.offset == len(content)
        assert await upload.finish() == manifest_of(content)
        upload.close()


async def test_what_does_not_read_back_counts_no_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = random_bytes(2 * MIB)
    async with opened_store(tmp_path) as store:
        await store.resumables.create(NAME, len(content))
        upload = await store.resumables.open(NAME, len(content), Safe())
        await append(store, upload, content)
        safe = await upload.sync()
        upload.close()
        flip(tmp_path / "uploads" / NAME, at=MIB + 1)
        upload = await store.resumables.open(NAME, len(content), safe)
        assert upload.offset == 0
        assert "does not read back" in caplog.text
        await append(store, upload, content)
        assert await upload.finish() == manifest_of(content)
        upload.close()


@pytest.mark.parametrize("fails", ["write", "sync"])
async def test_after_the_disk_failed_it_goes_on_at_what_was_safe(tmp_path: Path, fails: str) -> None:
    content = random_bytes(6 * MIB)
    disk = FailingDisk(fails, armed=0)
    async with opened_store(tmp_path, disk=disk) as store:
        await store.resumables.create(NAME, len(content))
        upload = await store.resumables.open(NAME, len(content), Safe())
        await append(store, upload, content[: 2 * MIB])
        safe = await upload.sync()
        disk.armed = 1
        with pytest.raises(StorageError):
            await append_and_sync(store, upload, content[2 * MIB :])
        assert not upload.intact
        upload.close()
        upload = await store.resumables.open(NAME, len(content), safe)
        assert (upload.offset, upload.intact) == (2 * MIB, True)
        await append(store, upload, content[2 * MIB :])
        assert await upload.finish() == manifest_of(content)
        upload.close()


@pytest.mark.parametrize("disk", [None, FailingDisk("allocate", error=errno.ENOSPC)], ids=["quota", "full"])
async def test_it_takes_its_room_at_once_or_not_at_all(tmp_path: Path, disk: Disk | None) -> None:
    config = StoreConfig(reserve_fraction=0.0, quota_bytes=MIB if disk is None else 0)
    async with opened_store(tmp_path, config=config, disk=disk) as store:
        with pytest.raises(NoSpaceError):
            await store.resumables.create(NAME, MIB + 1)
        verify_no_trace(store, tmp_path)


async def test_one_that_is_discarded_gives_its_room_back(tmp_path: Path) -> None:
    async with opened_store(tmp_path) as store:
        await store.resumables.create(NAME, MIB)
        with pytest.raises(ReplicadError):
            await store.resumables.create(NAME, MIB)
    async with opened_store(tmp_path) as store:
        assert (await store.resumables.sizes(), store.used_bytes) == ({NAME: MIB}, MIB)
        for _ in range(2):
            await store.resumables.discard(NAME)
            verify_no_trace(store, tmp_path)
