"""Files replaced, put back and deleted under clients that resume: whoever ends with a file has one version, whole."""

from __future__ import annotations

import asyncio
import hashlib
import random
from pathlib import Path

import pytest
from downloads_world import MODIFIED, World

from replicad.telemetry.access_log import Answered
from support.resuming import Downloaded, Resuming

pytestmark = pytest.mark.sockets

SIZE = 700_000
VERSIONS = [random.Random(number).randbytes(SIZE + 1000 * (number % 2)) for number in range(4)]
CLIENTS, DOWNLOADS = 6, 4


class Replacing(list[Answered]):
    """Instead of the world's list of answers: after every second one the name gets another version, or none."""

    def __init__(self, world: World, dice: random.Random) -> None:
        super().__init__()
        self._world = world
        self._dice = dice
        self._published = [world.put("jamf", "file", version, modified=MODIFIED) for version in VERSIONS]

    def append(self, answered: Answered) -> None:
        super().append(answered)
        number = self._dice.randrange(2 * (len(VERSIONS) + 1))
        if number == len(VERSIONS):
            self._world.names.clear()
        elif number < len(VERSIONS):
            self._world.name("jamf", "file", self._published[number], size=len(VERSIONS[number]), modified=MODIFIED)


async def test_no_client_ends_with_mixed_bytes(tmp_path: Path, dice: random.Random) -> None:
    """Equal sizes and equal dates among the versions: nothing but the content's hash tells them apart."""
    world = World(tmp_path)
    world.share("jamf")
    world.noted = Replacing(world, dice)

    def client(number: int, port: int) -> list[Downloaded]:
        mine = Resuming(port, "/jamf/file", random.Random(number), if_range=number % 2 == 0, cut_bytes=SIZE)
        return [found for _ in range(DOWNLOADS) if (found := mine.download(deadline_s=120))]

    async with world.serve() as door, asyncio.TaskGroup() as group:
        running = [group.create_task(asyncio.to_thread(client, number, door.port)) for number in range(CLIENTS)]
    downloaded = [one for task in running for one in task.result()]
    assert len(downloaded) == CLIENTS * DOWNLOADS
    assert max(one.pieces for one in downloaded) > 1
    assert len({one.sha256 for one in downloaded}) > 1
    hashes = {hashlib.sha256(version).hexdigest() for version in VERSIONS}
    assert [one for one in downloaded if one.sha256 not in hashes or one.tag != f'"{one.sha256}"'] == []
