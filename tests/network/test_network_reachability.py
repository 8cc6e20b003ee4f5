"""Nodes behind firewalls, cut links, and the rights of members, with real daemons."""

from __future__ import annotations

import random
import socket
import time
from pathlib import Path

import pytest

from support.network import Network, Node, free_port
from support.processes import PYTHON, Process
from support.relay import Relay
from support.waiting import wait_for

pytestmark = [pytest.mark.daemons, pytest.mark.timeout(180)]
MIB = 1 << 20


def test_a_node_whose_peer_door_nobody_reaches_receives_and_publishes(network: Network, tmp_path: Path, dice: random.Random) -> None:
    ams = network.found("ams1")
    hidden = network.add("hidden", "--peers-url", f"https://127.0.0.1:{free_port()}", to="ams1", invite=("--role", "publisher"))
    ams.cli("share", "create", "munki", "--public")
    for publisher, other, size in ((ams, hidden, 9 * MIB + 1), (hidden, ams, 12 * MIB + 7)):
        content = dice.randbytes(size)
        (tmp_path / f"from-{publisher.name}").write_bytes(content)
        publisher.cli("publish", str(tmp_path / f"from-{publisher.name}"), "--share", "munki", "--wait", "all", "--timeout", "60s")
        assert other.download(f"munki/from-{publisher.name}").body == content
    for number in range(30):
        (tmp_path / "small").mkdir(exist_ok=True)
        (tmp_path / "small" / f"f{number}").write_bytes(dice.randbytes(5000 + number))
    hidden.cli("publish", str(tmp_path / "small"), "--share", "munki", "--wait", "all", "--timeout", "60s")
    assert ams.download("munki/f29").body == (tmp_path / "small" / "f29").read_bytes()


def test_a_cut_link_comes_back_and_nothing_is_missing(network: Network, tmp_path: Path, dice: random.Random) -> None:
    ams = network.node("ams1")
    with Relay(ams.peers_port).running() as relay:
        text = ams.config.read_text().replace(f"https://127.0.0.1:{ams.peers_port}", relay.url)
        ams.config.write_text(text)
        ams.environ["REPLICAD__PEERS__URL"] = relay.url
        ams.start()
        ber = network.add("ber1", "--peers-url", f"https://127.0.0.1:{free_port()}", to="ams1")
        ams.cli("share", "create", "munki", "--public")
        relay.cut()
        wait_for(lambda: not ams.linked, what="the cut to be noticed", deadline_s=60)
        content = dice.randbytes(2 * MIB)
        (tmp_path / "a.pkg").write_bytes(content)
        ams.cli("publish", str(tmp_path / "a.pkg"), "--share", "munki")
        assert ber.download("munki/a.pkg").status == 404
        relay.heal()
        ber.wait_for_file("munki/a.pkg")
        assert ber.download("munki/a.pkg").body == content


def test_a_node_that_stops_takes_up_no_links_while_its_doors_drain(network: Network) -> None:
    """An upload that does not end keeps the admin door open for its whole drain; the other node dials at once."""
    ams = network.found("ams1")
    network.add("ber1", to="ams1")
    network.wait_linked()
    with socket.create_connection(("127.0.0.1", ams.admin_port)) as upload:
        token = (ams.data / "admin.token").read_text().strip()
        upload.sendall(f"PUT /api/v1/blobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {4 * MIB}\r\n\r\n".encode() + bytes(2 * MIB))
        wait_for(lambda: list((ams.data / "partials").iterdir()), what="the upload to begin")
        ams.stop()
    assert "link up" in ams.log
    assert "link up" not in ams.log.partition(" stopping")[2]


def test_a_mirror_cannot_publish_and_a_removed_node_gets_nothing_more(network: Network, tmp_path: Path, dice: random.Random) -> None:
    ams, mirror = network.found("ams1"), network.add("mir1", to="ams1")
    ams.cli("share", "create", "munki", "--public")
    (tmp_path / "a.pkg").write_bytes(dice.randbytes(1000))
    wait_for(lambda: mirror.shares, what="the share on the mirror")
    mirror.cli("publish", str(tmp_path / "a.pkg"), "--share", "munki", code=6)
    ams.cli("publish", str(tmp_path / "a.pkg"), "--share", "munki", "--wait", "all", "--timeout", "30s")
    ams.cli("peer", "remove", "mir1", "--yes")
    wait_for(lambda: not ams.api("members")["peers"], what="the member to be gone")
    (tmp_path / "b.pkg").write_bytes(dice.randbytes(1000))
    ams.cli("publish", str(tmp_path / "b.pkg"), "--share", "munki", "--wait", "all", "--timeout", "30s")
    assert mirror.run("show", "munki/b.pkg").code == 4
    assert mirror.download("munki/b.pkg").status == 404


def test_widening_and_narrowing_a_member(network: Network, tmp_path: Path, dice: random.Random) -> None:
    ams, ber = network.found("ams1"), network.add("ber1", to="ams1")
    ams.cli("share", "create", "munki", "--public")
    wait_for(lambda: ber.shares, what="the share on the other node")
    (tmp_path / "a.pkg").write_bytes(dice.randbytes(1000))
    ber.cli("publish", str(tmp_path / "a.pkg"), "--share", "munki", code=6)
    ams.cli("peer", "set", "ber1", "--role", "publisher")
    wait_for(lambda: ber.run("publish", str(tmp_path / "a.pkg"), "--share", "munki").code == 0, what="the right to publish")
    ams.wait_for_file("munki/a.pkg")
    ams.cli("peer", "set", "ber1", "--role", "mirror")
    (tmp_path / "b.pkg").write_bytes(dice.randbytes(1000))
    wait_for(lambda: ber.run("publish", str(tmp_path / "b.pkg"), "--share", "munki").code == 6, what="the right to be gone")
    assert ams.download("munki/a.pkg").status == 200, "what it published before stays"


def test_admission_by_request_and_approval(network: Network, tmp_path: Path) -> None:
    ams, ber = network.found("ams1"), network.found("ber1")
    command = [*PYTHON, "-m", "replicad", "--config", str(ber.config), "peer", "add", f"https://127.0.0.1:{ams.peers_port}", "--key", ams.id]
    asking = Process(command, log=tmp_path / "asking")
    wait_for(lambda: ams.api("members")["pending"], what="the request at the admin's node")
    assert "ber1" in ams.cli("peer", "list").out
    ams.cli("peer", "approve", "ber1")
    assert asking.wait(deadline_s=60) == 0, asking.output()
    network.wait_linked()
    assert [peer["role"] for peer in ams.ask("peer", "list")["peers"]] == ["mirror"]


def test_a_token_that_does_not_fit_says_why(network: Network) -> None:
    ams, ber, cdg = (network.found(name) for name in ("ams1", "ber1", "cdg1"))

    def said(node: Node, token: str) -> str:
        """Why the token is refused; it changes nothing."""
        before = node.ask("peer", "list")["peers"]
        refused = node.run("peer", "add", token)
        assert refused.code != 0
        assert node.ask("peer", "list")["peers"] == before
        return refused.err

    token, brief = (ams.cli("peer", "invite", "--expires", expires).lines[-1] for expires in ("1h", "1s"))
    made_s, middle = time.monotonic(), len(token) // 2
    mangled = said(ber, token[:middle] + ("A" if token[middle] != "A" else "B") + token[middle + 1 :])
    assert "damaged" in mangled or "mangled" in mangled, mangled
    wait_for(lambda: time.monotonic() - made_s > 1.1, what="the token to expire")
    assert "expired" in said(ber, brief)
    ber.cli("peer", "add", token)
    second = said(cdg, token)
    assert "another node" in second or "already" in second, second
    unused = ams.cli("peer", "invite").lines[-1]
    ams.stop()
    other = network.node("ams2")
    other.environ.update({"REPLICAD__PEERS__LISTEN": f"127.0.0.1:{ams.peers_port}"})
    other.start()
    foreign = said(cdg, unused)
    assert "network" in foreign or "certificate" in foreign, foreign
