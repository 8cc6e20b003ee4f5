"""Checksums that a share asks for are there when an upload is answered, whatever way it came, and shown with the file. Nothing computes them afterwards here."""

from __future__ import annotations

import base64
import hashlib
import os
import struct

import pytest

from replicad.server.admin import tus
from support.admin_door import Door

MIB = 1 << 20
ASKED = ["md5", "sha3_512", "sha512"]


def expected(content: bytes) -> dict[str, str]:
    return {algorithm: hashlib.new(algorithm, content).hexdigest() for algorithm in ASKED}


async def put(door: Door, content: bytes) -> None:
    reply = await door.ask("PUT", "/shares/munki/files/a.pkg", content, headers={"Repr-Digest": f"sha-512=:{sha512_base64(content)}:"})
    assert reply.status == 200, reply.body


async def put_blob(door: Door, content: bytes) -> None:
    assert (await door.ask("PUT", "/blobs?share=munki", content)).status == 200
    await name(door, content)


async def put_frames(door: Door, content: bytes) -> None:
    body = b"".join(struct.pack(">I", len(one)) + one for one in (b"another", content))
    assert (await door.ask("POST", "/blobs?share=munki", body)).status == 200
    await name(door, content)


async def put_parts(door: Door, content: bytes) -> None:
    metadata = f"share {base64.b64encode(b'munki').decode()},path {base64.b64encode(b'a.pkg').decode()}"
    begun = await door.ask("POST", "/uploads", headers={"Tus-Resumable": tus.VERSION, "Upload-Length": str(len(content)), "Upload-Metadata": metadata})
    half = len(content) // 2
    for start, part in ((0, content[:half]), (half, content[half:])):
        headers = {"Tus-Resumable": tus.VERSION, "Upload-Offset": str(start), "Content-Type": "application/offset+octet-stream"}
        headers |= {"Upload-Checksum": f"sha256 {base64.b64encode(hashlib.sha256(part).digest()).decode()}"} if start else {}
        assert (await door.ask("PATCH", begun.headers["location"].removeprefix("/api/v1"), part, headers=headers)).status == 204


async def name(door: Door, content: bytes) -> None:
    entries = [{"path": "a.pkg", "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}]
    assert (await door.ask("POST", "/shares/munki/entries", {"entries": entries})).status == 200


def sha512_base64(content: bytes) -> str:
    return base64.b64encode(hashlib.sha512(content).digest()).decode()


@pytest.mark.sockets
@pytest.mark.parametrize(
    ("send", "size"),
    [(put, 5 * MIB + 1), (put, 100), (put_blob, 5 * MIB + 1), (put_blob, 100), (put_frames, 100), (put_parts, 5 * MIB + 1), (put_parts, 100)],
    ids=lambda one: one.__name__ if callable(one) else str(one),
)
async def test_they_come_with_the_upload(door: Door, send: object, size: int) -> None:
    assert (await door.ask("PATCH", "/shares/munki", {"checksums": ASKED})).status == 200
    content = os.urandom(size)
    await send(door, content)  # type: ignore[operator]
    [listed] = (await door.ask("GET", "/entries?share=munki")).json["entries"]
    assert (listed["sha256"], listed["checksums"]) == (hashlib.sha256(content).hexdigest(), expected(content))
    assert (await door.ask("GET", "/shares/munki/entries/a.pkg")).json["entry"] == listed


async def test_a_share_that_asks_for_nothing_gets_nothing(door: Door) -> None:
    await put(door, b"x")
    assert (await door.ask("GET", "/shares/munki/entries/a.pkg")).json["entry"]["checksums"] == {}
    assert (await door.ask("POST", "/shares", {"name": "fonts", "checksums": ["md5"]})).json["share"]["checksums"] == ["md5"]
