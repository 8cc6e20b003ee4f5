"""A process that works on a catalog as fast as it can until it is killed; prints the id of each record that was acknowledged, and "held DIGEST" for each durable content."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from catalog_world import SHARE, World, content_of, entry, key, tombstone

from replicad.model.records import Cut, Grant, Policy, Role


async def work(directory: str, name: str, number: int) -> None:
    world = World(Path(directory))
    world.clock_ms = lambda: time.time_ns() // 1_000_000  # type: ignore[method-assign]
    world.random16 = lambda: int.from_bytes(os.urandom(2), "big")  # type: ignore[method-assign]
    async with world.open(name) as catalog:
        sys.stdout.write("open\n")
        while True:
            number += 1
            path = f"file{number % 7}"
            content = f"{number}"
            live = await catalog.live_records(SHARE, path, "prod")
            body = tombstone(path, supersedes=live) if number % 5 == 0 else entry(path, content, supersedes=live)
            for record in await catalog.author(
                SHARE, [body, entry("same", content, supersedes=await catalog.live_records(SHARE, "same", "prod"))], held=[content_of(content)]
            ):
                sys.stdout.write(f"{record.id}\n")
            if number % 4 == 0:
                await catalog.hold([content_of(f"extra {number}")], durable=True)
                sys.stdout.write(f"held {content_of(f'extra {number}').content}\n")
            if number % 9 == 0:
                subject = key("mallory").id
                await catalog.author(
                    "", [Grant(subject, "mallory", Role.PUBLISHER), Cut(subject, {}, "revoke"), Policy("jamf", public=True, immutable=number % 2 == 0)]
                )
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2], int(sys.argv[3])))
