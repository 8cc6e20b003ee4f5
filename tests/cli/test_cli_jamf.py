"""jamf register and status against a stand-in for Jamf Pro that is written from its API's documentation: whole records, filters, pages, tokens that end, refusals."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cli_terminal import Terminal

from replicad.errors import InputError, UnreachableError
from replicad.integrations import jamf
from replicad.services.checksums import Checksums
from support.admin_door import Door

SECRET = "the client's secret"
REQUIRED = {"packageName", "fileName", *jamf.NEW_PACKAGE}
SECRETS = {"readWritePassword"}
ROOMS = {"packages": "fileName", "distribution-points": "name"}


class JamfPro(ThreadingHTTPServer):
    """``rooms``: the records by collection and id; those of ``secrets`` are never said. ``old``: only the older address gives tokens. ``uses_left``: of the token."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.rooms: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in ROOMS}
        self.old = False
        self.tokens = 0
        self.uses_left = 1000
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

    def live(self) -> bool:
        """Whether the token is still good; the answer if it is not."""
        self.server.uses_left -= 1
        if self.server.uses_left < 0 or self.headers["Authorization"] != f"Bearer token-{self.server.tokens}":
            self.body()
            self.answer(401, {"httpStatus": 401, "errors": []})
            return False
        return True

    def room(self) -> tuple[str, str, dict[str, list[str]]]:
        """(collection, id, query) of a call."""
        parts = urlsplit(self.path)
        assert parts.path.startswith("/jss/api/v1/")
        name, _, record = parts.path.removeprefix("/jss/api/v1/").partition("/")
        return name, record, parse_qs(parts.query)

    def do_GET(self) -> None:
        if not self.live():
            return
        name, number, query = self.room()
        if not self.server.may:
            self.answer(403, {"httpStatus": 403, "errors": []})
            return
        if number:
            self.answer(200, {field: value for field, value in self.server.rooms[name][number].items() if field not in SECRETS})
            return
        [wanted], [page], [size] = query["filter"], query["page"], query["page-size"]
        value = wanted.removeprefix(f'{ROOMS[name]}=="').removesuffix('"').lower()
        found = [{"id": record["id"], ROOMS[name]: record[ROOMS[name]]} for record in self.server.rooms[name].values() if value in record[ROOMS[name]].lower()]
        self.answer(200, {"totalCount": len(found), "results": found[int(page) * int(size) :][: int(size)]})

    def do_POST(self) -> None:
        if self.path.endswith("/oauth/token"):
            form = parse_qs(self.body().decode())
            if self.server.old and "/v1/" in self.path:
                self.answer(404, None)
            elif (form["grant_type"], form["client_id"], form["client_secret"]) == (["client_credentials"], ["replicad"], [SECRET]):
                self.server.tokens, self.server.uses_left = self.server.tokens + 1, max(self.server.uses_left, 1)
                self.answer(200, {"access_token": f"token-{self.server.tokens}", "expires_in": 60, "token_type": "Bearer", "scope": ""})
            else:
                self.answer(401, {"error": "invalid_client"})
            return
        if not self.live():
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
        if not self.live():
            return
        name, number, _ = self.room()
        assert self.headers["Content-Type"] == "application/json"
        record = json.loads(self.body())
        self.server.rooms[name][number] = {**record, "id": number}
        self.server.writes.append(("PUT", record[ROOMS[name]]))
        self.answer(200, self.server.rooms[name][number])

    def do_PATCH(self) -> None:
        if not self.live():
            return
        name, number, _ = self.room()
        assert (name, self.headers["Content-Type"]) == ("distribution-points", "application/merge-patch+json")
        found = self.server.rooms[name][number]
        found |= json.loads(self.body())
        self.server.writes.append(("PATCH", found[ROOMS[name]]))
        self.answer(200, found)


@pytest.fixture
def jamf_pro() -> Iterator[JamfPro]:
    with JamfPro() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def ask_for(door: Door, *algorithms: str) -> None:
    """The share asks for these, and they are computed."""
    assert (await door.ask("PATCH", "/shares/jamf", {"checksums": algorithms})).status == 200
    await compute(door)


async def compute(door: Door) -> None:
    services = door.services
    await Checksums(services.catalog, services.store, hub=services.hub, examine=services.scrub.check).complete()


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
    await ask_for(door, "md5", "sha512", "sha3_512")
    old = {"md5": "old", "sha256": "old", "sha3512": "old", "hashType": "MD5", "hashValue": "old"}
    jamf_pro.rooms["packages"]["7"] = {"id": "7", "fileName": "Fonts.dmg", "packageName": "The fonts", "categoryId": "3", "notes": "ask Jane", **old}
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
    for record, content in ((fonts, b"two"), (next(one for one in jamf_pro.rooms["packages"].values() if one["fileName"] == "Editor 1.pkg"), b"one")):
        assert (record["hashType"], record["hashValue"], record["sha256"]) == (
            "SHA_512",
            hashlib.sha512(content).hexdigest(),
            hashlib.sha256(content).hexdigest(),
        )
        assert (record["md5"], record["sha3512"]) == (hashlib.md5(content).hexdigest(), hashlib.sha3_512(content).hexdigest())
    [made] = jamf_pro.rooms["distribution-points"].values()
    assert (made["serverName"], made["httpsPort"], made["httpsContext"], made["httpsEnabled"]) == ("ams.example.org", 8443, "base/jamf", True)

    jamf_pro.old = True
    again = await terminal.json("jamf", "register", *options(jamf_pro, tmp_path, *point))
    assert {one["action"] for one in again["records"]} == {"unchanged"}
    assert len(jamf_pro.writes) == 3


async def test_what_is_not_everywhere_or_not_hashed_waits(door: Door, terminal: Terminal, jamf_pro: JamfPro, tmp_path: Path) -> None:
    await ask_for(door, "md5")
    await door.publish("jamf", "Packages/Editor.pkg", b"one")
    for lacks in ("checksums", "a copy"):
        code, out, _ = await terminal.run("jamf", "register", *options(jamf_pro, tmp_path))
        assert (code, out.split()[-3:]) == (3, ["waiting", "package", "Editor.pkg"]), lacks
        assert jamf_pro.writes == []
        await compute(door)
        await door.admit(f"ber{len(lacks)}")


async def test_hashes_of_other_bytes_are_wiped_when_nobody_knows_the_right_ones(door: Door, terminal: Terminal, jamf_pro: JamfPro, tmp_path: Path) -> None:
    await door.publish("jamf", "Packages/Editor.pkg", b"one")
    await ask_for(door, "md5")
    jamf_pro.rooms["packages"]["7"] = {
        "id": "7",
        "fileName": "Editor.pkg",
        "sha256": "old",
        "md5": "old",
        "sha3512": "old",
        "hashType": "SHA_512",
        "hashValue": "old",
    }
    assert (await terminal.run("jamf", "register", *options(jamf_pro, tmp_path)))[0] == 0
    md5 = hashlib.md5(b"one").hexdigest()
    one = {"id": "7", "fileName": "Editor.pkg", "sha256": hashlib.sha256(b"one").hexdigest(), "md5": md5, "hashType": "MD5", "hashValue": md5}
    assert jamf_pro.rooms["packages"] == {"7": one}
    one |= {"sha3512": "somebody else computed it of the same bytes", "hashValue": "old"}
    jamf_pro.rooms["packages"]["7"] = dict(one)
    assert (await terminal.run("jamf", "register", *options(jamf_pro, tmp_path)))[0] == 0
    assert jamf_pro.rooms["packages"] == {"7": one | {"hashValue": md5}}


async def test_a_distribution_point_keeps_what_cannot_be_read(door: Door, terminal: Terminal, jamf_pro: JamfPro, tmp_path: Path) -> None:
    await ask_for(door, "md5")
    before = {"id": "3", "name": "ams", "serverName": "old", "fileSharingConnectionType": "SMB", "readWritePassword": "secret"}
    jamf_pro.rooms["distribution-points"]["3"] = dict(before)
    assert (await terminal.run("jamf", "register", *options(jamf_pro, tmp_path, "--point", "ams", "--node-url", "https://ams.example.org")))[0] == 0
    changed = {"serverName": "ams.example.org", "httpsEnabled": True, "httpsPort": 443, "httpsContext": "jamf"}
    assert (jamf_pro.rooms["distribution-points"], jamf_pro.writes) == ({"3": before | changed}, [("PATCH", "ams")])


async def test_many_alike_and_a_token_for_each_call(door: Door, terminal: Terminal, jamf_pro: JamfPro, tmp_path: Path) -> None:
    """A filter that finds more than one page, and tokens that are good for one call only, as after a minute."""
    await door.publish("jamf", "Packages/Editor.pkg", b"one")
    await ask_for(door, "sha512")
    names = {str(number): f"Editor.pkg {number}" for number in range(120)} | {"120": "Editor.pkg"}
    jamf_pro.rooms["packages"] = {number: {"id": number, "fileName": name, "sha256": "old"} for number, name in names.items()}
    jamf_pro.uses_left = 0
    told = await terminal.json("jamf", "register", *options(jamf_pro, tmp_path))
    assert told["records"] == [{"kind": "package", "name": "Editor.pkg", "action": "update"}]
    assert [number for number, one in jamf_pro.rooms["packages"].items() if one["sha256"] != "old"] == ["120"]
    assert jamf_pro.tokens == 4, "one for each of two pages, the record and writing it"


async def test_refusals_say_what_to_do(door: Door, terminal: Terminal, jamf_pro: JamfPro, tmp_path: Path) -> None:
    await door.publish("jamf", "Packages/Editor.pkg", b"one")
    await ask_for(door, "sha3_512")
    code, _, err = await terminal.run("jamf", "register", *options(jamf_pro, tmp_path))
    assert (code, "share set jamf --checksums md5,sha512,sha3_512" in err) == (2, True), "its clients do not compare that"
    await ask_for(door, "sha512")
    code, _, err = await terminal.run("jamf", "register", *options(jamf_pro, tmp_path, client_id="nobody"))
    assert (code, "does not take this API client (401)" in err, SECRET in err) == (6, True, False)
    code, _, err = await terminal.run("jamf", "register", *options(jamf_pro, tmp_path, "--point", "x"))
    assert (code, "needs the https address" in err) == (2, True)
    jamf_pro.may = False
    code, _, err = await terminal.run("jamf", "register", *options(jamf_pro, tmp_path))
    assert (code, "refuses GET /api/v1/packages (403)" in err) == (6, True)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(UnreachableError, match=r"cannot be asked: connection refused$"):
            jamf.JamfPro(nobody, "", "").log_in()
    with pytest.raises(InputError, match="write https://"):
        jamf.JamfPro("http://jamf.example.org", "", "")
