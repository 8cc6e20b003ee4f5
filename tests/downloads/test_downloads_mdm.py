"""Apple's manifests: what they say, and package archives from strangers, which are read within bounds or refused."""

from __future__ import annotations

import bz2
import dataclasses
import hashlib
import plistlib
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from downloads_world import World
from hypothesis import given
from hypothesis import strategies as st

from replicad.errors import InputError
from replicad.integrations import mdm, packages
from replicad.integrations.packages import MEMBER_BYTES_MAX, TABLE_BYTES_MAX, Package
from replicad.model.ids import Digest
from replicad.model.manifest import Manifest
from replicad.server.downloads.config import DownloadsConfig

MIB = 1 << 20
DISTRIBUTION = '<installer-gui-script minSpecVersion="1"><title>An  Editor</title><product id="org.example.editor" version="3.1"/><pkg-ref id="org.example.part" version="1"/></installer-gui-script>'
INFO = '<pkg-info format-version="2" identifier="org.example.component" version="2.5"><payload/></pkg-info>'
HTTPS = DownloadsConfig(url="https://ams1.example.org")


def xar(files: dict[str, str | bytes], *, style: str = "application/x-gzip", table: str | None = None, padding: int = 0) -> bytes:
    """An archive of these members; ``a/b`` is the file b in the directory a."""
    pack = {"application/x-gzip": zlib.compress, "application/x-bzip2": bz2.compress}.get(style, bytes)
    heap, described = b"\0" * 20, ""
    for path, content in files.items():
        plain = content.encode() if isinstance(content, str) else content
        packed = pack(plain)
        *parents, name = path.split("/")
        member = f'<file id="1"><data><length>{len(packed)}</length><offset>{len(heap)}</offset><size>{len(plain)}</size><encoding style="{style}"/></data><type>file</type><name>{name}</name></file>'
        for parent in parents:
            member = f'<file id="2"><name>{parent}</name><type>directory</type>{member}</file>'
        described += member
        heap += packed
    toc = (
        table or f'<?xml version="1.0" encoding="UTF-8"?>\n<xar><toc><checksum style="sha1"><size>20</size><offset>0</offset></checksum>{described}</toc></xar>'
    ).encode()
    packed = zlib.compress(toc)
    return struct.pack(">4sHHQQI", b"xar!", 28, 1, len(packed), len(toc), 1) + packed + heap + bytes(padding)


def read(encoded: bytes) -> Package:
    with tempfile.TemporaryFile() as file:
        file.write(encoded)
        file.flush()
        return packages.read(file.fileno())


GOOD: dict[str, tuple[bytes, Package]] = {
    "product": (xar({"Distribution": DISTRIBUTION, "part.pkg/PackageInfo": INFO}), Package("org.example.editor", "3.1", "An Editor")),
    "bzip2": (xar({"Distribution": DISTRIBUTION}, style="application/x-bzip2"), Package("org.example.editor", "3.1", "An Editor")),
    "not compressed": (xar({"Distribution": DISTRIBUTION}, style="application/octet-stream"), Package("org.example.editor", "3.1", "An Editor")),
    "component": (xar({"PackageInfo": INFO}), Package("org.example.component", "2.5", "")),
    "the first reference that says both": (
        xar(
            {
                "Distribution": '<installer-script><title>T\u00e9</title><pkg-ref id="org.a"/><choice><pkg-ref id="org.b" version="7"/></choice></installer-script>'
            }
        ),
        Package("org.b", "7", "T\u00e9"),
    ),
    "the component of a product that says nothing": (
        xar({"Distribution": "<installer-script/>", "Resources/x": "y", "part.pkg/PackageInfo": INFO}),
        Package("org.example.component", "2.5", ""),
    ),
}
BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not a xar archive"),
    "a disk image": (b"koly" * 100, "not a xar archive"),
    "only a header": (xar({})[:28], "out of bounds"),
    "a table beyond the file": (struct.pack(">4sHHQQI", b"xar!", 28, 1, 1 << 20, 1 << 20, 1) + b"x", "out of bounds"),
    "a table without end": (struct.pack(">4sHHQQI", b"xar!", 28, 1, 1 << 40, 1, 1), "out of bounds"),
    "a header without end": (struct.pack(">4sHHQQI", b"xar!", 60_000, 1, 1, 1, 1) + bytes(70_000), "out of bounds"),
    "a bomb for a table": (
        struct.pack(">4sHHQQI", b"xar!", 28, 1, len(zlib.compress(bytes(TABLE_BYTES_MAX + 1))), 1, 1) + zlib.compress(bytes(TABLE_BYTES_MAX + 1)),
        "when decompressed",
    ),
    "a bomb for a member": (xar({"Distribution": bytes(MEMBER_BYTES_MAX + 1)}), "when decompressed"),
    "a member beyond the file": (
        xar({}, table="<xar><toc><file><name>Distribution</name><data><offset>0</offset><length>9</length></data></file></toc></xar>")[:-20],
        "a member out of bounds",
    ),
    "a member before the heap": (
        xar({}, table="<xar><toc><file><name>Distribution</name><data><offset>-9</offset><length>9</length></data></file></toc></xar>"),
        "a member out of bounds",
    ),
    "a member without a place": (xar({}, table="<xar><toc><file><name>Distribution</name></file></toc></xar>"), "a member out of bounds"),
    "a number that is none": (
        xar({}, table="<xar><toc><file><name>Distribution</name><data><offset>x</offset><length>9</length></data></file></toc></xar>"),
        "a member out of bounds",
    ),
    "an unknown encoding": (xar({"Distribution": DISTRIBUTION}, style="application/x-own"), "in the encoding"),
    "no table": (xar({}, table="<xar/>"), "without a table of contents"),
    "no XML": (xar({}, table="nonsense"), "not XML"),
    "entities in the table": (xar({}, table='<!DOCTYPE x [<!ENTITY a "aaaa">]><xar><toc>&a;</toc></xar>'), "a document type"),
    "entities in a member": (xar({"Distribution": '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x><title>&a;</title></x>'}), "a document type"),
    "levels without end": (xar({"Distribution": "<a>" * 5000}), "levels"),
    "says nothing": (xar({"Distribution": "<installer-script/>"}), "does not say its identifier"),
    "says it with control characters": (xar({"PackageInfo": INFO.replace("org.example", "org\u009f.example")}), "does not say its identifier"),
    "a name of a megabyte": (xar({"PackageInfo": INFO.replace("org.example", "o" * MIB)}), "does not say its identifier"),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_package_says_who_it_is(name: str) -> None:
    encoded, expected = GOOD[name]
    assert read(encoded) == expected


@pytest.mark.parametrize("name", BAD)
def test_a_hostile_archive_is_refused_with_a_reason(name: str) -> None:
    encoded, says = BAD[name]
    with pytest.raises(InputError, match=says):
        read(encoded)


@given(st.sampled_from(sorted(GOOD)), st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=8), st.integers(0, 2000))
def test_any_damage_is_an_answer_or_a_refusal(name: str, changes: list[tuple[int, int]], cut: int) -> None:
    encoded = bytearray(GOOD[name][0])
    for place, value in changes:
        encoded[place % len(encoded)] = value
    with tempfile.TemporaryFile() as file:
        file.write(encoded[: len(encoded) - cut % 40])
        file.flush()
        try:
            found = packages.read(file.fileno())
        except InputError:
            return
    assert found.identifier.isprintable()
    assert found.version


@given(st.text() | st.sampled_from(["<a/>", "<a>" * 100, '<?xml version="1.0" encoding="utf-7"?><a/>', "<!DOCTYPE a><a/>", "<a xmlns:x='y'><x:b/></a>"]))
def test_any_text_is_xml_or_refused(text: str) -> None:
    try:
        found = packages.parse_xml(text.encode(errors="replace"))
    except InputError:
        return
    assert found.tag


def make_world(root: Path) -> tuple[World, bytes]:
    body = xar({"Distribution": DISTRIBUTION}, padding=3 * MIB)
    world = World(root)
    world.share("jamf")
    content = world.put("jamf", "Packages/An Editor 3.1.pkg", body)
    world.put("jamf", "notes.txt", b"no package")
    chunks = b"".join(hashlib.sha256(body[start : start + MIB]).digest() for start in range(0, len(body), MIB))
    small = Digest(hashlib.sha256(b"no package").digest())
    world.manifests = {content: Manifest(content, len(body), MIB, chunks), small: Manifest(small, 10, MIB, bytes(small))}
    return world, body


def hashes(body: bytes, size: int) -> Iterator[str]:
    for start in range(0, len(body), size):
        yield hashlib.sha256(body[start : start + size]).hexdigest()


async def test_a_manifest_says_where_the_package_is_and_what_its_chunks_are(tmp_path: Path) -> None:
    world, body = make_world(tmp_path)
    target = "/-/mdm/jamf/Packages/An%20Editor%203.1.pkg.plist"

    async def asked(query: str) -> dict[str, Any]:
        reply = await client.get(f"{target}{query}")
        assert (reply.status, reply.fields["content-type"]) == (200, "application/xml")
        found: dict[str, Any] = plistlib.loads(reply.body)
        return found

    async with world.serve(config=HTTPS) as client:
        [item] = (await asked("?until=1"))["items"]
        assert item["metadata"] == {"bundle-identifier": "org.example.editor", "bundle-version": "3.1", "kind": "software", "title": "An Editor"}
        [asset] = item["assets"]
        assert (asset["kind"], asset["url"]) == ("software-package", "https://ams1.example.org/jamf/Packages/An%20Editor%203.1.pkg")
        assert (asset["sha256-size"], asset["sha256s"]) == (MIB, list(hashes(body, MIB)))
        for size in (2 * MIB, 10 * MIB):
            [item] = (await asked(f"?chunk-size={size}"))["items"]
            covered = min(size, len(body))
            assert (item["assets"][0]["sha256-size"], item["assets"][0]["sha256s"]) == (covered, list(hashes(body, covered)))
        statuses = {
            query: (await client.get(f"{target}?chunk-size={query}")).status for query in ("1", "0", "-1", "3145728", "x", "99999999999999999999", "%31")
        }
        assert set(statuses.values()) == {400}
        others = ["/-/mdm/jamf/notes.txt.plist", "/-/mdm/jamf/absent.pkg.plist", "/-/mdm/absent/a.pkg.plist", target.removesuffix(".plist")]
        assert [(await client.get(other)).status for other in others] == [404] * 4
        world.doubt(next(iter(world.manifests)))
        assert (await client.get(target)).status == 404
    async with world.serve(config=DownloadsConfig(url="http://ams1.example.org")) as client:
        assert (await client.get(target)).status == 404


async def test_another_manifest_than_the_one_that_the_entry_names_says_nothing(tmp_path: Path) -> None:
    """The hashes in it are the word of another publisher: the file is read instead, once."""
    world, body = make_world(tmp_path)
    [content, _] = world.manifests
    world.manifests[content] = Manifest(content, len(body), MIB, bytes(32 * -(-len(body) // MIB)))
    opened: list[Digest] = []
    real = world.open_blob

    def open_blob(asked: Digest) -> int:
        opened.append(asked)
        return real(asked)

    world.open_blob = open_blob  # type: ignore[method-assign]
    world.names = {place: dataclasses.replace(listed, manifest=Digest(b"x" * 32)) for place, listed in world.names.items()}
    async with world.serve(config=HTTPS) as client:
        for _ in range(2):
            reply = await client.get("/-/mdm/jamf/Packages/An%20Editor%203.1.pkg.plist")
            [asset] = plistlib.loads(reply.body)["items"][0]["assets"]
            assert (asset["sha256-size"], asset["sha256s"]) == (MIB, list(hashes(body, MIB)))
    assert opened == [content] * 2, "for what it is, and for its hashes"


def test_chunks_that_are_asked_for_are_few() -> None:
    assert mdm.chunk_size(None, 1 << 42) == 1 << 30
    with pytest.raises(InputError, match="at most 4096 chunks"):
        mdm.chunk_size(str(MIB), 1 << 42)
