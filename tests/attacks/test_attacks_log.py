"""Strangers who provoke lines in the log as fast as they can: it says that they do, and does not grow."""

from __future__ import annotations

import secrets
from pathlib import Path

import aiohttp
import pytest

from replicad.crypto.keys import SigningKey
from replicad.crypto.session import nonce
from replicad.model.records import Role
from replicad.net.dialer import JOIN_PATH
from replicad.protocol import joining
from replicad.protocol.joining import Asked, Door, Token
from replicad.server.peers import join as join_door
from replicad.services.membership import admitting
from replicad.telemetry.log import Log
from support.peer_node import PeerNode, peer_node

pytestmark = pytest.mark.sockets

MANY = 30


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """What others provoked a moment ago is forgotten."""
    for module in (join_door, admitting):
        monkeypatch.setattr(module, "log", Log(module.__name__))


def lines(caplog: pytest.LogCaptureFixture, sentence: str) -> int:
    return sum(record.getMessage() == sentence for record in caplog.records)


def uninvited(node: PeerNode, *, invited: bool) -> bytes:
    """A request to join by a key made a moment ago; with ``invited`` by a token that was never made."""
    key = SigningKey.generate()
    door = Door(key.id, ("https://127.0.0.1:9",), None)
    if not invited:
        return joining.make_request(key, Asked(key.id, "x", door, None, None, None, nonce()), None)
    token = Token(node.catalog.network, (Door(node.id, (node.url,), None),), secrets.token_bytes(16), Role.MIRROR, None, None, "", 1 << 45)
    return joining.make_request(key, Asked(key.id, "x", door, token.network, node.id, token.id, nonce()), token)


@pytest.mark.parametrize(("invited", "status", "sentence"), [(True, 404, "join request refused"), (False, 200, "a node asks to join")])
async def test_requests_to_join(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, invited: bool, status: int, sentence: str
) -> None:
    monkeypatch.setattr(admitting, "APPROVALS_AWAITED_MAX", 0)
    async with peer_node(tmp_path / "a", "ann", tls=False) as ann, aiohttp.ClientSession() as session:
        with caplog.at_level("INFO", logger="replicad"):
            for _ in range(MANY):
                async with session.post(f"{ann.url}{JOIN_PATH}", data=uninvited(ann, invited=invited)) as answer:
                    assert answer.status == status
    assert lines(caplog, sentence) == 1
    assert len([record for record in caplog.records if record.name.startswith("replicad")]) < MANY
