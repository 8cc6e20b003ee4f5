"""Whether bytes are the chunk that a manifest means. The only place that compares them.

With the manifest's states a chunk is right if the whole content's SHA-256, going on from the state before it, comes to the state after it, or, after the last one, to the content's digest. The first one begins
at SHA-256's own beginning: if every chunk is right, so is the whole, whatever the order, with one hash for each byte. Without states, or where they cannot be used (``crypto.states``), its own digest decides, which says
nothing about the whole.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from replicad.crypto import states
from replicad.model.manifest import Manifest

if TYPE_CHECKING:
    from _hashlib import HASH


class Check:
    """One chunk, whose bytes come in order. ``good`` when all of it came, and nothing else."""

    def __init__(self, manifest: Manifest, index: int) -> None:
        self._manifest = manifest
        self._index = index
        self._missing = manifest.chunk_length(index)
        self._by_states = _by_states(manifest)
        self._hash: HASH | states.Sha256
        if not self._by_states:
            self._hash = hashlib.sha256()
        elif index == 0:
            self._hash = states.Sha256()
        else:
            self._hash = states.Sha256(manifest.state_after(index - 1), index * manifest.chunk_size)

    def update(self, content: memoryview) -> None:
        """Look at the next bytes. Blocks."""
        self._missing -= len(content)
        self._hash.update(content)

    @property
    def good(self) -> bool:
        """Whether this is the chunk. One of another length never is, whatever it hashes to."""
        if self._missing:
            return False
        if isinstance(self._hash, states.Sha256) and self._index < self._manifest.count - 1:
            return self._hash.state == self._manifest.state_after(self._index)
        return self._hash.digest() == (self._manifest.content if self._by_states else self._manifest.chunk_digest(self._index))


def is_good(manifest: Manifest, index: int, chunk: memoryview) -> bool:
    """Whether this is that chunk. Blocks."""
    check = Check(manifest, index)
    check.update(chunk)
    return check.good


def is_false(manifest: Manifest, index: int, chunk: memoryview) -> bool:
    """Of bytes that are not that chunk: whether the manifest is false, because by its digest of the chunk they are. Blocks."""
    return _by_states(manifest) and len(chunk) == manifest.chunk_length(index) and hashlib.sha256(chunk).digest() == manifest.chunk_digest(index)


def proves(manifest: Manifest) -> bool:
    """Whether a content is right if each of its chunks is: then it need not be read again as a whole."""
    return _by_states(manifest) or (manifest.count == 1 and manifest.chunks == manifest.content)


def _by_states(manifest: Manifest) -> bool:
    return bool(manifest.states) and states.available()
