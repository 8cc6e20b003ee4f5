"""Makes a backup while the node works: a copy of the catalog beside it, read once for its checksum and once to whoever asked, and gone before the first byte leaves.

In it is what the network cannot give back: who this node is called and configured, its tokens, its log of actions, and the records, which it could. Content is not: it comes back from other nodes. Nor are
keys: they leave the machine only by the hand of somebody who may read their files, encrypted (see ``replicad backup create --identity``).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from replicad import __version__
from replicad.catalog import Catalog
from replicad.crypto.hashing import sha256
from replicad.errors import BusyError, ConfigurationError, NoSpaceError
from replicad.services.backup import archive
from replicad.services.backup.archive import Backup, Part

PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that is ready to be read once. ``size`` of all ``pieces`` together, in bytes."""

    _start: bytes
    _catalog: IO[bytes]
    _catalog_size: int

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self._start) + self._catalog_size + len(self._end)

    @property
    def _end(self) -> bytes:
        return archive.padding(self._catalog_size) + archive.END

    async def pieces(self) -> AsyncIterator[bytes]:
        """Of at most 1 MiB."""
        yield self._start
        while piece := await asyncio.to_thread(self._catalog.read, PIECE_BYTES):
            yield piece
        yield self._end


class Backups:
    """``config`` is the configuration file; ``room()`` how many bytes may be written beside the catalog; ``clock_ms`` the wall clock, milliseconds since 1970."""

    def __init__(self, catalog: Catalog, *, name: str, data: Path, config: Path, room: Callable[[], int], clock_ms: Callable[[], int]) -> None:
        self._catalog = catalog
        self._name = name
        self._place = data / "catalog.sqlite.copy"
        self._config = config
        self._room = room
        self._clock_ms = clock_ms
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def make(self) -> AsyncIterator[Made]:
        """A backup of this moment, as long as the context lasts. BusyError while another is made or read, NoSpaceError unless the catalog has room twice, ConfigurationError, StorageError."""
        if self._turn.locked():
            raise BusyError("another backup is being made", hint="wait until it is complete")
        async with self._turn:
            if self._catalog.size_bytes > self._room():
                raise NoSpaceError(f"a backup needs {self._catalog.size_bytes} bytes in the data directory while it is made", hint="replicad store usage")
            now_ms, config = self._clock_ms(), await asyncio.to_thread(_config, self._config)
            try:
                copied = await self._catalog.copy_to(self._place)
                file = self._place.open("rb")
            finally:
                self._place.unlink(missing_ok=True)
            with file:
                size = os.fstat(file.fileno()).st_size
                digest = (await asyncio.to_thread(hashlib.file_digest, file, "sha256")).hexdigest()
                file.seek(0)
                trust = self._catalog.replica.trust
                backup = Backup(
                    node=str(self._catalog.node),
                    name=self._name,
                    network=str(self._catalog.network),
                    created=datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="seconds"),
                    release=__version__,
                    members=len(trust.members(now_ms)),
                    shares=len(trust.shares()),
                    config=Part(len(config), str(sha256(config))),
                    catalog=Part(size, digest),
                    **copied._asdict(),
                )
                yield Made(archive.start(backup, config), file, size)


def _config(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            found = file.read(archive.SMALL_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    if len(found) > archive.SMALL_BYTES_MAX:
        raise ConfigurationError(f"{path}: at most {archive.SMALL_BYTES_MAX} bytes")
    return found
