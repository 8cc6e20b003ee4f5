"""The directories of a store: made where they are missing, locked, and counted at the start."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from replicad.errors import ConfigurationError
from replicad.store.disk import Disk
from replicad.store.uploads import UPLOAD_PREFIX

SHARDS = 256
"""Directories of blobs: one for each first byte."""
SHARDS_PER_HOP = 16
"""So many are listed by one thread hop: with one each, hops were 0.1 s of the 0.9 s in which an empty node starts."""
BLOBS, PARTIALS, UPLOADS, ASIDE = "blobs", "partials", "uploads", "aside"


class Places:
    """The directories of an open store, as they were when it was opened: somebody may remove or unmount them, or take away the right to them."""

    def __init__(self, root: Path) -> None:
        self._opened = {root / name: (root / name).stat() for name in (BLOBS, PARTIALS, UPLOADS, ASIDE)}

    def faults(self) -> list[str]:
        """Which of them are out of reach, and why, in words. A few system calls for each."""
        return [f"{place} {fault}" for place, opened in self._opened.items() if (fault := _fault(place, opened))]


def _fault(place: Path, opened: os.stat_result) -> str:
    try:
        found = place.stat()
        os.scandir(place).close()
    except OSError as error:
        return f"is out of reach: {error.strerror}"
    if not os.path.samestat(found, opened):
        return "is another directory than when the daemon started: is its file system mounted?"
    if not os.access(place, os.W_OK | os.X_OK, effective_ids=True):
        return "cannot be written: no permission, or a read-only file system"
    return ""


def prepare(root: Path, disk: Disk) -> tuple[int, int]:
    """Lock and complete the layout; returns the lock's descriptor and the bytes in use. What a crash left of uploads that cannot go on is removed. ConfigurationError."""
    blobs, partials = root / BLOBS, root / PARTIALS
    beside = (partials, root / UPLOADS, root / ASIDE)
    try:
        for directory in (blobs, *beside, *(blobs / f"{number:02x}" for number in range(SHARDS))):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        disk.sync_directory(blobs)
        disk.sync_directory(root)
        lock = os.open(blobs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationError(f"data directory {root}: {error.strerror} ({error.filename})") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for path in partials.glob(f"{UPLOAD_PREFIX}*"):
            path.unlink()
        used_bytes = sum(path.stat().st_size for directory in (blobs, *beside) for path in directory.rglob("*") if path.is_file())
    except OSError as error:
        os.close(lock)
        if isinstance(error, BlockingIOError):
            raise ConfigurationError(f"data directory {root} is in use by another replicad") from None
        raise ConfigurationError(f"data directory {root}: {error.strerror} ({error.filename})") from error
    return lock, used_bytes
