"""Memory that is really there: on a virtual machine whoever first writes a page that the host had taken back waits for the host, 0.9 CPU-s per GiB (docs/adr/0009), which says nothing about who is measured."""

from __future__ import annotations

import mmap
import os

SPARED_BYTES = 2 << 30


def warm(size_bytes: int) -> None:
    """Take so much memory from the host and give it back to the kernel, at most what is free without ``SPARED_BYTES``. To be called right before each run: after some seconds the host has free pages again."""
    free = os.sysconf("SC_AVPHYS_PAGES") * mmap.PAGESIZE - SPARED_BYTES
    if (taken := min(size_bytes, free) // mmap.PAGESIZE * mmap.PAGESIZE) > 0:
        with mmap.mmap(-1, taken) as memory:
            for at in range(0, taken, mmap.PAGESIZE):
                memory[at] = 1
