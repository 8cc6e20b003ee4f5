"""Logging in and out: sessions of people and of browsers, what ends them, and who guesses."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import pytest
from test_admin_users import JANE, OTHER, PASSWORD, ROOT, bearer, login

from replicad.catalog import sessions as stored
from replicad.crypto.passwords import NOBODY
from replicad.errors import UnreachableError
from replicad.model.callers import AccessRole, Account, Source
from replicad.server.admin import actions
from replicad.services.identity import Guesses, argon
from replicad.services.identity.sessions import IDLE_S, LIFE_S
from support.admin_door import Door, Reply

ADMIN = {**JANE, "role": "admin"}


@pytest.fixture
async def jane(door: Door) -> Door:
    """A door that knows an admin."""
    await door.ask("POST", "/users", ADMIN)
    return door


def advance(door: Door, seconds: float) -> None:
    """Later, for sessions."""
    sessions = door.services.sessions
    later_ms = sessions.clock_ms() + int(seconds * 1000)
    object.__setattr__(sessions, "clock_ms", lambda: later_ms)


async def whoami(door: Door, who: dict[str, str]) -> Reply:
    return await door.ask("GET", "/whoami", headers=who, over_tcp=True)


async def test_a_person_logs_in_and_out(jane: Door) -> None:
    first, second = await login(jane), await login(jane)
    assert first.json["secret"] != second.json["secret"]
    assert "set-cookie" not in first.headers
    who = {"Authorization": f"Bearer {first.json['secret']}"}
    assert (await whoami(jane, who)).json == first.json["session"]
    assert {**first.json["session"], "expires": ""} == {
        "name": "user jane", "role": "admin", "shares": None, "path": "", "via": "session", "user": "jane", "expires": "", "csrf": None
    }  # fmt: skip
    for file in jane.data.glob("catalog.sqlite*"):
        assert first.json["secret"].encode() not in file.read_bytes(), "only its hash is kept"
    assert (await jane.ask("DELETE", "/sessions/current", headers=who, over_tcp=True)).status == 200
    assert (await whoami(jane, who)).json["code"] == "session-ended"
    assert (await whoami(jane, {"Authorization": f"Bearer {second.json['secret']}"})).status == 200
    assert (await jane.ask("DELETE", "/sessions/current", headers=ROOT, over_tcp=True)).json["code"] == "no-session"


async def test_a_login_is_new_each_time_also_under_the_same_idempotency_key(jane: Door) -> None:
    body, key = {"name": "jane", "password": PASSWORD}, {"Idempotency-Key": "a"}
    secrets = {(await jane.ask("POST", "/sessions", body, headers=key, over_tcp=True)).json["secret"] for _ in range(2)}
    assert len(secrets) == 2


@pytest.mark.parametrize(("origin", "name", "secure"), [(None, "replicad", False), ("https://x", "__Host-replicad", True)])
async def test_the_cookie_of_a_browser(jane: Door, origin: str | None, name: str, *, secure: bool) -> None:
    headers = {"Origin": origin} if origin else {}
    reply = await jane.ask("POST", "/sessions", {"name": "jane", "password": PASSWORD, "cookie": True}, headers=headers, over_tcp=True)
    assert (reply.json["secret"], len(reply.json["session"]["csrf"])) == (None, 64)
    pair, *attributes = reply.headers["set-cookie"].split("; ")
    assert pair.startswith(f"{name}=replicad_session_")
    assert set(attributes) == {"HttpOnly", f"Max-Age={LIFE_S}", "Path=/", "SameSite=Strict", *(["Secure"] if secure else [])}
    cookie = {**headers, "Cookie": pair}
    assert (await whoami(jane, cookie)).json == reply.json["session"]
    shown = {**cookie, "X-CSRF-Token": reply.json["session"]["csrf"]}
    gone = await jane.ask("DELETE", "/sessions/current", headers=shown, over_tcp=True)
    assert gone.status == 200
    assert gone.headers["set-cookie"].startswith(f'{name}="";')
    assert (await whoami(jane, cookie)).json["code"] == "session-ended"


async def browser(door: Door) -> dict[str, str]:
    """The headers of a browser that is logged in, and shows what it must."""
    reply = await login(door, cookie=True)
    return {"Cookie": reply.headers["set-cookie"].split(";")[0], "X-CSRF-Token": reply.json["session"]["csrf"], "Origin": "http://x"}


BROWSERS: dict[str, dict[str, str | None]] = {
    "nothing shown": {"X-CSRF-Token": None},
    "something else shown": {"X-CSRF-Token": "0" * 64},
    "not even text": {"X-CSRF-Token": "\xff"},
    "from another page": {"Origin": "https://evil.example"},
    "from another port": {"Origin": "http://x:81"},
    "from nowhere": {"Origin": "null"},
}


@pytest.mark.parametrize("changed", BROWSERS.values(), ids=list(BROWSERS))
async def test_a_write_that_another_page_made_the_browser_ask_for(jane: Door, changed: dict[str, str | None]) -> None:
    good = await browser(jane)
    bad = {name: value for name, value in {**good, **changed}.items() if value is not None}
    for method, path, body in (("POST", "/shares", {"name": "fonts"}), ("DELETE", "/sessions/current", None), ("PUT", "/shares/munki/files/a", b"a")):
        reply = await jane.ask(method, path, body, headers=bad, over_tcp=True)
        assert (reply.status, reply.json["code"]) == (403, "csrf"), path
    assert [share["name"] for share in (await jane.ask("GET", "/shares", headers=bad, over_tcp=True)).json["shares"]] == ["jamf", "munki"]
    logged = (await jane.ask("GET", "/audit/log")).json["actions"]
    assert [(one["caller"], one["code"]) for one in logged[-3:]] == [("user jane", "csrf")] * 3
    assert (await jane.ask("POST", "/shares", {"name": "fonts"}, headers=good, over_tcp=True)).status == 200


async def test_another_page_cannot_log_a_browser_in(jane: Door) -> None:
    body = {"name": "jane", "password": PASSWORD, "cookie": True}
    reply = await jane.ask("POST", "/sessions", body, headers={"Origin": "https://evil.example"}, over_tcp=True)
    assert (reply.status, reply.json["code"], "set-cookie" in reply.headers) == (403, "csrf", False)


async def test_a_bearer_needs_no_proof_besides(jane: Door) -> None:
    who = {**await bearer(jane), "Origin": "https://elsewhere.example"}
    assert (await jane.ask("POST", "/shares", {"name": "fonts"}, headers=who, over_tcp=True)).status == 200


ENDINGS: dict[str, Any] = {
    "another password": ("PUT", "/users/jane/password", {"password": OTHER}),
    "disabled": ("PATCH", "/users/jane", {"enabled": False}),
    "removed": ("DELETE", "/users/jane", None),
    "idle": IDLE_S,
    "a day's work": LIFE_S,
    "not a session": None,
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("in_cookie", [False, True], ids=["bearer", "cookie"])
async def test_a_session_that_is_over_does_nothing(jane: Door, ending: str, *, in_cookie: bool) -> None:
    who = await (browser if in_cookie else bearer)(jane)
    assert (await jane.ask("POST", "/shares", {"name": "before"}, headers=who, over_tcp=True)).status == 200
    how = ENDINGS[ending]
    if isinstance(how, tuple):
        assert (await jane.ask(*how)).status == 200
    elif how is not None:
        advance(jane, how)
    else:
        who = {name: value.replace("replicad_session_", "replicad_session_x") for name, value in who.items()}
    before = (await jane.ask("GET", "/shares")).json
    for method, path, body in (("POST", "/shares", {"name": "fonts"}), ("GET", "/whoami", None), ("PUT", "/users/jane/password", {"password": OTHER})):
        reply = await jane.ask(method, path, body, headers=who, over_tcp=True)
        assert (reply.status, reply.json["code"]) == (401, "session-ended"), path
    assert (await jane.ask("GET", "/shares")).json == before


async def test_enabling_again_does_not_bring_sessions_back(jane: Door) -> None:
    who = await bearer(jane)
    for enabled in (False, True):
        await jane.ask("PATCH", "/users/jane", {"enabled": enabled})
        assert (await whoami(jane, who)).json["code"] == "session-ended"
        assert (await login(jane)).status == (200 if enabled else 401)


async def test_what_changes_while_somebody_logs_in_counts(jane: Door) -> None:
    """The password was right when it was looked at, and is another one when the session would begin."""
    known = await jane.services.catalog.user_secrets("jane")
    assert known is not None
    await jane.ask("PUT", "/users/jane/password", {"password": OTHER})
    add = jane.services.catalog.add_session
    assert not await add(known.user.account, stored.Digest(b"1" * 32), now_ms=1, verifier=known.verifier)


async def test_a_session_lives_while_it_is_used(jane: Door) -> None:
    who = await bearer(jane)
    for _ in range(LIFE_S // (IDLE_S - 60)):
        advance(jane, IDLE_S - 60)
        assert (await whoami(jane, who)).status == 200
    advance(jane, IDLE_S - 60)
    assert (await whoami(jane, who)).json["code"] == "session-ended", "but no longer than a working day"


async def test_other_rights_count_at_once(jane: Door) -> None:
    who = await bearer(jane)
    await jane.ask("PATCH", "/users/jane", {"role": "viewer", "shares": ["munki"]})
    assert (await jane.ask("POST", "/shares", {"name": "fonts"}, headers=who, over_tcp=True)).json["code"] == "not-allowed"
    found = (await whoami(jane, who)).json
    assert (found["role"], found["shares"]) == ("viewer", ["munki"])


async def test_the_longest_unused_makes_room(jane: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "SESSIONS_PER_PERSON_MAX", 2)
    people = []
    for _ in range(3):
        people.append(await bearer(jane))
        advance(jane, 1)
    assert [(await whoami(jane, who)).status for who in people] == [401, 200, 200]
    monkeypatch.setattr(stored, "SESSIONS_MAX", 1)
    await jane.ask("POST", "/users", {**JANE, "name": "bob"})
    bob = await bearer(jane, "bob")
    assert [(await whoami(jane, who)).status for who in (*people, bob)] == [401, 401, 401, 200]


async def test_who_guesses_waits_and_the_owner_too(jane: Door) -> None:
    now_s = [0.0]
    object.__setattr__(jane.services.logins, "guesses", Guesses(lambda: now_s[0]))
    for name in ("jane", "nobody"):
        wrong = [await login(jane, name, "wrong") for _ in range(5)]
        assert {(reply.status, reply.json["code"], reply.json["detail"]) for reply in wrong} == {(401, "wrong-login", "wrong name or password")}
        reply = await login(jane, name)
        assert (reply.status, reply.json["code"], reply.headers["retry-after"], reply.json["hint"]) == (429, "too-many-guesses", "1", "try again in 1 s")
    now_s[0] += 0.7
    assert (await login(jane)).json["hint"] == "try again in 1 s"
    now_s[0] -= 0.7
    session = {"Authorization": ""}
    now_s[0] += 1.0
    session = await bearer(jane)
    assert [(await login(jane, password="wrong")).status for _ in range(6)] == [401] * 5 + [429]
    assert (await whoami(jane, session)).status == 200, "who is logged in notices nothing"


async def test_a_name_that_does_not_exist_costs_the_same(jane: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    matches = argon.passwords.matches
    monkeypatch.setattr(argon.passwords, "matches", lambda verifier, given: seen.append(verifier) or matches(verifier, given))
    await jane.ask("PATCH", "/users/jane", {"enabled": False})
    for name in ("jane", "nobody"):
        assert (await login(jane, name)).status == 401
    assert [len(one) for one in seen] == [len(NOBODY)] * 2
    assert seen[0].split("$")[:4] == seen[1].split("$")[:4], "the same work"
    assert seen[1] == NOBODY


async def test_many_at_once_are_told_to_come_back(jane: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(argon, "WAITING_MAX", 2)
    replies = await asyncio.gather(*(login(jane, f"user{number}") for number in range(12)))
    busy = [reply for reply in replies if reply.status == 429]
    assert {(reply.json["code"], reply.headers["retry-after"]) for reply in busy} == {("busy", "1")}
    assert {reply.status for reply in replies} == {401, 429}


async def test_every_login_is_written_down(jane: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "REFUSALS_PER_MINUTE", 2)
    object.__setattr__(jane.services, "monotonic_ms", lambda: 0)
    session = await bearer(jane)
    for password in ("wrong1", "wrong2", "wrong3"):
        await login(jane, password=password)
    await jane.ask("DELETE", "/sessions/current", headers=session, over_tcp=True)
    reply = await jane.ask("GET", "/audit/log")
    told = [(one["caller"], one["origin"], one["method"], one["target"].removeprefix("/api/v1"), one["detail"], one["status"]) for one in reply.json["actions"]]
    assert told[1:] == [
        ("user jane", "127.0.0.1", "POST", "/sessions", "name jane", 200),
        ("", "127.0.0.1", "POST", "/sessions", "name jane", 401),
        ("", "127.0.0.1", "POST", "/sessions", "name jane", 401),
        ("user jane", "127.0.0.1", "DELETE", "/sessions/current", "1 refused logins before were not written", 200),
    ]
    assert told[0][3:5] == ("/users", "name jane; role admin")
    assert PASSWORD not in reply.body.decode()


class Directory:
    """People that this node does not know itself."""

    def __init__(self) -> None:
        self.people = {"carol": Account("carol", Source.LDAP, AccessRole.PUBLISHER, frozenset({"munki"}), "apps")}
        self.asked: list[str] = []
        self.is_down = False

    async def authenticate(self, name: str, password: str) -> Account | None:
        self.asked.append(name)
        if self.is_down:
            raise UnreachableError("ldap.example: connection refused")
        return self.people.get(name) if password == OTHER else None


async def test_people_of_a_directory(jane: Door) -> None:
    empty, full = Directory(), Directory()
    empty.people.clear()
    object.__setattr__(jane.services.logins, "directories", (empty, full))
    carol = await bearer(jane, "carol", OTHER)
    found = (await whoami(jane, carol)).json
    assert (found["name"], found["role"], found["shares"], found["path"], found["user"]) == ("user carol (ldap)", "publisher", ["munki"], "apps", None)
    assert (await login(jane, "jane", OTHER)).status == 401
    assert (await login(jane, "JANE", OTHER)).status == 401
    await bearer(jane)
    assert empty.asked == full.asked == ["carol"], "a local name is nobody else's"
    await jane.ask("POST", "/users", {**JANE, "name": "carol"})
    await jane.ask("DELETE", "/users/carol")
    assert (await whoami(jane, carol)).status == 200, "a local namesake is another person"
    empty.is_down = True
    reply = await login(jane, "carol", OTHER)
    assert (reply.status, reply.json["code"]) == (503, "unreachable")
    assert "Retry-After" not in reply.headers
    await bearer(jane)
    assert [(await login(jane, "carol", OTHER)).status for _ in range(8)] == [503] * 8, "that is no guess"


CONNECT = """
import os, socket, sys
os.setgroups([int(group) for group in sys.argv[2:]])
os.setgid(65533)
os.setuid(65533)
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
connection.sendall(b"GET /api/v1/whoami HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
print(b"".join(iter(lambda: connection.recv(65536), b"")).decode())
"""


@pytest.mark.parametrize(("is_member", "status"), [(False, 403), (True, 200)])
async def test_the_socket_is_for_root_and_its_group(door: Door, *, is_member: bool, status: int) -> None:
    """Whatever its mode says: a stranger's process, with and without the socket's group."""
    if os.geteuid() != 0:
        return
    group = 64_123
    for directory in (door.data, *door.data.parents):
        if directory.stat().st_mode & 0o001 == 0:
            directory.chmod(directory.stat().st_mode | 0o011)
    os.chown(door.socket, 0, group)
    door.socket.chmod(0o666)
    arguments = [str(door.socket), *([str(group)] if is_member else [])]
    stranger = await asyncio.create_subprocess_exec(sys.executable, "-I", "-c", CONNECT, *arguments, stdout=-1)
    out, _ = await stranger.communicate()
    head, _, body = out.decode().partition("\r\n\r\n")
    assert head.split(" ")[1] == str(status), out
    assert "socket uid 65533" in body
    logged = await door.services.catalog.actions(limit=10)
    assert [(one.target, one.status, one.code) for one in logged] == ([] if is_member else [("/api/v1/whoami", 403, "not-allowed")])


async def test_a_catalog_that_cannot_be_written_keeps_nobody_out(jane: Door) -> None:
    """Who has a session or a token, and looks what is wrong with the disk; monitoring does."""
    session = {"Authorization": f"Bearer {(await login(jane)).json['secret']}"}
    token = {"Authorization": f"Bearer {(await jane.ask('POST', '/tokens', {'role': 'viewer'})).json['secret']}"}
    advance(jane, 3600)
    await jane.services.catalog._database._writer.execute("PRAGMA query_only = ON")
    for who in (session, token):
        assert [(await jane.ask("GET", path, headers=who, over_tcp=True)).status for path in ("/whoami", "/status")] == [200, 200]
