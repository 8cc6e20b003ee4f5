"""What makes manifests: the hashes of a stream that becomes a content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from replicad.crypto import states
from replicad.model.checksums import NO_HASHES
from replicad.model.chunks import CHUNKS_MAX, chunk_size_for
from replicad.model.ids import SIZE_BYTES, Digest
from replicad.model.manifest import Manifest

if TYPE_CHECKING:
    from _hashlib import HASH


class ChunkHasher:
    """SHA-256 of each chunk of a stream. A stream that outgrows the chunk size (more than ``CHUNKS_MAX`` chunks) gets none: ``outgrown``."""

    def __init__(self, chunk_size: int) -> None:
        self.chunk_size = chunk_size
        self._digests = bytearray()
        self._hash = hashlib.sha256()
        self._filled = 0

    @property
    def outgrown(self) -> bool:
        """The stream is too long for this chunk size."""
        return len(self._digests) + SIZE_BYTES * (self._filled > 0) > SIZE_BYTES * CHUNKS_MAX

    def update(self, content: memoryview) -> None:
        """Hash the next bytes. Blocks."""
        while content and not self.outgrown:
            part = content[: self.chunk_size - self._filled]
            self._hash.update(part)
            self._filled += len(part)
            content = content[len(part) :]
            if self._filled == self.chunk_size:
                self._close()

    def _close(self) -> None:
        self._digests += self._hash.digest()
        self._hash = hashlib.sha256()
        self._filled = 0

    def packed(self) -> bytes:
        """The digests of all chunks, the last possibly shorter. Ends the hashing."""
        if self._filled:
            self._close()
        return bytes(self._digests)

    def copy(self) -> ChunkHasher:
        """Another one that has seen the same bytes."""
        twin = ChunkHasher(self.chunk_size)
        twin._digests, twin._hash, twin._filled = self._digests.copy(), self._hash.copy(), self._filled
        return twin


class WholeHasher:
    """SHA-256 of a stream, and its states after each chunk that is not the last. A stream that outgrows the chunk size goes on with chunks of twice the size, whose ends it has seen: ``chunk_size`` is always
    that of a content as long as the stream so far, or the one it began with. Where states cannot be had there are none.
    """

    def __init__(self, chunk_size: int) -> None:
        self.chunk_size = chunk_size
        self._states = bytearray()
        self._hash: HASH | states.Sha256 = states.Sha256() if states.available() else hashlib.sha256()
        self._filled = 0

    def update(self, content: memoryview) -> None:
        """Hash the next bytes. Blocks."""
        if not isinstance(self._hash, states.Sha256):
            self._hash.update(content)
            return
        while content:
            if self._filled == self.chunk_size:
                self._note(self._hash.state)
            part = content[: self.chunk_size - self._filled]
            self._hash.update(part)
            self._filled += len(part)
            content = content[len(part) :]

    def _note(self, state: bytes) -> None:
        """A chunk ended, and another one begins."""
        self._states += state
        self._filled = 0
        if len(self._states) == SIZE_BYTES * CHUNKS_MAX:
            self.chunk_size *= 2
            self._states = bytearray().join(self._states[at : at + SIZE_BYTES] for at in range(SIZE_BYTES, len(self._states), 2 * SIZE_BYTES))

    def digest(self) -> bytes:
        """Of the stream so far, which may go on."""
        return self._hash.digest()

    def packed(self) -> bytes:
        """The states, as a manifest has them."""
        return bytes(self._states)

    def copy(self) -> WholeHasher:
        """Another one that has seen the same bytes."""
        twin = WholeHasher(self.chunk_size)
        twin._states, twin._hash, twin._filled = self._states.copy(), self._hash.copy(), self._filled
        return twin


@dataclass(slots=True, eq=False)
class Hashes:
    """Of the bytes so far: SHA-256 of the whole and of the chunks, and ``more`` by other algorithms, under any names."""

    chunks: ChunkHasher
    whole: WholeHasher
    more: dict[str, HASH] = field(default_factory=dict)

    @classmethod
    def of_size(cls, size: int | None, more: Mapping[str, HASH] = NO_HASHES) -> Self:
        """For a content of that many bytes, or of an unknown number, before its first byte; so must ``more`` be."""
        chunk_size = chunk_size_for(size or 0)
        return cls(ChunkHasher(chunk_size), WholeHasher(chunk_size), dict(more))

    def update(self, content: memoryview) -> None:
        """Hash the next bytes for all of them. Blocks."""
        for update in self.updates():
            update(content)

    def updates(self) -> list[Callable[[memoryview], object]]:
        """What each of them does with the next bytes; in order each, and at the same time as the others."""
        return [self.chunks.update, self.whole.update, *(one.update for one in self.more.values())]

    def manifest(self, size: int) -> Manifest:
        """Of the ``size`` bytes, if they did not outgrow the chunk size. Ends the hashing."""
        return Manifest(Digest(self.whole.digest()), size, self.chunks.chunk_size, self.chunks.packed(), self.whole.packed())

    def copy(self) -> Hashes:
        """Of the same bytes, for going on without changing these."""
        return Hashes(self.chunks.copy(), self.whole.copy(), {name: one.copy() for name, one in self.more.items()})
