"""Clients that are sent elsewhere because their share asks for that, with curl and over raw sockets; and every client that stays."""

from __future__ import annotations

import asyncio
import random
from ipaddress import ip_network
from pathlib import Path

import pytest
from downloads_world import Client, Reply, World, signed

from replicad.crypto import passwords
from replicad.crypto.hashing import sha256
from replicad.crypto.keys import SigningKey
from replicad.integrations.mirrors import Mirror
from replicad.model.access import Access, BearerToken
from replicad.server.downloads.config import DownloadsConfig

pytestmark = pytest.mark.sockets
BODY = random.Random(6).randbytes(3_000_001)
PATH = "Packages/Caf\u00e9 & Co.pkg"
QUOTED = "Packages/Caf%C3%A9%20%26%20Co.pkg"
CDN = "https://cdn.example.org/mirror"
CACHE = "http://cache.example.org:8080"
BY_PROXY = DownloadsConfig(proxies=(ip_network("127.0.0.0/8"),), url="https://ams1.example.org")
TOKEN = "rshare_known"
BEARER = f"Authorization: Bearer {TOKEN}"
SIGNED = signed("private", PATH)
REDIRECTS = {"any": CDN, "10.4.0.0/16": CACHE, "10.4.9.0/24": "here", "10.5.0.0/16": "nearest", "2001:db8::/32": CACHE}


def coming_from(address: str) -> str:
    return f"X-Forwarded-For: {address}"


def closer(url: str) -> Mirror:
    return Mirror(SigningKey(bytes(32)).id, "ber1", "", url, ())


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    access = Access(tokens={"ci": BearerToken(sha256(TOKEN.encode()))}, users={"jane": passwords.NOBODY})
    world.share("jamf", redirects=REDIRECTS)
    world.share("private", public=False, access=access, redirects=REDIRECTS)
    world.share("silent")
    for share in world.shares:
        world.put(share, PATH, BODY)
    world.put("jamf", "far.pkg", BODY[:-1], held=False)
    world.closer = closer("https://ber1.example.org")
    return world


def location(reply: Reply) -> str | None:
    """Where it sends the client; checks what every such answer has."""
    if reply.status != 307:
        assert "location" not in reply.fields
        return None
    assert (reply.fields["cache-control"], reply.body in {b"307 Temporary Redirect\n", b""}) == ("no-store", True)
    assert not {"etag", "last-modified", "content-range"} & reply.fields.keys()
    return reply.fields["location"]


SENT = {
    "elsewhere": (f"/jamf/{QUOTED}", "192.0.2.1", [], f"{CDN}/jamf/{QUOTED}?redirected=1"),
    "near a cache": (f"/jamf/{QUOTED}", "10.4.1.1", [], f"{CACHE}/jamf/{QUOTED}?redirected=1"),
    "near a cache, IPv6": (f"/jamf/{QUOTED}", "2001:db8::7", [], f"{CACHE}/jamf/{QUOTED}?redirected=1"),
    "an exception": (f"/jamf/{QUOTED}", "10.4.9.1", [], None),
    "near a node": (f"/jamf/{QUOTED}", "10.5.0.1", [], f"https://ber1.example.org/jamf/{QUOTED}?redirected=1"),
    "near a node, with what the address need not show": (f"/jamf/{QUOTED}?{SIGNED}", "10.5.0.1", [], f"https://ber1.example.org/jamf/{QUOTED}?redirected=1"),
    "private, near a node, with what the address must show": (
        f"/private/{QUOTED}?{SIGNED}&v=a%26b",
        "10.5.0.1",
        [],
        f"https://ber1.example.org/private/{QUOTED}?{SIGNED}&v=a%26b&redirected=1",
    ),
    "near a node, with a field that stays behind": (f"/jamf/{QUOTED}", "10.5.0.1", [BEARER], None),
    "in another case": ("/jamf/PACKAGES/CAFE%CC%81%20&%20CO.PKG", "192.0.2.1", [], f"{CDN}/jamf/{QUOTED}?redirected=1"),
    "a range": (f"/jamf/{QUOTED}", "192.0.2.1", ["Range: bytes=5-9"], f"{CDN}/jamf/{QUOTED}?redirected=1"),
    "before conditions (RFC 9110 section 13.2.1)": (f"/jamf/{QUOTED}", "192.0.2.1", ["If-None-Match: *"], f"{CDN}/jamf/{QUOTED}?redirected=1"),
    "sent before": (f"/jamf/{QUOTED}?redirected=1", "192.0.2.1", [], None),
    "sent before, among many": (f"/jamf/{QUOTED}?{'&'.join(f'{n}={n}' for n in range(30))}&redirected=1", "10.5.0.1", [], None),
    "a CDN fetches": (f"/jamf/{QUOTED}", "192.0.2.1", ["CDN-Loop: cdn.example.org"], None),
    "a share that asks for nothing": (f"/silent/{QUOTED}", "192.0.2.1", [], None),
    "nobody's file": ("/jamf/absent", "192.0.2.1", [], None),
    "a file that no node has yet": ("/jamf/far.pkg", "192.0.2.1", [], None),
    "its metalink": (f"/-/metalink/jamf/{QUOTED}.meta4", "192.0.2.1", [], None),
    "a blob": (f"/-/blob/{sha256(BODY)}", "192.0.2.1", [], None),
    "private, unknown": (f"/private/{QUOTED}", "192.0.2.1", [], None),
    "private, known: nothing of what let it in goes along": (f"/private/{QUOTED}?v=1", "192.0.2.1", [BEARER], f"{CDN}/private/{QUOTED}?redirected=1"),
    "private, known, near a node": (f"/private/{QUOTED}", "10.5.0.1", [BEARER], None),
}


async def test_who_is_sent_where(world: World) -> None:
    """Each for GET and HEAD; who stays gets what it got before."""
    async with world.serve(config=BY_PROXY) as client:
        for name, (target, address, fields, expected) in SENT.items():
            for method in ("GET", "HEAD"):
                reply = await client.get(target, coming_from(address), *fields, method=method)
                assert location(reply) == expected, (name, method)
                assert expected or (reply.status == 200) == (not any(word in name for word in ("nobody", "no node", "metalink", "unknown"))), name


async def test_nobody_is_sent_to_nowhere_or_from_https_to_http(world: World) -> None:
    async with world.serve(config=BY_PROXY) as client:
        for nearest in (None, closer("http://ber1.example.org")):
            world.closer = nearest
            assert (await client.get(f"/jamf/{QUOTED}", coming_from("10.5.0.1"))).status == 200
    async with world.serve() as client:
        world.share("jamf", redirects={"any": "nearest"})
        assert location(await client.get(f"/jamf/{QUOTED}")) == f"http://ber1.example.org/jamf/{QUOTED}?redirected=1"


async def curl(*arguments: str | Path) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--show-error", "--fail", "--location", "--max-redirs", "1", *map(str, arguments)), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        found, _ = await process.communicate()
    assert process.returncode == 0
    return found


@pytest.mark.needs("curl")
async def test_curl_goes_where_it_is_sent_and_no_further(world: World, tmp_path: Path) -> None:
    """Two doors that send each client to the other one: whoever was sent is served, in whole, in part, resuming, and by HEAD."""

    async def downloaded(here: Client, there: Client) -> None:
        url, copy = f"{here.url}/jamf/{QUOTED}", tmp_path / "copy"
        assert await curl(url) == BODY
        assert await curl("--range", "100-299", url) == BODY[100:300]
        assert f"content-length: {len(BODY)}" in (await curl("--head", url)).decode().lower()
        copy.write_bytes(BODY[:1000])
        await curl("--continue-at", "-", "--output", copy, url)
        assert copy.read_bytes() == BODY
        served = [noted for noted in world.noted if "redirected=1" in noted.target]
        assert [noted.status for noted in served] == [200, 206, 200, 206]
        assert [noted.status for noted in world.noted if noted not in served] == [307] * 4
        world.noted.clear()
        assert there.url != here.url

    async with world.serve() as one, world.serve() as other:
        for here, there in ((one, other), (other, one)):
            world.share("jamf", redirects={"any": "nearest"})
            world.closer = closer(there.url)
            await downloaded(here, there)
            world.share("jamf", redirects={"127.0.0.0/8": there.url})
            await downloaded(here, there)
