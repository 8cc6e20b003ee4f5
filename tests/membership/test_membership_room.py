"""A node whose catalog has no room, or cannot be written: nothing crashes, it says so, and goes on when it can."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from replicad.services.gossip import service
from replicad.services.membership import lasting
from support.peer_node import PeerNode, all_linked, peer_node
from support.waiting import until

pytestmark = pytest.mark.sockets


async def pragma(node: PeerNode, text: str) -> int:
    """Of the connection that writes; what it answers, 0 for nothing."""
    async with node.catalog._database._writer.execute(f"PRAGMA {text}") as cursor:
        found = await cursor.fetchone()
    return int(found[0]) if found else 0


@pytest.fixture(autouse=True)
def _said_again() -> None:
    """What is said seldom is said in each test."""
    for log in (service.log, lasting.log):
        log._seldom.clear()


def end(node: PeerNode, other: PeerNode) -> int:
    """When the other's membership ends."""
    return node.catalog.replica.trust.members(node.clock())[other.id].until or 0


async def test_news_that_has_no_room_is_let_go_and_comes_when_there_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with peer_node(tmp_path / "a", "ann") as ann, peer_node(tmp_path / "b", "bob") as bob:
        await ann.create_share("munki")
        await bob.membership.join(await ann.membership.invite(role="publisher"))
        await all_linked(ann, bob)
        await ann.publish_and_wait("munki", "before", bob)
        await pragma(bob, f"max_page_count = {await pragma(bob, 'page_count')}")
        assert not bob.catalog.full
        await ann.publish("munki", *(f"file{number}" for number in range(500)))
        await until(lambda: bob.catalog.full, what="the disk to be full")
        await until(lambda: not any(backlog.working for backlog in bob.gossip._backlogs.values()), what="the news to be let go")
        assert not any(task.done() for task in bob.tasks)
        assert caplog.text.count("news cannot be stored and is not taken") == 1
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
        await pragma(bob, "max_page_count = 1000000")
        await ann.publish("munki", "after")
        await until(lambda: bob.hash("munki") == ann.hash("munki"), what="all of it at bob", deadline_s=120)
        assert await bob.files() == await ann.files()


async def test_what_is_written_now_and_then_waits_until_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Heads of others, grants renewed."""
    monkeypatch.setattr(lasting, "LOOK_S", 0.02)
    async with peer_node(tmp_path / "a", "ann") as ann, peer_node(tmp_path / "b", "bob") as bob:
        await bob.membership.join(await ann.membership.invite(role="publisher", life_s=3600))
        await all_linked(ann, bob)
        await until(lambda: ann.standing.head(bob.id) is not None, what="a head of bob")
        first = end(ann, bob)
        await pragma(ann, "query_only = ON")
        ann.gossip._saved.clear()
        await ann.gossip.save_heads()
        ann.clock.ahead_ms = bob.clock.ahead_ms = 45 * 60_000
        await until(
            lambda: (
                {"grants cannot be renewed; it will be tried again", "what others say about themselves cannot be saved; it will be tried again"}
                <= set(caplog.messages)
            ),
            what="both to be said",
        )
        assert not any(task.done() for task in ann.tasks)
        await pragma(ann, "query_only = OFF")
        await ann.gossip.save_heads()
        assert (bob.id, "") in ann.gossip._saved
        await until(lambda: end(ann, bob) > first, what="the renewed grant")
