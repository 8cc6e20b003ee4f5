"""A client that does what Munki's does, as its sources document it: conditional requests, resuming on whatever node answers next, starting over when the rest does not fit."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import socket
import threading
from asyncio import to_thread
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
from downloads_world import Client, World

from support.waiting import until

BODY, NEWER = Random(6).randbytes(24 << 20), Random(7).randbytes(20 << 20)
PART = 1 << 20
TARGET = "/munki/pkgs/Firefox%20145.pkg"


class Connection(http.client.HTTPConnection):
    """Little of an answer is under way that its reader has not asked for."""

    def connect(self) -> None:
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        self.sock.settimeout(60)
        self.sock.connect((self.host, self.port))


@dataclass
class MunkiClient:
    """One download of one package. ``stored`` are the validators and the length of the first answer, beside the partial file; ``statuses`` what it was answered."""

    file: Path
    stored: dict[str, str] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    complete: bool = False
    pause: Callable[[], bool] = lambda: True

    def fetch(self, port: int) -> None:
        """One attempt at one node; OSError or HTTPException when that dies on the way, with what came kept."""
        headers = {"User-Agent": "managedsoftwareupdate/7.0 Darwin/25"}
        have = self.file.stat().st_size if self.file.exists() else 0
        if self.complete:
            headers |= {"If-None-Match": self.stored["ETag"], "If-Modified-Since": self.stored["Last-Modified"]}
        elif have:
            headers["Range"] = f"bytes={have}-"
        connection = Connection("127.0.0.1", port)
        try:
            connection.request("GET", TARGET, headers=headers)
            self._take(connection.getresponse(), have)
        finally:
            connection.close()

    def _take(self, answer: http.client.HTTPResponse, have: int) -> None:
        self.statuses.append(answer.status)
        if answer.status == 304:
            return
        if answer.status >= 400 or (answer.status == 206 and not self._fits(answer, have)):
            self.file.unlink(missing_ok=True)
            self.complete = False
            return
        if answer.status == 200:
            self.stored = {name: answer.headers[name] for name in ("ETag", "Last-Modified", "Content-Length")}
        self.complete = False
        with self.file.open("ab" if answer.status == 206 else "wb") as file:
            while part := answer.read1(1 << 16):
                file.write(part)
                file.flush()
                assert self.pause()
        if self.file.stat().st_size < int(self.stored["Content-Length"]):
            raise http.client.IncompleteRead(b"")
        self.complete = True

    def _fits(self, answer: http.client.HTTPResponse, have: int) -> bool:
        same = all(answer.headers[name] == self.stored.get(name) for name in ("ETag", "Last-Modified"))
        return same and int(answer.headers["Content-Length"]) + have == int(self.stored["Content-Length"])


def make_world(root: Path, body: bytes) -> World:
    root.mkdir()
    world = World(root)
    world.share("munki")
    world.put("munki", "pkgs/Firefox 145.pkg", body)
    return world


@pytest.fixture
def munki(tmp_path: Path) -> MunkiClient:
    return MunkiClient(tmp_path / "Firefox-145.pkg.download")


async def interrupted(munki: MunkiClient, node: Client) -> None:
    """The node dies when a part of the package is there: its connections break while the client, who reads no further until then, waits."""
    broken = threading.Event()
    munki.pause = lambda: munki.file.stat().st_size < PART or broken.wait(60)

    async def die() -> None:
        await until(lambda: munki.file.exists() and munki.file.stat().st_size >= PART, what="a part of the package")
        for connection in node.server.connections:
            assert connection.transport is not None
            connection.transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        broken.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(die())
        with pytest.raises((OSError, http.client.HTTPException)):
            await to_thread(munki.fetch, node.port)


async def test_what_the_first_node_began_another_one_ends(munki: MunkiClient, tmp_path: Path) -> None:
    first, second = make_world(tmp_path / "first", BODY), make_world(tmp_path / "second", BODY)
    async with first.serve() as node:
        await interrupted(munki, node)
    begun = munki.file.stat().st_size
    assert 0 < begun < len(BODY)
    async with second.serve() as node:
        await to_thread(munki.fetch, node.port)
        assert munki.file.read_bytes() == BODY
        await to_thread(munki.fetch, node.port)
    assert munki.statuses == [200, 206, 304]
    assert second.noted[0].sent_bytes == len(BODY) - begun


async def test_what_was_replaced_meanwhile_begins_anew(munki: MunkiClient, tmp_path: Path) -> None:
    first, second = make_world(tmp_path / "first", BODY), make_world(tmp_path / "second", NEWER)
    async with first.serve() as node:
        await interrupted(munki, node)
    async with second.serve() as node:
        await to_thread(munki.fetch, node.port)
        assert not munki.file.exists(), "the rest of another version"
        await to_thread(munki.fetch, node.port)
        assert hashlib.sha256(munki.file.read_bytes()).digest() == hashlib.sha256(NEWER).digest()
    assert munki.statuses == [200, 206, 200]


async def test_a_part_that_is_too_long_or_a_file_that_is_gone_begins_anew(munki: MunkiClient, tmp_path: Path) -> None:
    world = make_world(tmp_path / "node", BODY)
    munki.file.write_bytes(bytes(len(BODY)))
    async with world.serve() as node:
        await to_thread(munki.fetch, node.port)
        assert not munki.file.exists()
        world.names.clear()
        await to_thread(munki.fetch, node.port)
        assert not munki.file.exists()
        world.put("munki", "pkgs/Firefox 145.pkg", NEWER)
        await to_thread(munki.fetch, node.port)
    assert munki.statuses == [416, 404, 200]
    assert munki.file.read_bytes() == NEWER
