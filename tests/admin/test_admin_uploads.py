"""Resumable uploads through the door: tus 1.0 as its clients speak it, and everything that it refuses."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.errors import InputError
from replicad.model.ids import Digest
from replicad.server.admin import content, tus
from replicad.services.ingest import UploadsConfig
from support.admin_door import Door, Reply
from support.waiting import until

pytestmark = pytest.mark.sockets
MIB = 1 << 20
TUS = {"Tus-Resumable": "1.0.0"}
PART = {**TUS, "Content-Type": "application/offset+octet-stream"}


def described(**values: str) -> str:
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" if value else key for key, value in values.items())


def checksum(algorithm: str, part: bytes) -> dict[str, str]:
    return {"Upload-Checksum": f"{algorithm} {base64.b64encode(hashlib.new(algorithm, part).digest()).decode()}"}


async def begin(door: Door, size: int, *, headers: dict[str, str] | None = None, over_tcp: bool = False, **values: str) -> Reply:
    where = {"share": "munki", **({} if "filename" in values else {"path": "a.pkg"}), **values}
    given = {**TUS, "Upload-Length": str(size), "Upload-Metadata": described(**where), **(headers or {})}
    return await door.ask("POST", "/uploads", headers=given, over_tcp=over_tcp)


async def begun(door: Door, size: int, **values: str) -> str:
    reply = await begin(door, size, **values)
    assert reply.status == 201, reply.body
    return reply.headers["location"].removeprefix("/api/v1")


async def append(door: Door, place: str, offset: int, part: bytes, **more: Any) -> Reply:
    return await door.ask("PATCH", place, part, headers={**PART, "Upload-Offset": str(offset), **more.pop("headers", {})}, **more)


async def offset_of(door: Door, place: str) -> int:
    reply = await door.ask("HEAD", place, headers=TUS)
    assert (reply.status, reply.headers["cache-control"]) == (200, "no-store")
    return int(reply.headers["upload-offset"])


def on_disk(door: Door) -> list[str]:
    return [*door.left_behind(), *(path.name for path in (door.data / "uploads").iterdir())]


async def test_the_whole_way(door: Door) -> None:
    whole = os.urandom(5 * MIB + 321)
    reply = await begin(door, len(whole), filename="pkgs/ä.pkg", stage="test", publisher="jane")
    assert (reply.status, reply.headers["tus-resumable"], reply.headers["upload-offset"]) == (201, "1.0.0", "0")
    assert parsedate_to_datetime(reply.headers["upload-expires"]).timestamp() * 1000 > door.services.clock_ms() + 23 * 3600 * 1000
    place = reply.headers["location"].removeprefix("/api/v1")
    assert door.services.store.used_bytes == len(whole), "its room is taken from the beginning"
    for start, stop in ((0, 1000), (1000, 3 * MIB), (3 * MIB, 3 * MIB), (3 * MIB, len(whole))):
        assert await offset_of(door, place) == start
        reply = await append(door, place, start, whole[start:stop], headers=checksum("sha1", whole[start:stop]) if start == 1000 else {})
        assert (reply.status, reply.headers["upload-offset"], reply.body) == (204, str(stop), b"")
    reply = await door.ask("HEAD", place, headers=TUS)
    assert (reply.headers["upload-offset"], reply.headers["upload-length"]) == (str(len(whole)), str(len(whole)))
    assert reply.headers["upload-metadata"] == described(share="munki", filename="pkgs/ä.pkg", stage="test", publisher="jane")
    listed = await door.listed("munki", "pkgs/ä.pkg", "test")
    assert (listed.content, listed.publisher) == (Digest(hashlib.sha256(whole).digest()), "jane")
    assert door.services.store.path_of(listed.content).read_bytes() == whole
    assert door.services.store.used_bytes == len(whole), "there never was a second copy"
    assert on_disk(door) == []
    log = (await door.ask("GET", "/audit/log")).json["actions"]
    assert [(one["method"], one["detail"], one["status"]) for one in log] == [
        ("POST", f"munki/pkgs/ä.pkg; {len(whole)} bytes", 201),
        ("PATCH", "munki/pkgs/ä.pkg", 204),
    ], "what it began and what it did, not each part"


async def test_an_empty_one_and_one_whose_bytes_come_with_it(door: Door) -> None:
    assert (await begin(door, 0, path="empty")).headers["upload-offset"] == "0"
    assert (await door.listed("munki", "empty")).size == 0
    for part, listed in ((b"first", False), (b"first and last", True)):
        given = {**PART, "Upload-Length": "14", "Upload-Metadata": described(share="munki", path="b.pkg"), **checksum("sha256", part)}
        reply = await door.ask("POST", "/uploads", part, headers=given)
        assert (reply.status, reply.headers["upload-offset"]) == (201, str(len(part)))
        assert len((await door.ask("GET", "/entries")).json["entries"]) == 1 + listed
    before = on_disk(door)
    reply = await door.ask("POST", "/uploads", b"others", headers=given)
    assert (reply.status, reply.json["code"]) == (460, "checksum")
    assert on_disk(door) == before, "nobody could go on with that one"


async def test_a_chunked_body(door: Door) -> None:
    place = await begun(door, 7)
    head = f"PATCH /api/v1{place} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n" + "".join(f"{name}: {value}\r\n" for name, value in PART.items())
    reply = await door.send(f"{head}Upload-Offset: 0\r\n\r\n4\r\nfour\r\n0\r\n\r\n".encode())
    assert (reply.status, reply.headers["upload-offset"]) == (204, "4")
    reply = await door.send(f"{head}Upload-Offset: 4\r\n\r\n4\r\nfour\r\n0\r\n\r\n".encode())
    assert (reply.status, reply.json["code"]) == (413, "too-large"), "what goes on after its length is something else than was announced"
    assert (await door.ask("HEAD", place, headers=TUS)).status == 404
    assert on_disk(door) == []


async def test_what_tus_is_spoken(door: Door) -> None:
    reply = await door.ask("OPTIONS", "/uploads")
    assert (reply.status, reply.headers["tus-version"], reply.headers["tus-max-size"]) == (204, "1.0.0", str(1 << 42))
    assert reply.headers["tus-extension"] == "creation,creation-with-upload,checksum,expiration,termination"
    assert reply.headers["tus-checksum-algorithm"] == "sha1,sha256"


GOOD = {"share": "munki", "path": "a.pkg"}
BEGINNINGS = {
    "no version": ({"Tus-Resumable": "0.2.2"}, GOOD, 412, "tus-version"),
    "no length": ({"Upload-Length": ""}, GOOD, 400, "bad-input"),
    "a length that is none": ({"Upload-Length": "-1"}, GOOD, 400, "bad-input"),
    "too large": ({"Upload-Length": str((1 << 42) + 1)}, GOOD, 413, "too-large"),
    "no space": ({"Upload-Length": str(1 << 42)}, GOOD, 507, "no-space"),
    "no metadata": ({"Upload-Metadata": ""}, GOOD, 400, "bad-input"),
    "metadata that is none": ({"Upload-Metadata": "share ???"}, GOOD, 400, "bad-input"),
    "no path": ({}, {"share": "munki"}, 400, "bad-input"),
    "a field that nobody knows": ({}, {**GOOD, "sha265": "00"}, 400, "bad-input"),
    "a path that is none": ({}, {"share": "munki", "path": "../a"}, 400, "bad-path"),
    "no such share": ({}, {**GOOD, "share": "none"}, 404, "no-such-share"),
    "no such stage": ({}, {**GOOD, "stage": "none"}, 400, "no-such-stage"),
    "below a file": ({}, {**GOOD, "path": "there.pkg/a"}, 409, "conflict"),
    "immutable": ({}, {"share": "jamf", "path": "there.pkg"}, 409, "immutable"),
    "immutable, another one": ({}, {"share": "jamf", "path": "there.pkg", "sha256": "00" * 32}, 409, "immutable"),
}


async def test_what_cannot_be_begun(door: Door) -> None:
    for share in ("munki", "jamf"):
        await door.publish(share, "there.pkg", b"old")
    for case, (headers, values, status, code) in BEGINNINGS.items():
        given = {**TUS, "Upload-Length": "10", "Upload-Metadata": described(**values), **headers}
        reply = await door.ask("POST", "/uploads", headers=given)
        assert (reply.status, reply.json["code"], reply.headers["tus-resumable"]) == (status, code, "1.0.0"), case
        assert reply.headers.get("tus-version") == ("1.0.0" if status == 412 else None)
        assert on_disk(door) == [], case
    assert await door.services.catalog.uploads() == []


async def test_the_same_file_again_in_an_immutable_share(door: Door) -> None:
    await door.publish("jamf", "there.pkg", b"old")
    place = await begun(door, 3, share="jamf", path="there.pkg", sha256=hashlib.sha256(b"old").hexdigest())
    assert (await append(door, place, 0, b"old")).status == 204
    assert (await append(door, place, 3, b"")).status == 204, "asking again for what is done is no mistake"


PARTS = {
    "no version": ({"Tus-Resumable": "1.0"}, b"x", 412, "tus-version"),
    "no content type": ({"Content-Type": "application/octet-stream"}, b"x", 415, "content-type"),
    "an encoding": ({"Content-Encoding": "gzip"}, b"x", 400, "content-encoding"),
    "no offset": ({"Upload-Offset": ""}, b"x", 400, "bad-input"),
    "before the end": ({"Upload-Offset": "3"}, b"x", 409, "wrong-offset"),
    "behind the end": ({"Upload-Offset": "5"}, b"x", 409, "wrong-offset"),
    "too many bytes": ({}, b"sevenbytes", 413, "too-large"),
    "another checksum": (checksum("sha256", b"y"), b"x", 460, "checksum"),
    "an algorithm that is not spoken": ({"Upload-Checksum": "md5 1B2M2Y8AsgTpgAmY7PhCfg=="}, b"x", 400, "bad-checksum"),
    "a checksum that is none": ({"Upload-Checksum": "sha1 AAAA"}, b"x", 400, "bad-checksum"),
}


async def test_a_part_that_is_refused_changes_nothing(door: Door) -> None:
    place = await begun(door, 11)
    assert (await append(door, place, 0, b"four")).status == 204
    for case, (headers, part, status, code) in PARTS.items():
        reply = await append(door, place, 4, part, headers=headers)
        assert (reply.status, reply.json["code"], reply.headers["tus-resumable"]) == (status, code, "1.0.0"), case
        assert await offset_of(door, place) == 4, case
    assert (await append(door, place, 4, b" eleven")).status == 204
    assert (await door.listed("munki", "a.pkg")).content == Digest(hashlib.sha256(b"four eleven").digest())


async def test_a_large_part_with_another_checksum_counts_for_nothing(door: Door) -> None:
    whole = os.urandom(3 * MIB)
    place = await begun(door, len(whole))
    assert (await append(door, place, 0, whole[:1000])).status == 204
    reply = await append(door, place, 1000, whole[1000:], headers=checksum("sha256", b""))
    assert (reply.status, await offset_of(door, place)) == (460, 1000)
    assert (await append(door, place, 1000, whole[1000:], headers=checksum("sha256", whole[1000:]))).status == 204
    assert (await door.listed("munki", "a.pkg")).content == Digest(hashlib.sha256(whole).digest())


async def test_what_is_not_as_promised_is_not_kept(door: Door) -> None:
    place = await begun(door, 4, sha256="00" * 32)
    reply = await append(door, place, 0, b"four")
    assert (reply.status, reply.json["code"]) == (422, "integrity")
    assert (await door.ask("HEAD", place, headers=TUS)).status == 404
    assert on_disk(door) == []
    assert door.services.store.used_bytes == 0


async def test_termination(door: Door) -> None:
    place = await begun(door, 4000)
    await append(door, place, 0, b"four")
    assert (await door.ask("DELETE", place)).json["code"] == "tus-version"
    assert (await door.ask("DELETE", place, headers=TUS)).status == 204
    for reply in (await door.ask("DELETE", place, headers=TUS), await append(door, place, 4, b"x")):
        assert (reply.status, reply.json["code"]) == (404, "no-such-upload")
    assert on_disk(door) == []
    assert door.services.store.used_bytes == 0


@pytest.mark.parametrize("checked", [False, True], ids=["plain", "with a checksum"])
@pytest.mark.parametrize("size", [1000, 3 * MIB])
async def test_a_lost_connection_frees_it(door: Door, size: int, checked: bool) -> None:
    """What came before counts, unless a checksum was promised for all of it. Meanwhile nobody else may write, but how far it is may be asked."""
    whole = os.urandom(size)
    place = await begun(door, size)
    headers = {**PART, "Host": "x", "Upload-Offset": "0", "Content-Length": str(size), **(checksum("sha1", whole) if checked else {})}
    _, writer = await asyncio.open_unix_connection(str(door.socket))
    head = f"PATCH /api/v1{place} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"{head}\r\n".encode() + whole[:-10])
    await writer.drain()
    uploads, upload_id = door.services.uploads, place.rpartition("/")[2]
    await until(uploads._known[upload_id].lock.locked, what="the beginning of the part")
    for reply in (await append(door, place, 0, whole), await door.ask("DELETE", place, headers=TUS)):
        assert (reply.status, reply.json["code"]) == (423, "locked")
    assert await offset_of(door, place) == 0
    writer.close()
    await until(lambda: not uploads._known[upload_id].lock.locked(), what="the end of the part")
    reached = await offset_of(door, place)
    assert reached == (0 if checked else size - 10)
    assert (await append(door, place, reached, whole[reached:])).status == 204
    assert (await door.listed("munki", "a.pkg")).content == Digest(hashlib.sha256(whole).digest())


async def bearer(door: Door, name: str, **limits: Any) -> dict[str, str]:
    reply = await door.ask("POST", "/tokens", {"role": "publisher", "name": name, **limits})
    return {"Authorization": f"Bearer {reply.json['secret']}"}


async def test_whose_it_is(door: Door) -> None:
    """Rights are asked for at the beginning and at the end, and for everything between."""
    other, apps = await bearer(door, "other"), await bearer(door, "apps", shares=["munki"], path="apps")
    for values in ({"path": "a.pkg"}, {"share": "jamf", "path": "apps/a.pkg"}):
        reply = await begin(door, 4, headers=apps, over_tcp=True, **values)
        assert (reply.status, reply.json["code"]) == (403, "not-allowed")
    reply = await begin(door, 4, headers=apps, over_tcp=True, path="Apps/a.pkg")
    assert reply.status == 201
    place = reply.headers["location"].removeprefix("/api/v1")
    for who, status, code in ((other, 404, "no-such-upload"), ({}, 401, "unauthorized"), (apps, 204, None)):
        reply = await append(door, place, 0, b"fo", headers=who, over_tcp=True)
        assert (reply.status, reply.json["code"] if reply.body else None) == (status, code)
    await door.ask("DELETE", "/tokens/apps")
    assert (await append(door, place, 2, b"ur", headers=apps, over_tcp=True)).status == 401
    narrower = await bearer(door, "apps", shares=["jamf"])
    reply = await append(door, place, 2, b"ur", headers=narrower, over_tcp=True)
    assert (reply.status, reply.json["code"]) == (403, "not-allowed")
    assert (await door.ask("GET", "/entries")).json["entries"] == []


async def test_what_cannot_be_published_is_kept_and_tried_again(door: Door) -> None:
    place = await begun(door, 4, share="jamf")
    await door.publish("jamf", "a.pkg", b"meanwhile")
    reply = await append(door, place, 0, b"four")
    assert (reply.status, reply.json["code"]) == (409, "immutable")
    assert (await door.ask("HEAD", place, headers=TUS)).status == 409, "whoever asks must not take it for done"
    await door.ask("POST", "/shares/jamf/remove", {"paths": ["a.pkg"]})
    assert await offset_of(door, place) == 4
    assert (await door.listed("jamf", "a.pkg")).content == Digest(hashlib.sha256(b"four").digest())


async def test_there_are_only_so_many(door: Door) -> None:
    door.services.uploads._config = UploadsConfig(open_max=3, caller_max=2)
    one, other = await bearer(door, "one"), await bearer(door, "other")
    statuses = [(await begin(door, 4, headers=who, over_tcp=True, path=f"{number}")).status for number, who in enumerate([one, one, one, other, other])]
    assert statuses == [201, 201, 429, 201, 429]
    assert len(on_disk(door)) == 3


async def test_expired_ones_are_removed(door: Door) -> None:
    uploads = door.services.uploads
    left, done = await begun(door, 4000), await begun(door, 4, path="b.pkg")
    await append(door, left, 0, b"four")
    await append(door, done, 0, b"four")
    now_ms = door.services.clock_ms()
    uploads._clock_ms = lambda: now_ms + 24 * 3600 * 1000 - 60_000
    await uploads.expire()
    assert await offset_of(door, left) == 4
    uploads._clock_ms = lambda: now_ms + 24 * 3600 * 1000 + 60_000
    assert (await door.ask("HEAD", left, headers=TUS)).status == 404
    await uploads.expire()
    assert (on_disk(door), await door.services.catalog.uploads()) == ([], [])
    assert door.services.store.used_bytes == 4


@given(st.dictionaries(st.text("abcXYZ-_.!~", min_size=1, max_size=8), st.text(max_size=20), max_size=5))
def test_metadata_is_read_as_it_was_written(values: dict[str, str]) -> None:
    assert tus.metadata(described(**values)) == values


@given(st.text(max_size=60), st.sampled_from([tus.metadata, tus.checksum, lambda text: tus.number("x", text), lambda text: content.promised([text])]))
def test_any_text_is_something_or_refused(text: str, read: Any) -> None:
    with contextlib.suppress(InputError):
        assert read(text) is not ...
