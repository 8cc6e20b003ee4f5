"""SIGKILL at any moment: a bit that was persisted means bytes on the disk, a blob that can be seen is right, and the next start leaves no leftovers."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from pathlib import Path

import store_victim

from support.storing import files_in, opened_store

ROUNDS = 20


def run_and_kill(root: Path, *, dice: random.Random) -> int:
    """Kills the process after a random number of its words; returns how many it said."""
    words = dice.randrange(1, 40)
    command = [sys.executable, store_victim.__file__, str(root), str(dice.randrange(1 << 30))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={"PYTHONPATH": ":".join(path for path in sys.path if path)}) as victim:
        assert victim.stdout is not None
        said = sum(1 for _, word in zip(range(words), victim.stdout, strict=False) if word)
        victim.kill()
    return said


def verify_blobs(root: Path) -> int:
    """Every blob that can be seen is whole and right."""
    blobs = [path for path in (root / "blobs").rglob("*") if path.is_file()]
    for path in blobs:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    return len(blobs)


def verify_bitmaps(root: Path) -> int:
    """Every chunk whose bit was persisted is in the partial's file, or the content is a blob by now."""
    bits = 0
    for number, manifest in enumerate(store_victim.MANIFESTS):
        path = store_victim.bitmap_path(root, number)
        content = store_victim.FETCHED[number]
        if not path.exists() or (root / "blobs" / str(manifest.content)[:2] / str(manifest.content)).exists():
            continue
        on_disk = (root / "partials" / f"{manifest.content}.{manifest.id}").read_bytes()
        bitmap = path.read_bytes()
        for index in range(manifest.count):
            if bitmap[index // 8] >> index % 8 & 1:
                bits += 1
                start = index * store_victim.CHUNK
                assert on_disk[start : start + store_victim.CHUNK] == content[start : start + store_victim.CHUNK]
    return bits


async def test_killed_at_twenty_random_moments(tmp_path: Path, dice: random.Random) -> None:
    blobs = bits = 0
    for _ in range(ROUNDS):
        assert run_and_kill(tmp_path, dice=dice) > 0
        blobs += verify_blobs(tmp_path)
        bits += verify_bitmaps(tmp_path)
        async with opened_store(tmp_path) as store:
            assert not [name for name in files_in(tmp_path) if "upload" in name]
            for content, manifest in await store.partial_files():
                assert any((known.content, known.id) == (content, manifest) for known in store_victim.MANIFESTS)
    assert blobs > 0
    assert bits > 0
    async with opened_store(tmp_path) as store:
        for content, manifest in await store.partial_files():
            await store.discard_partial(content, manifest)
        for content in await store.contents():
            await store.remove(content)
        assert store.used_bytes == 0
    assert [name for name in files_in(tmp_path) if not name.startswith("bitmap")] == []
