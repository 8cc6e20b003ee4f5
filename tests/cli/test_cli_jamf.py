"""jamf register and status against a stand-in for Jamf Pro that is written from its API's documentation: whole records, filters, tokens, refusals."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cli_terminal import Terminal

from replicad.errors import InputError
from replicad.integrations import jamf
from support.admin_door import Door

SECRET = "the client's secret"
REQUIRED = {"packageName", "fileName", *jamf.NEW_PACKAGE}
ROOMS = {"packages": "fileName", "distribution-points": "name"}


class JamfPro(ThreadingHTTPServer):
    """``rooms``: the records by collection and id. ``old``: only the older address gives tokens."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.rooms: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in ROOMS}
        self.old = False
        self.may = True
        self.writes: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/jss"


class Handler(BaseHTTPRequestHandler):
    server: JamfPro

    def log_message(self, *_: object) -> None:
        """Silent."""

    def answer(self, status: int, body: Any) -> None:
        encoded = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def room(self) -> tuple[str, str, dict[str, list[str]]]:
        """(collection, id, query) of a call that bears the token."""
        parts = urlsplit(self.path)
        assert parts.path.startswith("/jss/api/v1/")
        assert self.headers["Authorization"] == "Bearer a-token"
        name, _, record = parts.path.removeprefix("/jss/api/v1/").partition("/")
        return name, record, parse_qs(parts.query)

    def do_GET(self) -> None:
        name, _, query = self.room()
        if not self.server.may:
            self.answer(403, {"httpStatus": 403, "errors": []})
            return
        [wanted] = query["filter"]
        value = wanted.removeprefix(f'{ROOMS[name]}=="').removesuffix('"').lower()
        found = [record for record in self.server.rooms[name].values() if value in record[ROOMS[name]].lower()]
        self.answer(200, {"totalCount": len(found), "results": found})

    def do_POST(self) -> None:
        if self.path.endswith("/oauth/token"):
            form = parse_qs(self.body().decode())
            if self.server.old and "/v1/" in self.path:
                self.answer(404, None)
            elif (form["grant_type"], form["client_id"], form["client_secret"]) == (["client_credentials"], ["replicad"], [SECRET]):
                self.answer(200, {"access_token": "a-token", "expires_in": 60, "token_type": "Bearer", "scope": ""})
            else:
                self.answer(401, {"error": "invalid_client"})
            return
        name, _, _ = self.room()
        record, room = json.loads(self.body()), self.server.rooms[name]
        if name == "packages" and not record.keys() >= REQUIRED:
            self.answer(400, {"errors": [{"code": "REQUIRED", "description": f"{sorted(REQUIRED - record.keys())} missing"}]})
            return
        number = str(len(room) + 1)
        room[number] = {"id": number, **record}
        self.server.writes.append(("POST", record[ROOMS[name]]))
        self.answer(201, {"id": number, "href": f"/v1/{name}/{number}"})

    def do_PUT(self) -> None:
        name, number, _ = self.room()
        record = json.loads(self.body())
        self.server.rooms[name][number] = {**record, "id": number}
        self.server.writes.append(("PUT", record[ROOMS[name]]))
        self.answer(200, self.server.rooms[name][number])


@pytest.fixture
def jamf_pro() -> Iterator[JamfPro]:
    with JamfPro() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def options(server: JamfPro, tmp_path: Path, *more: str, client_id: str = "replicad") -> list[str]:
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    return ["--server", server.url, "--client-id", client_id, "--secret-file", str(secret), "--share", "jamf", *more]


async def test_packages_and_a_distribution_point_are_registered_once(door: Door, terminal: Terminal, jamf_pro: JamfPro, tmp_path: Path) -> None:
    for path, content in {
        "Packages/Editor 1.pkg": b"one",
        "Packages/Fonts.dmg": b"two",
        "Packages/notes.txt": b"no",
        "Packages/old/X.pkg": b"no",
        "Y.pkg": b"no",
    }.items():
        await door.publish("jamf", path, content)
    jamf_pro.rooms["packages"]["7"] = {"id": "7", "fileName": "Fonts.dmg", "packageName": "The fonts", "categoryId": "3", "notes": "ask Jane", "sha256": "old"}
    jamf_pro.rooms["packages"]["8"] = {"id": "8", "fileName": "Old Editor 1.pkg", "packageName": "another one"}
    point = ("--point", "replicad-ams", "--node-url", "https://ams.example.org:8443/base")
    told = (await terminal.json("jamf", "status", *options(jamf_pro, tmp_path, *point)))["records"]
    assert [(one["action"], one["name"]) for one in told] == [("create", "replicad-ams"), ("create", "Editor 1.pkg"), ("update", "Fonts.dmg")]
    assert await terminal.json("jamf", "register", "--dry-run", *options(jamf_pro, tmp_path, *point)) == {"records": told, "written": False}
    assert jamf_pro.writes == []

    assert (await terminal.json("jamf", "register", *options(jamf_pro, tmp_path, *point)))["written"]
    assert jamf_pro.writes == [("POST", "replicad-ams"), ("POST", "Editor 1.pkg"), ("PUT", "Fonts.dmg")]
    fonts = jamf_pro.rooms["packages"]["7"]
    assert (fonts["packageName"], fonts["categoryId"], fonts["notes"]) == ("The fonts", "3", "ask Jane"), "what others wrote stays"
    assert (fonts["hashType"], fonts["hashValue"], fonts["sha256"]) == ("SHA_512", hashlib.sha512(b"two").hexdigest(), hashlib.sha256(b"two").hexdigest())
    [made] = jamf_pro.rooms["distribution-points"].values()
    assert (made["serverName"], made["httpsPort"], made["httpsContext"], made["httpsEnabled"]) == ("ams.example.org", 8443, "base/jamf", True)

    jamf_pro.old = True
    again = await terminal.json("jamf", "register", *options(jamf_pro, tmp_path, *point))
    assert {one["action"] for one in again["records"]} == {"unchanged"}
    assert len(jamf_pro.writes) == 3


async def test_what_is_not_everywhere_waits(door: Door, terminal: Terminal, jamf_pro: JamfPro, tmp_path: Path) -> None:
    await door.publish("jamf", "Packages/Editor.pkg", b"one")
    await door.admit("ber1")
    code, out, _ = await terminal.run("jamf", "register", *options(jamf_pro, tmp_path))
    assert (code, out.split()[-3:]) == (3, ["waiting", "package", "Editor.pkg"])
    assert jamf_pro.writes == []


async def test_refusals_say_what_to_do(door: Door, terminal: Terminal, jamf_pro: JamfPro, tmp_path: Path) -> None:
    await door.publish("jamf", "Packages/Editor.pkg", b"one")
    code, _, err = await terminal.run("jamf", "register", *options(jamf_pro, tmp_path, client_id="nobody"))
    assert (code, "does not take this API client (401)" in err, SECRET in err) == (6, True, False)
    code, _, err = await terminal.run("jamf", "register", *options(jamf_pro, tmp_path, "--point", "x"))
    assert (code, "needs the https address" in err) == (2, True)
    jamf_pro.may = False
    code, _, err = await terminal.run("jamf", "register", *options(jamf_pro, tmp_path))
    assert (code, "refuses GET /api/v1/packages (403)" in err) == (6, True)
    with pytest.raises(InputError, match="write https://"):
        jamf.JamfPro("http://jamf.example.org")
