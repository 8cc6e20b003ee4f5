"""Waiting: who must hold it, who is there, and when the answer comes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from replicad.errors import InputError
from replicad.model.entries import Listed
from replicad.model.events import HeadsChanged
from replicad.model.ids import NodeId
from replicad.protocol.gossip.heads import Missing, Presence
from replicad.server.admin.waiting import needed_nodes
from support.admin_door import Door, Member
from support.waiting import until


async def wait(door: Door, *paths: str, stage: str | None = "prod", **more: Any) -> Any:
    """POST /wait; the answer."""
    entries = [{"path": path, **({"stage": stage} if stage else {})} for path in paths]
    reply = await door.ask("POST", "/wait", {"share": "munki", "entries": entries, "timeout_s": 0, **more})
    return reply.json


class Away:
    """Stands for a link in the table: there, and silent."""

    rtt_s = None
    age_s = 1.0

    def __init__(self, node: NodeId) -> None:
        self.node = node


def link(door: Door, *members: Member) -> None:
    """These members have a link with this node."""
    for member in members:
        door.services.links._links[member.key.id] = Away(member.key.id)  # type: ignore[assignment]


def alive(member: Member, **more: Any) -> None:
    """The member says that it has everything."""
    member.says("", **more)
    member.says("munki")


@pytest.mark.parametrize(
    ("asked", "wanting", "needed"), [("all", 0, 0), ("all", 7, 7), ("1", 1, 1), ("3", 7, 3), ("50%", 7, 4), ("1%", 7, 1), ("100%", 7, 7), ("34%", 3, 2)]
)
def test_how_many_are_needed(asked: str, wanting: int, needed: int) -> None:
    assert needed_nodes(asked, wanting) == needed


def test_more_than_want_it_can_never_hold_it() -> None:
    with pytest.raises(InputError, match="8 nodes can never hold it, it is wanted by 7"):
        needed_nodes("8", 7)


async def test_a_network_of_one_is_done_at_once(door: Door) -> None:
    await door.publish("munki", "a.pkg", b"a")
    answer = await wait(door, "a.pkg", stage=None)
    assert (answer["state"], answer["holders"], answer["needed"]) == ("done", 1, 1)


async def test_all_means_every_member_whose_grant_wants_it(door: Door) -> None:
    ber, _jamf_only, _dev_only = await door.admit("ber1"), await door.admit("lon1", shares=("jamf",)), await door.admit("fra1", stages=("dev",))
    await door.publish("munki", "a.pkg", b"a")
    link(door, ber)
    answer = await wait(door, "a.pkg")
    assert (answer["state"], {node["name"]: node["files"] for node in answer["nodes"]}) == ("pending", {"ams1": 1, "ber1": 0})
    alive(ber)
    assert (await wait(door, "a.pkg"))["state"] == "done"


async def test_percent_becomes_bytes(door: Door) -> None:
    ber = await door.admit("ber1")
    await door.publish("munki", "a.pkg", bytes(1000))
    listed = await door.listed("munki", "a.pkg")
    link(door, ber)
    ber.says("munki", missing=(Missing(listed.content, 71),), missing_since=listed.hlc)
    nodes = {node["name"]: node for node in (await wait(door, "a.pkg"))["nodes"]}
    assert (nodes["ber1"]["bytes"], nodes["ber1"]["bytes_wanted"], nodes["ber1"]["files"]) == (710, 1000, 0)


async def test_the_answer_comes_with_the_head_not_with_the_timeout(door: Door) -> None:
    ber = await door.admit("ber1")
    await door.publish("munki", "a.pkg", b"a")
    link(door, ber)
    waiting = asyncio.create_task(wait(door, "a.pkg", timeout_s=10))
    await until(lambda: door.services.hub._subscriptions, what="the waiting to begin")
    alive(ber)
    async with asyncio.timeout(5):
        door.services.hub.publish(HeadsChanged(ber.key.id))
        assert (await waiting)["state"] == "done"


async def test_other_names_of_the_share_are_not_looked_at(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    ber = await door.admit("ber1")
    await door.publish("munki", "a.pkg", b"a")
    link(door, ber)
    looked: list[Sequence[tuple[str, str]]] = []
    registers = door.services.catalog.registers

    async def counted(share: str, pairs: Sequence[tuple[str, str]]) -> list[Listed | None]:
        looked.append(pairs)
        return await registers(share, pairs)

    monkeypatch.setattr(door.services.catalog, "registers", counted)
    waiting = asyncio.create_task(wait(door, "a.pkg", timeout_s=10))
    await until(lambda: looked, what="the waiting to begin")
    await door.publish("munki", "b.pkg", b"b")
    alive(ber)
    door.services.hub.publish(HeadsChanged(ber.key.id))
    async with asyncio.timeout(5):
        assert (await waiting)["state"] == "done"
    assert looked == [[("a.pkg", "prod")]]


async def test_when_all_linked_nodes_have_it_the_others_are_not_waited_for(door: Door) -> None:
    ber, nyc = await door.admit("ber1"), await door.admit("nyc2")
    await door.publish("munki", "a.pkg", b"a")
    link(door, ber)
    assert (await wait(door, "a.pkg"))["state"] == "pending"
    alive(ber)
    answer = await wait(door, "a.pkg", timeout_s=10)
    assert (answer["state"], answer["holders"], answer["needed"]) == ("linked", 2, 3)
    assert {node["name"]: node["linked"] for node in answer["nodes"]} == {"ams1": True, "ber1": True, "nyc2": False}
    assert (await wait(door, "a.pkg", nodes="2"))["state"] == "done"
    assert (await wait(door, "a.pkg", nodes="3"))["state"] == "pending"
    assert (await wait(door, "a.pkg", nodes="50%"))["state"] == "done"
    alive(nyc)
    assert (await wait(door, "a.pkg"))["state"] == "done"


async def test_a_node_behind_another_is_there(door: Door) -> None:
    """ber1 has a link with us and with syd1; nyc2 was linked with ber1 but is so no more, though its head is young."""
    ber, syd, nyc = await door.admit("ber1"), await door.admit("syd1"), await door.admit("nyc2")
    await door.publish("munki", "a.pkg", b"a")
    link(door, ber)
    ber.says("", presence=Presence(links=(syd.key.id,)))
    syd.says("", presence=Presence(links=(ber.key.id,)))
    nyc.says("", presence=Presence(links=(ber.key.id,)))
    linked = {node["name"]: node["linked"] for node in (await wait(door, "a.pkg"))["nodes"]}
    assert linked == {"ams1": True, "ber1": True, "syd1": True, "nyc2": False}
    syd.says("", presence=Presence(links=(ber.key.id,)), age_ms=100_000)
    assert not {node["name"]: node["linked"] for node in (await wait(door, "a.pkg"))["nodes"]}["syd1"]


async def test_this_node_counts_even_where_its_grant_does_not_want_it(door: Door) -> None:
    catalog = door.services.catalog
    ber = await door.admit("ber1")
    await door.publish("munki", "a.pkg", b"a")
    listed = await door.listed("munki", "a.pkg")
    assert catalog.is_held(listed.content)
    link(door, ber)
    assert (await wait(door, "a.pkg", nodes="1"))["state"] == "done"


async def test_many_files_are_counted(door: Door) -> None:
    ber = await door.admit("ber1")
    digest = await door.upload(b"x")
    entries = [{"path": f"{number}.pkg", "sha256": digest, "size": 1} for number in range(1500)]
    await door.ask("POST", "/shares/munki/entries", {"entries": entries})
    link(door, ber)
    alive(ber)
    answer = await wait(door, *(entry["path"] for entry in entries))
    assert (answer["state"], {node["files"] for node in answer["nodes"]}) == ("done", {1500})


async def test_a_name_that_is_not_there(door: Door) -> None:
    await door.publish("munki", "a.pkg", b"a")
    assert (await wait(door, "a.pkg", "b.pkg"))["code"] == "no-such-file"
    assert "b.pkg" in (await wait(door, "a.pkg", "b.pkg"))["detail"]
    assert "stage dev" in (await wait(door, "a.pkg", stage="dev"))["detail"]


async def test_a_file_that_is_replaced_meanwhile_is_waited_for_in_its_new_form(door: Door) -> None:
    ber = await door.admit("ber1")
    await door.publish("munki", "a.pkg", b"a")
    link(door, ber)
    waiting = asyncio.create_task(wait(door, "a.pkg", timeout_s=10))
    await until(lambda: door.services.hub._subscriptions, what="the waiting to begin")
    await door.publish("munki", "a.pkg", b"longer")
    alive(ber)
    door.services.hub.publish(HeadsChanged(ber.key.id))
    async with asyncio.timeout(5):
        answer = await waiting
    assert (answer["state"], {node["bytes"] for node in answer["nodes"]}) == ("done", {6})
