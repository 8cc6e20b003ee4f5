"""A node that fetches while its sources are in trouble: one frozen, one whose connections break, one slow. The file comes from whoever can give it."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from support.network import Network, free_port
from support.relay import Relay
from support.waiting import wait_for

pytestmark = [pytest.mark.daemons, pytest.mark.timeout(240)]
MIB = 1 << 20
SIZE = 24 * MIB


def test_frozen_breaking_and_slow_holders_do_not_keep_a_file_from_arriving(network: Network, tmp_path: Path, dice: random.Random) -> None:
    frozen, breaking, slow = network.found("ams1"), network.node("ber1"), network.node("cdg1")
    with Relay(breaking.peers_port).running() as breaker, Relay(slow.peers_port).running() as brake:
        for node, relay in ((breaking, breaker), (slow, brake)):
            node.environ["REPLICAD__PEERS__URL"] = relay.url
            node.start()
            node.cli("peer", "add", "-", stdin=frozen.cli("peer", "invite").lines[-1])
        newcomer = network.add("dub1", "--peers-url", f"https://127.0.0.1:{free_port()}", to="ams1")
        newcomer.stop()
        frozen.cli("share", "create", "munki", "--public")
        content = dice.randbytes(SIZE)
        (tmp_path / "big.pkg").write_bytes(content)
        frozen.cli("publish", str(tmp_path / "big.pkg"), "--share", "munki")
        for node in (breaking, slow):
            node.wait_for_file("munki/big.pkg")
        breaker.life_bytes = lambda: dice.randrange(64 << 10, 6 * MIB)
        brake.rate = 2 * MIB
        given = brake.received
        newcomer.start()
        wait_for(lambda: "ams1" in newcomer.linked, what="a link to freeze")
        assert frozen.process is not None
        frozen.process.send(signal.SIGSTOP)
        try:
            newcomer.wait_for_file("munki/big.pkg", deadline_s=120)
            assert newcomer.download("munki/big.pkg").body == content
            assert all(not newcomer.ask("peer", "show", node.name)["blames"] for node in (frozen, slow)), "trouble is no offence"
            assert brake.received - given < 2 * SIZE, "what is slow is not fetched again and again"
        finally:
            frozen.process.send(signal.SIGCONT)
