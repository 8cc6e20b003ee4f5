"""People at another machine: users, login over TLS, what the other verbs do then, logout. Real daemons and a real certificate."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from replicad.crypto import totp
from support import certificates
from support.network import Answer, Network, Node

COMMAND = [sys.executable, "-m", "replicad"]
PASSWORD, OTHER = "correct horse", "battery staple"


class Desk:
    """A person's machine: no configuration, a home of its own."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        self.home = home
        self.session = home / "replicad" / "session.json"

    def run(self, *arguments: str, stdin: str = "", code: int = 0) -> Answer:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("REPLICAD")}
        environ |= {"HOME": str(self.home), "XDG_STATE_HOME": str(self.home)}
        done = subprocess.run([*COMMAND, *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False, env=environ)
        assert done.returncode == code, done.stdout + done.stderr
        return Answer(arguments, done.returncode, done.stdout, done.stderr)


@pytest.fixture
def ams(network: Network, tmp_path: Path) -> Node:
    """A node whose admin listener speaks TLS, with the user jane."""
    node = network.node("ams1")
    certificates.self_made(tmp_path / "admin.crt", tmp_path / "admin.key", host="localhost")
    files = {"TLS_CERTIFICATE": tmp_path / "admin.crt", "TLS_KEY": tmp_path / "admin.key"}
    node.environ |= {f"REPLICAD__ADMIN__{name}": str(file) for name, file in files.items()}
    node.start()
    assert node.cli("user", "add", "jane", "--role", "operator", stdin=f"{PASSWORD}\n").out == "jane: operator, all shares\n"
    return node


def test_a_person_at_another_machine(ams: Node, tmp_path: Path) -> None:
    desk, url = Desk(tmp_path / "desk"), f"https://localhost:{ams.admin_port}"
    login = ("login", url, "--user", "jane")
    assert "cannot be verified" in desk.run(*login, stdin=f"{PASSWORD}\n", code=5).err
    login = (*login, "--ca", str(tmp_path / "admin.crt"))
    assert desk.run(*login, stdin="wrong\n", code=6).err.startswith("error: wrong name or password")
    assert not desk.session.exists()
    assert desk.run(*login, stdin=f"{PASSWORD}\n").out.startswith(f"user jane at {url}: operator, until 20")
    assert (desk.session.stat().st_mode & 0o777, desk.session.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert desk.run("whoami").out == "user jane: operator, all shares\n"
    assert json.loads(desk.run("status", "--json").out)["node"]["name"] == "ams1"
    assert desk.run("--url", url, "whoami").out == "user jane: operator, all shares\n"
    assert "role admin" in desk.run("user", "list", code=6).err
    ams.restart()
    assert desk.run("whoami").out == "user jane: operator, all shares\n", "a session outlives the daemon"

    assert "wrong" in desk.run("user", "passwd", stdin=f"wrong\n{OTHER}\n", code=6).err
    assert "Log in again" in desk.run("user", "passwd", stdin=f"{PASSWORD}\n{OTHER}\n").err
    assert json.loads(desk.run("--json", "whoami", code=6).err)["code"] == "session-ended"
    desk.run(*login, stdin=f"{OTHER}\n")
    secret = json.loads(desk.session.read_text())["secret"]
    assert desk.run("logout").out == f"user jane is logged out of {url}\n"
    assert not desk.session.exists()
    assert json.loads(desk.run("--json", "logout", code=6).err)["code"] == "no-session"
    assert json.loads(desk.run("whoami", "--json", code=10).err)["code"] == "no-configuration"

    log = ams.ask("audit", "--log")["actions"]
    assert [one["status"] for one in log if one["target"] == "/api/v1/sessions"] == [401, 200, 200]
    assert log[0]["caller"].startswith("socket uid ")
    assert not {secret, PASSWORD, OTHER} & set(json.dumps(log).split('"'))
    assert secret not in ams.log


def test_users_and_second_factors_on_the_node_itself(ams: Node, tmp_path: Path) -> None:
    desk, url = Desk(tmp_path / "desk"), f"https://localhost:{ams.admin_port}"
    login = ("login", url, "--user", "jane", "--ca", str(tmp_path / "admin.crt"))
    offer = ams.cli("user", "totp", "jane", "enable", stdin="000000\n", code=2)
    assert offer.out.startswith("otpauth://totp/replicad%20ams1:jane?secret=")
    assert "code: none was given" in ams.cli("user", "totp", "jane", "enable", stdin="", code=2).err
    assert "code: six digits expected" in ams.cli("user", "totp", "jane", "enable", stdin="12a\n", code=2).err
    assert "nothing to change" in ams.cli("user", "set", "jane", code=2).err
    assert desk.run(*login, stdin=f"{PASSWORD}\n").code == 0, "what was not confirmed does not count"
    secret = confirm(ams)
    assert "its current code is needed" in desk.run(*login, stdin=f"{PASSWORD}\n", code=6).err
    desk.run(*login, stdin=f"{PASSWORD}\n{totp.code_of(secret, int(time.time()) // 30 + 1)}\n")
    assert ams.cli("user", "totp", "jane", "disable").out == "jane: operator, all shares\n"
    assert ams.cli("user", "set", "jane", "--role", "viewer", "--share", "munki", "--path", "apps").out == "jane: viewer, munki below apps/\n"
    assert desk.run("whoami").out == "user jane: viewer, munki below apps/\n"
    assert ams.cli("user", "set", "jane", "--share", "all", "--path", "").out == "jane: viewer, all shares\n"
    assert ams.cli("user", "disable", "jane").out == "jane: viewer, all shares, disabled\n"
    assert "has ended" in desk.run("whoami", code=6).err
    assert ams.cli("user", "enable", "jane").out == "jane: viewer, all shares\n"
    assert "jane  viewer  all shares  yes      no" in ams.cli("user", "list").out
    ams.cli("user", "passwd", code=2)
    ams.cli("user", "passwd", "jane", stdin=f"{OTHER}\n")
    assert ams.cli("user", "remove", "jane").out == "removed: jane: viewer, all shares\n"
    assert ams.ask("user", "list")["users"] == []


def confirm(node: Node) -> bytes:
    """Takes the secret that is shown and types the code of it, as a person does."""
    command = [*COMMAND, "--config", str(node.config), "user", "totp", "jane", "enable"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env={**os.environ, **node.environ}) as verb:
        assert verb.stdin is not None
        assert verb.stdout is not None
        shown = verb.stdout.readline().partition("secret=")[2].partition("&")[0]
        secret = base64.b32decode(shown)
        _, said = verb.communicate(f"{totp.code_of(secret, int(time.time()) // 30)}\n", timeout=60)
        assert verb.returncode == 0, said
        assert "needs a code" in said
    return secret


@pytest.mark.parametrize("url", ["http://ams1.example:8441", "http://192.0.2.1:8441", "ftp://127.0.0.1", "ams1"])
def test_no_password_crosses_a_network_in_the_clear(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from replicad.cli.main import main  # noqa: PLC0415 - in this process

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert main(["login", url]) == 2
    assert url in capsys.readouterr().err


def test_a_session_file_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from replicad.cli.main import main  # noqa: PLC0415 - in this process

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("REPLICAD_CONFIG", raising=False)
    (tmp_path / "replicad").mkdir()
    (tmp_path / "replicad" / "session.json").write_text("{")
    assert main(["whoami"]) == 10
    assert "session.json: cannot be used" in capsys.readouterr().err
