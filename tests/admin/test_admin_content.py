"""Uploads arrive whole or leave nothing; downloads are the verified bytes or a broken connection."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import hashlib
import os
import struct
from pathlib import Path

import pytest

from replicad.cli.client import UnixConnection
from replicad.errors import InputError
from replicad.model.chunks import CHUNK_SIZE_MIN
from replicad.model.ids import Digest
from replicad.server.admin.content import split
from support.admin_door import Door
from support.waiting import until

pytestmark = pytest.mark.sockets

SIZES = (0, 1, 65_536, CHUNK_SIZE_MIN, CHUNK_SIZE_MIN + 1, 5 * CHUNK_SIZE_MIN + 12_345)


@pytest.mark.parametrize("size", SIZES)
async def test_an_upload_is_stored_and_told(door: Door, size: int) -> None:
    content = os.urandom(size)
    reply = await door.ask("PUT", "/blobs", content)
    assert reply.json == {"sha256": hashlib.sha256(content).hexdigest(), "size": size}
    digest = Digest.parse(reply.json["sha256"])
    assert door.services.catalog.is_held(digest)
    assert door.services.store.path_of(digest).read_bytes() == content


@pytest.mark.parametrize("over_tcp", [True, False])
async def test_an_upload_that_comes_in_drops(door: Door, *, over_tcp: bool) -> None:
    """Head and body in separate, small pieces, so that the HTTP library has read some of the body before the store's thread takes over."""
    content = os.urandom(3 * CHUNK_SIZE_MIN)
    reader, writer = await (asyncio.open_connection("127.0.0.1", door.port) if over_tcp else asyncio.open_unix_connection(str(door.socket)))
    head = f"PUT /api/v1/blobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a-token-for-tests\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    writer.write(head + content[:10_000])
    await writer.drain()
    for start in range(10_000, len(content), 70_001):
        writer.write(content[start : start + 70_001])
        await writer.drain()
    answer = await reader.read()
    assert hashlib.sha256(content).hexdigest().encode() in answer
    assert b"Connection: close" in answer
    writer.close()


CUTS = {1000: (0, 1, 999), 3 * CHUNK_SIZE_MIN: (0, 1, 70_000, CHUNK_SIZE_MIN - 1, CHUNK_SIZE_MIN, 3 * CHUNK_SIZE_MIN - 1)}


@pytest.mark.parametrize("size", CUTS)
async def test_an_upload_that_is_cut_off_leaves_nothing(door: Door, size: int, caplog: pytest.LogCaptureFixture) -> None:
    for path in ("/blobs", "/shares/munki/files/a.pkg"):
        head = f"PUT /api/v1{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()
        for cut in CUTS[size]:
            _, writer = await asyncio.open_unix_connection(str(door.socket))
            writer.write(head + os.urandom(cut))
            await writer.drain()
            if size > CHUNK_SIZE_MIN:
                await until(door.left_behind, what="the upload's temporary file")
            writer.close()
            await writer.wait_closed()
            await until(lambda: not door.left_behind(), what="the end of the upload")
    await until(lambda: not door.services.store.used_bytes, what="the room that it took")
    assert (await door.services.catalog.usage()).contents == 0
    assert (await door.ask("GET", "/entries")).json["entries"] == []
    assert "Traceback" not in caplog.text


async def test_a_download_that_is_cut_off_is_no_failure_of_the_daemon(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    await door.publish("munki", "a.pkg", os.urandom(20 * CHUNK_SIZE_MIN))
    reader, writer = await asyncio.open_unix_connection(str(door.socket))
    writer.write(b"GET /api/v1/shares/munki/files/a.pkg HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readexactly(1000)
    writer.transport.abort()
    assert (await door.ask("GET", "/node")).status == 200
    await until(lambda: len(asyncio.all_tasks()) < 10, what="the end of the download")
    assert "Traceback" not in caplog.text


async def test_an_upload_needs_a_length(door: Door) -> None:
    reply = await door.send(b"PUT /api/v1/blobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n")
    assert (reply.status, reply.json["code"]) == (400, "length-required")
    reply = await door.send(f"PUT /api/v1/blobs HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 43}\r\n\r\n".encode())
    assert (reply.status, reply.json["code"]) == (400, "too-long")


@pytest.mark.parametrize("size", [100, 2 * CHUNK_SIZE_MIN])
async def test_an_upload_is_stored_as_it_is_sent_or_not_at_all(door: Door, size: int) -> None:
    reply = await door.ask("PUT", "/blobs", gzip.compress(os.urandom(size)), headers={"Content-Encoding": "gzip"})
    assert (reply.status, reply.json["code"]) == (400, "content-encoding")
    assert (await door.services.catalog.usage()).contents == 0


async def test_a_full_disk_refuses_before_the_bytes_come(door: Door) -> None:
    reply = await door.send(f"PUT /api/v1/blobs HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 41}\r\n\r\n".encode())
    assert (reply.status, reply.json["code"]) == (507, "no-space")
    assert door.left_behind() == []


def frames(*contents: bytes) -> bytes:
    """A batch."""
    return b"".join(struct.pack(">I", len(content)) + content for content in contents)


async def test_a_batch(door: Door) -> None:
    contents = [b"", b"one", os.urandom(CHUNK_SIZE_MIN), b"one"]
    reply = await door.ask("POST", "/blobs", frames(*contents))
    assert reply.json["blobs"] == [{"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)} for content in contents]
    for content in contents:
        assert door.services.store.path_of(Digest(hashlib.sha256(content).digest())).read_bytes() == content


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\0\0", "middle of a frame"),
        (frames(b"abc")[:-1], "a frame of 3 bytes"),
        (struct.pack(">I", CHUNK_SIZE_MIN + 1) + bytes(CHUNK_SIZE_MIN + 1), "at most 1048576"),
        (frames(*[b""] * 257), "more than 256"),
    ],
)
async def test_a_batch_that_is_not_one(door: Door, body: bytes, reason: str) -> None:
    reply = await door.ask("POST", "/blobs", body)
    assert reply.status == 400
    assert reason in reply.json["detail"]
    assert (await door.services.catalog.usage()).contents == 0


WIDE = frames(*[b"x" * 65536] * 20)
"""More than one chunk, so that it is read past the HTTP library."""


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/blobs", WIDE, 200),
        ("POST", "/blobs", WIDE[:-1], 400),
        ("PUT", "/shares/jamf/files/there.pkg", WIDE, 409),
    ],
)
async def test_a_connection_whose_body_went_past_the_library_ends_with_its_answer(door: Door, method: str, path: str, body: bytes, status: int) -> None:
    """Otherwise the next request on it would be taken for the body that the library still waits for."""
    await door.publish("jamf", "there.pkg", b"something else")

    def ask_twice() -> list[tuple[int, str | None]]:
        answers = []
        with contextlib.closing(UnixConnection(str(door.socket), timeout_s=10)) as connection:
            for _ in range(2):
                connection.request(method, f"/api/v1{path}", body=body)
                reply = connection.getresponse()
                reply.read()
                answers.append((reply.status, reply.headers["Connection"]))
        return answers

    assert await asyncio.to_thread(ask_twice) == [(status, "close")] * 2


def test_a_batch_is_split_at_its_frames() -> None:
    assert split(memoryview(b"")) == []
    assert split(memoryview(frames(b"a", b"", b"bc"))) == [b"a", b"", b"bc"]
    with pytest.raises(InputError, match="a frame of 4294967295 bytes"):
        split(memoryview(b"\xff\xff\xff\xff"))


def repr_digest(content: bytes, *algorithms: str) -> str:
    """The field of RFC 9530."""
    digests = {name: hashlib.new(name.replace("-", ""), content).digest() for name in algorithms}
    return ", ".join(f"{name}=:{base64.b64encode(digest).decode()}:" for name, digest in digests.items())


@pytest.mark.parametrize("size", [1000, 3 * CHUNK_SIZE_MIN])
async def test_every_digest_that_is_given_must_be_right(door: Door, size: int) -> None:
    content = os.urandom(size)
    right = [repr_digest(content, "sha-256"), repr_digest(content, "sha-512"), repr_digest(content, "sha-512", "sha-256"), "md5=:AA==:"]
    wrong = [
        repr_digest(b"", "sha-512"),
        f"{repr_digest(b'', 'sha-512')}, {repr_digest(content, 'sha-256')}",
        f"{repr_digest(content, 'sha-512')},{repr_digest(b'', 'sha-256')}",
    ]
    for path in ("/blobs", "/shares/munki/files/a.pkg"):
        for field in wrong:
            reply = await door.ask("PUT", path, content, headers={"Repr-Digest": field})
            assert (reply.status, reply.json["code"]) == (422, "integrity"), field
            assert (door.left_behind(), door.services.store.used_bytes) == ([], size * (path != "/blobs"))
        for field in right:
            assert (await door.ask("PUT", path, content, headers={"Repr-Digest": field})).status == 200, field


async def test_content_and_name_in_one(door: Door) -> None:
    content = b"the package"
    given = repr_digest(content, "sha-256", "sha-512")
    reply = await door.ask("PUT", "/shares/munki/files/pkgs/a%20b.pkg?publisher=jane&stage=test", content, headers={"Repr-Digest": f"md5=:AA==:, {given}"})
    assert [(one["path"], one["stage"], one["state"]) for one in reply.json["published"]] == [("pkgs/a b.pkg", "test", "new")]
    reply = await door.ask("GET", "/shares/munki/files/pkgs/a%20b.pkg")
    assert (reply.status, reply.body, reply.headers["etag"]) == (200, content, f'"{hashlib.sha256(content).hexdigest()}"')


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/shares/munki/files/a.pkg", {"Repr-Digest": "sha-256=:" + base64.b64encode(bytes(32)).decode() + ":"}, 422, "integrity"),
        ("/shares/munki/files/a.pkg", {"Repr-Digest": "sha-256=:AAAA:"}, 400, "bad-input"),
        ("/shares/munki/files/a.pkg", {"Repr-Digest": "sha-256=?1"}, 400, "bad-input"),
        ("/shares/munki/files/a.pkg", {"Repr-Digest": "md5=:AA==:, sha-512"}, 400, "bad-input"),
        ("/shares/munki/files/there.pkg", {"If-None-Match": "*"}, 412, "exists"),
        ("/shares/none/files/a.pkg", {}, 404, "no-such-share"),
        ("/shares/munki/files/a%3F.pkg", {}, 400, "bad-path"),
        ("/shares/munki/files/a.pkg?stage=none", {}, 400, "no-such-stage"),
        ("/shares/jamf/files/there.pkg", {}, 409, "immutable"),
    ],
)
async def test_what_is_refused_is_not_named(door: Door, path: str, headers: dict[str, str], status: int, code: str) -> None:
    for share in ("munki", "jamf"):
        await door.publish(share, "there.pkg", b"old")
    reply = await door.ask("PUT", path, b"new", headers=headers)
    assert (reply.status, reply.json["code"]) == (status, code)
    assert [one["size"] for one in (await door.ask("GET", "/entries")).json["entries"]] == [3, 3]
    assert (await door.listed("munki", "there.pkg")).content == Digest(hashlib.sha256(b"old").digest())


@pytest.mark.parametrize("size", [0, 3 * CHUNK_SIZE_MIN + 5])
async def test_content_comes_back(door: Door, size: int) -> None:
    content = os.urandom(size)
    await door.publish("munki", "a.pkg", content)
    reply = await door.ask("GET", "/shares/munki/files/A.PKG")
    assert (reply.body == content, reply.headers["content-length"]) == (True, str(size))
    assert (await door.ask("GET", "/shares/munki/files/none.pkg")).status == 404


async def test_content_that_is_not_here_yet(door: Door) -> None:
    await door.publish("munki", "a.pkg", b"content")
    listed = await door.listed("munki", "a.pkg")
    await door.services.catalog.lose(listed.content)
    reply = await door.ask("GET", "/shares/munki/files/a.pkg")
    assert (reply.status, reply.json["code"], reply.json["hint"]) == (503, "not-here-yet", "replicad wait munki/a.pkg")


async def test_a_blob_that_became_shorter_breaks_the_connection(door: Door) -> None:
    await door.publish("munki", "a.pkg", os.urandom(3 * CHUNK_SIZE_MIN))
    blob: Path = door.services.store.path_of((await door.listed("munki", "a.pkg")).content)
    os.truncate(blob, CHUNK_SIZE_MIN)
    with pytest.raises(asyncio.IncompleteReadError):
        await door.ask("GET", "/shares/munki/files/a.pkg")
