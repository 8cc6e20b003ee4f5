"""SIGKILL at any time: nothing acknowledged is lost, nothing corrupt is visible, little is fetched twice."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from support.network import Network, Node
from support.relay import Relay
from support.waiting import wait_for

pytestmark = [pytest.mark.daemons, pytest.mark.timeout(300)]
MIB = 1 << 20
KILLS = 20
SIZE = 640 * MIB
RATE = 250 * MIB
LOSS_PER_KILL = 64 * MIB
OVERHEAD = 1.03
"""TLS, HTTP and WebSocket framing and the requests under way when the process died."""


def check_blobs(node: Node) -> int:
    """Every visible blob is what its name says; the number of them."""
    blobs = [path for path in (node.data / "blobs").rglob("*") if path.is_file()]
    for path in blobs:
        with path.open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == path.name
    return len(blobs)


def has(node: Node) -> bool:
    """Whether its downloads door gives the file; False while it is starting."""
    try:
        return node.download("munki/big.pkg", method="HEAD").status == 200
    except OSError:
        return False


def test_twenty_kills_of_a_fetching_node(network: Network, tmp_path: Path, dice: random.Random) -> None:
    ams = network.node("ams1")
    with Relay(ams.peers_port, rate=RATE).running() as relay:
        ams.environ["REPLICAD__PEERS__URL"] = relay.url
        ams.start()
        ber = network.add("ber1", to="ams1")
        ams.cli("share", "create", "munki", "--public")
        source = tmp_path / "big.pkg"
        with source.open("wb") as file:
            for _ in range(SIZE // (16 * MIB)):
                file.write(dice.randbytes(16 * MIB))
        ber.stop()
        ams.cli("publish", str(source), "--share", "munki")
        before, kills = relay.received, 0
        while kills < KILLS and not has(ber):
            ber.launch()
            mark, more = relay.received, dice.randrange(1, 90 * MIB)
            wait_for(lambda mark=mark, more=more: relay.received - mark > more or has(ber), what="some bytes to arrive", deadline_s=60)  # type: ignore[misc]
            ber.kill()
            kills += 1
            check_blobs(ber)
        ber.start()
        ber.wait_for_file("munki/big.pkg", deadline_s=120)
        assert kills >= KILLS // 2, "the file arrived before it was killed often enough"
        assert relay.received - before <= (SIZE + kills * LOSS_PER_KILL) * OVERHEAD
    assert check_blobs(ber) == 1
    assert not list((ber.data / "partials").iterdir())


def test_kills_of_a_publishing_node_lose_nothing_acknowledged(network: Network, tmp_path: Path, dice: random.Random) -> None:
    ams = network.found("ams1")
    ams.cli("share", "create", "munki", "--public")
    acknowledged: dict[str, bytes] = {}
    for number in range(8):
        content = dice.randbytes(dice.randrange(1, 3 * MIB))
        (tmp_path / f"f{number}").write_bytes(content)
        ams.cli("publish", str(tmp_path / f"f{number}"), "--share", "munki")
        acknowledged[f"f{number}"] = content
        ams.kill()
        ams.start()
    assert {path: ams.download(f"munki/{path}").body for path in acknowledged} == acknowledged
    assert check_blobs(ams) == len(acknowledged)
