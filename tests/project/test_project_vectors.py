"""The test vectors of docs/protocol.md are what the program computes."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from replicad.crypto import envelope
from replicad.crypto.keys import SigningKey
from replicad.crypto.session import Credentials, Ephemeral
from replicad.model import paths
from replicad.model.ids import Digest, NodeId, Stamp
from replicad.model.manifest import Manifest
from replicad.model.records import Entry, Grant, Header, Role
from replicad.protocol import records, wire
from replicad.protocol.handshake import Answerer, Identity, Opener
from replicad.protocol.replica import Replica
from support.storing import states_of

SPECIFICATION = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()


@pytest.fixture(scope="module")
def vectors() -> Any:
    (block,) = re.findall(r"```json\n(\{\n  \"keys\".*?)```", SPECIFICATION, re.DOTALL)
    return json.loads(block)


def computed() -> dict[str, Any]:
    """All vectors, from fixed secrets. ``python tests/project/test_project_vectors.py`` prints them for the specification."""
    network, node, other = (SigningKey(bytes([number] * 32)) for number in (1, 2, 3))
    incarnation, hlc = Stamp.of(1_800_000_000_000, 0x1234), Stamp.of(1_800_000_000_001)
    grants = []
    replica = Replica(network.id, node.id)
    for number, key in enumerate((node, other)):
        previous = grants[-1][1] if grants else None
        header = Header(network.id, "", incarnation, number + 1, previous, Stamp(hlc + number))
        payload = records.encode(header, Grant(key.id, f"node{number}", Role.ADMIN))
        sealed = envelope.seal(network, network.id, "grant", payload)
        grants.append((sealed, envelope.record_id(network.id, "grant", payload)))
        replica.add(records.parse(sealed, network.id), {})
    content = Digest(hashlib.sha256(b"hello").digest())
    manifest = Manifest.implied(content, 5)
    assert manifest is not None
    big = Manifest(
        Digest(hashlib.sha256(bytes(3 << 19)).digest()), 3 << 19, 1 << 20, hashlib.sha256(bytes(1 << 20)).digest() + hashlib.sha256(bytes(1 << 19)).digest()
    )
    full = replace(big, states=states_of(bytes(3 << 19), 1 << 20))
    entry = records.encode(Header(node.id, "munki", incarnation, 1, None, hlc), Entry("Pkgs/Übung.pkg", "prod", content, 5, manifest.id, 1_800_000_000))
    return {
        "keys": {
            "network_seed": "01" * 32,
            "network": str(network.id),
            "node_seed": "02" * 32,
            "node": str(node.id),
            "other_seed": "03" * 32,
            "other": str(other.id),
        },
        "grant": {
            "payload": grants[0][0].payload.decode(),
            "signed": envelope.signed_bytes(network.id, "grant", grants[0][0].payload).hex(),
            "id": str(grants[0][1]),
            "signature": grants[0][0].signature.hex(),
            "message": wire.encode(wire.Records((grants[0][0],))).hex(),
        },
        "frontier": {"after_grants_to": ["node", "other"], "id_of_last": str(grants[1][1]), "hash": str(replica.chains.frontier_hash(""))},
        "entry": {
            "payload": entry.decode(),
            "id": str(envelope.record_id(network.id, "entry", entry)),
            "signature": envelope.seal(node, network.id, "entry", entry).signature.hex(),
        },
        "paths": {path: paths.key(path) for path in ("Pkgs/Übung.pkg", "Pkgs/U\u0308bung.pkg", "Straße/ﬁ", "ΑΣ/ς")},
        "manifests": {
            "hello": {"content": str(content), "bytes": manifest.encoded.hex(), "id": str(manifest.id)},
            "1572864 zero bytes": {"content": str(big.content), "bytes": big.encoded.hex(), "id": str(big.id)},
            "1572864 zero bytes, with states": {"content": str(full.content), "bytes": full.encoded.hex(), "id": str(full.id)},
        },
        "link": link_vectors(network.id, node, other),
    }


def link_vectors(network: NodeId, opening: SigningKey, answering: SigningKey) -> dict[str, Any]:
    certificate = Digest(b"\xcc" * 32)
    opener = Opener(Identity(opening, network, None, (1, 1)), saw=certificate, ephemeral=Ephemeral(b"\x11" * 32), nonce=b"\x21" * 32)
    answerer = Answerer(Identity(answering, network, certificate, (1, 1)), ephemeral=Ephemeral(b"\x12" * 32), nonce=b"\x22" * 32)
    welcome = answerer.welcome(opener.hello)
    finish, established = opener.answer(welcome, now_ms=0)
    other = answerer.finish(finish, now_ms=0).session
    session = established.session
    target, range_ = "/peer/v1/blobs/" + "ab" * 32, "bytes=0-1048575"
    header = session.authorize("GET", target, range_, now_ms=0)
    other.check(Credentials.parse(header), "GET", target, range_, now_ms=0)
    return {
        "opener_ephemeral_secret": "11" * 32,
        "opener_nonce": "21" * 32,
        "answerer_ephemeral_secret": "12" * 32,
        "answerer_nonce": "22" * 32,
        "certificate": "cc" * 32,
        "hello": wire.encode(opener.hello).hex(),
        "welcome": wire.encode(welcome).hex(),
        "finish": wire.encode(finish).hex(),
        "session": session.id,
        "request": ["GET", target, range_],
        "authorization": header,
        "protected_ping_1": session.protect(wire.encode(wire.Ping(1))).hex(),
    }


@pytest.mark.parametrize("part", ["keys", "grant", "frontier", "entry", "paths", "manifests", "link"])
def test_vectors_of_the_specification(vectors: Any, part: str) -> None:
    assert vectors[part] == computed()[part]


if __name__ == "__main__":
    print(json.dumps(computed(), indent=2))  # noqa: T201
