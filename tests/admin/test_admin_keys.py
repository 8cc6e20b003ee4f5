"""What the door says about keys that are used twice, a clock that nobody believes, and grants about to end; and what it takes from who asks."""

from __future__ import annotations

from typing import Any

import pytest

from replicad.crypto.envelope import seal
from replicad.model.ids import Stamp
from replicad.model.records import Envelope, Header, Record, Role, Tombstone
from replicad.protocol import records
from support.admin_door import Door, Member


def signed(member: Member, path: str, *, after: Record | None = None) -> Envelope:
    services = member.door.services
    at = Stamp.of(services.clock_ms() + 1)
    body = Tombstone(path, "prod")
    incarnation, seq, before = (Stamp(after.header.incarnation + 1), after.header.seq + 1, after.id) if after else (Stamp.of(1), 1, None)
    header = Header(member.key.id, "munki", incarnation, seq, before, at)
    return seal(member.key, services.catalog.network, records.type_of(body), records.encode(header, body))


async def problems(door: Door) -> dict[str, Any]:
    found = (await door.ask("GET", "/status")).json["problems"]
    return {problem["code"]: problem for problem in found if problem["code"] != "peer-offline"}


async def test_equivocation_is_shown_with_its_evidence(door: Door) -> None:
    bob = await door.admit("bob", role=Role.PUBLISHER)
    assert await problems(door) == {}
    received = await door.services.catalog.receive([signed(bob, "a"), signed(bob, "b")], source=None)
    trouble = (await problems(door))["equivocation"]
    assert trouble["message"].startswith("bob signed different records at place 1 in munki")
    assert trouble["hint"].endswith("replicad peer revoke bob")
    (fork,) = (await door.ask("GET", "/members/bob")).json["forks"]
    assert (fork["share"], fork["seq"]) == ("munki", 1)
    assert set(fork["records"]) == {str(record.id) for record in received.new}
    doctor = (await door.ask("GET", "/doctor")).json["findings"]
    assert [finding["state"] for finding in doctor if finding["check"] == "keys"] == ["failed"]


async def test_a_second_user_of_this_nodes_key_is_noticed(door: Door) -> None:
    own = Member(door, door.services.catalog._key)
    catalog = door.services.catalog
    await catalog.receive([signed(own, "lost by a restore, and back")], source=None)
    assert await problems(door) == {}
    (last,) = await catalog.author("munki", [Tombstone("a", "prod")])
    await catalog.receive([signed(own, "b", after=last)], source=None)
    assert "key-in-use" in await problems(door)


async def test_a_clock_that_most_members_contradict_stops_publishing_and_says_so(door: Door) -> None:
    bob = await door.admit("bob")
    door.services.dialing.clocks[bob.key.id] = 299_000  # type: ignore[attr-defined]
    assert (await problems(door)).keys() == {"clock-skew"}
    assert (await door.publish("munki", "a", b"a")).status == 200
    door.services.dialing.clocks[bob.key.id] = -300_000  # type: ignore[attr-defined]
    reply = await door.publish("munki", "b", b"b")
    assert (reply.status, reply.json["code"]) == (409, "clock-skew")
    assert "300 s apart" in reply.json["detail"]
    assert any("signs nothing" in problem["message"] for problem in (await door.ask("GET", "/status")).json["problems"])


async def test_a_grant_that_nobody_renews_is_told_before_it_ends(door: Door) -> None:
    now_ms = door.services.clock_ms()
    await door.admit("bob", until=Stamp.of(now_ms + 600_000))
    assert await problems(door) == {}
    cid = await door.admit("cid", until=Stamp.of(now_ms + 600_000))
    admitted = door.services.catalog.replica.trust.members(now_ms + 1000)[cid.key.id]
    assert (admitted.life_left(now_ms + 300_000), admitted.life_left(now_ms + 700_000)) == (pytest.approx(0.5, abs=0.1), 0.0)
    shown = (await door.ask("GET", "/members/cid")).json["peer"]
    assert shown["until"] is not None
    assert shown["paths"] is None


BAD = [
    ("POST", "/members/bob/revoke", {"from": "yesterday"}, "from"),
    ("POST", "/members/bob/revoke", {"from": "2026-01-01T00:00:00"}, "from"),
    ("POST", "/members/bob/revoke", {"network_key": "x" * 257}, "network_key"),
    ("PATCH", "/members/bob", {"paths": []}, "paths"),
    ("PATCH", "/members/bob", {"networks": ["10.4.0.0/16"] * 65}, "networks"),
    ("PATCH", "/members/bob", {"networks": None}, "networks"),
    ("PATCH", "/members/bob", {"life_s": "long"}, "life_s"),
    ("GET", "/audit?limit=5001", None, "limit"),
    ("GET", "/audit?after=nonsense", None, "after"),
    ("GET", "/audit?since=yesterday", None, "since"),
]


async def test_bad_input_is_named(door: Door) -> None:
    await door.admit("bob")
    for method, path, body, named in BAD:
        reply = await door.ask(method, path, body)
        assert reply.status == 400, (path, body, reply.body)
        assert named in reply.json["detail"], (path, body)
