"""Room on the disk: the reserve that is never used, the quota, and who takes how much.

Every byte the store is about to write is claimed here first and preallocated in the same step, so that a full disk is found before bytes are moved and two writers never count on the same
room. The reserve is measured against what the file system says; the quota against what the store itself holds.
"""

from __future__ import annotations

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
        with storage_errors(f"looking for free space in {self._root}"):
            total, free = self._disk.room(self._root)
        free -= max(self._config.reserve_bytes, int(total * self._config.reserve_fraction))
        if self._config.quota_bytes:
            free = min(free, self._config.quota_bytes - self._used_bytes)
        return max(free, 0)

    def check(self, length: int) -> None:
        """NoSpaceError when ``length`` more bytes would touch the reserve or the quota."""
        free = self.free_bytes()
        if length > free:
            raise NoSpaceError(
                f"no room for {length} bytes: {free} bytes may be used (reserve and quota respected)",
                hint="free space, or change reserve and quota in [storage]",
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

    def release(self, length: int) -> None:
        """Give back ``length`` bytes whose file was removed or shortened."""
        with self._lock:
            self._used_bytes -= length
