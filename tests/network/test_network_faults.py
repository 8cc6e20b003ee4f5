"""Real daemons under faults: the origin dies, connections are lost, nodes are apart and act at once, a node is away for a week. Everybody ends with the same state, and nothing is lost."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from support.network import Network, Node, free_port
from support.relay import Relay
from support.waiting import wait_for

pytestmark = [pytest.mark.daemons, pytest.mark.timeout(180)]


def file(directory: Path, name: str, content: bytes) -> str:
    (directory / name).write_bytes(content)
    return str(directory / name)


def entries(node: Node) -> dict[str, tuple[str, int]]:
    """What a node shows: path to (sha256, lost conflicts)."""
    return {f"{one['share']}/{one['path']}": (one["sha256"], one["siblings"]) for one in node.ask("ls")["entries"]}


def roles(node: Node) -> dict[str, str]:
    """The other members as a node sees them."""
    return {peer["name"]: peer["role"] for peer in node.ask("peer", "list")["peers"]}


def shares(node: Node) -> list[dict[str, Any]]:
    return sorted(node.ask("share", "list")["shares"], key=lambda share: str(share["name"]))


def test_what_a_dead_origin_published_arrives_over_connections_that_keep_breaking(network: Network, tmp_path: Path, dice: random.Random) -> None:
    """A node behind a firewall publishes through a line that loses every connection after some kilobytes, dies, and never comes back; a third node gets everything from the second."""
    ams = network.node("ams1")
    with Relay(ams.peers_port).running() as relay:
        ams.environ["REPLICAD__PEERS__URL"] = relay.url
        ams.start()
        ber = network.add("ber1", "--peers-url", f"https://127.0.0.1:{free_port()}", to="ams1", invite=("--role", "publisher"))
        ams.cli("share", "create", "munki", "--public")
        wait_for(lambda: ber.shares, what="the share at the publisher")
        relay.life_bytes = lambda: dice.randrange(4_000, 60_000)
        relay.cut()
        relay.heal()
        truth = {f"f{number}": dice.randbytes(30_000 + number) for number in range(20)}
        (tmp_path / "tree").mkdir()
        for name, content in truth.items():
            file(tmp_path / "tree", name, content)
        ber.cli("publish", str(tmp_path / "tree"), "--share", "munki")
        wait_for(lambda: relay.lost >= 5, what="lost connections", deadline_s=60)
        relay.life_bytes = None
        for node, other in ((ams, "ber1"), (ber, "ams1")):
            assert "bad-frame" not in {blame["offence"] for blame in node.ask("peer", "show", other)["blames"]}, "a lost connection is nobody's offence"
        wait_for(
            lambda: all(ams.download(f"munki/{name}", method="HEAD").status == 200 for name in truth), what="everything at the second node", deadline_s=120
        )
        ber.kill()
        cdg = network.add("cdg1", to="ams1")
        wait_for(lambda: all(cdg.download(f"munki/{name}", method="HEAD").status == 200 for name in truth), what="everything at the third node", deadline_s=60)
        assert {name: cdg.download(f"munki/{name}").body for name in truth} == truth


def test_nodes_that_acted_while_they_were_apart_end_with_the_same_state(network: Network, tmp_path: Path) -> None:
    """Two admins: they publish one name in two spellings, create one share in two ways, and the senior takes the junior's office while the junior uses it."""
    ams = network.node("ams1")
    with Relay(ams.peers_port).running() as relay:
        ams.environ["REPLICAD__PEERS__URL"] = relay.url
        ams.start()
        ber = network.add("ber1", "--peers-url", f"https://127.0.0.1:{free_port()}", to="ams1", invite=("--role", "admin"))
        cdg = network.add("cdg1", to="ams1", invite=("--role", "publisher"))
        ams.cli("share", "create", "munki", "--public")
        wait_for(lambda: shares(ber) and roles(ber) == {"ams1": "admin", "cdg1": "publisher"}, what="everything at both admins")
        cdg.stop()
        relay.cut()
        ams.cli("share", "create", "jamf", "--private")
        ams.cli("publish", file(tmp_path, "Foo.pkg", b"by ams"), "--share", "munki")
        ams.cli("peer", "set", "ber1", "--role", "publisher")
        ber.cli("share", "create", "jamf", "--public")
        ber.cli("publish", file(tmp_path, "foo.pkg", b"by ber"), "--share", "munki")
        ber.cli("peer", "set", "cdg1", "--role", "mirror")
        ber.cli("peer", "set", "ams1", "--role", "mirror", code=6)
        assert (roles(ams), roles(ber)) == ({"ber1": "publisher", "cdg1": "publisher"}, {"ams1": "admin", "cdg1": "mirror"})
        relay.heal()
        cdg.start()
        everybody = {node.name: node for node in (ams, ber, cdg)}
        expected = {"ams1": "admin", "ber1": "publisher", "cdg1": "publisher"}
        wait_for(lambda: len({node.download("munki/foo.pkg").body for node in everybody.values()}) == 1, what="the same file everywhere", deadline_s=60)
        for name, node in everybody.items():
            others = {other: role for other, role in expected.items() if other != name}
            wait_for(lambda node=node, others=others: roles(node) == others, what=f"the same roles at {name}", deadline_s=60)  # type: ignore[misc]
            wait_for(lambda node=node: len(shares(node)) == 2, what=f"both shares at {name}", deadline_s=60)  # type: ignore[misc]
            wait_for(lambda node=node: [lost for _, lost in entries(node).values()] == [1], what=f"the conflict at {name}", deadline_s=60)  # type: ignore[misc]
        assert shares(ams) == shares(ber) == shares(cdg)
        assert entries(ams) == entries(ber) == entries(cdg)
        ((path, (winner, _)),) = entries(cdg).items()
        contents = {hashlib.sha256(content).hexdigest(): content for content in (b"by ams", b"by ber")}
        for node in everybody.values():
            for spelling in ("foo.pkg", "FOO.PKG"):
                node.wait_for_file(f"munki/{spelling}")
                assert node.download(f"munki/{spelling}").body == contents[winner]
        for node in everybody.values():
            (lost,) = [one for one in node.ask("show", path)["others"] if one["sha256"] != winner]
            assert contents.keys() == {winner, lost["sha256"]}, f"the loser is listed at {node.name}"
        loser = ams if contents[lost["sha256"]] == b"by ams" else ber
        loser.cli("get", path, "--record", lost["record"], "-o", str(tmp_path / "lost"))
        assert (tmp_path / "lost").read_bytes() == contents[lost["sha256"]]


@pytest.mark.needs("faketime")
def test_a_node_that_was_away_for_a_week_catches_up_and_brings_nothing_back(network: Network, tmp_path: Path) -> None:
    ams, ber = network.found("ams1"), network.add("ber1", to="ams1", invite=("--role", "publisher"))
    ams.cli("share", "create", "munki", "--public")
    for name in ("old.pkg", "gone.pkg"):
        ams.cli("publish", file(tmp_path, name, name.encode()), "--share", "munki")
        ber.wait_for_file(f"munki/{name}")
    ber.stop()
    ams.cli("rm", "munki/gone.pkg", "--yes", "--expect", "1")
    ams.stop()
    said = subprocess.run(["faketime", "-f", "+7d", "env"], capture_output=True, text=True, check=True).stdout
    (preload,) = [line for line in said.splitlines() if line.startswith("LD_PRELOAD=")]
    for node in (ams, ber):
        node.python = ("env", preload.replace("libfaketime.so", "libfaketimeMT.so"), "FAKETIME=+7d", "DONT_FAKE_MONOTONIC=1", sys.executable)
    ams.start()
    ams.cli("publish", file(tmp_path, "new.pkg", b"new"), "--share", "munki")
    (published,) = [one["published"] for one in ams.ask("ls")["entries"] if one["path"] == "new.pkg"]
    assert published > time.strftime("%Y-%m-%d", time.gmtime(time.time() + 6 * 86400)), "its clock is a week ahead"
    ber.start()
    ber.wait_for_file("munki/new.pkg")
    assert entries(ber) == entries(ams)
    assert set(entries(ber)) == {"munki/old.pkg", "munki/new.pkg"}
    assert (ber.download("munki/old.pkg").body, ber.download("munki/gone.pkg").status) == (b"old.pkg", 404)
    ber.cli("publish", file(tmp_path, "back.pkg", b"back"), "--share", "munki")
    ams.wait_for_file("munki/back.pkg")
