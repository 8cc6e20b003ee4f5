"""The catalog with many entries: authoring, receiving, and the questions that are asked all the time.

Arguments: number of entries (default 100,000), directory (default: the system's temporary one). Medians of several calls; the limits are those of docs/adr and the tests.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from replicad.catalog import Catalog
from replicad.crypto.keys import SigningKey
from replicad.model.ids import Digest
from replicad.model.manifest import Manifest
from replicad.model.records import Cut, Entry, Envelope, Grant, Policy, Role

BATCH = 2_000
STAGES = ("dev", "test", "prod")


def main(arguments: list[str]) -> None:
    """See the module."""
    count = int(arguments[0]) if arguments else 100_000
    with tempfile.TemporaryDirectory(dir=arguments[1] if len(arguments) > 1 else None) as directory:
        asyncio.run(_measure(Path(directory), count))


def _entry(number: int, *, directory: str = "pkgs") -> tuple[Entry, Manifest]:
    text = f"{directory} {number}".encode()
    content = Digest(hashlib.sha256(text).digest())
    manifest = Manifest.implied(content, len(text))
    assert manifest
    return Entry(f"{directory}/d{number % 97}/file{number:07}.pkg", STAGES[number % 3], content, len(text), manifest.id, 1_700_000_000, "bench"), manifest


async def _time(label: str, call: Callable[[], Awaitable[object]], *, times: int = 7) -> None:
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        await call()
        seconds.append(time.perf_counter() - start)
    print(f"  {label:<52} {statistics.median(seconds) * 1e3:9.2f} ms   (worst {max(seconds) * 1e3:.2f})")


async def _measure(directory: Path, count: int) -> None:
    network, ann, bob = (SigningKey.generate() for _ in range(3))
    dice = random.Random(1)

    async with AsyncExitStack() as stack:

        async def opened(name: str, key: SigningKey) -> Catalog:
            opening = Catalog.open(
                directory / f"{name}.sqlite", node=key, clock_ms=lambda: time.time_ns() // 1_000_000, random16=lambda: dice.randrange(65536), network=network.id
            )
            return await stack.enter_async_context(opening)

        author, receiver = await opened("ann", ann), await opened("bob", bob)
        rights = [record.envelope for record in await author.author_as(network, [Grant(ann.id, "ann", Role.ADMIN), Grant(bob.id, "bob", Role.MIRROR)])]
        rights += [record.envelope for record in await author.author("", [Policy("munki", public=True)])]
        await receiver.receive(rights, source=ann.id)
        await _fill(author, receiver, count)
        print(f"  peak RSS of both: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB")
        await _ask(receiver, count, dice)
        await _write(author)
        start = time.perf_counter()
        await author.author_as(network, [Cut(ann.id, {}, "revoke")])
        print(f"  revoking the author of everything: {time.perf_counter() - start:.1f} s, {(await author.usage()).stages or 'nothing'} left")


async def _fill(author: Catalog, receiver: Catalog, count: int) -> None:
    authored, received, began_cpu = [], [], time.process_time()
    for start in range(0, count, BATCH):
        batch = [_entry(number) for number in range(start, min(start + BATCH, count))]
        began = time.perf_counter()
        records = await author.author("munki", [entry for entry, _ in batch], held=[manifest for _, manifest in batch])
        authored.append(time.perf_counter() - began)
        envelopes: list[Envelope] = [record.envelope for record in records]
        began = time.perf_counter()
        result = await receiver.receive(envelopes, source=author.node)
        received.append(time.perf_counter() - began)
        assert len(result.new) == len(batch)
    for label, seconds in (("author", authored), ("receive", received)):
        middle = statistics.median(seconds)
        print(
            f"  {label} {BATCH} at a time: first {seconds[0]:.2f} s, median {middle:.2f}, last {seconds[-1]:.2f}, best {min(seconds):.2f}, worst {max(seconds):.2f}"
        )
    spent = time.process_time() - began_cpu
    print(f"  CPU for both: {spent:.1f} s, {spent / count * 1e6:.0f} microseconds an entry")


async def _ask(catalog: Catalog, count: int, dice: random.Random) -> None:
    def key() -> str:
        return _entry(dice.randrange(count))[0].path

    content = _entry(5)[0].content
    await _time("wanted (10,000)", catalog.wanted)
    await _time("missing", lambda: catalog.missing("munki"))
    await _time("entries, first page of 1,000", catalog.entries)
    await _time("entries, a page in the middle", lambda: catalog.entries("munki", after=("munki", key())))
    await _time("entries below a prefix, all stages", lambda: catalog.entries("munki", prefix="pkgs/d50", all_stages=True))
    await _time("visible, never asked before", lambda: catalog.visible("munki", key()), times=500)
    await _time("visible, asked before", lambda: catalog.visible("munki", "pkgs/d0/file0000000.pkg"), times=500)
    await _time("registers (1,000)", lambda: catalog.registers("munki", [(key(), "prod") for _ in range(1000)]))
    await _time("standings (2,000)", lambda: catalog.standings("munki", [(key(), "prod") for _ in range(2000)]))
    await _time("is_named", lambda: catalog.is_named(content, ["munki"]), times=100)
    await _time("usage", catalog.usage, times=100)


async def _write(catalog: Catalog) -> None:
    numbers = iter(range(10**6))

    async def one() -> None:
        await catalog.author("munki", [_entry(next(numbers), directory="one")[0]])

    async def hundred() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(one())

    await _time("author one, durable", one, times=50)
    await _time("author by 100 at once, durable", hundred)
    await _time("hold 256", lambda: catalog.hold([_entry(next(numbers), directory="held")[1] for _ in range(256)]))
