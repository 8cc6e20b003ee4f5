"""Memory that is really there: on a virtual machine whoever first writes a page that the host had taken back waits for the host, 1 to 2.5 CPU-s per GiB (docs/adr/0009), which says nothing about who is measured.

The kernel does not give those pages first that were freed last, so all of them must be there: a bench narrows the free memory once, and takes and gives back the rest right before each run.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager

SPARED_BYTES = 1 << 30


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
def _taken(left_bytes: int) -> Iterator[None]:
    free_bytes = os.sysconf("SC_AVPHYS_PAGES") * mmap.PAGESIZE
    with mmap.mmap(-1, max(mmap.PAGESIZE, free_bytes - left_bytes)) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)  # taken and given back in large pieces: the kernel wants such for files, and looks for them through all memory
        for at in range(0, len(memory), mmap.PAGESIZE):
            memory[at] = 1
        yield
