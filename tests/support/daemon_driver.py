"""A program that runs ``replicad.daemon`` around a behaviour named on its command line: ``daemon_driver.py LOOP BEHAVIOUR DATA [PORT [STOP_S]]``. Its exit code is that of the command line."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from replicad import daemon
from replicad.errors import ConfigurationError, ReplicadError
from replicad.telemetry.log import configure


class Node:
    """Accepts connections until cancelled; other behaviours are one method each."""

    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour
        self.reloads = 0

    async def run(self) -> bool:
        return bool(await getattr(self, self.behaviour, self.serve)())

    async def again(self) -> bool:
        """Wants to be built anew once."""
        if "BUILT_BEFORE" in os.environ:
            print("built anew", flush=True)
            await self.serve()
        os.environ["BUILT_BEFORE"] = ""
        return True

    async def serve(self) -> None:
        await asyncio.Event().wait()

    async def crash(self) -> None:
        raise ZeroDivisionError("nobody foresaw this")

    async def give_up(self) -> None:
        raise ReplicadError("the disk is gone", hint="buy a disk", code="disk")

    async def finish(self) -> None:
        return

    async def deaf(self) -> None:
        """Refuses to be cancelled."""
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                print("not now", flush=True)

    async def stuck_loop(self) -> None:
        """Blocks the event loop for good; SIGTERM cannot even be noticed."""
        print("stuck", flush=True)
        threading.Event().wait()

    async def leave_a_thread(self) -> None:
        threading.Thread(target=threading.Event().wait).start()

    async def reload(self) -> None:
        self.reloads += 1
        if self.reloads == 2:
            raise ConfigurationError("replicad.toml:1: nonsense")
        print(f"reloaded {self.reloads}", flush=True)


@asynccontextmanager
async def build(behaviour: str, port: int) -> AsyncIterator[Node]:
    if behaviour == "bad_start_with_a_thread":
        threading.Thread(target=threading.Event().wait).start()
    if behaviour.startswith("bad_start"):
        raise ConfigurationError("the database is newer than this program")
    if behaviour == "slow_start":
        print("starting", flush=True)
        try:
            await asyncio.Event().wait()
        finally:
            print("start undone", flush=True)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
    try:
        yield Node(behaviour)
    finally:
        server.close()
        await server.wait_closed()
        print("unwound", flush=True)


def main(loop: daemon.Loop, behaviour: str, data: str, port: str = "0", stop_s: str = "10") -> int:
    configure(style="text", level="info")
    build_it: Callable[[], object] = lambda: build(behaviour, int(port))  # noqa: E731
    try:
        daemon.run(build_it, data=Path(data), loop=loop, stop_s=float(stop_s))
    except ReplicadError as error:
        print(f"error: {error.message}", flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
