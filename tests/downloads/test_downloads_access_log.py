"""What the door notes of each answer, and what the file of lines makes of it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from downloads_world import World, request_of

from replicad.telemetry import access_log
from replicad.telemetry.access_log import AccessLog, Answered
from support.waiting import until

BODY = bytes(100_000)
HUGE = 256 << 20


def access(**changes: object) -> Answered:
    plain = Answered(1_700_000_000.5, 0.25, "192.0.2.7", "GET", "/munki/pkgs/a.pkg", 200, 5, "", "curl/8")
    return plain._replace(**changes)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.sockets
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_every_answer_is_noted(tmp_path: Path, tls: bool) -> None:
    world = World(tmp_path)
    world.share("jamf")
    world.put("jamf", "a.pkg", BODY)
    async with world.serve(tls=tls) as client:
        for target, *fields in (
            ("/jamf/a.pkg", "User-Agent: test"),
            ("/jamf/a.pkg", "Range: bytes=10-19"),
            ("/jamf/a.pkg", "Range: bytes=0-0,-1"),
            ("/jamf/none?token=secret",),
            ("/jamf/a.pkg", "If-None-Match: *"),
        ):
            await client.get(target, *fields)
        await client.get("/jamf/a.pkg", method="HEAD")
        await client.ask(b"garbage\r\n\r\n")
        await until(lambda: len(world.noted) == 7, what="seven answers")
    seen = [(noted.status, noted.method, noted.target, noted.range, noted.agent) for noted in world.noted]
    assert seen == [
        (200, "GET", "/jamf/a.pkg", "", "test"),
        (206, "GET", "/jamf/a.pkg", "bytes=10-19", ""),
        (206, "GET", "/jamf/a.pkg", "bytes=0-0,-1", ""),
        (404, "GET", "/jamf/none?token=secret", "", ""),
        (304, "GET", "/jamf/a.pkg", "", ""),
        (200, "HEAD", "/jamf/a.pkg", "", ""),
        (400, "UNKNOWN", "/", "", ""),
    ]
    assert [noted.sent_bytes for noted in world.noted[:2]] == [len(BODY), 10]
    assert world.noted[2].sent_bytes > 2
    assert [noted.sent_bytes for noted in world.noted[4:6]] == [0, 0]
    assert {noted.client for noted in world.noted} == {"127.0.0.1"}
    assert all(0 <= noted.duration_s < 60 for noted in world.noted)


@pytest.mark.sockets
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_client_that_leaves_is_noted_with_what_it_got(tmp_path: Path, tls: bool) -> None:
    world = World(tmp_path)
    world.share("jamf")
    content = world.put("jamf", "huge", b"")
    with world.path_of(content).open("ab") as huge:
        huge.truncate(HUGE)
    world.name("jamf", "huge", content, size=HUGE)
    async with world.serve(tls=tls) as client:
        reader, writer = await client.connect()
        writer.write(request_of("/jamf/huge"))
        await reader.readexactly(300_000)
        writer.transport.abort()
        await until(lambda: world.noted, what="the answer that was cut off")
    (noted,) = world.noted
    assert noted.status == 200
    assert 290_000 < noted.sent_bytes < HUGE


def test_lines(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    kept = AccessLog(path)
    kept.note(access())
    kept.note(access(target="/munki/pkgs/%C3%9C b.pkg?signature=secret", range="bytes=0-9", status=206, client="2001:db8::1"))
    kept.note(access(target='/a"b\n/\udcff%ff' + "x" * 9000, agent="\x1b[31m\udcfe"))
    kept.write()
    kept.write()
    first, second, hostile = lines(path)
    assert first == {
        "time": "2023-11-14T22:13:20.250000Z",
        "client": "192.0.2.7",
        "method": "GET",
        "share": "munki",
        "path": "pkgs/a.pkg",
        "status": 200,
        "bytes": 5,
        "duration_ms": 250.0,
        "agent": "curl/8",
    }
    assert (second["path"], second["range"], second["client"]) == ("pkgs/Ü b.pkg", "bytes=0-9", "2001:db8::1")
    assert "secret" not in path.read_text()
    assert (hostile["share"], len(str(hostile["path"]))) == ('a"b\n', access_log.CHARACTERS_MAX - 2)
    assert path.stat().st_mode & 0o777 == 0o640


def test_the_disk_holds_two_files_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "access.log"
    kept = AccessLog(path)
    monkeypatch.setattr(access_log, "FILE_BYTES_MAX", 10_000)
    for number in range(2000):
        kept.note(access(status=number))
        kept.write()
    assert {file.name for file in tmp_path.iterdir()} == {"access.log", "access.log.1"}
    assert all(file.stat().st_size < 10_500 for file in tmp_path.iterdir())
    older, newer = lines(path.with_name("access.log.1")), lines(path)
    numbers = [line["status"] for line in older + newer]
    assert numbers == list(range(2000 - len(numbers), 2000))
    path.rename(tmp_path / "moved")
    kept.note(access(status=1))
    kept.write()
    assert [line["status"] for line in lines(path)] == [1]


def test_what_cannot_be_kept_is_lost_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    access_log.log._seldom.clear()
    caplog.set_level(logging.WARNING)
    kept = AccessLog(tmp_path / "no" / "access.log")
    for _ in range(access_log.WAITING_MAX + 7):
        kept.note(access())
    kept.write()
    told = {record.getMessage(): record.fields for record in caplog.records}  # type: ignore[attr-defined]
    assert told["the access log does not keep up; lines are lost"]["lines"] == 7
    assert told["the access log cannot be written"]["lines"] == access_log.WAITING_MAX


def test_without_a_file_nothing_is_kept() -> None:
    kept = AccessLog(None)
    kept.note(access())
    assert kept._waiting == []
