"""Who waits for whom with small contents: only where everybody is linked with their holder."""

from __future__ import annotations

from pathlib import Path

import pytest

from replicad.protocol.fetch.events import Event, Sought
from replicad.protocol.fetch.plan import Plan
from replicad.protocol.gossip import neighbours
from support.data_node import data_network
from support.storing import random_bytes

pytestmark = pytest.mark.sockets


@pytest.mark.parametrize("members_linked", [1, 2, 3])
async def test_who_else_seeks_small_contents_counts_only_where_all_members_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members_linked: int) -> None:
    monkeypatch.setattr(neighbours, "FULL_MESH_MAX", members_linked)
    sought: list[Event] = []
    handle = Plan.handle

    def noted(plan: Plan, event: Event, now: float) -> list[object]:
        sought.extend([event] if isinstance(event, Sought) else [])
        return list(handle(plan, event, now))

    monkeypatch.setattr(Plan, "handle", noted)
    async with data_network(tmp_path) as network:
        source, sink = await network.node("source"), await network.node("sink")
        await network.share("files")
        await network.link(source, sink)
        manifest = await source.add(random_bytes(5000))
        await network.publish(source, "files", small=manifest)
        await sink.wait_for(manifest)
    assert bool(sought) == (members_linked >= 2)
