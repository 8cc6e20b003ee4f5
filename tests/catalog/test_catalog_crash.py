"""Killed at any moment: what was acknowledged is there, everything else is there as a whole or not at all, and the next start goes on."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from catalog_world import SHARE, World, audit, rows

from replicad.model.ids import Digest, RecordId

KILLS = 8
VICTIM = Path(__file__).with_name("catalog_victim.py")


async def test_killed_at_random_moments_nothing_acknowledged_is_lost(world: World, dice: random.Random) -> None:
    async with world.founded("ann"):
        pass
    acknowledged: set[RecordId] = set()
    held: set[Digest] = set()
    for number in range(KILLS):
        for line in await killed_after(world, number * 1000, lines=dice.randrange(1, 60)):
            if line.startswith("held "):
                held.add(Digest.parse(line[5:]))
            elif line != "open":
                acknowledged.add(RecordId.parse(line))
        world.now_ms = 1 << 42
        async with world.open("ann") as ann:
            assert await ann.known(acknowledged) == acknowledged
            assert all(ann.is_held(content) for content in held)
            assert await rows(ann, "PRAGMA integrity_check") == [("ok",)]
            await audit(ann)
    assert len(acknowledged) > KILLS
    async with world.open("ann") as ann:
        runs = await rows(ann, "SELECT incarnation FROM run WHERE share = ?", SHARE)
        assert len(ann.replica.chains.ends(ann.node, SHARE)) == 1
        assert 1 < len(runs) <= KILLS


async def killed_after(world: World, number: int, *, lines: int) -> list[str]:
    """What the victim said before it was killed; the kill comes somewhere in what follows the given number of lines."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(VICTIM.parent), str(VICTIM.parents[2])])}
    victim = await asyncio.create_subprocess_exec(sys.executable, VICTIM, world.directory, "ann", str(number), stdout=PIPE, env=environment)
    assert victim.stdout
    said = [await victim.stdout.readline() for _ in range(lines)]
    victim.kill()
    said += (await victim.stdout.read()).splitlines(keepends=True)
    await victim.wait()
    return [line.decode().strip() for line in said if line.endswith(b"\n")]
