"""The table of requests: every case on asyncio and uvloop, plain and TLS, over raw sockets."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from downloads_cases import CASES, LARGE, LARGE_SHA, MODIFIED_DATE, OTHER_TAG, SMALL, TAG, differences, fill
from downloads_world import Client, Reply, World, read_reply, request_of

from replicad.server.downloads.config import DownloadsConfig
from support.waiting import until

pytestmark = pytest.mark.sockets


@pytest.fixture
def world(tmp_path: Path) -> World:
    return fill(World(tmp_path))


@pytest.fixture(params=["plain", "tls"])
async def client(world: World, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    async with world.serve(tls=request.param == "tls", config=DownloadsConfig(linger_s=0.1)) as client:
        yield client


async def test_requests(client: Client, world: World) -> None:
    """The whole table over one door, each case on a connection of its own; all failures are shown at once, by name."""
    failures = {}
    for name, case in CASES.items():
        reply = await client.ask(case.raw or request_of(case.target, *case.headers, method=case.method))
        if found := differences(case, reply):
            failures[name] = found
    assert failures == {}
    assert world.lost == []


async def test_absent_and_private_look_the_same(client: Client) -> None:
    def shown(reply: Reply) -> bytes:
        return b"\r\n".join(line for line in reply.raw.split(b"\r\n") if not line.startswith(b"Date: ")) + reply.body

    replies = [
        await client.get(target) for target in ("/none/secret.pkg", "/customers/secret.pkg", "/customers/none", "/jamf/none", "/jamf/far.pkg", "/jamf/..")
    ]
    assert len({shown(reply) for reply in replies}) == 1


async def test_not_ready(client: Client, world: World) -> None:
    world.waiting_for = ["catalog", "store"]
    reply = await client.get("/-/ready")
    assert (reply.status, reply.body) == (503, b'{"ready": false, "waiting_for": ["catalog", "store"]}\n')
    assert (await client.get("/-/health")).status == 200


async def test_many_requests_on_one_connection(client: Client) -> None:
    """Kept alive through files of every size, ranges, refusals and conditions, one after the other and pipelined."""
    asked = [
        (request_of("/jamf/small.pkg"), 200),
        (request_of("/jamf/large.pkg"), 200),
        (request_of("/jamf/none"), 404),
        (request_of("/jamf/large.pkg", "Range: bytes=1-400000"), 206),
        (request_of("/jamf/small.pkg", f"If-None-Match: {TAG}"), 304),
        (request_of("/jamf/small.pkg", method="HEAD"), 200),
        (request_of("/-/health"), 200),
        (request_of("/jamf/large.pkg", "Range: bytes=0-0,-1"), 206),
        (request_of("/jamf/small.pkg", method="DELETE"), 405),
        (request_of("/jamf/empty"), 200),
        (request_of("/jamf/%zz"), 400),
        (request_of("/jamf/small.pkg", "Range: bytes=9999-"), 416),
        (request_of("/jamf/large.pkg"), 200),
    ]
    reader, writer = await client.connect()
    for request, status in asked * 2:
        writer.write(request)
        assert (await read_reply(reader, request.split(b" ")[0].decode())).status == status
    writer.write(b"".join(request for request, _ in asked * 10))
    for request, status in asked * 10:
        assert (await read_reply(reader, request.split(b" ")[0].decode())).status == status
    writer.close()


GOOD = request_of("/jamf/small.pkg", "Range: bytes=0-9")
PIPELINES = {
    "garbage": (GOOD + b"\x00 garbage\r\n\r\n", [206, 400]),
    "a smuggling shape": (GOOD + request_of("/", "Content-Length: 4", "Transfer-Encoding: chunked") + GOOD, [206, 400]),
    "a bad target": (GOOD + request_of("/jamf/%zz") + GOOD, [206, 400, 206]),
    "a request of another version": (GOOD + b"GET / HTTP/2.0\r\nHost: x\r\n\r\n" + GOOD, [206, 400]),
    "a request that ends the connection": (GOOD + request_of("/jamf/none", "Connection: close") + GOOD, [206, 404]),
    "HTTP/1.0": (GOOD + b"GET /jamf/none HTTP/1.0\r\n\r\n" + GOOD, [206, 404]),
    "a body": (GOOD + request_of("/jamf/none", "Content-Length: 4") + b"body" + GOOD, [206, 404]),
    "an empty line": (GOOD + b"\r\n" + GOOD, [206, 206]),
    "two empty lines": (GOOD + b"\r\n\r\n" + GOOD, [206, 206]),
}


@pytest.mark.parametrize("name", PIPELINES)
async def test_what_was_asked_before_something_bad_is_answered(client: Client, name: str) -> None:
    """However the bytes are cut where the first head ends, in which the parser sees the second only later."""
    sent, expected = PIPELINES[name]
    for cut in (len(sent), *range(len(GOOD) - 4, len(GOOD) + 5)):
        reader, writer = await client.connect()
        writer.write(sent[:cut])
        await until(lambda cut=cut: [one._tail for one in client.server.connections] in ([], [sent[cut - 3 : cut]]), what="the first part")  # type: ignore[misc]
        writer.write(sent[cut:])
        replies = [await read_reply(reader) for _ in expected]
        assert [reply.status for reply in replies] == expected, cut
        assert replies[0].body == SMALL[:10]
        if replies[-1].fields.get("connection") == "close":
            async with asyncio.timeout(10):
                assert await reader.read() == b"", cut
        writer.close()
        await until(lambda: not client.server.connections, what="the end of the connection")


async def test_request_in_single_bytes(client: Client) -> None:
    reader, writer = await client.connect()
    for byte in request_of("/jamf/small.pkg", "Range: bytes=0-9"):
        writer.write(bytes([byte]))
        await writer.drain()
    assert (await read_reply(reader)).body == SMALL[:10]
    writer.close()


async def test_each_answer_is_one_version(client: Client, world: World) -> None:
    """The name is replaced while its old content is being downloaded: this answer stays the old one to its last byte, If-Range decides about the next."""
    reader, writer = await client.connect()
    old_tag = OTHER_TAG
    writer.write(request_of("/jamf/large.pkg"))
    head = await reader.readuntil(b"\r\n\r\n")
    assert old_tag.encode() in head
    new = random.Random(3).randbytes(700_001)
    world.put("jamf", "large.pkg", new, modified=1_700_000_100)
    world.path_of(next(content for content in world.held if str(content) == LARGE_SHA)).unlink()
    assert await reader.readexactly(len(LARGE)) == LARGE
    writer.write(request_of("/jamf/large.pkg", "Range: bytes=1000-", f"If-Range: {old_tag}"))
    reply = await read_reply(reader)
    assert (reply.status, reply.body) == (200, new)
    writer.close()
    resumed = await client.get("/jamf/large.pkg", "Range: bytes=1000-", f"If-Range: {reply.fields['etag']}")
    assert (resumed.status, resumed.body) == (206, new[1000:])
    by_date = await client.get("/jamf/large.pkg", "Range: bytes=1000-", f"If-Range: {MODIFIED_DATE}")
    assert (by_date.status, by_date.body) == (200, new)
