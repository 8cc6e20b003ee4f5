"""Where else a file is: metalinks, Link fields, the nearest node, and aria2, which takes one file from three nodes while one of them dies."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import itertools
import random
import socket
import xml.etree.ElementTree as ET
from contextlib import AsyncExitStack
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from downloads_world import Client, World, signed

from replicad.crypto.keys import SigningKey
from replicad.integrations.mirrors import Mirror, Mirrors
from replicad.model.ids import Digest, NodeId, Stamp
from replicad.model.manifest import Manifest
from replicad.model.members import Member
from replicad.model.records import Role
from replicad.protocol.gossip.heads import Presence
from replicad.server.downloads.config import DownloadsConfig
from support.waiting import until

MIB = 1 << 20
BODY = random.Random(5).randbytes(16 * MIB + 5)
PATH = "Packages/Caf\u00e9 & Co.pkg"
QUOTED = "jamf/Packages/Caf%C3%A9%20%26%20Co.pkg"
IDS = [SigningKey(bytes([number]) * 32).id for number in range(6)]
SIGNED = signed("secret", PATH)
NAMESPACE = {"": "urn:ietf:params:xml:ns:metalink"}


def mirror(number: int, url: str, site: str = "") -> Mirror:
    return Mirror(IDS[number], f"node{number}", site, url, ())


def manifest_of(body: bytes) -> Manifest:
    chunks = b"".join(hashlib.sha256(body[start : start + MIB]).digest() for start in range(0, len(body), MIB))
    return Manifest(Digest(hashlib.sha256(body).digest()), len(body), MIB, chunks)


def make_world(root: Path) -> World:
    root.mkdir()
    world = World(root)
    world.share("jamf")
    world.share("secret", public=False)
    world.put("jamf", PATH, BODY)
    world.put("secret", PATH, BODY)
    world.put("jamf", "small", b"small")
    world.put("jamf", "elsewhere", BODY[:-1], held=False)
    world.manifests = {manifest.content: manifest for manifest in [manifest_of(BODY)]}
    world.known = {content: {name: hashlib.new(name, BODY).digest() for name in ("md5", "sha3_512", "sha512")} for content in world.manifests}
    return world


async def metalink(client: Client, target: str) -> ET.Element:
    reply = await client.get(target)
    assert (reply.status, reply.fields["content-type"], reply.fields["cache-control"]) == (200, "application/metalink4+xml", "no-store")
    found = ET.fromstring(reply.body).find("file", NAMESPACE)
    assert found is not None
    return found


async def test_a_metalink_says_what_the_file_is_and_where(tmp_path: Path) -> None:
    world = make_world(tmp_path / "one")
    async with world.serve() as client:
        world.mirrors = [mirror(0, client.url), mirror(1, "https://ber1.example.org/base")]
        found = await metalink(client, f"/-/metalink/{QUOTED}.meta4?{SIGNED}")
        assert found.get("name") == "Caf\u00e9 & Co.pkg"
        assert (found.findtext("size", None, NAMESPACE), found.findtext("hash", None, NAMESPACE)) == (str(len(BODY)), hashlib.sha256(BODY).hexdigest())
        pieces = found.find("pieces", NAMESPACE)
        assert pieces is not None
        assert (pieces.get("length"), pieces.get("type"), len(pieces)) == (str(MIB), "sha-256", 17)
        assert pieces[16].text == hashlib.sha256(BODY[16 * MIB :]).hexdigest()
        hashes = [(one.get("type"), one.text) for one in found.findall("hash", NAMESPACE)]
        assert hashes == [("sha-256", hashlib.sha256(BODY).hexdigest()), ("md5", hashlib.md5(BODY).hexdigest()), ("sha-512", hashlib.sha512(BODY).hexdigest())]
        urls = [(url.get("priority"), url.text) for url in found.findall("url", NAMESPACE)]
        assert urls == [("1", f"{client.url}/{QUOTED}"), ("2", f"https://ber1.example.org/base/{QUOTED}")], "nobody needs the signature"
        assert (await metalink(client, "/-/metalink/jamf/elsewhere.meta4")).find("pieces", NAMESPACE) is None
        refused = [
            await client.get(f"/-/metalink/{name}")
            for name in ("jamf/absent.meta4", "secret/a.meta4", "absent/a.meta4", "jamf/small", "jamf/.meta4", "..meta4")
        ]
        assert [reply.status for reply in refused] == [404] * 6
        assert (await client.get(f"/-/metalink/{QUOTED}.meta4", method="HEAD")).body == b""
        world.mirrors = []
        assert (await client.get(f"/-/metalink/{QUOTED}.meta4")).status == 404


async def test_what_let_a_client_in_is_told_to_nodes_that_need_it_and_never_without_tls(tmp_path: Path) -> None:
    world, place = make_world(tmp_path / "one"), QUOTED.replace("jamf/", "secret/")
    doors = ["https://ams1.example.org", "http://ber1.example.org", "https://nyc1.example.org"]
    world.mirrors = [mirror(number, url) for number, url in enumerate(doors)]
    for own, told in ((doors[0], [doors[0], doors[2]]), (doors[1], doors)):
        async with world.serve(config=DownloadsConfig(url=own)) as client:
            urls = [url.text for url in (await metalink(client, f"/-/metalink/{place}.meta4?{SIGNED}")).findall("url", NAMESPACE)]
            assert urls == [f"{door}/{place}?{SIGNED}" for door in told]
            urls = [url.text for url in (await metalink(client, f"/-/metalink/{QUOTED}.meta4?{SIGNED}")).findall("url", NAMESPACE)]
            assert urls == [f"{door}/{QUOTED}" for door in doors]
            reader, writer = await client.connect()
            writer.write(f"HEAD /{place}?{SIGNED} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            assert [line.split(">")[0] for line in head if "duplicate" in line] == [f"Link: <{door}/{place}?{SIGNED}" for door in told]


async def test_an_answer_about_a_large_file_says_where_else_it_is(tmp_path: Path) -> None:
    world = make_world(tmp_path / "one")
    async with world.serve() as client:
        assert b"Link:" not in (await client.get(f"/{QUOTED}")).raw
        world.mirrors = [mirror(0, client.url), mirror(1, "https://ber1.example.org")]
        reader, writer = await client.connect()
        writer.write(f"HEAD /{QUOTED} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        assert [line for line in head if line.startswith("Link:")] == [
            f"Link: <{client.url}/{QUOTED}>; rel=duplicate; pri=1",
            f"Link: <https://ber1.example.org/{QUOTED}>; rel=duplicate; pri=2",
            f'Link: </-/metalink/{QUOTED}.meta4>; rel=describedby; type="application/metalink4+xml"',
        ]
        assert b"Link:" not in (await client.get("/jamf/small")).raw + (await client.get(f"/{QUOTED}", "Range: bytes=0-0")).raw
        nearest = (await client.get("/-/nearest")).body
        assert (
            nearest
            == b'{"nodes": [{"name": "node0", "site": "", "url": "%b"}, {"name": "node1", "site": "", "url": "https://ber1.example.org"}]}\n'
            % client.url.encode()
        )


SPLITTING = "http://e>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nEVIL!HTTP/1.1 200 OK\r\nX: "


@pytest.mark.parametrize("url", [SPLITTING, "http://e/\n", "http://e/\x7f", "http://e/\u2028"])
async def test_no_answer_leaves_with_a_field_that_is_two(tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Should a door's address be wrong for whatever reason, the client gets a 500 and nothing of it, the file stays closed, and the log says why."""
    world = make_world(tmp_path / "one")
    world.share("steered", redirects={"any": "nearest"})
    world.put("steered", "a.pkg", BODY)
    async with world.serve() as client:
        world.mirrors = [mirror(0, client.url), mirror(1, url)]
        world.closer = mirror(1, url)
        for target, method in itertools.product((f"/{QUOTED}", "/steered/a.pkg"), ("GET", "HEAD")):
            reply = await client.get(target, method=method)
            assert (reply.status, reply.fields["connection"], reply.fields.keys() & {"link", "location", "x"}) == (500, "close", set())
            assert b"EVIL" not in reply.raw + reply.body
        assert not [fd for fd in Path("/proc/self/fd").iterdir() if fd.resolve().is_relative_to(world.root)]
    assert [record.getMessage() for record in caplog.records] == ["a request failed"] * 4
    assert "a Link field that could be taken for more than one" in caplog.text
    assert "a Location field that could be taken for more than one" in caplog.text


NO_DOORS = (
    SPLITTING,
    *("http://e/\n", "http://e/\t", "http://e/\x00", "http://e/\x7f", "http://e/\u2028", "http://\u00e9.example", " http://e"),
    *("http://u@e", "http://u:p@e", "http://:p@e", "http://@e", "http://e?", "http://e/?q", "http://e#", "http://e/#f", "http://e/\\x"),
    *("http://e/<", "http://e/>", 'http://e/"', "http://e/'", "http://e/a b", "http://e:0", "http://e:99999", "http://[::1", "http://", "//e", "e:80"),
    *("ftp://e", "javascript:alert(1)", "file:///etc/passwd"),
)
DOORS = {"http://e": "http://e", "https://e:8443/": "https://e:8443", "http://[2001:db8::1]:80": "http://[2001:db8::1]:80", "https://e/base/": "https://e/base"}


def test_what_is_no_plain_base_url_is_nobodys_door() -> None:
    """A head may say anything up to its bound; the member's other claims stay."""
    members = {node: Member(node, f"node{number}", Role.MIRROR, "", None, None, Stamp(0), node) for number, node in enumerate(IDS[:2])}
    said = {IDS[0]: Presence()}
    for text in (*NO_DOORS, *DOORS):
        said[IDS[1]] = Presence(downloads=text)
        mirrors = Mirrors(IDS[0], members=lambda: members, standing=Heads(said), presence=lambda: said[IDS[0]], now_ms=lambda: 0)  # type: ignore[arg-type]
        assert [one.url for one in mirrors.everywhere()] == ([DOORS[text]] if text in DOORS else []), text


class Heads:
    """What other nodes say."""

    def __init__(self, said: dict[NodeId, Presence]) -> None:
        self.said = said
        self.silent: set[NodeId] = set()
        self.percents: dict[NodeId, int] = {}

    def presence(self, node: NodeId) -> Presence | None:
        return self.said.get(node)

    def linked(self, node: NodeId, _now_ms: int) -> bool:
        return node not in self.silent

    def percent(self, node: NodeId, _listed: Any) -> int | None:
        return self.percents.get(node)


def test_who_holds_a_file_and_who_is_nearest(tmp_path: Path) -> None:
    """Nodes 0 and 1 are in Amsterdam, 2 and 3 in Berlin, 4 alone; node 0 is asked. 3 names a part of what 2 names."""
    sites = ("ams", "ams", "ber", "ber", "")
    networks = ((), ("nonsense",), ("10.0.0.0/8",), ("10.4.0.0/16", "2001:db8::/32"), ())
    members = {
        node: Member(node, f"node{number}", Role.MIRROR, sites[number], None, None, Stamp(0), node, networks=networks[number])
        for number, node in enumerate(IDS[:5])
    }
    said = {node: Presence(downloads=f"http://node{number}") for number, node in enumerate(IDS[:5])}
    heads = Heads(said)
    now_ms = 10_000
    mirrors = Mirrors(IDS[0], members=lambda: members, standing=heads, presence=lambda: said[IDS[0]], now_ms=lambda: now_ms)  # type: ignore[arg-type]
    world = make_world(tmp_path / "one")
    listed = world.names["jamf", "small"]

    def order(address: str | None) -> list[str]:
        return [mirror.name[-1] for mirror in mirrors.nearest(mirrors.everywhere(), None if address is None else ip_address(address))]

    def nearer(address: str | None) -> str | None:
        found = mirrors.nearer(listed, None if address is None else ip_address(address))
        return found and found.name

    assert order("10.4.1.1")[:2] == ["3", "2"]
    assert order("10.5.1.1")[:2] == ["2", "3"]
    assert order("2001:db8::1")[:2] == ["3", "2"]
    assert order("192.0.2.1")[:2] == order(None)[:2] == ["0", "1"]
    assert len({tuple(order(f"192.0.2.{number}")) for number in range(50)}) > 2, "many clients spread"
    assert mirrors.everywhere()[2].networks == (ip_network("10.0.0.0/8"),)

    heads.percents = {IDS[1]: 99, IDS[2]: 100, IDS[3]: 100}
    heads.silent = {IDS[3]}
    assert [mirror.name for mirror in mirrors.holding(listed)] == ["node0", "node2"]
    heads.percents[IDS[1]] = 100
    assert len(mirrors.holding(listed)) == 2, "asked again too soon"
    now_ms += 2_000
    assert [mirror.name for mirror in mirrors.holding(dataclasses.replace(listed, available=False))] == ["node1", "node2"]
    heads.silent, heads.percents = set(), {IDS[1]: 100, IDS[2]: 100, IDS[4]: 100}
    now_ms += 2_000
    assert [nearer("10.5.1.1"), nearer("192.0.2.1"), nearer("2001:db8::1")] == ["node2", None, "node2"], "3 has nothing, 2 is of its site"
    heads.percents[IDS[3]] = 100
    now_ms += 2_000
    assert [nearer("10.4.1.1"), nearer("10.5.1.1"), nearer(None)] == ["node3", "node2", None]
    known = dict(members)
    members[IDS[3]] = dataclasses.replace(members[IDS[3]], stages=frozenset({"dev"}))
    assert nearer("10.4.1.1") == "node2", "3 may show another version"
    members[IDS[0]] = dataclasses.replace(members[IDS[0]], site="ber")
    assert nearer("10.4.1.1") is None, "this node is as near"
    members.update(known)
    del members[IDS[0]]
    assert nearer("10.5.1.1") is None, "this node was removed"
    members = known
    heads.silent = {IDS[3]}
    said[IDS[1]] = Presence()
    now_ms += 2_000
    assert [mirror.name for mirror in mirrors.everywhere()] == ["node0", "node2", "node4"]


def test_nobody_draws_clients_to_itself(tmp_path: Path) -> None:
    """What a node says of its own networks counts only if it is an admin, and until an admin has said something else."""
    said = {node: Presence(downloads=f"http://node{number}", networks=("127.0.0.0/8", "10.4.0.0/16")) for number, node in enumerate(IDS[:3])}
    heads = Heads(said)
    heads.percents = dict.fromkeys(IDS, 100)
    listed = make_world(tmp_path / "one").names["jamf", "small"]

    def seen(role: Role, granted: tuple[str, ...]) -> tuple[bool, bool, bool]:
        """Whether node 1 is first for clients of either network at node 0, and gets one of them by a redirect."""
        said[IDS[0]] = Presence(downloads="http://node0")
        members = {node: Member(node, f"node{number}", Role.MIRROR, f"site{number}", None, None, Stamp(0), node) for number, node in enumerate(IDS[:3])}
        members[IDS[1]] = dataclasses.replace(members[IDS[1]], role=role, networks=granted)
        mirrors = Mirrors(IDS[0], members=lambda: members, standing=heads, presence=lambda: said[IDS[0]], now_ms=lambda: 0)  # type: ignore[arg-type]
        first = [mirrors.nearest(mirrors.everywhere(), ip_address(address))[0].node == IDS[1] for address in ("127.0.0.1", "10.4.1.1")]
        return first[0], first[1], mirrors.nearer(listed, ip_address("127.0.0.1")) is not None

    assert seen(Role.MIRROR, ()) == (False, False, False)
    assert seen(Role.PUBLISHER, ()) == (False, False, False)
    assert seen(Role.ADMIN, ()) == (True, True, True)
    assert seen(Role.MIRROR, ("10.4.0.0/16",)) == (False, True, False)
    assert seen(Role.ADMIN, ("10.4.0.0/16",)) == (False, True, False)


@pytest.mark.needs("aria2c")
async def test_aria2_takes_a_file_from_three_nodes_of_which_one_dies(tmp_path: Path) -> None:
    worlds = [make_world(tmp_path / f"node{number}") for number in range(3)]
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(worlds[0].serve()), await stack.enter_async_context(worlds[2].serve())]
        async with worlds[1].serve() as dying:
            urls = [clients[0].url, dying.url, clients[1].url]
            for world in worlds:
                world.mirrors = [mirror(number, url) for number, url in enumerate(urls)]
            (tmp_path / "file.meta4").write_bytes((await clients[0].get(f"/-/metalink/{QUOTED}.meta4")).body)
            options = (
                "--max-overall-download-limit=6M",
                "--split=3",
                "--max-connection-per-server=3",
                "--uri-selector=inorder",
                "--min-split-size=1M",
                "--file-allocation=none",
                "--retry-wait=1",
            )
            process = await asyncio.create_subprocess_exec(
                *("aria2c", "--no-conf", "--console-log-level=error", *options, f"--dir={tmp_path}", f"--metalink-file={tmp_path / 'file.meta4'}"),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            await until(
                lambda: len(dying.server.connections) == 1 and any(copy.stat().st_blocks for copy in tmp_path.glob("Caf*.pkg")),
                what="a part from the node that dies",
            )
            for connection in dying.server.connections:
                assert connection.transport is not None
                connection.transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        async with asyncio.timeout(100):
            said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    [copy] = tmp_path.glob("Caf*.pkg")  # aria2 does not undo "&amp;" in the name
    assert copy.read_bytes() == BODY
    served = [sum(noted.sent_bytes for noted in world.noted) for world in worlds]
    assert 0 < served[1] < len(BODY) // 2
    assert min(served[0], served[2]) > 0
