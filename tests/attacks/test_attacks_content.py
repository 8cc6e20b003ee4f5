"""Requests about content that never end, under a real session: they are given up, and what they held is free again."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from replicad.net.client import BATCH_PATH, BLOBS_PATH
from replicad.net.link import Link
from replicad.server.peers import requests
from support.data_node import DataNode, data_network


async def _status(node: DataNode, link: Link, method: str, target: str, *, content_range: str = "") -> int:
    """What a request is answered whose body of 100 bytes never comes whole."""
    host, _, port = node.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nAuthorization: {link.authorize(method, target, content_range)}\r\nContent-Range: {content_range}\r\nContent-Length: 100\r\n\r\n"
    writer.write(head.encode() + bytes(50))
    try:
        return int((await reader.readline()).split()[1])
    finally:
        writer.transport.abort()


async def test_a_body_that_stalls_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "BODY_STALL_S", 0.2)
    async with data_network(tmp_path) as network:
        victim, villain = await network.node("victim"), await network.node("villain")
        to_victim, _ = await network.link(villain, victim)
        assert await _status(victim, to_victim, "POST", f"{BATCH_PATH}?sha256={hashlib.sha256(b'').hexdigest()}") == 400
        name = (f"{BLOBS_PATH}{'0' * 64}", "bytes 0-99/100")
        with victim.fetch.inbox.expecting(villain.id, name=name, into=memoryview(bytearray(100)), exact=True) as expected:
            assert await _status(victim, to_victim, "PUT", f"{name[0]}?transfer={expected.transfer}", content_range=name[1]) == 400
            received, error = await expected.wait(stall_s=30, limit_s=30)
            assert (received, error and error.error_code) == (50, "unreachable")
