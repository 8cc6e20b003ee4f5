"""A downloads door as a process of its own: ``downloads_process.py LOOP ROOT [TLS]`` serves one sparse file of 1 GiB, prints its port, and stops with its stdin or SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import uvloop
from downloads_world import World

SIZE = 1 << 30


async def main(root: Path, *, tls: bool) -> None:
    world = World(root)
    world.share("jamf")
    content = world.put("jamf", "huge", b"")
    with world.path_of(content).open("ab") as huge:
        huge.truncate(SIZE)
    world.name("jamf", "huge", content, size=SIZE)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with world.serve(tls=tls) as client:
        sys.stdout.write(f"port {client.port}.\n")
        sys.stdout.flush()
        await stopped.wait()


if __name__ == "__main__":
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop if sys.argv[1] == "uvloop" else asyncio.new_event_loop)
    with runner:
        runner.run(main(Path(sys.argv[2]), tls=len(sys.argv) > 3))
