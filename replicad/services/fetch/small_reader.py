"""Reads the bytes of batch answers: small contents from the disk, or from where they lie before they are durable."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

from replicad.errors import NotFoundError, StorageError
from replicad.protocol.fetch.batch import Mark

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from replicad.model.ids import Digest
    from replicad.protocol.wire import Small
    from replicad.services.fetch.smalls import Smalls
    from replicad.store.blobs import BlobStore

PIECE_BYTES = 1 << 20
_NO_WAIT: int = getattr(os, "RWF_NOWAIT", 0)


class _UnreadableError(StorageError):
    def __init__(self, content: Digest, reason: str | None) -> None:
        super().__init__(f"reading {content}: {reason}")
        self.content = content


class SmallReader:
    """Each piece of an answer is read into the buffer that is sent. ``doubt`` is told of what could not be read as it should be."""

    def __init__(self, store: BlobStore, smalls: Smalls, *, doubt: Callable[[Digest], object]) -> None:
        self._store = store
        self._smalls = smalls
        self._doubt = doubt

    async def open(self, contents: Sequence[Small], marks: dict[Small, Mark], *, at_once: bool) -> tuple[dict[Small, Mark], AsyncIterator[bytearray]]:
        """The marks without those of contents that should be on the disk and are not, and the answer's pieces. Both raise StorageError when a blob cannot be read, or vanishes meanwhile. ``at_once``: what is in memory is read without a thread."""
        begun = self._at_once(contents, marks) if at_once else None
        if begun is None:
            with self._told():
                begun = await asyncio.to_thread(self._begin, contents, marks)
        marks, first = begun
        return marks, self._pieces(contents, marks, first)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except _UnreadableError as error:
            self._doubt(error.content)
            raise

    def _at_once(self, contents: Sequence[Small], marks: dict[Small, Mark]) -> tuple[dict[Small, Mark], bytearray] | None:
        """The same as ``_begin`` for an answer of one piece whose contents are all in memory, as what was just written is: then a thread costs more than reading. The first that is not goes to the thread with all of them, so that the loop waits for the disk once at most, to open a file."""
        if _piece(contents, 0) < len(contents):
            return None
        with contextlib.suppress(OSError, NotFoundError, StorageError):
            return marks, self._read(contents, marks, _NO_WAIT)
        return None

    def _begin(self, contents: Sequence[Small], marks: dict[Small, Mark]) -> tuple[dict[Small, Mark], bytearray]:
        """The marks without those of what is not on the disk, and the first piece of the answer: reading it shows that its contents are there, so only the others are looked for, and all of them if one is not."""
        stop = _piece(contents, 0)
        try:
            here = self._look(contents[stop:], marks)
            return here, self._read(contents[:stop], here)
        except (NotFoundError, StorageError):
            here = self._look(contents, marks)
            return here, self._read(contents[:stop], here)

    def _look(self, contents: Sequence[Small], marks: dict[Small, Mark]) -> dict[Small, Mark]:
        """The marks without those of these contents that should be on the disk and are not."""
        lost = {small for small in contents if marks.get(small) is Mark.HELD and not self._is_here(small)}
        return {small: mark for small, mark in marks.items() if small not in lost}

    def _is_here(self, small: Small) -> bool:
        fresh = self._smalls.find(small.content)
        return self._store.size_of(small.content) == small.size or (fresh is not None and fresh.size == small.size)

    async def _pieces(self, contents: Sequence[Small], marks: dict[Small, Mark], first: bytearray) -> AsyncIterator[bytearray]:
        yield first
        at = _piece(contents, 0)
        while at < len(contents):
            stop = _piece(contents, at)
            with self._told():
                piece = await asyncio.to_thread(self._read, contents[at:stop], marks)
            yield piece
            at = stop

    def _read(self, contents: Sequence[Small], marks: dict[Small, Mark], flags: int = 0) -> bytearray:
        """A piece of the answer, in the only buffer that it is ever in here."""
        said = [marks.get(small, Mark.ABSENT) for small in contents]
        piece = bytearray(len(contents) + sum(small.size for small, mark in zip(contents, said, strict=True) if mark is Mark.HELD))
        room = memoryview(piece)
        at = 0
        for small, mark in zip(contents, said, strict=True):
            piece[at] = mark
            at += 1
            if mark is Mark.HELD:
                self._fill(room[at : at + small.size], small.content, flags)
                at += small.size
        return piece

    def _fill(self, into: memoryview, content: Digest, flags: int) -> None:
        descriptor = self._open_small(content)
        try:
            if os.preadv(descriptor, [into, bytearray(1)], 0, flags) != len(into):
                raise _UnreadableError(content, "it has another length than before")
        except OSError as error:
            raise _UnreadableError(content, error.strerror) from error
        finally:
            os.close(descriptor)

    def _open_small(self, content: Digest) -> int:
        fresh = self._smalls.find(content)
        if fresh is not None:
            with contextlib.suppress(FileNotFoundError):  # just named
                return os.open(fresh.path, os.O_RDONLY | os.O_CLOEXEC)
        return self._store.open_blob(content)


def _piece(contents: Sequence[Small], start: int) -> int:
    """Where the piece of the answer that begins with this content ends."""
    size = 0
    for at in range(start, len(contents)):
        size += contents[at].size
        if size >= PIECE_BYTES:
            return at + 1
    return len(contents)
