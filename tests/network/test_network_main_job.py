"""The main job with real daemons: any node takes a file, every node gets it verified, clients download it by Range."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from support.network import Network

pytestmark = [pytest.mark.daemons, pytest.mark.timeout(180)]
MIB = 1 << 20


def random_file(path: Path, size: int, dice: random.Random) -> bytes:
    content = dice.randbytes(size)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return content


def test_a_file_published_on_one_node_is_downloaded_from_another(network: Network, tmp_path: Path, dice: random.Random) -> None:
    ams, ber, cdg = network.three()
    ams.cli("share", "create", "munki", "--public")
    content = random_file(tmp_path / "Office.pkg", 20 * MIB + 12345, dice)
    published = ber.cli("publish", str(tmp_path / "Office.pkg"), "--share", "munki", "--as", "pkgs/Office.pkg", "--wait", "all", "--timeout", "60s")
    assert "3 of 3 nodes" in published.err + published.out
    whole = [node.download("munki/pkgs/Office.pkg") for node in (ams, ber, cdg)]
    assert [answer.status for answer in whole] == [200, 200, 200]
    assert all(answer.body == content for answer in whole)
    assert {answer.headers["etag"] for answer in whole} == {f'"{hashlib.sha256(content).hexdigest()}"'}
    assert len({answer.headers["last-modified"] for answer in whole}) == 1
    part = cdg.download("munki/pkgs/Office.pkg", Range=f"bytes={MIB - 10}-{MIB + 9}")
    assert (part.status, part.body) == (206, content[MIB - 10 : MIB + 10])
    out = tmp_path / "copy.pkg"
    cdg.cli("get", "munki/pkgs/Office.pkg", "-o", str(out))
    assert out.read_bytes() == content


def test_replacing_a_file_reaches_every_node(network: Network, tmp_path: Path, dice: random.Random) -> None:
    ams, ber, cdg = network.three()
    ams.cli("share", "create", "munki", "--public")
    random_file(tmp_path / "a.pkg", 100_000, dice)
    ams.cli("publish", str(tmp_path / "a.pkg"), "--share", "munki", "--wait", "all", "--timeout", "30s")
    second = random_file(tmp_path / "a.pkg", 3 * MIB, dice)
    ber.cli("publish", str(tmp_path / "a.pkg"), "--share", "munki", "--wait", "all", "--timeout", "30s")
    assert [node.download("munki/a.pkg").body == second for node in (ams, ber, cdg)] == [True, True, True]


def test_a_node_that_was_away_and_a_new_one_catch_up(network: Network, tmp_path: Path, dice: random.Random) -> None:
    ams, ber = network.found("ams1"), network.add("ber1", to="ams1")
    ams.cli("share", "create", "munki", "--public")
    ber.stop()
    content = random_file(tmp_path / "a.pkg", 5 * MIB, dice)
    for number in range(20):
        random_file(tmp_path / "many" / f"f{number}", 1000 + number, dice)
    ams.cli("publish", str(tmp_path / "a.pkg"), "--share", "munki")
    ams.cli("publish", str(tmp_path / "many"), "--share", "munki", "--as", "many")
    assert ams.run("wait", "munki/a.pkg", "--timeout", "20s").code == 3, "the only other node is offline: done as far as it goes"
    ber.start()
    assert network.add("cdg1", to="ams1").wait_for_file("munki/a.pkg").headers["content-length"] == str(len(content))
    network.wait_linked()
    ams.cli("wait", "munki/a.pkg", "--nodes", "all", "--timeout", "60s")
    assert ber.download("munki/a.pkg").body == content
    assert ber.wait_for_file("munki/many/f19").status == 200


def test_a_directory_lands_whole(network: Network, tmp_path: Path, dice: random.Random) -> None:
    ams, ber = network.found("ams1"), network.add("ber1", to="ams1")
    ams.cli("share", "create", "munki", "--public")
    truth = {f"d{number % 7}/f{number}": random_file(tmp_path / "tree" / f"d{number % 7}" / f"f{number}", 64 << 10, dice) for number in range(300)}
    ams.cli("publish", str(tmp_path / "tree"), "--share", "munki", "--wait", "all", "--timeout", "60s")
    assert {path: ber.download(f"munki/{path}").body for path in truth} == truth
    assert len(ber.ask("ls", "munki")["entries"]) == len(truth)


def test_a_private_share_is_invisible_to_clients_and_replicates(network: Network, tmp_path: Path, dice: random.Random) -> None:
    ams, ber = network.found("ams1"), network.add("ber1", to="ams1")
    ams.cli("share", "create", "customer-a", "--private")
    content = random_file(tmp_path / "a.pkg", MIB + 1, dice)
    ams.cli("publish", str(tmp_path / "a.pkg"), "--wait", "all", "--timeout", "30s")
    private, absent = ber.download("customer-a/a.pkg"), ber.download("nothing/a.pkg")
    assert (private.status, private.body) == (absent.status, absent.body) == (404, absent.body)
    assert ber.download(f"-/blob/{hashlib.sha256(content).hexdigest()}").status == 404
    ber.cli("get", "customer-a/a.pkg", "-o", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == content


def test_stages_and_shares_decide_who_carries_what(network: Network, tmp_path: Path, dice: random.Random) -> None:
    ams = network.found("ams1")
    ams.cli("share", "create", "munki", "--public")
    ams.cli("share", "create", "jamf", "--public")
    prod = network.add("prod1", to="ams1", invite=("--share", "munki", "--stage", "prod"))
    test = network.add("test1", to="ams1", invite=("--share", "munki", "--stage", "test", "--stage", "prod"))
    old, new = random_file(tmp_path / "old", 70_000, dice), random_file(tmp_path / "new", 80_000, dice)
    ams.cli("publish", str(tmp_path / "old"), "--share", "munki", "--as", "a.pkg", "--wait", "all", "--timeout", "30s")
    ams.cli("publish", str(tmp_path / "new"), "--share", "munki", "--as", "a.pkg", "--stage", "test", "--wait", "all", "--timeout", "30s")
    ams.cli("publish", str(tmp_path / "new"), "--share", "jamf", "--as", "b.pkg", "--wait", "all", "--timeout", "30s")
    assert (test.download("munki/a.pkg").body, prod.download("munki/a.pkg").body) == (new, old)
    assert test.download("jamf/b.pkg").status == 404
    assert not (prod.data / "blobs" / hashlib.sha256(new).hexdigest()[:2] / hashlib.sha256(new).hexdigest()).exists()
    assert "jamf" not in test.cli("ls").out
