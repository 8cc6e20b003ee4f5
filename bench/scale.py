"""One real catalog of 1,000,000 entries of 100 authors: what an exchange costs, what a daemon needs to start, to live and to answer with it.

The catalog is made by the product's own code (about four minutes). ``--directory DIR`` keeps what was made there, or takes what is there already. Two nodes have it: exchanges are measured
between both catalogs in this process, processor time of all its threads together; then both start as daemons.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bench.catchup import memory, processor_s, watch_idle
from replicad.catalog import Catalog
from replicad.crypto.hashing import sha256
from replicad.crypto.keys import SigningKey
from replicad.model.ids import NodeId, Stamp
from replicad.model.manifest import Manifest
from replicad.model.records import Body, Entry, Grant, Policy, Role
from replicad.protocol.gossip.core import Gossip
from replicad.protocol.gossip.events import Agreed, Chain, Committed, Event, Heard, LinkClosed, LinkOpened, Now, Read, Store, Stored, Tell
from replicad.protocol.gossip.standing import Standing
from replicad.protocol.wire import RECORDS_BYTES_PER_MESSAGE, Heads, Records, decode, encode
from support.network import Network, Node

SHARE = "munki"
AUTHORS = [SigningKey(sha256(b"author %d" % number)) for number in range(100)]
BATCH = 5_000


def main(arguments: list[str]) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="bench scale", description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--idle", type=float, default=60.0)
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="replicad-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        measure(options.directory or Path(folder), entries=options.entries, idle_s=options.idle)


def measure(folder: Path, *, entries: int, idle_s: float) -> None:
    """Make or take the catalogs, measure exchanges, then daemons."""
    folder.mkdir(exist_ok=True)
    shutil.rmtree(folder / "net", ignore_errors=True)
    network = Network(folder / "net", python=[sys.executable])
    one = network.node("ams1")
    two = network.node("ber1")
    made = folder / "made"
    if not (made / "done").exists():
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        begun = time.perf_counter()
        asyncio.run(make(one, two, entries))
        for node in (one, two):
            shutil.copytree(node.data, made / node.name)
        shutil.copy(one.data / "catalog.sqlite", made / two.name / "catalog.sqlite")
        (made / "done").touch()
        print(f"{entries} entries made in {time.perf_counter() - begun:.0f} s: {(made / one.name / 'catalog.sqlite').stat().st_size >> 20} MiB", flush=True)
    for node in (one, two):
        shutil.rmtree(node.data)
        shutil.copytree(made / node.name, node.data)
    asyncio.run(exchanges(one, two))
    try:
        daemons(one, two, idle_s=idle_s)
    finally:
        for _ in network.close():
            pass


# -- making ---------------------------------------------------------------------------------------------------------------------------------------------


def opened(node: Node) -> Any:
    """The node's catalog."""
    return Catalog.open(
        node.data / "catalog.sqlite", node=SigningKey.load(node.data / "node.key"), clock_ms=clock_ms, random16=lambda: random.randrange(1 << 16)
    )


def clock_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000


def entry(number: int) -> Entry:
    """Every one with a content of its own, that nobody holds."""
    content = sha256(b"content %d" % number)
    manifest = Manifest.implied(content, 1000)
    assert manifest is not None
    return Entry(f"pkgs/d{number % 997}/file{number:07}.pkg", "prod", content, 1000, manifest.id, 1_700_000_000, "bench")


async def make(one: Node, two: Node, entries: int) -> None:
    """Both are members, the authors publishers."""
    other = SigningKey.load(two.data / "node.key").id
    async with opened(one) as catalog:
        await catalog.author("", [Policy(SHARE, public=True), Grant(other, two.name, Role.MIRROR)])
        await catalog.author("", [Grant(key.id, f"author{number}", Role.PUBLISHER) for number, key in enumerate(AUTHORS)])
        for start in range(0, entries, BATCH):
            key = AUTHORS[start // BATCH % len(AUTHORS)]
            await publish(catalog, key, [entry(number) for number in range(start, min(entries, start + BATCH))])


async def publish(catalog: Any, key: SigningKey, bodies: list[Body]) -> tuple[Any, ...]:
    """As another node's process would."""
    records: tuple[Any, ...] = await catalog._author(SHARE, bodies, key=key, held=())  # noqa: SLF001 - nobody else may sign for others
    return records


# -- exchanges ------------------------------------------------------------------------------------------------------------------------------------------


class Side:
    """A gossip core over a real catalog, without sockets."""

    def __init__(self, catalog: Any, key: SigningKey) -> None:
        self.catalog = catalog
        self.id: NodeId = key.id
        self.agreed = False
        self.core = Gossip(
            key=key, replica=catalog.replica, standing=Standing(lambda: catalog.replica.chains), incarnation=Stamp.of(clock_ms()), dice=random.random, now=now()
        )


def now() -> Now:
    """Both clocks."""
    return Now(time.monotonic_ns() // 1_000_000, clock_ms())


class Exchange:
    """Two sides, what they say to each other, what that costs."""

    def __init__(self, one: Side, two: Side) -> None:
        self.sides = {one.id: one, two.id: two}
        self.bytes: Counter[str] = Counter()
        self.record_bytes = 0
        self.storing_s = 0.0
        """Processor time of all threads while the receiving side verified and stored records, which is the same however they came."""
        self._waiting: list[tuple[Side, Event]] = []

    async def run(self) -> None:
        """From the beginning of a link to agreement."""
        for side in self.sides.values():
            side.agreed = False
        first, second = self.sides.values()
        self._waiting = [(first, LinkOpened(second.id)), (second, LinkOpened(first.id))]
        while self._waiting:
            side, event = self._waiting.pop(0)
            for effect in side.core.handle(event, now()):
                await self._perform(side, effect)
        for side, other in ((first, second), (second, first)):
            side.core.handle(LinkClosed(other.id), now())

    async def _perform(self, side: Side, effect: object) -> None:
        match effect:
            case Tell(node, message):
                frame = encode(message)
                if not isinstance(message, Heads):
                    self.bytes[type(message).__name__] += len(frame)
                    if isinstance(message, Records):
                        self.record_bytes += len(frame) - len(encode(Records((), message.pull, message.more)))
                    heard = decode(frame)
                    assert heard is not None
                    self._waiting.append((self.sides[node], Heard(side.id, heard)))
            case Store(node, envelopes):
                begun = time.process_time()
                received = await side.catalog.receive(envelopes, source=node)
                self.storing_s += time.process_time() - begun
                if received.new:
                    self._waiting.append((side, Committed(received.new, node)))
                self._waiting.append((side, Stored(effect, frozenset(record.header.origin for record in received.new), received.gaps)))
            case Read(node, pull):
                envelopes, more = await side.catalog.records_for_pull(pull.share, pull.origin, pull.have, bytes_max=RECORDS_BYTES_PER_MESSAGE)
                self._waiting.append((side, Chain(node, pull, tuple(envelopes), more)))
            case Agreed():
                side.agreed = True

    @property
    def overhead(self) -> int:
        """Bytes besides records (and heads)."""
        return sum(self.bytes.values()) - self.record_bytes


async def exchanges(one: Node, two: Node) -> None:
    """In sync, and with what the second lacks."""
    async with AsyncExitStack() as stack:
        sides = [Side(await stack.enter_async_context(opened(node)), SigningKey.load(node.data / "node.key")) for node in (one, two)]
        exchange = Exchange(*sides)
        await timed(exchange, "in sync", times=20)
        number = iter(range(10**7, 10**8))
        catalog = sides[0].catalog

        async def lacks(authors: int, each: int) -> None:
            for key in AUTHORS[:authors]:
                sides[0].core.handle(Committed(await publish(catalog, key, [entry(next(number)) for _ in range(each)]), None), now())

        for authors, each in ((1, 10), (100, 10)):
            await lacks(authors, each)
            await timed(exchange, f"{authors * each} records of {authors} authors")


async def timed(exchange: Exchange, label: str, *, times: int = 1) -> None:
    """Processor time of both sides and all threads."""
    exchange.bytes.clear()
    exchange.record_bytes, exchange.storing_s = 0, 0.0
    begun = time.process_time()
    for _ in range(times):
        await exchange.run()
    storing_ms = exchange.storing_s * 1000 / times
    spent_ms = (time.process_time() - begun) * 1000 / times - storing_ms
    assert all(side.agreed for side in exchange.sides.values())
    print(
        f"exchange, {label}: {spent_ms:.1f} ms of processor time for both sides, {storing_ms:.1f} ms more to verify and store, {exchange.overhead // times} bytes besides records ({dict(exchange.bytes)})",
        flush=True,
    )


# -- daemons --------------------------------------------------------------------------------------------------------------------------------------------


def daemons(one: Node, two: Node, *, idle_s: float) -> None:
    """Start, answer, idle."""
    two.config.write_text(two.config.read_text().replace("[peers]", f'[peers]\nconnect = ["https://127.0.0.1:{one.peers_port}"]', 1))
    for node in (one, two):
        begun = time.perf_counter()
        node.start()
        print(f"{node.name} ready after {time.perf_counter() - begun:.1f} s, {processor_s(node):.1f} s of processor time; {memory(node)}", flush=True)
    took("status", lambda: one.ask("status"))
    took("ls of one directory (1,003 names)", lambda: one.ask("ls", f"{SHARE}/pkgs/d50"))
    took("show", lambda: one.ask("show", f"{SHARE}/pkgs/d50/file0000050.pkg"))
    print(f"then: {memory(one)}")
    if idle_s:
        watch_idle(one, two, seconds=idle_s)
    print(f"{one.name}: {memory(one)}; {two.name}: {memory(two)}")


def took(label: str, call: Callable[[], object]) -> None:
    """Seconds, the start of the command included."""
    begun = time.perf_counter()
    call()
    print(f"  {label}: {time.perf_counter() - begun:.2f} s", flush=True)
