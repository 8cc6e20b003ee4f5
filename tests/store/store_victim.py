"""A process that is killed at random: fetches, receives and stores small contents for ever, and persists bitmaps as the catalog would.

    python store_victim.py ROOT SEED

It says a word on stdout after every step, so that whoever kills it can choose a moment.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from replicad.store.blobs import BlobStore
from support.storing import MIB, manifest_of, opened_store, pieces, put_small, random_bytes

CHUNK = 64 * 1024
FETCHED = [random_bytes(23 * CHUNK + 999, seed=seed) for seed in range(3)]
MANIFESTS = [manifest_of(content, chunk_size=CHUNK) for content in FETCHED]
UPLOADED = [random_bytes(3 * MIB + seed, seed=seed) for seed in range(10, 13)]
SMALL = [random_bytes(10_000 + seed, seed=seed) for seed in range(20, 60)]


def bitmap_path(root: Path, number: int) -> Path:
    return root / f"bitmap.{number}"


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def persist(path: Path, bitmap: bytes) -> None:
    """Atomically, as SQLite does."""
    temporary = path.with_suffix(".new")
    temporary.write_bytes(bitmap)
    temporary.rename(path)


async def fetch(store: BlobStore, root: Path, number: int, dice: random.Random) -> None:
    manifest, content = MANIFESTS[number], FETCHED[number]
    path = bitmap_path(root, number)
    async with await store.open_partial(manifest, path.read_bytes() if path.exists() else b"") as partial:
        missing = [index for index in range(manifest.count) if not partial.has(index)]
        dice.shuffle(missing)
        for index in missing:
            chunk = content[index * CHUNK : (index + 1) * CHUNK]
            if dice.random() < 0.2:
                await partial.write(index, bytes(len(chunk)))
            await partial.write(index, chunk)
            say("wrote")
            if dice.random() < 0.3:
                persist(path, await partial.sync())
                say("synced")
        await partial.finish()
        say("finished")
        path.unlink(missing_ok=True)


async def main(root: Path, dice: random.Random) -> None:
    async with opened_store(root) as store:
        say("open")
        while True:
            async with asyncio.TaskGroup() as group:
                for number in range(len(FETCHED)):
                    group.create_task(fetch(store, root, number, random.Random(dice.random())))
                for content in UPLOADED:
                    group.create_task(store.receive(pieces(content), size=len(content) if dice.random() < 0.5 else None))
                group.create_task(put_small(store, [(manifest_of(content), content) for content in SMALL]))
            for content in await store.contents():
                await store.remove(content)
            say("round")


if __name__ == "__main__":
    os.umask(0o077)
    asyncio.run(main(Path(sys.argv[1]), random.Random(int(sys.argv[2]))))
