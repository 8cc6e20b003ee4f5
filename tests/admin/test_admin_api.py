"""The API as a program meets it: errors, bounds, shares, names."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import logging
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from replicad.crypto import certificate as certificates
from replicad.errors import NoSpaceError
from replicad.model.ids import Digest, Stamp
from replicad.net.tls import LiveCertificate
from replicad.protocol.gossip.heads import HeadEnd, Presence
from replicad.server import bad_requests
from replicad.server.admin import application, diagnosis
from support.admin_door import TOKEN, Door, opened

pytestmark = pytest.mark.sockets


async def test_a_problem_is_a_document_with_code_and_hint(door: Door) -> None:
    reply = await door.ask("GET", "/shares/none/entries/a.pkg")
    assert reply.status == 404
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json["code"] == "no-such-share"
    assert reply.json["status"] == 404
    assert "jamf, munki" in reply.json["detail"]
    assert reply.json["hint"] == "replicad share list"


@pytest.mark.parametrize(
    ("method", "path", "body", "named"),
    [
        ("POST", "/shares", {"name": "x", "colour": "red"}, "colour"),
        ("POST", "/shares", {"name": 3}, "name: expected `str`, got `int`"),
        ("POST", "/shares", {}, "name"),
        ("POST", "/shares", {"name": "Not A Share"}, "share name"),
        ("POST", "/shares", {"name": "x", "stages": ["a", "a"]}, "stages"),
        ("POST", "/shares", {"name": "x", "stages": ["A!"]}, "stage name"),
        ("POST", "/shares", b"{", "request body"),
        ("POST", "/shares", b"\xff\xfe", "request body"),
        ("GET", "/entries?limit=0", None, "limit"),
        ("GET", "/entries?limit=5001", None, "limit: expected `int` <= 5000"),
        ("GET", "/entries?colour=red", None, "colour"),
        ("GET", "/entries?limit=1&limit=2", None, "twice"),
        ("GET", "/entries?after=nonsense", None, "after"),
        ("GET", "/entries?after=WzEsMl0%3D", None, "after"),
        ("GET", "/matrix?incomplete=perhaps", None, "incomplete"),
        ("GET", "/shares/munki/entries/a%3Ab", None, "path"),
        ("GET", "/shares/munki/entries/..%2Fa", None, "path"),
        ("GET", "/shares/MUNKI/entries/a", None, "share name"),
        ("POST", "/shares/munki/entries", {"entries": []}, "entries"),
        ("POST", "/shares/munki/entries", {"entries": [{"path": "a", "sha256": "00", "size": 1}]}, "sha256"),
        ("POST", "/wait", {"share": "munki", "entries": [{"path": "a"}], "nodes": "0"}, "nodes"),
        ("POST", "/wait", {"share": "munki", "entries": [{"path": "a"}], "timeout_s": 11}, "timeout_s"),
        ("POST", "/invites", {"role": "king"}, "role"),
        ("POST", "/invites", {"expires_s": 86401}, "expires_s: expected `int` <= 86400"),
        ("POST", "/invites", {"shares": ["munki", ""]}, "shares[1]: expected `str` of length >= 1"),
        ("POST", "/wait", {"share": "munki", "entries": [], "stage": "none"}, "dev, test, prod"),
        ("POST", "/members/join", {}, "token"),
    ],
)
async def test_bad_input_is_named(door: Door, method: str, path: str, body: object, named: str) -> None:
    reply = await door.ask(method, path, body)
    assert reply.status == 400, reply.body
    assert named in reply.json["detail"]


async def test_what_is_not_there(door: Door) -> None:
    assert (await door.ask("GET", "/nonsense")).json["code"] == "not-found"
    reply = await door.ask("PATCH", "/status", {})
    assert (reply.status, reply.json["code"], reply.headers["allow"]) == (405, "method", "GET")
    assert (await door.ask("GET", "/members/nobody")).json["code"] == "no-such-node"


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_beyond_its_bound_is_refused(door: Door, *, announced: bool) -> None:
    body = b'{"name": "' + b"x" * (1 << 20) + b'"}'
    if announced:
        head = f"POST /api/v1/shares HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        reply = await door.send(head)
    else:
        head = b"POST /api/v1/shares HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        reply = await door.send(head + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n")
    assert (reply.status, reply.json["code"]) == (400, "too-long")


@pytest.mark.parametrize("header", [None, "Bearer wrong", "bearer " + TOKEN, "Basic " + TOKEN, TOKEN, "Bearer \xff"])
async def test_over_tcp_every_call_needs_the_token(door: Door, header: str | None) -> None:
    for method, path in (("GET", "/status"), ("PUT", "/blobs"), ("GET", "/nonsense")):
        reply = await door.ask(method, path, headers={"Authorization": header} if header else {}, over_tcp=True)
        assert (reply.status, reply.json["code"], reply.headers["www-authenticate"]) == (401, "unauthorized", 'Bearer realm="replicad"')


async def test_over_tcp_with_the_token(door: Door) -> None:
    reply = await door.ask("GET", "/node", headers={"Authorization": f"Bearer {TOKEN}"}, over_tcp=True)
    assert reply.json["node"]["name"] == "ams1"


async def test_shares(door: Door) -> None:
    reply = await door.ask("POST", "/shares", {"name": "fonts", "stages": ["test", "prod"]})
    shown = reply.json["share"]
    assert [shown[name] for name in ("name", "public", "immutable", "stages", "layout", "users")] == ["fonts", False, False, ["test", "prod"], "", []]
    assert (await door.ask("POST", "/shares", {"name": "fonts"})).json["code"] == "share-exists"
    reply = await door.ask("PATCH", "/shares/fonts", {"public": True})
    assert (reply.json["share"]["public"], reply.json["share"]["stages"]) == (True, ["test", "prod"])
    assert [one["name"] for one in (await door.ask("GET", "/shares")).json["shares"]] == ["fonts", "jamf", "munki"]
    assert (await door.ask("GET", "/shares/fonts")).json["share"] == reply.json["share"]
    assert (await door.ask("GET", "/shares/none")).status == 404


async def test_a_stage_that_has_files_stays(door: Door) -> None:
    await door.publish("munki", "a.pkg", b"a", stage="test")
    reply = await door.ask("PATCH", "/shares/munki", {"stages": ["dev", "prod"]})
    assert (reply.status, reply.json["code"]) == (409, "stage-in-use")
    assert (await door.ask("PATCH", "/shares/munki", {"stages": ["test", "prod"]})).json["share"]["stages"] == ["test", "prod"]


async def test_a_share_is_removed_with_whatever_it_has(door: Door) -> None:
    for path in ("a.pkg", "b.pkg"):
        await door.publish("munki", path, b"x")
    for query in ("", "?expect=1", "?expect=3", "?expect=1&dry_run=true"):
        reply = await door.ask("DELETE", f"/shares/munki{query}")
        assert (reply.status, reply.json["code"], reply.json["hint"]) == (409, "not-as-expected", "if that is right: --expect 2")
    assert (await door.ask("DELETE", "/shares/munki?dry_run=true")).json == {"share": "munki", "names": 2, "removed": False}
    assert (await door.ask("GET", "/shares/munki")).status == 200
    assert (await door.ask("DELETE", "/shares/munki?expect=2")).json == {"share": "munki", "names": 2, "removed": True}
    assert (await door.ask("DELETE", "/shares/jamf")).json == {"share": "jamf", "names": 0, "removed": True}
    assert (await door.ask("GET", "/shares")).json["shares"] == (await door.ask("GET", "/entries")).json["entries"] == []
    assert (await door.ask("DELETE", "/shares/munki")).json["code"] == "no-such-share"
    assert (await door.ask("POST", "/shares", {"name": "munki"})).json["share"]["public"] is False
    assert len((await door.ask("GET", "/entries")).json["entries"]) == 2


async def test_publishing_many_names_is_all_or_nothing(door: Door) -> None:
    digest = await door.upload(b"content")
    good = [{"path": f"pkgs/{number}.pkg", "sha256": digest, "size": 7} for number in range(3)]
    bad = {"path": "pkgs/a:b.pkg", "sha256": digest, "size": 7}
    reply = await door.ask("POST", "/shares/munki/entries", {"entries": [*good, bad]})
    assert (reply.status, reply.json["code"]) == (400, "bad-path")
    unknown = {"path": "pkgs/x.pkg", "sha256": "00" * 32, "size": 7}
    assert (await door.ask("POST", "/shares/munki/entries", {"entries": [*good, unknown]})).status == 404
    assert (await door.ask("GET", "/entries")).json["entries"] == []
    reply = await door.ask("POST", "/shares/munki/entries", {"entries": good, "publisher": "jane"})
    assert [(one["path"], one["state"], one["stage"], one["sha256"]) for one in reply.json["published"]] == [
        (f"pkgs/{n}.pkg", "new", "prod", digest) for n in range(3)
    ]
    again = await door.ask("POST", "/shares/munki/entries", {"entries": good})
    assert {one["state"] for one in again.json["published"]} == {"unchanged"}


async def test_a_dry_run_publishes_nothing(door: Door) -> None:
    entry = {"path": "a.pkg", "sha256": hashlib.sha256(b"a").hexdigest(), "size": 1}
    reply = await door.ask("POST", "/shares/munki/entries", {"entries": [entry], "dry_run": True})
    assert [one["state"] for one in reply.json["published"]] == ["new"]
    assert (await door.ask("GET", "/entries")).json["entries"] == []


async def test_a_dry_run_says_that_there_is_no_room(door: Door) -> None:
    entries = [{"path": f"{number}.pkg", "sha256": hashlib.sha256(bytes([number])).hexdigest(), "size": 1 << 42} for number in range(250)]
    reply = await door.ask("POST", "/shares/munki/entries", {"entries": entries, "dry_run": True})
    assert (reply.status, reply.json["code"]) == (507, "no-space")
    assert f"no room for {250 << 42} bytes" in reply.json["detail"]


async def test_an_immutable_share_keeps_its_files(door: Door) -> None:
    assert (await door.publish("jamf", "a.pkg", b"one")).status == 200
    reply = await door.publish("jamf", "A.pkg", b"two")
    assert (reply.status, reply.json["code"]) == (409, "immutable")
    assert "immutable" in reply.json["detail"]


async def test_listing_pages_and_showing(door: Door) -> None:
    for path in ("a/1.pkg", "a/2.pkg", "ab/3.pkg"):
        await door.publish("munki", path, path.encode(), publisher="jane")
    listed = (await door.ask("GET", "/entries?share=munki&prefix=A")).json["entries"]
    assert [one["path"] for one in listed] == ["a/1.pkg", "a/2.pkg"]
    assert listed[0] | {"published": "", "record": ""} == {
        "share": "munki",
        "path": "a/1.pkg",
        "stage": "prod",
        "size": 7,
        "sha256": hashlib.sha256(b"a/1.pkg").hexdigest(),
        "published": "",
        "publisher": "jane",
        "origin": "ams1",
        "available": True,
        "siblings": 0,
        "checksums": {},
        "record": "",
        "taken_down": False,
    }
    found, after = [], ""
    for _ in range(10):
        page = (await door.ask("GET", f"/entries?limit=1{after}")).json
        found += [one["path"] for one in page["entries"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert found == ["a/1.pkg", "a/2.pkg", "ab/3.pkg"]
    shown = (await door.ask("GET", "/shares/munki/entries/A/1.PKG")).json
    assert shown["entry"] == listed[0]
    assert shown["copies"][0]["percent"] == 100
    assert (await door.ask("GET", "/shares/munki/entries/a/none.pkg")).json["code"] == "no-such-file"


async def test_stages_are_shown(door: Door) -> None:
    await door.publish("munki", "a.pkg", b"old")
    await door.publish("munki", "a.pkg", b"new", stage="dev")
    shown = (await door.ask("GET", "/shares/munki/entries/a.pkg")).json
    assert (shown["entry"]["stage"], [other["stage"] for other in shown["others"]]) == ("dev", ["prod"])
    rows = (await door.ask("GET", "/matrix")).json["rows"]
    assert [(row["path"], row["stage"], row["copies"], row["copies_wanted"]) for row in rows] == [("a.pkg", "dev", 1, 1), ("a.pkg", "prod", 1, 1)]
    assert (await door.publish("munki", "a.pkg", b"x", stage="nonsense")).status == 400


async def test_status_tells_how_it_is(door: Door) -> None:
    await door.publish("munki", "a.pkg", b"content", stage="test")
    other = await door.admit("nyc2", site="nyc")
    status = (await door.ask("GET", "/status")).json
    assert status["node"]["state"] == "degraded"
    assert (status["store"]["files"], status["stages"]) == (1, {"dev": 0, "test": 1, "prod": 0})
    assert status["peers"][0] | {"stages": None} == {
        "id": str(other.key.id),
        "name": "nyc2",
        "role": "mirror",
        "site": "nyc",
        "shares": None,
        "stages": None,
        "paths": None,
        "until": None,
        "linked": False,
        "since": None,
        "rtt_ms": None,
        "percent": None,
        "lag": None,
        "limit_bytes_s": None,
        "paused": False,
        "networks": [],
    }
    assert status["problems"] == [
        {
            "code": "peer-offline",
            "message": "nyc2: connection refused at 10.4.0.9:8440; next try in 4 min",
            "hint": "replicad peer check nyc2",
            "node": str(other.key.id),
        }
    ]


async def test_a_full_disk_is_said_there_and_by_the_others(door: Door) -> None:
    """At the node itself also that news is not taken, not only that no files are fetched."""
    other = await door.admit("nyc2")
    other.says("", presence=Presence(disk_used=7, disk_free=0))
    catalog = door.services.catalog

    def fill(connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        connection.execute("INSERT INTO meta VALUES ('large', hex(zeroblob(1000000)))")

    with pytest.raises(NoSpaceError):
        await catalog._database.write(fill)
    told = {one["code"]: one for one in (await door.ask("GET", "/status")).json["problems"]}
    assert told["disk-full"]["message"].startswith(
        f"there is no room for the catalog on the disk of {door.services.facts.data}: news of the other nodes is not taken, "
    )
    assert told["peer-disk-full"]["message"] == "nyc2 has no room on its disk: it fetches nothing until there is, and perhaps takes no news"
    assert (told["peer-disk-full"]["hint"], told["peer-disk-full"]["node"]) == ("replicad doctor, on nyc2", str(other.key.id))
    found = {one["check"]: one for one in (await door.ask("GET", "/doctor")).json["findings"] if one["state"] == "failed"}
    assert found["disk"]["message"] == told["disk-full"]["message"]
    assert found["heads"]["message"] == told["peer-disk-full"]["message"]


@pytest.mark.parametrize(("missing", "said"), [(1, "1 file"), (3, "3 files")])
async def test_what_heads_show_to_be_wrong_is_said_with_the_next_command(door: Door, missing: int, said: str) -> None:
    other = await door.admit("nyc2")
    behind: dict[str, Any] = {
        "missing_count": missing,
        "missing_bytes": 4 << 20,
        "ends": (HeadEnd(other.key.id, Stamp(1), 7, Stamp(7)),),
        "frontier": Digest(bytes(32)),
    }
    for age_ms in range(700_000, 0, -60_000):
        other.says("munki", age_ms=age_ms, **behind)
    other.says("munki", **behind | {"ends": ()})
    status = (await door.ask("GET", "/status")).json
    told = {one["code"]: one for one in status["problems"] if one["code"] != "peer-offline"}
    assert status["node"]["state"] == "degraded"
    assert told.keys() == {"peer-lags", "peer-frozen", "peer-went-back"}
    assert told["peer-lags"]["message"].startswith(f"nyc2 lags by {said}, 4.0 MiB, since 20")
    assert told["peer-lags"]["hint"] == "replicad matrix --incomplete"
    assert told["peer-frozen"]["message"].startswith("nyc2 is there but has taken nothing new of share munki since 20")
    assert told["peer-frozen"]["hint"] == "replicad peer check nyc2"
    assert {one["node"] for one in told.values()} == {str(other.key.id)}
    findings = [one["message"] for one in (await door.ask("GET", "/doctor")).json["findings"] if one["check"] == "heads"]
    assert findings == [one["message"] for one in told.values()]


async def test_a_member_last_heard_of_before_the_daemon_ran_is_offline_since_its_own_date(door: Door) -> None:
    """Heads that come with a join, or out of the catalog after a restart, are given an age beyond every interval."""
    other = await door.admit("nyc2")
    other.says("", age_ms=1 << 42, made_ms=1_700_000_000_000)
    assert (await door.ask("GET", "/members/nyc2")).json["peer"]["since"] == "2023-11-14T22:13:20Z"
    other.says("", age_ms=0, made_ms=1_700_000_000_000)
    assert (await door.ask("GET", "/members/nyc2")).json["peer"]["since"] >= "2025"


async def test_the_doctor_warns_of_the_network_key(door: Door) -> None:
    findings = {one["check"]: one for one in (await door.ask("GET", "/doctor")).json["findings"]}
    assert {one["state"] for one in findings.values()} == {"ok"}
    (door.data / "network.key").touch()
    findings = {one["check"]: one for one in (await door.ask("GET", "/doctor")).json["findings"]}
    assert findings["network key"]["state"] == "warning"
    assert "replicad key export" in findings["network key"]["hint"]


async def test_a_certificate_that_cannot_be_used_or_will_soon_end_is_a_problem(door: Door, tmp_path: Path) -> None:
    certificate, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    certificates.ensure(certificate, key)
    live = LiveCertificate(certificate, key)
    services = dataclasses.replace(door.services, certificates={"downloads": live})
    assert await diagnosis.troubles(services) == []
    certificate.write_text("garbage")
    live.refresh()
    (trouble,) = await diagnosis.troubles(services)
    assert (trouble.code, str(certificate) in trouble.message) == ("certificate", True)
    live.problem, live.ends = "", datetime.fromtimestamp(door.services.clock_ms() / 1000, UTC) + timedelta(days=13)
    (trouble,) = await diagnosis.troubles(services)
    assert f"{certificate} ends at 20" in trouble.message


async def test_a_member_is_named_by_name_or_by_the_beginning_of_its_id(door: Door) -> None:
    one, two = await door.admit("ber1"), await door.admit("syd1")
    await door.admit("twin"), await door.admit("twin")
    assert (await door.ask("GET", "/members/ber1")).json["peer"]["id"] == str(one.key.id)
    assert (await door.ask("GET", f"/members/{str(two.key.id)[:14].lower()}")).json["peer"]["name"] == "syd1"
    reply = await door.ask("GET", "/members/twin")
    assert (reply.status, reply.json["code"]) == (409, "ambiguous-node")


async def test_garbage_is_one_line_of_the_log_for_each_client(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    bad_requests.log._seldom.clear()
    for garbage in (b"\x00\xff" * 50 + b"\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"y" * 20_000 + b" HTTP/1.1\r\n\r\n") * 3:
        assert (await door.send(garbage, over_tcp=True)).status == 400
    (record,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert (record.getMessage(), bool(record.exc_info)) == ("bad request", False)
    assert record.fields["client"] == "127.0.0.1"  # type: ignore[attr-defined]


async def test_a_caller_that_never_ends_its_head_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert application.RUNNER["keepalive_timeout"] == application.IDLE_S
    monkeypatch.setitem(application.RUNNER, "keepalive_timeout", 0.3)
    async with opened(tmp_path / "data") as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(b"GET /api/v1/status HTTP/1.1\r\nX-Slow: ")
        async with asyncio.timeout(20):
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_the_page_is_static_and_closed_to_everything_else(door: Door) -> None:
    for path, kind in (("/ui/", "text/html"), ("/ui/style.css", "text/css"), ("/ui/app.js", "text/javascript")):
        reply = await door.send(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode(), over_tcp=True)
        assert reply.status == 200
        assert reply.headers["content-type"] == f"{kind}; charset=utf-8"
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert b"http://" not in reply.body.replace(b"http://www.w3.org/2000/svg", b"")
        assert b"https://" not in reply.body
        assert b"innerHTML" not in reply.body
