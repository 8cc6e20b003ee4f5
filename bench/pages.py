"""Memory that is really there: on a virtual machine whoever first writes a page that the host had taken back waits for the host, 1 to 2.5 CPU-s per GiB (docs/adr/0009), which says nothing about who is measured.

The kernel does not give those pages first that were freed last, so all of them must be there: a bench of seconds narrows the free memory once (``narrowed``), and takes and gives back the rest right before
each run (``warm``). In longer runs the host takes it back meanwhile; but it is told of free memory in blocks of 2 MiB only, so what is free in smaller pieces stays (``kept``), and whoever writes files a MiB at a
time is given that first. Whoever writes larger pieces wakes the kernel's compaction, which makes whole blocks again.
"""

from __future__ import annotations

import array
import ctypes
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SPARED_BYTES = 1 << 30
BLOCK_BYTES = 2 << 20
PAGES_PER_BLOCK = BLOCK_BYTES // mmap.PAGESIZE
ENTRY_BYTES, FRAME_MASK = 8, (1 << 55) - 1


@contextmanager
def narrowed(room_bytes: int) -> Iterator[None]:
    """Leave so much of the free memory, and ``SPARED_BYTES``, to everybody else until the block ends."""
    with _taken(room_bytes + SPARED_BYTES):
        yield


def warm() -> None:
    """Take all that is free but ``SPARED_BYTES`` from the host and give it back to the kernel: two seconds later the host begins to take free pages back."""
    with _taken(SPARED_BYTES):
        pass


@contextmanager
def kept(size_bytes: int) -> Iterator[None]:
    """Have room for so many bytes of files that are written a MiB at a time: take twice as much from the host, since half of it will lie in pieces of that size, but at most half of what is free, and keep the
    last page of every block until the end: the others are free for everybody, however often they are used and freed. Needs root, to know which page is where.
    """
    size_bytes = min(2 * size_bytes, _free_bytes() // 2)
    size_bytes -= size_bytes % BLOCK_BYTES
    with mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for at in range(0, size_bytes, mmap.PAGESIZE):
            memory[at] = 1
        free_from = 0
        for number, frame in enumerate(_frames(memory)):
            if frame % PAGES_PER_BLOCK == PAGES_PER_BLOCK - 1:
                _give(memory, free_from, number)
                free_from = number + 1
        _give(memory, free_from, size_bytes // mmap.PAGESIZE)
        yield


def _frames(memory: mmap.mmap) -> Iterator[int]:
    """The physical page behind each page (proc(5), pagemap)."""
    first = ctypes.addressof(ctypes.c_char.from_buffer(memory)) // mmap.PAGESIZE
    with Path("/proc/self/pagemap").open("rb") as file:
        file.seek(first * ENTRY_BYTES)
        table = array.array("Q")
        table.fromfile(file, len(memory) // mmap.PAGESIZE)
    return (entry & FRAME_MASK for entry in table)


def _give(memory: mmap.mmap, start: int, stop: int) -> None:
    if start < stop:
        memory.madvise(mmap.MADV_DONTNEED, start * mmap.PAGESIZE, (stop - start) * mmap.PAGESIZE)


def _free_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * mmap.PAGESIZE


@contextmanager
def _taken(left_bytes: int) -> Iterator[None]:
    with mmap.mmap(-1, max(mmap.PAGESIZE, _free_bytes() - left_bytes)) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)  # taken and given back in large pieces: the kernel wants such for files, and looks for them through all memory
        for at in range(0, len(memory), mmap.PAGESIZE):
            memory[at] = 1
        yield
