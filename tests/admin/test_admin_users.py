"""The people whom a node itself knows: made, changed and removed by admins, their passwords and second factors."""

from __future__ import annotations

import time
from typing import Any

import pytest

from replicad.catalog import users
from replicad.crypto import totp
from support.admin_door import TOKEN, Door, Reply

ROOT = {"Authorization": f"Bearer {TOKEN}"}
PASSWORD, OTHER = "correct horse", "battery staple"
JANE = {"name": "jane", "password": PASSWORD, "role": "viewer"}


async def login(door: Door, name: str = "jane", password: str = PASSWORD, **more: Any) -> Reply:
    return await door.ask("POST", "/sessions", {"name": name, "password": password, **more}, over_tcp=True)


async def bearer(door: Door, name: str = "jane", password: str = PASSWORD, **more: Any) -> dict[str, str]:
    reply = await login(door, name, password, **more)
    assert reply.status == 200, reply.body
    return {"Authorization": f"Bearer {reply.json['secret']}"}


async def test_the_life_of_a_user(door: Door) -> None:
    made = (await door.ask("POST", "/users", {**JANE, "shares": ["munki"], "path": "Apps/"})).json["user"]
    assert {**made, "created": ""} == {
        "name": "jane", "role": "viewer", "shares": ["munki"], "path": "apps", "enabled": True, "totp": False, "created": "", "login": None
    }  # fmt: skip
    assert (await door.ask("POST", "/users", {**JANE, "name": "JANE"})).json["code"] == "user-exists"
    await bearer(door, "Jane")
    changed = (await door.ask("PATCH", "/users/jane", {"role": "operator", "shares": None, "path": ""})).json["user"]
    assert (changed["role"], changed["shares"], changed["path"], changed["login"] is not None) == ("operator", None, "", True)
    assert (await door.ask("GET", "/users")).json["users"] == [changed]
    assert (await door.ask("DELETE", "/users/jane")).json["user"] == changed
    assert (await login(door)).status == 401
    for file in door.data.glob("catalog.sqlite*"):
        assert PASSWORD.encode() not in file.read_bytes(), "only a verifier is kept"


async def test_users_are_edited_with_if_match(door: Door) -> None:
    await door.ask("POST", "/users", JANE)
    tag = (await door.ask("GET", "/users/jane")).headers["etag"]
    assert (await door.ask("PATCH", "/users/jane", {"role": "admin"}, headers={"If-Match": tag})).status == 200
    reply = await door.ask("PATCH", "/users/jane", {"role": "viewer"}, headers={"If-Match": tag})
    assert (reply.status, reply.json["code"]) == (412, "stale")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "named"),
    [
        ("POST", "/users", {}, 400, "name"),
        ("POST", "/users", {**JANE, "name": "jane doe"}, 400, "name"),
        ("POST", "/users", {**JANE, "password": "short"}, 400, "password"),
        ("POST", "/users", {**JANE, "password": "x" * 257}, 400, "password"),
        ("POST", "/users", {**JANE, "role": "king"}, 400, "role"),
        ("POST", "/users", {**JANE, "shares": ["Not A Share"]}, 400, "share name"),
        ("POST", "/users", {**JANE, "path": "../a"}, 400, "path"),
        ("PATCH", "/users/bob", {"path": "../a"}, 400, "path"),
        ("PATCH", "/users/bob", {"enabled": "no"}, 400, "enabled"),
        ("PATCH", "/users/nobody", {"enabled": False}, 404, "nobody"),
        ("DELETE", "/users/nobody", None, 404, "nobody"),
        ("GET", "/users/nobody", None, 404, "nobody"),
        ("PUT", "/users/bob/password", {"password": "short"}, 400, "password"),
        ("PUT", "/users/nobody/password", {"password": OTHER}, 404, "nobody"),
        ("POST", "/users/nobody/totp", {}, 404, "nobody"),
        ("PUT", "/users/bob/totp", {"code": "12345"}, 400, "code"),
        ("PUT", "/users/bob/totp", {"code": "123456"}, 400, "code"),
        ("DELETE", "/users/nobody/totp", None, 404, "nobody"),
    ],
)
async def test_what_is_wrong_is_named_and_changes_nothing(door: Door, method: str, path: str, body: Any, status: int, named: str) -> None:
    await door.ask("POST", "/users", {**JANE, "name": "bob"})
    before = (await door.ask("GET", "/users")).json
    reply = await door.ask(method, path, body)
    assert (reply.status, named in reply.json["detail"]) == (status, True), reply.body
    assert PASSWORD not in reply.body.decode()
    assert (await door.ask("GET", "/users")).json == before


async def test_there_are_not_too_many(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "USERS_MAX", 1)
    await door.ask("POST", "/users", JANE)
    assert (await door.ask("POST", "/users", {**JANE, "name": "bob"})).json["code"] == "busy"


async def test_who_may_change_a_password(door: Door) -> None:
    for name, role in (("jane", "viewer"), ("root", "admin")):
        await door.ask("POST", "/users", {**JANE, "name": name, "role": role})
    jane, root = await bearer(door), await bearer(door, "root")
    limited = (await door.ask("POST", "/tokens", {"role": "admin", "shares": ["munki"]})).json["secret"]
    script = {"Authorization": f"Bearer {limited}"}

    async def change(who: dict[str, str], name: str, **more: Any) -> tuple[int, str]:
        reply = await door.ask("PUT", f"/users/{name}/password", {"password": OTHER, **more}, headers=who, over_tcp=True)
        return reply.status, reply.json.get("code", "")

    assert await change(jane, "root") == (404, "no-such-user"), "others do not exist for her"
    assert await change(script, "jane") == (404, "no-such-user"), "an admin of one share is none of the node"
    assert await change(jane, "jane") == (400, "bad-input")
    assert await change(root, "root") == (400, "bad-input"), "a session alone does not do for the own one"
    assert await change(jane, "jane", current="wrong") == (401, "wrong-login")
    assert (await login(door)).status == 200, "nothing has changed"
    assert await change(jane, "JANE", current=PASSWORD) == (200, "")
    assert ((await login(door)).status, (await login(door, password=OTHER)).status) == (401, 200)
    assert await change(root, "jane") == (200, "")


async def test_a_second_factor(door: Door) -> None:
    now_s = [time.time_ns() // 1_000_000_000]
    for part in (door.services.users, door.services.logins):
        object.__setattr__(part, "clock_ms", lambda: now_s[0] * 1000)
    await door.ask("POST", "/users", JANE)
    jane = await bearer(door)

    async def own(method: str, body: Any) -> Reply:
        return await door.ask(method, "/users/jane/totp", body, headers=jane, over_tcp=True)

    async def offered() -> bytes:
        known = await door.services.catalog.user_secrets("jane")
        assert known is not None
        assert known.totp_offered is not None
        return known.totp_offered

    assert (await own("POST", {})).status == 200
    shown = (await own("POST", {})).json
    secret = await offered()
    assert shown == {"uri": totp.uri(secret, name="jane", issuer="replicad ams1"), "secret": totp.text(secret)}

    def code(ahead: int = 0) -> str:
        return totp.code_of(secret, now_s[0] // totp.STEP_S + ahead)

    assert (await login(door)).status == 200, "it does not count yet"
    assert (await own("PUT", {"code": code(7)})).status == 400
    assert (await own("PUT", {"code": code()})).json["user"]["totp"]
    assert (await login(door)).json["code"] == "code-needed"
    assert (await login(door, password="wrong")).json["code"] == "wrong-login", "who guesses is not told of it"
    assert (await login(door, password="wrong", code=code(1))).json["code"] == "wrong-login"
    assert (await login(door, code=code())).json["code"] == "wrong-login", "the code that confirmed it was good once"
    assert (await login(door, code=code(1))).status == 200
    assert (await login(door, code=code(1))).json["code"] == "wrong-login", "once"
    assert (await login(door, code=code())).json["code"] == "wrong-login", "nor an older one"
    now_s[0] += 3 * totp.STEP_S
    assert (await login(door, code=code())).status == 200
    assert (await own("POST", {})).json["code"] == "totp-enabled", "a session alone cannot replace it"
    assert (await own("DELETE", None)).json["code"] == "not-allowed"
    assert not (await door.ask("DELETE", "/users/jane/totp")).json["user"]["totp"]
    assert (await login(door)).status == 200
    assert totp.text(secret) not in (await door.ask("GET", "/audit/log")).body.decode()
