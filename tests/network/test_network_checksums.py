"""Checksums in a network of real daemons: every node computes those that a share asks for, of what was published to it and of what it fetched, and says them to people, programs and clients."""

from __future__ import annotations

import hashlib
import random
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from support.network import Network, Node
from support.waiting import wait_for

pytestmark = pytest.mark.daemons
MIB = 1 << 20


def expected(content: bytes, *algorithms: str) -> dict[str, str]:
    return {algorithm: hashlib.new(algorithm, content).hexdigest() for algorithm in algorithms}


def shown(node: Node, path: str) -> dict[str, str]:
    answer = node.run("show", f"jamf/{path}", "--json")
    return dict(answer.json["entry"]["checksums"]) if answer.code == 0 else {}


def wait_for_checksums(nodes: tuple[Node, ...], path: str, content: bytes, *algorithms: str) -> None:
    for node in nodes:
        wait_for(lambda node=node: shown(node, path) == expected(content, *algorithms), what=f"checksums at {node.name}")  # type: ignore[misc]


def test_every_node_computes_what_a_share_asks_for(network: Network, tmp_path: Path, dice: random.Random) -> None:
    nodes = ams, ber, _ = network.three()
    files = {"Packages/big.pkg": dice.randbytes(5 * MIB + 77), "Packages/small.pkg": b"small"}
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    ams.cli("share", "create", "jamf", "--public", "--checksums", "sha512")
    ams.cli("publish", str(tmp_path / "Packages"), "--share", "jamf", "--as", "Packages", "--wait", "all", "--timeout", "60s")
    for path, content in files.items():
        assert shown(ams, path) == expected(content, "sha512"), "they came with the upload"
        wait_for_checksums(nodes, path, content, "sha512")
    ams.cli("share", "set", "jamf", "--checksums", "md5,sha512,sha3_512")
    for path, content in files.items():
        wait_for_checksums(nodes, path, content, "md5", "sha3_512", "sha512")
        assert ber.cli("show", f"jamf/{path}").out.count(hashlib.md5(content).hexdigest()) == 1
    content = files["Packages/big.pkg"]
    found = ET.fromstring(ber.download("-/metalink/jamf/Packages/big.pkg.meta4").body)
    hashes = {one.get("type"): one.text for one in found.iterfind(".//{*}file/{*}hash")}
    assert hashes == {"sha-256": hashlib.sha256(content).hexdigest(), "sha-512": hashlib.sha512(content).hexdigest(), "md5": hashlib.md5(content).hexdigest()}
    ber.kill()
    ber.start()
    assert shown(ber, "Packages/big.pkg") == expected(content, "md5", "sha3_512", "sha512"), "they are kept"
