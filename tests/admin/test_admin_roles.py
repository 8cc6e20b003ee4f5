"""Who may ask what: every route by every role, and what a token that is limited to a share and a directory sees and can do. A route without a line here is a failure."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest

from replicad.catalog import Token
from replicad.model.callers import AccessRole
from replicad.model.ids import Digest
from replicad.server.admin.application import ROUTES
from support.admin_door import TOKEN, Door

VIEWER, PUBLISHER, OPERATOR, ADMIN = AccessRole
NODE, SHARE, SCOPED = "about the node", "about a share", "shows and does what the caller may"
DIGEST = "00" * 32
NEW = {"path": "PATH", "sha256": DIGEST, "size": 0}


@dataclass
class Line:
    """The least role, what it is about, and a body that is well-formed; SHARE and PATH stand for a share and a name in it."""

    role: AccessRole
    about: str
    body: dict[str, Any] | None = field(default=None)


TABLE = {
    "GET /status": Line(VIEWER, NODE),
    "GET /node": Line(VIEWER, SCOPED),
    "POST /node/rotate": Line(ADMIN, NODE, {}),
    "GET /doctor": Line(VIEWER, NODE),
    "GET /openapi.json": Line(VIEWER, SCOPED),
    "GET /whoami": Line(VIEWER, SCOPED),
    "POST /sessions": Line(VIEWER, SCOPED, {"name": "x", "password": "x"}),
    "DELETE /sessions/current": Line(VIEWER, SCOPED),
    "GET /users": Line(ADMIN, NODE),
    "POST /users": Line(ADMIN, NODE, {"name": "x", "password": "long enough", "role": "viewer"}),
    "GET /users/{user}": Line(ADMIN, NODE),
    "PATCH /users/{user}": Line(ADMIN, NODE, {}),
    "DELETE /users/{user}": Line(ADMIN, NODE),
    "PUT /users/{user}/password": Line(VIEWER, SCOPED, {"password": "long enough"}),
    "POST /users/{user}/totp": Line(VIEWER, SCOPED, {}),
    "PUT /users/{user}/totp": Line(VIEWER, SCOPED, {"code": "123456"}),
    "DELETE /users/{user}/totp": Line(ADMIN, NODE),
    "GET /tokens": Line(ADMIN, NODE),
    "POST /tokens": Line(ADMIN, NODE, {"role": "viewer"}),
    "DELETE /tokens/{token}": Line(ADMIN, NODE),
    "GET /members": Line(VIEWER, NODE),
    "POST /members/join": Line(ADMIN, NODE, {}),
    "GET /members/{id}": Line(VIEWER, NODE),
    "PATCH /members/{id}": Line(ADMIN, NODE, {}),
    "DELETE /members/{id}": Line(ADMIN, NODE),
    "POST /members/{id}/approve": Line(ADMIN, NODE, {}),
    "POST /members/{id}/revoke": Line(ADMIN, NODE, {}),
    "POST /members/{id}/check": Line(OPERATOR, NODE, {}),
    "PUT /members/{id}/limit": Line(OPERATOR, NODE, {"rate": "none"}),
    "POST /members/{id}/pause": Line(OPERATOR, NODE, {}),
    "POST /members/{id}/resume": Line(OPERATOR, NODE, {}),
    "GET /limits": Line(VIEWER, NODE),
    "PATCH /limits": Line(OPERATOR, NODE, {}),
    "GET /config": Line(OPERATOR, NODE),
    "POST /reload": Line(OPERATOR, NODE, {}),
    "POST /invites": Line(ADMIN, NODE, {}),
    "GET /audit": Line(VIEWER, NODE),
    "GET /audit/log": Line(ADMIN, NODE),
    "GET /audit/verify": Line(ADMIN, NODE),
    "GET /shares": Line(VIEWER, SCOPED),
    "POST /shares": Line(ADMIN, NODE, {"name": "x"}),
    "GET /shares/{share}": Line(VIEWER, SCOPED),
    "PATCH /shares/{share}": Line(ADMIN, SHARE, {}),
    "DELETE /shares/{share}": Line(ADMIN, SHARE),
    "POST /shares/{share}/tokens": Line(ADMIN, SHARE, {"name": "x"}),
    "DELETE /shares/{share}/tokens/{name}": Line(ADMIN, SHARE),
    "POST /shares/{share}/urls": Line(PUBLISHER, SHARE, {"path": "PATH"}),
    "GET /munki": Line(VIEWER, NODE),
    "GET /entries": Line(VIEWER, SCOPED),
    "POST /shares/{share}/entries": Line(PUBLISHER, SHARE, {"entries": [NEW], "dry_run": True}),
    "GET /shares/{share}/entries/{path}": Line(VIEWER, SHARE),
    "PUT /blobs": Line(PUBLISHER, SCOPED, {}),
    "POST /blobs": Line(PUBLISHER, SCOPED, {}),
    "PUT /shares/{share}/files/{path}": Line(PUBLISHER, SHARE, {}),
    "GET /shares/{share}/files/{path}": Line(VIEWER, SHARE),
    "OPTIONS /uploads": Line(VIEWER, SCOPED),
    "POST /uploads": Line(PUBLISHER, SCOPED, {}),
    "HEAD /uploads/{upload}": Line(PUBLISHER, SCOPED),
    "PATCH /uploads/{upload}": Line(PUBLISHER, SCOPED, {}),
    "DELETE /uploads/{upload}": Line(PUBLISHER, SCOPED),
    "POST /shares/{share}/promote": Line(PUBLISHER, SHARE, {"path": "PATH", "to": "prod"}),
    "POST /shares/{share}/remove": Line(PUBLISHER, SHARE, {"paths": ["PATH"], "dry_run": True}),
    "POST /shares/{share}/undelete": Line(PUBLISHER, SHARE, {"path": "PATH"}),
    "POST /shares/{share}/rollback": Line(PUBLISHER, SHARE, {"path": "PATH"}),
    "GET /shares/{share}/history/{path}": Line(VIEWER, SHARE),
    "GET /takedowns": Line(VIEWER, NODE),
    "PUT /takedowns/{sha256}": Line(ADMIN, NODE, {}),
    "DELETE /takedowns/{sha256}": Line(ADMIN, NODE),
    "GET /matrix": Line(VIEWER, SCOPED),
    "GET /transfers": Line(VIEWER, SCOPED),
    "GET /store/usage": Line(VIEWER, NODE),
    "POST /store/scrub": Line(OPERATOR, NODE, {}),
    "POST /store/gc": Line(OPERATOR, NODE, {}),
    "POST /store/repair": Line(OPERATOR, NODE, {}),
    "GET /backup": Line(ADMIN, NODE),
    "POST /wait": Line(VIEWER, SCOPED, {"share": "SHARE", "entries": [{"path": "PATH"}], "timeout_s": 0}),
}


async def token(door: Door, role: AccessRole, **limits: Any) -> dict[str, str]:
    """The header of a new token."""
    reply = await door.ask("POST", "/tokens", {"role": role, **limits})
    assert reply.status == 200, reply.body
    return {"Authorization": f"Bearer {reply.json['secret']}"}


def filled(thing: Any, **values: str) -> Any:
    """With SHARE and PATH replaced."""
    if isinstance(thing, dict):
        return {key: filled(value, **values) for key, value in thing.items()}
    if isinstance(thing, list):
        return [filled(one, **values) for one in thing]
    return values.get(thing, thing) if isinstance(thing, str) else thing


def test_every_route_has_a_line() -> None:
    routes = {f"{route.method} {route.path.replace(':.+', '')}": route for route in ROUTES}
    assert TABLE.keys() == routes.keys()
    assert {name: line.role for name, line in TABLE.items()} == {name: route.role for name, route in routes.items()}


async def test_every_route_by_every_role(door: Door) -> None:
    for role in AccessRole:
        bearer = await token(door, role)
        for name, line in TABLE.items():
            method, path = name.split(" ")
            path = re.sub("{[a-z0-9]+}", "x", path)
            nonsense: dict[str, Any] = (
                {"body": {"nonsense": 1}} if line.body is not None and not path.startswith(("/blobs", "/uploads")) and "files" not in path else {}
            )
            reply = await door.ask(method, path if nonsense else f"{path}?nonsense=1", headers=bearer, over_tcp=True, **nonsense)
            allowed = role.includes(line.role)
            expected = (400, "bad-input") if allowed else (403, "not-allowed")
            assert (reply.status, reply.json["code"] if method != "HEAD" else expected[1]) == expected, (name, role)


async def test_every_route_by_a_limited_token(door: Door) -> None:
    """As admin of munki/apps: nothing about the node, nothing of another share, nothing beside that directory."""
    bearer, of_share, of_path = [
        await token(door, ADMIN, **limits) for limits in ({"shares": ["munki"], "path": "Apps"}, {"shares": ["munki"]}, {"path": "Apps"})
    ]
    places = {(share, path): (share, path) == ("munki", "aPPs/a.pkg") for share in ("munki", "jamf") for path in ("aPPs/a.pkg", "apps2/a.pkg", "a.pkg")}
    for name, line in TABLE.items():
        method, template = name.split(" ")
        if line.about == NODE:
            for limited in (bearer, of_share, of_path):
                reply = await door.ask(method, re.sub("{[a-z0-9]+}", "x", template), line.body, headers=limited, over_tcp=True)
                assert (reply.status, reply.json["code"]) == (403, "not-allowed"), name
            continue
        if line.about == SCOPED and "SHARE" not in str(line.body):
            continue
        named = "{path}" in template or "PATH" in str(line.body)
        for (share, path), within in places.items():
            target = template.replace("{share}", share).replace("{path}", quote(path, safe="")).replace("{name}", "x")
            body = filled(line.body, SHARE=share, PATH=path)
            reply = await door.ask(method, target, b"" if "/files/" in target and method == "PUT" else body, headers=bearer, over_tcp=True)
            refused = (reply.status, reply.json["code"]) == (403, "not-allowed") if reply.status >= 400 else False
            assert refused == (not (within and named)), (name, share, path, reply.body)


async def test_lists_show_what_the_token_may_see(door: Door) -> None:
    for share in ("munki", "jamf"):
        for path in ("apps/a.pkg", "other/b.pkg"):
            await door.publish(share, path, path.encode())
    seen = {}
    for name, limits in {"all": {}, "share": {"shares": ["jamf"]}, "path": {"path": "apps/"}, "both": {"shares": ["jamf"], "path": "apps"}}.items():
        bearer = await token(door, VIEWER, **limits)
        for noun, key in (("entries", "entries"), ("matrix", "rows")):
            listed = (await door.ask("GET", f"/{noun}", headers=bearer, over_tcp=True)).json[key]
            seen[name, noun] = {f"{one['share']}/{one['path']}" for one in listed}
        shares = [one["name"] for one in (await door.ask("GET", "/shares", headers=bearer, over_tcp=True)).json["shares"]]
        assert shares == limits.get("shares", ["jamf", "munki"])
    apps = {"jamf/apps/a.pkg", "munki/apps/a.pkg"}
    everything = {*apps, "jamf/other/b.pkg", "munki/other/b.pkg"}
    expected = {"all": everything, "share": {"jamf/apps/a.pkg", "jamf/other/b.pkg"}, "path": apps, "both": {"jamf/apps/a.pkg"}}
    assert seen == {(name, noun): names for name, names in expected.items() for noun in ("entries", "matrix")}
    gone = await token(door, VIEWER, shares=["fonts"])
    reply = await door.ask("GET", "/shares/fonts/entries/a", headers=gone, over_tcp=True)
    assert (reply.status, "munki" in reply.json["detail"]) == (404, False), "the names of other shares are nothing for it"


async def test_the_life_of_a_token(door: Door) -> None:
    reply = await door.ask("POST", "/tokens", {"role": "publisher", "name": "ci", "shares": ["munki"], "path": "apps/", "expires_s": 3600})
    made, secret = reply.json["token"], reply.json["secret"]
    assert (made["name"], made["role"], made["shares"], made["path"], made["used"], made["expired"]) == ("ci", "publisher", ["munki"], "apps", None, False)
    assert secret.startswith("replicad_")
    assert (await door.ask("POST", "/tokens", {"role": "viewer", "name": "ci"})).json["code"] == "token-exists"
    assert (await door.ask("POST", "/tokens", {"role": "viewer", "name": made["id"]})).json["code"] == "token-exists"
    bearer = {"Authorization": f"Bearer {secret}"}
    who = await door.ask("GET", "/whoami", headers=bearer, over_tcp=True)
    assert who.json == {
        "name": "token ci",
        "role": "publisher",
        "shares": ["munki"],
        "path": "apps",
        "via": "token",
        "user": None,
        "expires": None,
        "csrf": None,
    }
    reply = await door.ask("GET", "/tokens")
    [listed] = reply.json["tokens"]
    assert listed["used"] is not None
    assert secret.encode() not in reply.body
    for file in door.data.glob("catalog.sqlite*"):
        assert secret.encode() not in file.read_bytes(), "only its hash is kept"
    assert (await door.ask("DELETE", "/tokens/ci")).json["token"]["id"] == made["id"]
    reply = await door.ask("GET", "/whoami", headers=bearer, over_tcp=True)
    assert (reply.status, reply.json["code"]) == (401, "unauthorized")
    assert (await door.ask("DELETE", "/tokens/ci")).json["code"] == "no-such-token"


async def test_an_expired_token_is_told_so(door: Door) -> None:
    hashed = Digest(hashlib.sha256(b"replicad_old").digest())
    await door.services.catalog.add_token(Token("1", "old", ADMIN, None, "", created_ms=1, expires_ms=door.services.clock_ms()), hashed)
    reply = await door.ask("GET", "/node", headers={"Authorization": "Bearer replicad_old"}, over_tcp=True)
    assert (reply.status, reply.json["code"]) == (401, "token-expired")
    [listed] = (await door.ask("GET", "/tokens")).json["tokens"]
    assert (listed["expired"], listed["used"]) == (True, None)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "role"),
        ({"role": "king"}, "role"),
        ({"role": "admin", "name": "a b"}, "name"),
        ({"role": "admin", "shares": []}, "shares"),
        ({"role": "admin", "shares": ["Not A Share"]}, "share name"),
        ({"role": "admin", "path": "../a"}, "path"),
        ({"role": "admin", "expires_s": 0}, "expires_s"),
    ],
)
async def test_a_token_out_of_bounds(door: Door, body: dict[str, Any], named: str) -> None:
    reply = await door.ask("POST", "/tokens", body)
    assert reply.status == 400
    assert named in reply.json["detail"]
    assert (await door.ask("GET", "/tokens")).json["tokens"] == []


async def test_who_asks(door: Door) -> None:
    root = await door.ask("GET", "/whoami", headers={"Authorization": f"Bearer {TOKEN}"}, over_tcp=True)
    assert (root.json["name"], root.json["role"], root.json["shares"], root.json["path"], root.json["via"]) == ("root token", "admin", None, "", "root-token")
    local = (await door.ask("GET", "/whoami")).json
    assert local["name"] == f"socket uid {os.geteuid()} ({pwd.getpwuid(os.geteuid()).pw_name})"
    assert (local["role"], local["via"]) == ("admin", "socket")
