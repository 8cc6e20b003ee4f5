"""One node with many entries answers 200 requests/s to its API, quiet, while it fetches files of 1 GiB, and while it makes a backup: latency by kind of question, memory, processor time.

The requests come at fixed times over 16 connections, whatever became of those before; latency counts from the time a request was due. Arguments: ``--entries`` (100,000), ``--rate`` (200), ``--seconds`` (10)
of each part, ``--files`` (1) of 1 GiB. Names stand for one small content, so that only the large files travel.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.catchup import living, memory, name_many, processor_s
from support.network import Network, Node
from support.waiting import wait_for

GIB = 1 << 30
CONNECTIONS = 16
KINDS: dict[str, tuple[int, str]] = {
    "show": (30, "/shares/bench/entries/pkgs/d{d}/file{f:07}.pkg"),
    "first page": (20, "/entries?share=bench&limit=100"),
    "directory": (15, "/entries?share=bench&prefix=pkgs/d{d}&limit=100"),
    "status": (10, "/status"),
    "transfers": (10, "/transfers"),
    "members": (5, "/members"),
    "matrix": (5, "/matrix?share=bench&limit=100"),
    "node": (5, "/node"),
}
"""Of 100 questions so many, and what is asked."""


def main(arguments: list[str]) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="bench api", description=__doc__)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--files", type=int, default=1)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="replicad-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        network = Network(Path(folder) / "net", python=[sys.executable])
        try:
            measure(network, Path(folder), options)
        except BaseException:
            print(network.nodes["ber1"].log[-4000:])
            raise
        finally:
            for _ in network.close():
                pass


def measure(network: Network, folder: Path, options: argparse.Namespace) -> None:
    """Make both nodes, then one part after the other."""
    source = network.found("ams1")
    source.cli("share", "create", "bench", "--public")
    name_many(source, folder, options.entries)
    node = network.found("ber1")
    node.cli("peer", "add", "-", stdin=source.cli("peer", "invite").lines[-1], deadline_s=600)
    wait_for(lambda: living(node) == options.entries, what="all entries on the measured node", deadline_s=600)
    print(f"{options.entries} entries on {node.name}; {memory(node)}", flush=True)
    asking = Asking(node, options.entries, options.rate)
    asking.show("quiet", asyncio.run(asking.until(lambda: sleep(options.seconds))))
    files = [folder / f"big{number}.pkg" for number in range(options.files)]
    for file in files:
        with file.open("wb") as out:
            for _ in range(GIB >> 20):
                out.write(random.randbytes(1 << 20))
    asking.show("fetching", asyncio.run(asking.until(lambda: asyncio.to_thread(fetch, source, node, files))))
    asking.show("backup", asyncio.run(asking.until(lambda: asyncio.to_thread(back_up, node, folder / "backup"))))


async def sleep(seconds: float) -> None:
    """Nothing else happens."""
    await asyncio.sleep(seconds)


def fetch(source: Node, node: Node, files: list[Path]) -> None:
    """Publish at the source, until the measured node has them."""
    begun = time.perf_counter()
    source.cli("publish", *map(str, files), "--share", "bench", "--wait", "all", deadline_s=600)
    print(f"{len(files)} GiB published and fetched in {time.perf_counter() - begun:.1f} s; {memory(node)}", flush=True)


def back_up(node: Node, target: Path) -> None:
    """As a person does."""
    begun = time.perf_counter()
    node.cli("backup", "create", str(target), deadline_s=600)
    print(f"backup of {target.stat().st_size >> 20} MiB in {time.perf_counter() - begun:.1f} s; {memory(node)}", flush=True)


class Asking:
    """The load."""

    def __init__(self, node: Node, entries: int, rate: float) -> None:
        self._node = node
        self._rate = rate
        dice = random.Random(7)
        names, weights = list(KINDS), [weight for weight, _ in KINDS.values()]
        token = (node.data / "admin.token").read_text().strip()
        self._requests = []
        for kind in dice.choices(names, weights, k=5000):
            number = dice.randrange(1, entries)
            path = KINDS[kind][1].format(d=number % 97, f=number)
            self._requests.append((kind, f"GET /api/v1{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()))

    async def until(self, work: Callable[[], Awaitable[None]]) -> dict[str, list[float]]:
        """Milliseconds of every answer by kind, while ``work`` is done."""
        took: dict[str, list[float]] = defaultdict(list)
        due = itertools.count()
        turn = itertools.cycle(self._requests)
        ended = False
        begun, spent_s = time.perf_counter(), processor_s(self._node)

        async def client() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._node.admin_port)
            while not ended:
                at = begun + next(due) / self._rate
                kind, request = next(turn)
                await asyncio.sleep(max(0.0, at - time.perf_counter()))
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                if not head.startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(f"{request!r} was answered {head!r}")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                await reader.readexactly(length)
                took[kind].append((time.perf_counter() - at) * 1000)
            writer.close()
            await writer.wait_closed()

        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(client())
            await work()
            ended = True
        self.seconds = time.perf_counter() - begun
        self.spent_s = processor_s(self._node) - spent_s
        return took

    def show(self, part: str, took: dict[str, list[float]]) -> None:
        """What one part saw."""
        whole = sorted(itertools.chain.from_iterable(took.values()))
        print(f"{part}: {len(whole) / self.seconds:.0f} answers/s, p50 {at(whole, 0.5)}, p99 {at(whole, 0.99)}, worst {at(whole, 1)}; ", end="")
        print(f"{self.spent_s / self.seconds:.0%} of one processor; {memory(self._node)}")
        for kind, values in took.items():
            print(f"    {kind:<12} p50 {at(sorted(values), 0.5)}, p99 {at(sorted(values), 0.99)}", flush=True)


def at(values: list[float], part: float) -> str:
    """That quantile of sorted values."""
    return f"{values[min(len(values) - 1, int(len(values) * part))]:.1f} ms"
