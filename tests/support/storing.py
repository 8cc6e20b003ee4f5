"""Blob stores for tests: contents, streams, and disks that misbehave on request."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from replicad.crypto import states
from replicad.model.chunks import chunk_size_for
from replicad.model.ids import Digest
from replicad.model.manifest import Manifest
from replicad.store.blobs import BlobStore
from replicad.store.disk import Disk
from replicad.store.space import StoreConfig

if TYPE_CHECKING:
    import pytest

MIB = 1 << 20
NO_RESERVE = StoreConfig(reserve_fraction=0.0)


def random_bytes(size: int, *, seed: int = 1) -> bytes:
    """The same bytes for the same seed."""
    return random.Random(seed).randbytes(size)


def manifest_of(content: bytes, *, chunk_size: int | None = None, with_states: bool = True) -> Manifest:
    """The manifest by its definition, slowly. ``chunk_size``: another one than the format prescribes (a multiple of 64), to have many chunks of few bytes. States are in it where they can be had."""
    chunk_size = chunk_size or chunk_size_for(len(content))
    chunks = b"".join(hashlib.sha256(content[start : start + chunk_size]).digest() for start in range(0, len(content), chunk_size))
    packed = states_of(content, chunk_size) if with_states and states.available() else b""
    return Manifest(Digest(hashlib.sha256(content).digest()), len(content), chunk_size, chunks, packed)


def states_of(content: bytes, chunk_size: int) -> bytes:
    """The state after each chunk but the last."""
    whole, packed = states.Sha256(), b""
    for start in range(0, len(content) - chunk_size, chunk_size):
        whole.update(content[start : start + chunk_size])
        packed += whole.state
    return packed


def without_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a node whose OpenSSL does not let SHA-256 go on from a state."""
    monkeypatch.setattr(states, "_library", lambda: None)


async def pieces(content: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    """A stream of pieces of that size."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


@contextlib.asynccontextmanager
async def opened_store(root: Path, *, config: StoreConfig = NO_RESERVE, disk: Disk | None = None) -> AsyncIterator[BlobStore]:
    """A store with its own four threads."""
    with ThreadPoolExecutor(4) as executor:
        async with BlobStore.open(root, config=config, executor=executor, disk=disk) as store:
            yield store


async def receive_socket(store: BlobStore, fd: int, *, prefix: bytes, size: int, expect: Digest | None = None) -> Manifest:
    """One content from a socket."""
    return await store.receive(store.from_socket(fd, prefix=prefix, size=size), size=size, expect=expect)


async def put_small(store: BlobStore, items: Sequence[tuple[Manifest, bytes]]) -> list[Digest]:
    """Write small contents and make them durable; the digests of those that are something else."""
    written = await store.write_small(items)
    await store.name_small([one for one in written if one is not None])
    return [manifest.content for (manifest, _), one in zip(items, written, strict=True) if one is None]


def files_in(root: Path) -> list[str]:
    """Every file below, relative."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def verify_no_trace(store: BlobStore, root: Path) -> None:
    """Nothing is on the disk, nothing is accounted for, and the store still takes as much as it may."""
    assert files_in(root) == []
    assert store.used_bytes == 0
    pool = store._uploads.pool
    assert (pool._taken, pool._room._value) == (0, 32)


class FailingDisk(Disk):
    """The real disk, except that the call named ``fails`` raises ``error`` while ``armed`` is positive (that many times)."""

    def __init__(self, fails: str, *, error: int = errno.EIO, armed: int = 1_000_000) -> None:
        super().__init__()
        self.armed = armed
        self._lock = threading.Lock()
        real: Callable[..., object] = getattr(self, fails)

        def call(*arguments: object, **named: object) -> object:
            with self._lock:
                failing, self.armed = self.armed > 0, max(self.armed - 1, 0)
            if failing:
                raise OSError(error, "as the test asked")
            return real(*arguments, **named)

        setattr(self, fails, call)


class BadSector(Disk):
    """The real disk, except that a file's byte at ``at`` cannot be read, under whatever name, until somebody writes there: what a disk does that has a sector to spare. ``failed`` counts the attempts.
    ``stuck``: nor can anybody write there until the file has another block; ``renewed`` are the ranges (offset, length) that got some.
    """

    def __init__(self, *, stuck: bool = False) -> None:
        super().__init__()
        self.failed = 0
        self.renewed: list[tuple[int, int]] = []
        self._stuck = stuck
        self._bad: tuple[int, int] | None = None

    def spoil(self, path: Path, *, at: int) -> None:
        self._bad = path.stat().st_ino, at

    def _hit(self, fd: int, offset: int, length: int) -> bool:
        return self._bad is not None and os.fstat(fd).st_ino == self._bad[0] and offset <= self._bad[1] < offset + length

    def read(self, fd: int, into: memoryview, offset: int) -> int:
        if self._hit(fd, offset, len(into)):
            self.failed += 1
            raise OSError(errno.EIO, "as the test asked")
        return super().read(fd, into, offset)

    def write(self, fd: int, content: memoryview, offset: int) -> None:
        if self._hit(fd, offset, len(content)):
            if self._stuck:
                raise OSError(errno.EIO, "as the test asked")
            self._bad = None
        super().write(fd, content, offset)

    def renew(self, fd: int, offset: int, length: int) -> bool:
        self.renewed.append((offset, length))
        self._stuck = self._stuck and not self._hit(fd, offset, length)
        return super().renew(fd, offset, length)


class RecordingDisk(Disk):
    """The real disk; ``calls`` lists what was done, in order. ``before`` is called in the thread with each name and may raise or block."""

    NAMES = ("write", "allocate", "sync", "rename", "sync_directory")

    def __init__(self, before: Callable[[str], None] = lambda _: None) -> None:
        super().__init__()
        self.calls: list[str] = []
        for name in self.NAMES:
            setattr(self, name, self._recorded(name, getattr(self, name), before))

    def _recorded(self, name: str, real: Callable[..., object], before: Callable[[str], None]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            self.calls.append(name)
            before(name)
            return real(*arguments, **named)

        return call


def flip(path: Path, *, at: int) -> None:
    """One bit of the file's byte ``at`` turns over."""
    with path.open("r+b") as file:
        file.seek(at)
        right = file.read(1)
        file.seek(at)
        file.write(bytes([right[0] ^ 1]))


@contextlib.contextmanager
def corrupted(path: Path, *, at: int) -> Iterator[None]:
    """One byte of the file is wrong meanwhile."""
    flip(path, at=at)
    yield
    flip(path, at=at)
