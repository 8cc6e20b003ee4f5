"""A write that is asked for twice is done once, and nobody overwrites what somebody else has changed meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from replicad.errors import ConflictError, NotFoundError
from replicad.model.ids import Digest
from replicad.server.admin import repeating
from replicad.server.admin.repeating import Answers
from support.admin_door import TOKEN, Door, Reply

ROOT = {"Authorization": f"Bearer {TOKEN}"}
ONE, OTHER = Digest(bytes(32)), Digest(b"\1" * 32)


async def create(door: Door, key: str, **body: Any) -> Reply:
    return await door.ask("POST", "/shares", body, headers={"Idempotency-Key": key})


async def test_a_write_under_the_same_key_is_answered_again_and_done_once(door: Door) -> None:
    first = await create(door, "a", name="fonts", stages=["prod"])
    again = await door.ask("POST", "/shares", b'{"stages": ["prod"], "name": "fonts"}', headers={"Idempotency-Key": "a"})
    assert (first.status, again.status) == (200, 200), "without the key it would be share-exists"
    assert again.body == first.body
    assert (first.headers.get("idempotency-replayed"), again.headers.get("idempotency-replayed")) == (None, "true")
    made = [(await door.ask("POST", "/tokens", {"role": "viewer"}, headers={"Idempotency-Key": "b"})).json["secret"] for _ in range(2)]
    assert made[0] == made[1]
    assert len((await door.ask("GET", "/tokens")).json["tokens"]) == 1


async def test_a_key_is_for_one_request_of_one_caller(door: Door) -> None:
    await create(door, "a", name="fonts")
    for reply in (
        await create(door, "a", name="icons"),
        await door.ask("POST", "/tokens", {"role": "viewer"}, headers={"Idempotency-Key": "a"}),
        await door.ask("PATCH", "/shares/munki", {"public": False}, headers={"Idempotency-Key": "a"}),
    ):
        assert (reply.status, reply.json["code"]) == (409, "key-reused")
    assert sorted(one["name"] for one in (await door.ask("GET", "/shares")).json["shares"]) == ["fonts", "jamf", "munki"]
    assert (await door.ask("GET", "/shares/munki")).json["share"]["public"] is True
    assert (await door.ask("GET", "/tokens")).json["tokens"] == []
    other = await door.ask("POST", "/shares", {"name": "icons"}, headers={**ROOT, "Idempotency-Key": "a"}, over_tcp=True)
    assert other.status == 200, "somebody else's key is another one"
    reply = await door.ask("POST", "/shares", {"name": "x"}, headers={"Idempotency-Key": "a b"})
    assert (reply.status, reply.json["code"]) == (400, "bad-input")


async def test_what_failed_is_done_when_it_is_asked_again(door: Door) -> None:
    body = {"path": "a.pkg", "to": "prod"}
    assert (await door.ask("POST", "/shares/munki/promote", body, headers={"Idempotency-Key": "a"})).status == 404
    await door.publish("munki", "a.pkg", b"a", stage="dev")
    assert (await door.ask("POST", "/shares/munki/promote", body, headers={"Idempotency-Key": "a"})).status == 200


async def test_answers_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ms, done = 0, 0
    answers = Answers(lambda: now_ms)

    async def work() -> web.Response:
        nonlocal done
        done += 1
        return web.Response(body=b"x" * 10)

    async def fail() -> web.Response:
        raise NotFoundError("no")

    monkeypatch.setattr(repeating, "KEPT_MAX", 3)
    for key in "abcd":
        await answers.once(("root", key), ONE, work)
    await answers.once(("root", "d"), ONE, work)
    assert done == 4
    await answers.once(("root", "a"), OTHER, work)
    assert done == 5, "the oldest went"
    now_ms += repeating.KEPT_MS
    await answers.once(("root", "d"), OTHER, work)
    assert done == 6, "a day is over"
    monkeypatch.setattr(repeating, "KEPT_BYTES_MAX", 15)
    for key in "efg":
        await answers.once(("root", key), ONE, work)
    await answers.once(("root", "e"), OTHER, work)
    assert done == 10
    with pytest.raises(NotFoundError):
        await answers.once(("root", "z"), ONE, fail)
    await answers.once(("root", "z"), OTHER, work)


async def test_a_key_in_use_is_told_so() -> None:
    answers, started, go = Answers(lambda: 0), asyncio.Event(), asyncio.Event()

    async def work() -> web.Response:
        started.set()
        await go.wait()
        return web.Response(body=b"")

    async with asyncio.TaskGroup() as group:
        group.create_task(answers.once(("root", "a"), ONE, work))
        await started.wait()
        with pytest.raises(ConflictError) as caught:
            await answers.once(("root", "a"), ONE, work)
        assert caught.value.error_code == "key-in-use"
        go.set()


async def test_an_edit_of_what_was_changed_meanwhile_is_refused(door: Door) -> None:
    seen = (await door.ask("GET", "/shares/munki")).headers["etag"]
    changed = await door.ask("PATCH", "/shares/munki", {"public": False}, headers={"If-Match": seen})
    assert (changed.status, changed.headers["etag"] == seen) == (200, False)
    late = await door.ask("PATCH", "/shares/munki", {"stages": ["prod"]}, headers={"If-Match": seen})
    assert (late.status, late.json["code"]) == (412, "stale")
    assert (await door.ask("GET", "/shares/munki")).headers["etag"] == changed.headers["etag"]
    for tag in (changed.headers["etag"], f'"{"0" * 32}", {changed.headers["etag"]}', "*"):
        assert (await door.ask("PATCH", "/shares/munki", {}, headers={"If-Match": tag})).status == 200
    assert (await door.ask("PATCH", "/shares/none", {}, headers={"If-Match": "*"})).status == 404


async def test_of_two_edits_at_once_one_is_refused(door: Door) -> None:
    seen = (await door.ask("GET", "/shares/munki")).headers["etag"]
    edits = [door.ask("PATCH", "/shares/munki", {"stages": [stage]}, headers={"If-Match": seen}) for stage in ("dev", "test", "prod")]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(edit) for edit in edits]
    assert sorted(task.result().status for task in tasks) == [200, 412, 412]


async def test_the_state_of_a_member_is_its_rights(door: Door) -> None:
    ber = await door.admit("ber1", site="Berlin")
    seen = (await door.ask("GET", "/members/ber1")).headers["etag"]
    ber.says("munki")
    assert (await door.ask("GET", "/members/ber1")).headers["etag"] == seen, "that it is heard of changes nothing that can be edited"
    for method, body in (("PATCH", {"site": "Paris"}), ("DELETE", None)):
        reply = await door.ask(method, "/members/ber1", body, headers={"If-Match": f'"{"0" * 32}"'})
        assert (reply.status, reply.json["code"]) == (412, "stale")
