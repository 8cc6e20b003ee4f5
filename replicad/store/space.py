"""Room on the disk: the reserve that is never used, the quota, and who takes how much.

Every byte the store is about to write is claimed here first and preallocated in the same step, so that a full disk is found before bytes are moved and two writers never count on the same
room. The reserve is measured against what the file system says; the quota against what the store itself holds.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from replicad.errors import NoSpaceError
from replicad.store.disk import Disk, storage_errors


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """``reserve_fraction`` of the file system and at least ``reserve_bytes`` stay free (5 %: what ext4 keeps for root by default); ``quota_bytes`` bounds what the store holds, 0 for no quota.
    ``uploads_max`` uploads at once, the others wait; ``stall_s``: an upload that brings nothing for that long is given up (a guess: twice the longest retransmission pause seen on bad links).
    """

    reserve_fraction: float = 0.05
    reserve_bytes: int = 0
    quota_bytes: int = 0
    uploads_max: int = 16
    stall_s: float = 60.0


class Space:
    """Accounts for the bytes of one store. Thread-safe; ``allocate`` blocks on the file system."""

    def __init__(self, root: Path, *, config: StoreConfig, disk: Disk, used_bytes: int) -> None:
        self._root = root
        self._config = config
        self._disk = disk
        self._lock = threading.Lock()
        self._used_bytes = used_bytes

    @property
    def used_bytes(self) -> int:
        """What blobs, partials and uploads take, in bytes of content."""
        return self._used_bytes

    def free_bytes(self) -> int:
        """What may still be stored: the smaller of the disk's free bytes above the reserve and what is left of the quota; never negative."""
        free, reserve, within_quota = self._room()
        return max(0, min(free - reserve, within_quota))

    def reserve_bytes(self) -> int:
        """What stays free on the file system. One statvfs."""
        with storage_errors(f"looking for free space in {self._root}"):
            return self._reserve(self._disk.room(self._root)[0])

    def _reserve(self, total: int) -> int:
        return max(self._config.reserve_bytes, int(total * self._config.reserve_fraction))

    def _room(self) -> tuple[int, int, int]:
        """What is free on the disk, the reserve, and what the quota leaves (negative beyond it)."""
        with storage_errors(f"looking for free space in {self._root}"):
            total, free = self._disk.room(self._root)
        left = self._config.quota_bytes - self._used_bytes if self._config.quota_bytes else sys.maxsize
        return free, self._reserve(total), left

    def check(self, length: int) -> None:
        """NoSpaceError, naming the bound, when ``length`` more bytes would touch the reserve or the quota. Nothing needs no room."""
        if length == 0:
            return
        free, reserve, within_quota = self._room()
        if length > within_quota:
            raise NoSpaceError(
                f"no room for {length} bytes: storage.quota is {self._config.quota_bytes} bytes, {self._used_bytes} of them are used",
                hint="raise quota in [storage], or: replicad store gc",
            )
        if length > free - reserve:
            raise NoSpaceError(
                f"no room for {length} bytes: the disk has {free} bytes free, and storage.reserve keeps {reserve} bytes of it free",
                hint="make room on the disk, lower reserve in [storage], or: replicad store gc",
            )

    def allocate(self, fd: int, offset: int, length: int) -> None:
        """Claim and preallocate ``length`` bytes of the file at ``offset``; NoSpaceError when the reserve or the quota would be touched."""
        if length == 0:
            return
        with self._lock:
            self.check(length)
            with storage_errors(f"reserving {length} bytes in {self._root}"):
                self._disk.allocate(fd, offset, length)
            self._used_bytes += length

    def claim(self, length: int) -> None:
        """The same for files that are small enough to be written at once, without preallocating."""
        with self._lock:
            self.check(length)
            self._used_bytes += length

    def count(self, length: int) -> None:
        """Count ``length`` bytes that are on the disk already."""
        with self._lock:
            self._used_bytes += length

    def release(self, length: int) -> None:
        """Give back ``length`` bytes whose file was removed or shortened."""
        with self._lock:
            self._used_bytes -= length
