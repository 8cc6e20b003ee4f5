"""A disk that remembers nothing of the runs before: where ext4 has no journal, it passes over every inode that was freed in the last minutes, one by one, for each file made near them: 500 microseconds of CPU
instead of 20 after another run's folder was removed (docs/adr/0010), a third of a run with thousands of files. That says nothing about who is measured.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.namespaces import command

NEEDS = "mkfs.ext4", "losetup", "mount"


@contextmanager
def fresh(size_bytes: int) -> Iterator[Path]:
    """A folder in a new ext4 of that size with a journal, in a file below ``TMPDIR``, that bypasses the page cache of the disk below. Needs root; without these programs, a folder there."""
    with tempfile.TemporaryDirectory(prefix="replicad-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")) as outside:
        folder = Path(outside) / "disk"
        folder.mkdir()
        if not all(map(shutil.which, NEEDS)):
            yield folder
            return
        image = Path(outside) / "image"
        with image.open("wb") as file:
            file.truncate(size_bytes)
        command("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
        device = command("losetup", "--find", "--show", "--direct-io=on", image).strip()
        try:
            command("mount", "-o", "noatime", device, folder)
            try:
                yield folder
            finally:
                command("umount", folder)
        finally:
            command("losetup", "--detach", device)
