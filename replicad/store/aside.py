"""Blobs that were found damaged: out of the way, never deleted first, because most of their bytes are still right.

    aside/<sha256>    what is left of the blob

The next partial of that content begins as a second name of the same file: its good chunks count after they were read again, its bad ones are written over with what peers send. So healing
costs what is bad, not a whole copy, and until the content is whole again nothing is gone. Everything here is for the event loop's thread; the calls are single renames and links.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from replicad.errors import InputError
from replicad.model.ids import Digest
from replicad.store.disk import storage_errors
from replicad.store.space import Space
from replicad.telemetry.log import get

log = get(__name__)


class Aside:
    """The directory, and what lies in it. ``space`` counts its files already."""

    def __init__(self, directory: Path, *, space: Space) -> None:
        self._directory = directory
        self._space = space
        self._sizes = dict(_listed(directory))

    @property
    def sizes(self) -> Mapping[Digest, int]:
        """Content to bytes."""
        return MappingProxyType(self._sizes)

    def take(self, content: Digest, path: Path, counted: int | None = None) -> None:
        """Move the file here, if there is one. An older one of that content makes way. ``counted``: for so many bytes ``space`` counts it; None: for those it has."""
        with storage_errors(f"setting {content} aside"):
            try:
                size = path.stat().st_size
                path.rename(self._directory / str(content))
            except FileNotFoundError:
                self._space.release(counted or 0)
                return
        self._space.release(self._sizes.pop(content, 0))
        if counted is not None:
            self._space.release(counted - size)
        self._sizes[content] = size

    def lend(self, content: Digest, size: int, path: Path) -> bool:
        """Give the file ``path`` as second name, if it has that size and the file system can do that. Counted twice meanwhile: whoever removes ``path`` releases it."""
        if size == 0 or self._sizes.get(content) != size or path.exists():
            return False
        try:
            path.hardlink_to(self._directory / str(content))
        except OSError:
            return False
        self._space.count(size)
        return True

    def drop(self, content: Digest) -> bool:
        """Remove it; False if it is not here, or still is: what the disk does not let go is said, and nothing else ends for such a leftover."""
        if content not in self._sizes:
            return False
        try:
            (self._directory / str(content)).unlink(missing_ok=True)
        except OSError as error:
            log.seldom("aside", "a damaged copy that nobody needs cannot be removed", content=content.short, reason=error.strerror)
            return False
        self._space.release(self._sizes.pop(content))
        return True


def _listed(directory: Path) -> list[tuple[Digest, int]]:
    found = []
    for entry in os.scandir(directory):
        try:
            found.append((Digest.parse(entry.name), entry.stat().st_size))
        except InputError:
            continue
    return found
