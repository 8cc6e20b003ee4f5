"""A member whose copy is wrong, with real daemons: the file arrives all the same, and the member is named."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from support.network import Network
from support.relay import Relay
from support.waiting import wait_for

pytestmark = [pytest.mark.daemons, pytest.mark.timeout(180)]
MIB = 1 << 20


def test_a_member_with_flipped_bytes_is_named_and_the_honest_one_delivers(network: Network, tmp_path: Path, dice: random.Random) -> None:
    ams = network.node("ams1")
    with Relay(ams.peers_port, rate=8 * MIB).running() as relay:
        ams.environ["REPLICAD__PEERS__URL"] = relay.url
        ams.start()
        liar = network.add("liar", to="ams1")
        ams.cli("share", "create", "munki", "--public")
        content = dice.randbytes(24 * MIB)
        (tmp_path / "a.pkg").write_bytes(content)
        ams.cli("publish", str(tmp_path / "a.pkg"), "--share", "munki", "--wait", "all", "--timeout", "60s")
        (blob,) = [path for path in (liar.data / "blobs").rglob("*") if path.is_file()]
        blob.chmod(0o600)
        blob.write_bytes(bytes(byte ^ 1 for byte in content[: 4 * MIB]) + bytes(20 * MIB))
        cdg = network.add("cdg1", to="ams1")
        wait_for(lambda: cdg.ask("peer", "show", "liar")["blames"], what="the liar to be named", deadline_s=60)
        cdg.wait_for_file("munki/a.pkg")
        assert hashlib.sha256(cdg.download("munki/a.pkg").body).digest() == hashlib.sha256(content).digest()
        assert "bad-chunk" in {blame["offence"] for blame in cdg.ask("peer", "show", "liar")["blames"]}
        assert not cdg.ask("peer", "show", "ams1")["blames"]
