"""What is wanted reaches the plan although more is wanted than the list holds, and nobody has most of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from replicad.model.ids import Digest
from replicad.model.manifest import Manifest
from replicad.model.records import Entry, Role
from replicad.protocol.fetch.events import Event, Wants
from replicad.services.fetch import wanting as module
from replicad.services.fetch.wanting import Wanting
from support.data_node import DataNode, clock_ms, data_network

LIST = 20


def names(prefix: str, count: int) -> list[Entry]:
    """Entries with contents that nobody has."""
    contents = [Digest(os.urandom(32)) for _ in range(count)]
    return [Entry(f"{prefix}{number}", "prod", content, 5, Manifest.implied_id(content, 5), 1_700_000_000) for number, content in enumerate(contents)]


def contents(entries: list[Entry]) -> set[Digest]:
    return {entry.content for entry in entries}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WANTED_MAX": LIST, "NEW_MAX": 3, "REFRESH_S": 0.0, "CUT_REFRESH_S": 0.01, "CUT_REFRESH_S_MAX": 0.02}.items():
        monkeypatch.setattr(module, name, value)


class Lists:
    """What was reported."""

    def __init__(self) -> None:
        self.reported: asyncio.Queue[Wants] = asyncio.Queue()
        self.seen: set[Digest] = set()

    def take(self, event: Event) -> None:
        assert isinstance(event, Wants)
        assert len(event.wanted) <= LIST + 3
        self.reported.put_nowait(event)

    async def next(self) -> set[Digest]:
        async with asyncio.timeout(60):
            found = {one.content for one in (await self.reported.get()).wanted}
        self.seen |= found
        return found

    async def until_seen(self, wanted: set[Digest]) -> None:
        while not wanted <= self.seen:
            await self.next()


@asynccontextmanager
async def reading(node: DataNode, *, age_ms: int = 0) -> AsyncIterator[Lists]:
    lists = Lists()
    wanting = Wanting(node.catalog, node.fetch._smalls, clock_ms=lambda: clock_ms() + age_ms, report=lists.take, idle=lambda: None)
    wanting.refresh()
    task = asyncio.create_task(wanting.run(list))
    try:
        yield lists
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_the_first_list_has_something_of_everybody_and_the_newest(tmp_path: Path) -> None:
    async with data_network(tmp_path) as network:
        sink = await network.node("sink", role=Role.MIRROR)
        await network.share("s")
        phantoms, good = names("p", 10 * LIST), names("g", 2)
        await network.author(await network.node("p"), "s", *phantoms)
        await network.author(await network.node("source"), "s", *good)
        async with reading(sink) as lists:
            assert await lists.next() >= contents(good) | contents(phantoms[-1:])


async def test_everything_is_in_some_list_although_nothing_comes(tmp_path: Path) -> None:
    async with data_network(tmp_path) as network:
        sink = await network.node("sink", role=Role.MIRROR)
        await network.share("s")
        phantoms, others = names("p", 4 * LIST), names("o", 3 * LIST)
        await network.author(await network.node("p"), "s", *phantoms)
        await network.author(await network.node("other"), "s", *others)
        async with reading(sink, age_ms=2 * module.NEW_MS) as lists:
            await lists.until_seen(contents(phantoms) | contents(others))
            assert lists.seen == contents(phantoms) | contents(others)
