"""Backups of real daemons: a lost node comes back as itself, and an old backup harms nobody."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.network import Network, Node
from support.waiting import wait_for

pytestmark = pytest.mark.daemons
PASSPHRASE = "correct horse battery"


def passphrase(tmp_path: Path) -> tuple[str, str]:
    (file := tmp_path / "passphrase").write_text(f"{PASSPHRASE}\n")
    file.chmod(0o600)
    return "--passphrase-file", str(file)


def publish(node: Node, name: str, content: bytes) -> None:
    (file := node.home / name).write_bytes(content)
    node.cli("publish", str(file), "--share", "munki")


def names(node: Node) -> set[str]:
    return {entry["path"] for entry in node.api("entries?share=munki")["entries"]}


def what_it_is(node: Node) -> dict[str, object]:
    """Its id, members, shares, entries and tokens, without what changes by itself."""
    peers = [{key: peer[key] for key in ("id", "name", "role", "site", "shares")} for peer in node.ask("peer", "list")["peers"]]
    tokens = [{**token, "used": None} for token in node.ask("token", "list")["tokens"]]
    entries = [{**entry, "available": True} for entry in node.ask("ls", "munki")["entries"]]
    return {"id": node.id, "peers": peers, "shares": node.ask("share", "list"), "entries": entries, "tokens": tokens}


def test_a_wiped_node_comes_back_as_itself(network: Network, tmp_path: Path) -> None:
    ams, ber = network.found("ams1"), network.add("ber1", to="ams1", invite=("--role", "publisher"))
    ams.cli("share", "create", "munki", "--public")
    publish(ams, "big.pkg", b"big" * 1_000_000)
    publish(ber, "small.pkg", b"small")
    secret = ams.ask("token", "create", "--role", "viewer", "--name", "ci")["secret"]
    for node in (ams, ber):
        for name in ("big.pkg", "small.pkg"):
            node.wait_for_file(f"munki/{name}")
    before = what_it_is(ams)
    file = tmp_path / "ams1.backup"
    made = ams.ask("backup", "create", str(file), "--identity", *passphrase(tmp_path))
    assert (made["identity"], made["decrypted"], made["backup"]["files"], made["backup"]["members"]) == (True, True, 2, 2)
    assert (oct(file.stat().st_mode & 0o777), made["size"]) == ("0o600", file.stat().st_size)
    assert ams.cli("backup", "restore", str(file), "--force", *passphrase(tmp_path), code=1).err.startswith("error: the data directory"), "it runs"
    network_key = (ams.data / "network.key").read_text()
    assert network_key.encode() not in file.read_bytes()
    ams.stop()
    shutil.rmtree(ams.data)
    ams.config.unlink()
    ams.cli("backup", "restore", str(file), *passphrase(tmp_path))
    assert (ams.data / "network.key").read_text() == network_key
    ams.start()
    network.wait_linked()
    assert what_it_is(ams) == before
    for name, content in (("big.pkg", b"big" * 1_000_000), ("small.pkg", b"small")):
        ams.wait_for_file(f"munki/{name}")
        assert ams.download(f"munki/{name}").body == content, "content comes back from the other node"
    assert ams.ask("store", "usage")["damaged"] == []
    answer = ams.run("--url", f"http://127.0.0.1:{ams.admin_port}", "whoami", environ={"REPLICAD_TOKEN": secret})
    assert answer.out.startswith("token ci"), answer
    assert [action["origin"] for action in ams.ask("audit", "--log")["actions"]][-1] == "restore"
    ams.cli("audit", "verify")


def test_an_old_backup_in_a_living_network_loses_nothing(network: Network, tmp_path: Path) -> None:
    """What the restored node had said since comes back from the others; what it says then branches off in a new incarnation, and nobody sees a key used twice."""
    ams, ber, cdg = network.three()
    ams.cli("share", "create", "munki", "--public")
    publish(ams, "one.pkg", b"one")
    for node in (ams, ber, cdg):
        node.wait_for_file("munki/one.pkg")
    file = tmp_path / "ber1.backup"
    ber.cli("backup", "create", str(file))
    publish(ber, "two.pkg", b"two")
    publish(ber, "three.pkg", b"three")
    ber.cli("rm", "munki/one.pkg", "--yes")
    ams.wait_for_file("munki/three.pkg")
    cdg.wait_for_file("munki/three.pkg")
    wait_for(lambda: names(cdg) == {"two.pkg", "three.pkg"}, what="the removal at cdg1")
    ber.kill()
    ber.cli("backup", "restore", str(file), code=9)
    ber.cli("backup", "restore", str(file), "--force", "--yes")
    ber.start()
    publish(ber, "four.pkg", b"four")
    everything = {"two.pkg", "three.pkg", "four.pkg"}
    for node in (ams, ber, cdg):
        wait_for(lambda node=node: names(node) == everything, what=f"everything on {node.name}")  # type: ignore[misc]
        for name in sorted(everything):
            node.wait_for_file(f"munki/{name}")
    publish(ber, "five.pkg", b"five")
    publish(ams, "six.pkg", b"six")
    for node in (ams, ber, cdg):
        wait_for(lambda node=node: names(node) == everything | {"five.pkg", "six.pkg"}, what=f"what came later on {node.name}")  # type: ignore[misc]
        findings = {found["check"]: found["state"] for found in node.run("--json", "doctor").json["findings"]}
        assert (findings["keys"], findings["membership"]) == ("ok", "ok"), "nobody takes it for a key used twice"
        assert all(record["counts"] for record in node.ask("audit")["records"])
    records = [[record["record"] for record in node.ask("audit")["records"]] for node in (ams, ber, cdg)]
    assert records[0] == records[1] == records[2]
