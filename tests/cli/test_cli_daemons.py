"""The verbs against real daemons: what needs more than one node, a terminal's signals, or a whole demo."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.network import Answer, Network, Node
from support.waiting import wait_for

pytestmark = [pytest.mark.daemons, pytest.mark.timeout(240)]
COMMAND = (sys.executable, "-m", "replicad")
NODE_KEYS = {"id", "name", "role", "site", "shares", "linked", "lag"}


def background(node: Node, *arguments: str) -> subprocess.Popen[str]:
    """An invocation that goes on while the test does something else."""
    command = [*COMMAND, "--config", str(node.config), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, **node.environ})


def test_the_life_of_members(network: Network, tmp_path: Path) -> None:
    ams = network.found("ams1", "--site", "ams")
    ams.cli("share", "create", "munki", "--public")
    ams.cli("share", "create", "jamf")
    ber = network.add("ber1", to="ams1", invite=("--share", "munki", "--site", "ber"))
    [peer] = ams.ask("peer", "list")["peers"]
    assert peer.keys() >= NODE_KEYS
    assert (peer["name"], peer["id"], peer["role"], peer["site"], peer["shares"]) == ("ber1", ber.id, "mirror", "ber", ["munki"])
    assert [share["name"] for share in ber.ask("share", "list")["shares"]] == ["jamf", "munki"]
    network.wait_linked()

    assert ams.run("peer", "check", "ber1").code == 0
    ams.cli("peer", "set", "ber1", "--role", "publisher", "--share", "*")
    shown = ams.ask("peer", "show", ber.id[:9])
    assert (shown["peer"]["role"], shown["peer"]["shares"]) == ("publisher", None)
    assert shown["admitted_by"] == ams.id

    (tmp_path / "a.pkg").write_bytes(b"a")
    published = ber.ask("publish", str(tmp_path / "a.pkg"), "--share", "jamf", "--wait", "all", "--timeout", "60s")
    assert published["waited"]["state"] == "done"

    refused = ams.run("peer", "remove", "ams1")
    assert (refused.code, "last admin" in refused.err) == (9, True)
    assert f"would remove ams1 ({ams.id}; this node itself; admins that remain: none, so it is refused)" in ams.cli("peer", "remove", "ams1", "--dry-run").out
    ams.cli("peer", "set", "ber1", "--role", "admin")
    assert f"would remove ams1 ({ams.id}; this node itself; admins that remain: ber1)" in ams.cli("peer", "remove", "ams1", "--dry-run").out
    assert f"would remove ber1 ({ber.id})" in ams.cli("peer", "remove", "ber1", "--dry-run").out
    assert len(ams.ask("peer", "list")["peers"]) == 1
    ams.cli("peer", "remove", "ber1")
    assert ams.ask("peer", "list")["peers"] == []
    assert [entry["path"] for entry in ams.ask("ls", "jamf")["entries"]] == ["a.pkg"]
    ams.cli("peer", "show", "ber1", code=4)


def test_a_request_without_a_token_waits_for_approval(network: Network) -> None:
    ams = network.found("ams1")
    ber = network.found("ber1")
    with background(ber, "peer", "add", f"https://127.0.0.1:{ams.peers_port}", "--key", ams.id) as adding:
        pending = wait_for(lambda: ams.ask("peer", "list")["pending"], what="the request")
        assert (pending[0]["name"], pending[0]["id"]) == ("ber1", ber.id)
        ams.cli("peer", "approve", "ber1")
        out, err = adding.communicate(timeout=60)
    assert (adding.returncode, "joined network" in out) == (0, True), err
    assert pending[0]["words"] in err
    assert [peer["name"] for peer in ber.ask("peer", "list")["peers"]] == ["ams1"]
    assert ams.ask("peer", "list")["pending"] == []


def test_waiting_for_an_offline_node_ends_with_3(network: Network, tmp_path: Path) -> None:
    ams, ber, _ = network.three()
    network.wait_linked()
    ams.cli("share", "create", "munki", "--public")
    network.nodes["cdg1"].stop()
    wait_for(lambda: ams.linked == {"ber1"}, what="cdg1 to be missed")
    (tmp_path / "a.pkg").write_bytes(os.urandom(3 << 20))
    answer = ams.cli("publish", str(tmp_path / "a.pkg"), "--wait", "all", "--timeout", "60s", code=3)
    assert "replicated to 2 of 3 nodes" in answer.err
    assert "cdg1 is offline and will catch up" in answer.err
    assert ber.download("munki/a.pkg").status == 200
    ams.cli("wait", "munki/a.pkg", "--nodes", "2")
    ams.cli("wait", "munki/a.pkg", "--nodes", "3", "--timeout", "1s", code=8)
    status = ams.cli("status").out
    assert "DEGRADED" in status
    assert "! cdg1: " in status
    assert "cdg1  OFFLINE since " in status
    rows = ams.ask("matrix", "--incomplete")["rows"]
    assert [(row["path"], row["copies"], row["copies_wanted"]) for row in rows] == [("a.pkg", 2, 3)]
    assert ams.cli("doctor", code=1).out.count("cdg1") >= 1


def test_ctrl_c_ends_the_waiting_and_not_the_work(network: Network, tmp_path: Path) -> None:
    ams, _, cdg = network.three()
    network.wait_linked()
    ams.cli("share", "create", "munki", "--public")
    cdg.stop()
    (tmp_path / "a.pkg").write_bytes(b"a")
    with background(ams, "publish", str(tmp_path / "a.pkg"), "--wait", "3") as publishing:
        wait_for(lambda: ams.ask("ls")["entries"], what="the entry")
        publishing.send_signal(signal.SIGINT)
        out, err = publishing.communicate(timeout=20)
    assert publishing.returncode == 130
    assert "published  munki/a.pkg" in out
    assert "replication goes on" in err or err.strip() == ""
    cdg.start()
    cdg.wait_for_file("munki/a.pkg")


def test_the_api_over_tcp_a_token_for_a_script_and_the_log_of_what_it_did(network: Network, tmp_path: Path) -> None:
    ams = network.found("ams1")
    ams.cli("share", "create", "munki")
    ams.cli("share", "create", "jamf")
    (tmp_path / "a.pkg").write_bytes(b"a")
    url = f"http://127.0.0.1:{ams.admin_port}"
    assert ams.run("--url", url, "status").code == 6
    root = ams.run("--url", url, "status", "--json", environ={"REPLICAD_TOKEN": (ams.data / "admin.token").read_text().strip()})
    assert json.loads(root.out)["node"]["name"] == "ams1"
    assert (ams.data / "admin.sock").stat().st_mode & 0o007 == 0
    made = ams.cli("token", "create", "--role", "publisher", "--share", "munki", "--path", "apps", "--expires", "90d", "--name", "ci")
    environ = {"REPLICAD_TOKEN": made.lines[-1]}

    def script(*arguments: str) -> Answer:
        return ams.run("--url", url, *arguments, environ=environ)

    assert script("whoami").out == "token ci: publisher, munki below apps/\n"
    done = script("publish", str(tmp_path / "a.pkg"), "--as", "apps/a.pkg", "--wait", "all")
    assert (done.code, "published  munki/apps/a.pkg" in done.out) == (0, True), done.err
    assert script("publish", str(tmp_path / "a.pkg")).code == 6, "beside its directory"
    assert script("share", "set", "munki", "--public").code == 6, "beyond its role"
    [listed] = ams.ask("token", "list")["tokens"]
    assert listed["used"] is not None
    ams.cli("token", "revoke", "ci")
    assert script("ls").code == 6

    actions = ams.ask("audit", "--log")["actions"]
    by_script = [(one["method"], one["target"].removeprefix("/api/v1"), one["status"]) for one in actions if one["caller"] == "token ci"]
    assert ("POST", "/shares/munki/entries", 200) in by_script
    assert [one[1:] for one in by_script if one[2] == 403] == [("/shares/munki/entries", 403), ("/shares/munki", 403)]
    assert actions[-1]["code"] == "unauthorized"
    assert made.lines[-1] not in str(actions)
    assert "token ci 127.0.0.1 POST /shares/munki/entries" in " ".join(ams.cli("audit", "--log").out.split())
    assert "as written: " in ams.cli("audit", "verify").out
    with sqlite3.connect(ams.data / "catalog.sqlite") as outside:
        outside.execute("UPDATE action SET status = 403 WHERE seq = 2")
    outside.close()
    assert "action 2 of 1 to" in ams.cli("audit", "verify", code=7).err


@pytest.fixture
def place() -> Iterator[Path]:
    """A temporary directory for demos, short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="rd-") as directory:
        yield Path(directory)


def demo(place: Path, *arguments: str) -> subprocess.Popen[str]:
    """``replicad demo`` with its files below ``place``."""
    return subprocess.Popen([*COMMAND, "demo", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(place)})


def processes(place: Path) -> list[str]:
    """Command lines that name the directory."""
    return [text for path in Path("/proc").glob("[0-9]*/cmdline") if str(place) in (text := read(path))]


def read(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def test_the_demo_verifies_and_leaves_nothing(place: Path, tmp_path: Path) -> None:
    file = tmp_path / "Firefox.pkg"
    file.write_bytes(os.urandom(5 * (1 << 20) + 123))
    with demo(place, "--once", "--json", str(file)) as running:
        out, err = running.communicate(timeout=180)
    assert running.returncode == 0, err
    answer = json.loads(out)
    assert (answer["verified"], answer["sha256"], len(answer["nodes"])) == (True, hashlib.sha256(file.read_bytes()).hexdigest(), 3)
    first, last = (int(part) for part in answer["range"].split("-"))
    assert first < 1 << 20 <= last
    assert answer["nodes"][0]["page"].partition("#token=")[2]
    assert (list(place.iterdir()), processes(place)) == ([], [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_an_interrupted_demo_leaves_nothing(number: signal.Signals, place: Path) -> None:
    """After SIGKILL only the directory is left, because nothing can be done about it; the processes end all the same."""
    with demo(place, "--nodes", "2") as running:
        wait_for(lambda: len(list(place.glob("replicad-demo-*/demo*/data/admin.sock"))) == 2, what="two running nodes")
        running.send_signal(number)
        running.communicate(timeout=40)
    assert running.returncode == {signal.SIGINT: 130, signal.SIGTERM: 130, signal.SIGKILL: -9}[number]
    wait_for(lambda: not processes(place), what="the end of every process")
    assert number == signal.SIGKILL or list(place.iterdir()) == []


def test_a_demo_of_something_that_cannot_be_published(place: Path, tmp_path: Path) -> None:
    with demo(place, "--once", str(tmp_path / "none")) as running:
        running.communicate(timeout=60)
    assert running.returncode == 2
    (tmp_path / "bad:name").touch()
    with demo(place, "--once", "--nodes", "2", str(tmp_path / "bad:name")) as running:
        _, err = running.communicate(timeout=60)
    assert (running.returncode, "bad:name" in err) == (2, True)
    assert (list(place.iterdir()), processes(place)) == ([], [])
