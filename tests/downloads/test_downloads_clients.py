"""Real clients: curl, wget, aria2 and Python's libraries resume, ask for ranges, revalidate; Munki's documented logic goes on with another node."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from downloads_world import MODIFIED, Client, World

pytestmark = pytest.mark.sockets

BODY = random.Random(4).randbytes(9_000_001)
MUNKI_TAG = f'"{hashlib.sha256(BODY).hexdigest()}"'


needs = pytest.mark.needs


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.share("jamf")
    world.put("jamf", "Packages/Firefox 145.pkg", BODY)
    world.put("jamf", "small.txt", b"small\n")
    return world


@pytest.fixture(params=["plain", "tls"])
async def client(world: World, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    async with world.serve(tls=request.param == "tls") as client:
        yield client


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "downloaded"


async def run(*command: str | int | Path) -> str:
    """Its stdout; fails with its stderr."""
    process = await asyncio.create_subprocess_exec(*map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(60):
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode("latin-1")


def url(client: Client) -> str:
    return f"{client.url}/jamf/Packages/Firefox%20145.pkg"


async def curl(*arguments: str | Path) -> str:
    return await run("curl", "--silent", "--show-error", "--fail", "--insecure", "--write-out", "%{http_code} %{size_download}", *arguments)


@needs("curl")
async def test_curl_whole(client: Client, target: Path) -> None:
    assert await curl("--output", target, url(client)) == f"200 {len(BODY)}"
    assert target.read_bytes() == BODY


@needs("curl")
async def test_curl_http_1_0(client: Client, target: Path) -> None:
    assert await curl("--http1.0", "--output", target, url(client)) == f"200 {len(BODY)}"
    assert target.read_bytes() == BODY


@needs("curl")
async def test_curl_keeps_the_time(client: Client, target: Path) -> None:
    await curl("--remote-time", "--output", target, url(client))
    assert int(target.stat().st_mtime) == MODIFIED


@needs("curl")
@pytest.mark.parametrize("have", [1, 4_000_000, len(BODY) - 1])
async def test_curl_resumes(client: Client, target: Path, have: int) -> None:
    target.write_bytes(BODY[:have])
    assert await curl("--continue-at", "-", "--output", target, url(client)) == f"206 {len(BODY) - have}"
    assert target.read_bytes() == BODY


@needs("curl")
async def test_curl_in_parallel_ranges(client: Client, tmp_path: Path) -> None:
    size = len(BODY)
    bounds = [size * part // 8 for part in range(9)]
    parts = [tmp_path / f"part{number}" for number in range(8)]
    async with asyncio.TaskGroup() as group:
        for number, part in enumerate(parts):
            group.create_task(curl("--range", f"{bounds[number]}-{bounds[number + 1] - 1}", "--output", part, url(client)))
    assert b"".join(part.read_bytes() for part in parts) == BODY


@needs("curl")
async def test_curl_many_on_one_connection(client: Client, tmp_path: Path) -> None:
    outputs = [tmp_path / f"copy{number}" for number in range(20)]
    arguments: list[str | Path] = []
    for output in outputs:
        arguments += ["--output", output, f"{client.url}/jamf/small.txt"]
    connects = await run("curl", "--silent", "--insecure", "--write-out", "%{num_connects} ", *arguments)
    assert connects.split() == ["1"] + ["0"] * 19
    assert {output.read_bytes() for output in outputs} == {b"small\n"}


@needs("curl")
async def test_curl_several_ranges(client: Client) -> None:
    output = await run("curl", "--silent", "--insecure", "--range", "0-9,5000000-5000009", "--include", url(client))
    assert output.startswith("HTTP/1.1 206 ")
    assert output.count("Content-Range: bytes ") == 2


@needs("curl")
async def test_curl_revalidates(client: Client, world: World, target: Path, tmp_path: Path) -> None:
    tag = tmp_path / "etag"
    await curl("--etag-save", tag, "--output", target, f"{client.url}/jamf/small.txt")
    assert await curl("--etag-compare", tag, "--output", target, f"{client.url}/jamf/small.txt") == "304 0"
    assert await curl("--remote-time", "--output", target, f"{client.url}/jamf/small.txt") == "200 6"
    assert await curl("--time-cond", target, "--output", tmp_path / "other", f"{client.url}/jamf/small.txt") == "304 0"
    world.put("jamf", "small.txt", b"changed\n", modified=MODIFIED + 1)
    assert await curl("--etag-compare", tag, "--output", target, f"{client.url}/jamf/small.txt") == "200 8"


@needs("wget")
async def test_wget_resumes(client: Client, target: Path) -> None:
    target.write_bytes(BODY[:3_000_000])
    await run("wget", "--quiet", "--no-check-certificate", "--continue", "--output-document", target, url(client))
    assert target.read_bytes() == BODY


@needs("wget")
async def test_wget_fetches_only_what_is_newer(client: Client, world: World, tmp_path: Path) -> None:
    copy = tmp_path / "mirror" / "small.txt"
    fetch = ("wget", "--no-verbose", "--no-check-certificate", "--timestamping", "--directory-prefix", copy.parent, f"{client.url}/jamf/small.txt")
    await run(*fetch)
    copy.write_bytes(b"local\n")
    os.utime(copy, (MODIFIED, MODIFIED))
    await run(*fetch)
    assert copy.read_bytes() == b"local\n"
    world.put("jamf", "small.txt", b"newer\n", modified=MODIFIED + 5)
    await run(*fetch)
    assert copy.read_bytes() == b"newer\n"


PYTHON = """
import pathlib, sys, requests, urllib3
url, target, tag, have = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
with requests.Session() as session:
    session.verify = False
    session.trust_env = False
    head = session.head(url)
    assert head.headers["ETag"] == tag and head.headers["Accept-Ranges"] == "bytes"
    with session.get(url, headers={"Range": f"bytes={have}-", "If-Range": tag}, stream=True) as rest, target.open("ab") as out:
        assert rest.status_code == 206
        for piece in rest.iter_content(1 << 16):
            out.write(piece)
    assert session.get(url, headers={"If-None-Match": tag}).status_code == 304
with urllib3.PoolManager(cert_reqs="CERT_NONE", retries=False) as pool:
    whole = pool.request("GET", url)
    assert whole.status == 200 and whole.data == target.read_bytes()
"""
"""What a script of an administrator does: looks, resumes, asks whether there is news, and takes the whole by the library below."""


async def test_python_requests_and_urllib3(client: Client, target: Path) -> None:
    target.write_bytes(BODY[:3_000_000])
    await run(sys.executable, "-W", "ignore", "-c", PYTHON, url(client), target, MUNKI_TAG, 3_000_000)
    assert target.read_bytes() == BODY


@needs("aria2c")
async def test_aria2_in_pieces(client: Client, target: Path) -> None:
    checksum = f"--checksum=sha-256={hashlib.sha256(BODY).hexdigest()}"
    options = ("--quiet", "--check-certificate=false", "--max-connection-per-server=8", "--split=8", "--min-split-size=1M", "--file-allocation=none")
    await run("aria2c", *options, checksum, f"--dir={target.parent}", f"--out={target.name}", url(client))
    assert target.read_bytes() == BODY


async def test_munki_goes_on_with_another_node(world: World, tmp_path: Path) -> None:
    """Munki: `Range: bytes=N-` without If-Range; keeps its part only if the 206 has the ETag and the Last-Modified of the first answer and the lengths add up."""
    (tmp_path / "second").mkdir()
    second = World(tmp_path / "second")
    second.share("jamf")
    second.put("jamf", "Packages/Firefox 145.pkg", BODY)
    async with world.serve() as first_node:
        first = await first_node.get("/jamf/Packages/Firefox%20145.pkg", "Range: bytes=0-2999999")
    async with second.serve() as second_node:
        rest = await second_node.get("/jamf/Packages/Firefox%20145.pkg", "Range: bytes=3000000-")
        beyond = await second_node.get("/jamf/Packages/Firefox%20145.pkg", f"Range: bytes={len(BODY)}-")
    assert (first.status, rest.status, beyond.status) == (206, 206, 416)
    same = ("etag", "last-modified", "repr-digest", "content-type", "cache-control", "accept-ranges")
    assert [first.fields[name] for name in same] == [rest.fields[name] for name in same]
    assert first.fields["etag"] == MUNKI_TAG
    assert int(rest.fields["content-length"]) + 3_000_000 == len(BODY)
    assert first.body + rest.body == BODY
