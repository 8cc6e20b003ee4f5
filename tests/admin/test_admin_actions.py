"""The audit log: who did what through the door, and that nobody can change it unnoticed."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from replicad.catalog import Catalog, actions
from replicad.catalog.answers import Action
from replicad.model.callers import Retention
from replicad.server.admin import actions as recording
from support.admin_door import TOKEN, Door

ROOT = {"Authorization": f"Bearer {TOKEN}"}


async def logged(door: Door) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await door.ask("GET", "/audit/log")).json["actions"]
    return found


async def test_every_write_is_written_down_and_no_read(door: Door) -> None:
    await door.ask("GET", "/shares")
    await door.ask("POST", "/shares", {"name": "fonts"}, headers={**ROOT, "X-Request-Id": "run-17"}, over_tcp=True)
    await door.ask("POST", "/shares", {"name": "fonts"})
    await door.ask("POST", "/shares", {"nonsense": 1})
    secret = (await door.ask("POST", "/tokens", {"role": "viewer", "name": "ci"})).json["secret"]
    await door.ask("POST", "/shares", {"name": "x"}, headers={"Authorization": f"Bearer {secret}"}, over_tcp=True)
    await door.ask("POST", "/shares/munki/remove", {"paths": [f"{i}.pkg" for i in range(7)], "publisher": "jane"})
    await door.ask("POST", "/members/join", {"token": "a-secret", "url": "https://x"})
    found = await logged(door)
    told = [(one["method"], one["target"].removeprefix("/api/v1"), one["detail"], one["status"], one["code"]) for one in found]
    assert told == [
        ("POST", "/shares", "name fonts", 200, ""),
        ("POST", "/shares", "name fonts", 409, "share-exists"),
        ("POST", "/shares", "", 400, "bad-input"),
        ("POST", "/tokens", "name ci; role viewer", 200, ""),
        ("POST", "/shares", "", 403, "not-allowed"),
        ("POST", "/shares/munki/remove", "0.pkg, 1.pkg, 2.pkg, 3.pkg, 4.pkg and 2 more; publisher jane", 404, "no-such-file"),
        ("POST", "/members/join", "", 400, "bad-input"),
    ]
    assert [(one["caller"], one["origin"]) for one in found[:1] + found[4:5]] == [("root token", "127.0.0.1"), ("token ci", "127.0.0.1")]
    assert found[1]["origin"] == "socket"
    assert found[1]["caller"].startswith("socket uid ")
    assert found[0]["request"] == "run-17"
    assert len({one["request"] for one in found}) == len(found)
    page = (await door.ask("GET", "/audit/log?limit=3")).json
    assert ([one["seq"] for one in page["actions"]], page["next"]) == ([1, 2, 3], 3)
    assert (await door.ask("GET", "/audit/log?after=3&limit=5000")).json == {"actions": found[3:], "next": None}
    assert (await door.ask("GET", "/audit/log?since=2199-01-01T00:00:00Z")).json["actions"] == []


async def test_refused_logins_cannot_push_the_rest_out(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ms = 0
    object.__setattr__(door.services, "monotonic_ms", lambda: now_ms)
    for _ in range(recording.REFUSALS_PER_MINUTE + 5):
        assert (await door.ask("GET", "/node", headers={"Authorization": "Bearer replicad_x"}, over_tcp=True)).status == 401
    found = await logged(door)
    assert [(one["caller"], one["origin"], one["status"], one["code"]) for one in found] == [("", "127.0.0.1", 401, "unauthorized")] * 10
    now_ms = 60_000
    await door.ask("GET", "/node", over_tcp=True)
    assert (await logged(door))[-1]["detail"] == "5 refused logins before were not written"


async def test_every_answer_has_the_id_of_its_request(door: Door) -> None:
    await door.publish("munki", "a.pkg", b"a")
    for path in ("/node", "/nonsense", "/shares/munki/files/a.pkg"):
        assert (await door.ask("GET", path, headers={"X-Request-Id": "a-1"})).headers["x-request-id"] == "a-1"
        assert len((await door.ask("GET", path, headers={"X-Request-Id": "not good"})).headers["x-request-id"]) == 16
    assert (await door.ask("GET", "/node", headers={"X-Request-Id": "a-1"}, over_tcp=True)).headers["x-request-id"] == "a-1"


async def fill(catalog: Catalog, count: int) -> None:
    for number in range(count):
        await catalog.append_action(Action(0, 1000 + number, "uid 0", "socket", f"r{number}", "POST", "/shares", "name ü", 200, ""))


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        *((f"UPDATE action SET {column} = 'x' WHERE seq = 3", 3) for column in ("caller", "origin", "request", "method", "target", "detail", "code")),
        *((f"UPDATE action SET {column} = 7 WHERE seq = 3", 3) for column in ("at_ms", "status")),
        ("UPDATE action SET hash = zeroblob(32) WHERE seq = 3", 3),
        ("DELETE FROM action WHERE seq = 1", 1),
        ("DELETE FROM action WHERE seq = 3", 3),
        ("DELETE FROM action WHERE seq = 5", 5),
        ("DELETE FROM action", 1),
        ("INSERT INTO action SELECT 6, at_ms, caller, origin, request, method, target, detail, status, code, hash FROM action WHERE seq = 5", 6),
        ("INSERT INTO action SELECT 0, at_ms, caller, origin, request, method, target, detail, status, code, hash FROM action WHERE seq = 5", 0),
        ("UPDATE action SET seq = CASE seq WHEN 2 THEN -3 ELSE 2 END WHERE seq IN (2, 3); UPDATE action SET seq = 3 WHERE seq = -3", 2),
        ("UPDATE action_chain SET last_hash = zeroblob(32)", 6),
        ("UPDATE action_chain SET first_before = x'01'", 1),
    ],
)
async def test_tampering_with_one_row_is_found(door: Door, change: str, broken: int) -> None:
    await fill(door.services.catalog, 5)
    good = (await door.ask("GET", "/audit/verify")).json
    assert (good["ok"], good["first"], good["last"], good["broken"]) == (True, 1, 5, None)
    with sqlite3.connect(door.data / "catalog.sqlite") as outside:
        outside.executescript(change)
    outside.close()
    reply = (await door.ask("GET", "/audit/verify")).json
    assert (reply["ok"], reply["broken"]) == (False, broken)


async def test_the_oldest_go_and_the_chain_still_holds(door: Door) -> None:
    catalog = door.services.catalog
    assert (await catalog.verify_actions()).broken is None, "an empty log is as it was written"
    catalog.retention = Retention(actions=3)
    await fill(catalog, 8)
    assert [one.seq for one in await catalog.actions(limit=100)] == [6, 7, 8]
    chain = await catalog.verify_actions()
    assert (chain.first, chain.last, chain.broken) == (6, 8, None)
    with sqlite3.connect(door.data / "catalog.sqlite") as outside:
        outside.execute("DELETE FROM action WHERE seq = 6")
    outside.close()
    assert (await catalog.verify_actions()).broken == 6


async def test_what_is_too_old_goes_and_a_wrong_clock_costs_little(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = door.services.catalog
    catalog.retention = Retention(time_s=10.0)

    async def seqs(*at_s: int) -> list[int]:
        for when_s in at_s:
            await catalog.append_action(Action(0, when_s * 1000, "uid 0", "socket", "r", "POST", "/shares", "", 200, ""))
        assert (await catalog.verify_actions()).broken is None
        return [one.seq for one in await catalog.actions(limit=100)]

    assert await seqs(100, 101, 105) == [1, 2, 3]
    assert await seqs(111) == [2, 3, 4], "11 s old is too old, 10 s is not"
    assert await seqs(0, 112) == [3, 4, 5, 6], "one that is dated back goes in its turn and takes nothing with it"
    assert await seqs(116) == [4, 5, 6, 7]
    monkeypatch.setattr(actions, "DROPPED_MAX", 2)
    assert await seqs(9_999_999) == [6, 7, 8], "a clock that is years ahead takes two"
    assert await seqs(117) == [6, 7, 8, 9]
