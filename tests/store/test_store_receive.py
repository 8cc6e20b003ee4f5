"""Receiving a stream: the manifest is right, the blob is durable, and whatever fails leaves no trace."""

from __future__ import annotations

import asyncio
import errno
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.errors import InputError, IntegrityError, NoSpaceError, StorageError
from replicad.model import chunks
from replicad.model.ids import Digest
from replicad.model.manifest import Manifest
from replicad.store import hashing
from replicad.store.hashing import ChunkHasher, Hashes, WholeHasher
from replicad.store.space import StoreConfig
from support.storing import (
    MIB,
    NO_RESERVE,
    FailingDisk,
    RecordingDisk,
    files_in,
    manifest_of,
    opened_store,
    pieces,
    random_bytes,
    verify_no_trace,
    without_states,
)
from support.waiting import until

SIZES = [0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB, 3 * MIB + 7, 17 * MIB + 1]


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("size", SIZES)
async def test_a_stream_becomes_a_blob(tmp_path: Path, size: int, known: bool) -> None:
    content = random_bytes(size)
    async with opened_store(tmp_path) as store:
        manifest = await store.receive(pieces(content), size=size if known else None, expect=manifest_of(content).content)
        assert manifest == manifest_of(content)
        assert Manifest.decode(manifest.encoded) == manifest
        assert store.path_of(manifest.content).read_bytes() == content
        assert files_in(tmp_path) == [f"blobs/{str(manifest.content)[:2]}/{manifest.content}"]
        assert store.used_bytes == size


@pytest.mark.parametrize("piece", [1000, 65_536, MIB, 3 * MIB + 1])
async def test_the_size_of_the_pieces_does_not_matter(tmp_path: Path, piece: int) -> None:
    content = random_bytes(4 * MIB + 3)
    async with opened_store(tmp_path) as store:
        assert await store.receive(pieces(content, piece), size=len(content)) == manifest_of(content)


async def test_a_stream_that_outgrows_its_chunk_size_is_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real bound that is more than 4 GiB of unknown length; here the bound is 4 chunks."""
    monkeypatch.setattr(chunks, "CHUNKS_MAX", 4)
    monkeypatch.setattr(hashing, "CHUNKS_MAX", 4)
    async with opened_store(tmp_path) as store:
        for size in (4 * MIB, 4 * MIB + 1, 8 * MIB, 8 * MIB + 1, 9 * MIB + 5):
            content = random_bytes(size)
            manifest = await store.receive(pieces(content), size=None)
            assert manifest == manifest_of(content)
            assert manifest.chunk_size == MIB << (size > 4 * MIB) << (size > 8 * MIB)
            assert await store.receive(pieces(content), size=size) == manifest


@settings(max_examples=50)
@given(st.binary(max_size=200), st.lists(st.integers(0, 50), max_size=20), st.integers(1, 64))
def test_chunk_digests_do_not_depend_on_the_pieces(content: bytes, cuts: list[int], chunk_size: int) -> None:
    hasher, rest = ChunkHasher(chunk_size), memoryview(content)
    for cut in cuts:
        hasher.update(rest[:cut])
        rest = rest[cut:]
    hasher.update(rest)
    assert hasher.packed() == manifest_of(content, chunk_size=chunk_size, with_states=False).chunks


@settings(max_examples=50)
@given(st.binary(max_size=1500), st.lists(st.integers(0, 400), max_size=8), st.integers(0, 8))
def test_states_do_not_depend_on_the_pieces_nor_on_copies(content: bytes, cuts: list[int], copied: int) -> None:
    hashes, rest = Hashes(ChunkHasher(64), WholeHasher(64)), memoryview(content)
    for number, cut in enumerate([*cuts, len(content)]):
        if number == copied:
            left, hashes = hashes, hashes.copy()
            left.update(memoryview(b"something else" * 10))
        hashes.update(rest[:cut])
        rest = rest[cut:]
    assert hashes.manifest(len(content)) == manifest_of(content, chunk_size=64)


async def test_without_states_manifests_are_made_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_states(monkeypatch)
    content = random_bytes(3 * MIB + 5)
    bare = manifest_of(content, with_states=False)
    async with opened_store(tmp_path) as store:
        assert await store.receive(pieces(content), size=None) == bare
        assert await store.adopt(bare.content) == bare
        assert Manifest.decode(bare.encoded) == bare


async def broken(content: bytes) -> AsyncIterator[bytes]:
    yield content
    raise ConnectionResetError("the client went away")


async def stuck(content: bytes) -> AsyncIterator[bytes]:
    yield content
    await asyncio.Event().wait()


@pytest.mark.parametrize("size", [1000, 5 * MIB + 1])
@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
async def test_what_is_not_as_promised_leaves_no_trace(tmp_path: Path, size: int, known: bool) -> None:
    content = random_bytes(size)
    announced = size if known else None
    async with opened_store(tmp_path, config=StoreConfig(reserve_fraction=0.0, stall_s=0.05)) as store:
        with pytest.raises(IntegrityError, match=r"has SHA-256 [0-9a-f]{64}, expected 0{64}"):
            await store.receive(pieces(content), size=announced, expect=Digest(bytes(32)))
        verify_no_trace(store, tmp_path)
        with pytest.raises(ConnectionResetError):
            await store.receive(broken(content[: size // 2]), size=announced)
        verify_no_trace(store, tmp_path)
        with pytest.raises(InputError, match=r"stalled: no byte for 0\.05 s") as caught:
            await store.receive(stuck(content[: size // 2]), size=announced)
        assert caught.value.error_code == "stalled"
        verify_no_trace(store, tmp_path)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3 * MIB), st.data(), st.booleans())
def test_cut_off_at_any_byte_it_leaves_no_trace(tmp_path_factory: pytest.TempPathFactory, size: int, data: st.DataObject, known: bool) -> None:
    cut = data.draw(st.integers(0, size - 1))
    root = tmp_path_factory.mktemp("store")

    async def receive() -> None:
        async with opened_store(root) as store:
            with pytest.raises(ConnectionResetError):
                await store.receive(broken(bytes(cut)), size=size if known else None)
            verify_no_trace(store, root)

    asyncio.run(receive())


@pytest.mark.parametrize("size", [0, 1000, MIB, 5 * MIB])
async def test_a_wrong_length_leaves_no_trace(tmp_path: Path, size: int) -> None:
    content = random_bytes(size)
    async with opened_store(tmp_path) as store:
        with pytest.raises(IntegrityError, match=f"ended after {size} of {size + 1} bytes"):
            await store.receive(pieces(content), size=size + 1)
        verify_no_trace(store, tmp_path)
        with pytest.raises(IntegrityError, match=f"goes on after its {size} bytes"):
            await store.receive(pieces(content + b"x"), size=size)
        verify_no_trace(store, tmp_path)
        for senseless in (-1, chunks.CONTENT_SIZE_MAX + 1):
            with pytest.raises(InputError, match="size"):
                await store.receive(pieces(content), size=senseless)


def seldom(content: bytes, *, taken: list[int]) -> AsyncIterator[bytes]:
    async def source() -> AsyncIterator[bytes]:
        taken.append(len(content))
        yield content

    return source()


@pytest.mark.parametrize(
    "config",
    [StoreConfig(reserve_fraction=1.0), StoreConfig(reserve_fraction=0.0, reserve_bytes=1 << 60), StoreConfig(reserve_fraction=0.0, quota_bytes=2 * MIB)],
)
async def test_reserve_and_quota_are_respected_before_a_byte_is_read(tmp_path: Path, config: StoreConfig) -> None:
    content = random_bytes(3 * MIB)
    taken: list[int] = []
    async with opened_store(tmp_path, config=config) as store:
        assert not store.room_for(len(content))
        bound = "the disk has [0-9]{6,} bytes free, and storage.reserve keeps [0-9]{6,} bytes of it free"
        if config.quota_bytes:
            bound = f"storage.quota is {2 * MIB} bytes, 0 of them are used"
        with pytest.raises(NoSpaceError, match=f"^no room for {len(content)} bytes: {bound}$"):
            await store.receive(seldom(content, taken=taken), size=len(content))
        assert taken == []
        with pytest.raises(NoSpaceError):
            await store.receive(seldom(content, taken=taken), size=None)
        store.check_room(0)
        verify_no_trace(store, tmp_path)


async def test_the_quota_can_be_used_up_to_the_last_byte(tmp_path: Path) -> None:
    async with opened_store(tmp_path, config=StoreConfig(reserve_fraction=0.0, quota_bytes=5 * MIB)) as store:
        first = await store.receive(pieces(random_bytes(2 * MIB)), size=None)
        await store.receive(pieces(random_bytes(3 * MIB, seed=2)), size=None)
        assert (store.used_bytes, store.free_bytes()) == (5 * MIB, 0)
        with pytest.raises(NoSpaceError):
            await store.receive(pieces(b"x"), size=1)
        await store.receive(pieces(b""), size=0)
        await store.remove(first.content)
        assert store.free_bytes() == 2 * MIB


async def test_the_same_content_again_is_one_blob_and_counted_once(tmp_path: Path) -> None:
    content = random_bytes(2 * MIB)
    async with opened_store(tmp_path) as store, asyncio.TaskGroup() as group:
        uploads = [group.create_task(store.receive(pieces(content), size=size)) for size in (None, len(content), None, len(content))]
    assert {upload.result() for upload in uploads} == {manifest_of(content)}
    assert store.used_bytes == len(content)
    assert len(files_in(tmp_path)) == 1


async def test_uploads_at_once_are_bounded_and_all_arrive(tmp_path: Path) -> None:
    active, most, go_on = 0, 0, asyncio.Event()

    async def source(content: bytes) -> AsyncIterator[bytes]:
        nonlocal active, most
        active += 1
        most = max(most, active)
        async for piece in pieces(content, 500_000):
            yield piece
            await go_on.wait()
            assert store._uploads.pool._taken <= 32
        active -= 1

    contents = [random_bytes(3 * MIB + number, seed=number) for number in range(20)]
    async with opened_store(tmp_path, config=StoreConfig(reserve_fraction=0.0, uploads_max=3)) as store, asyncio.TaskGroup() as group:
        uploads = [group.create_task(store.receive(source(content), size=len(content))) for content in contents]
        await until(lambda: active == 3, what="three uploads at once")
        go_on.set()
    assert [upload.result() for upload in uploads] == [manifest_of(content) for content in contents]
    assert most == 3


@pytest.mark.parametrize("size", [1000, 40 * MIB])
@pytest.mark.parametrize("fails", ["write", "allocate", "sync", "rename"])
async def test_a_failing_disk_leaves_no_trace(tmp_path: Path, size: int, fails: str) -> None:
    content = random_bytes(size)
    disk = FailingDisk(fails)
    async with opened_store(tmp_path, disk=disk) as store:
        for announced in (size, None):
            with pytest.raises(StorageError, match="as the test asked"):
                await store.receive(pieces(content), size=announced)
            verify_no_trace(store, tmp_path)
        disk.armed = 0
        assert await store.receive(pieces(content), size=size) == manifest_of(content)


async def test_a_disk_quota_that_is_full_is_no_space(tmp_path: Path) -> None:
    async with opened_store(tmp_path, disk=FailingDisk("write", error=errno.EDQUOT)) as store:
        with pytest.raises(NoSpaceError):
            await store.receive(pieces(random_bytes(2 * MIB)), size=None)
        verify_no_trace(store, tmp_path)


async def test_an_unsynced_directory_is_an_error_and_the_blob_is_right(tmp_path: Path) -> None:
    content = random_bytes(2 * MIB)
    disk = FailingDisk("sync_directory", armed=0)
    async with opened_store(tmp_path, disk=disk) as store:
        disk.armed = 1
        with pytest.raises(StorageError, match="making names durable"):
            await store.receive(pieces(content), size=len(content))
        assert await store.adopt(manifest_of(content).content) == manifest_of(content)
        assert store.used_bytes == len(content)


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """The kernel refuses to make a file longer: a full disk that does not hurt anybody else."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_file_that_the_kernel_refuses_to_grow_leaves_no_trace(tmp_path: Path) -> None:
    content = random_bytes(5 * MIB)
    async with opened_store(tmp_path) as store:
        for announced in (len(content), None):
            with files_no_longer_than(3 * MIB), pytest.raises(NoSpaceError):
                await store.receive(pieces(content), size=announced)
            verify_no_trace(store, tmp_path)
        assert await store.receive(pieces(content), size=len(content)) == manifest_of(content)


async def test_nothing_is_named_before_it_is_durable(tmp_path: Path) -> None:
    disk = RecordingDisk()
    async with opened_store(tmp_path, disk=disk) as store:
        for size, known in ((1000, True), (2 * MIB, True), (2 * MIB, False)):
            disk.calls.clear()
            await store.receive(pieces(random_bytes(size)), size=size if known else None)
            order = [call for call in disk.calls if call != "write"]
            assert (order[0], disk.calls[1]) == ("allocate", "write")
            assert [call for call in order[1:-2] if call != "sync"] == []
            assert order[-3:] == ["sync", "rename", "sync_directory"]


@pytest.mark.parametrize("size", [1000, 2 * MIB])
@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
async def test_cancelled_at_every_step_of_the_disk(tmp_path: Path, size: int, known: bool) -> None:
    """The cancellation arrives while a thread works: it must be waited for, and either the blob is whole or there is no trace."""
    content = random_bytes(size)
    loop = asyncio.get_running_loop()
    step = 0

    def cancel(name: str) -> None:
        nonlocal countdown
        countdown -= 1
        if countdown == 0:
            asyncio.run_coroutine_threadsafe(cancelling(), loop).result()

    async def cancelling() -> None:
        upload.cancel()

    countdown = -1
    cancelled = True
    async with opened_store(tmp_path, disk=RecordingDisk(cancel)) as store:
        while cancelled:
            step += 1
            countdown = step
            upload = asyncio.ensure_future(store.receive(pieces(content), size=size if known else None))
            await asyncio.wait([upload])
            cancelled = upload.cancelled()
            if store.has(manifest_of(content).content):
                assert await store.adopt(manifest_of(content).content) == manifest_of(content)
                await store.remove(manifest_of(content).content)
            verify_no_trace(store, tmp_path)
            countdown = -1
    assert step > 4


async def test_cancelled_while_waiting_for_the_source(tmp_path: Path) -> None:
    async with opened_store(tmp_path, config=NO_RESERVE) as store:
        for content, size in ((b"abc", 10), (random_bytes(3 * MIB), None), (random_bytes(3 * MIB), 9 * MIB)):
            begun = asyncio.Event()

            async def source(content: bytes = content, begun: asyncio.Event = begun) -> AsyncIterator[bytes]:
                yield content
                begun.set()
                await asyncio.Event().wait()

            upload = asyncio.ensure_future(store.receive(source(), size=size))
            await begun.wait()
            upload.cancel()
            await asyncio.wait([upload])
            assert upload.cancelled()
            verify_no_trace(store, tmp_path)
