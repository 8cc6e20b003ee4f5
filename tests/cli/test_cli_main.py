"""The program as a whole: how it is called, how it starts, how it ends."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import click
import pytest

from replicad import __version__
from replicad.cli.main import PLACES, main
from replicad.cli.wording import of_options
from replicad.errors import TooLargeError

CLIENT_VERBS = (
    ("status",),
    ("matrix",),
    ("transfers",),
    ("doctor",),
    ("peer", "list"),
    ("peer", "invite"),
    ("share", "list"),
    ("ls",),
    ("show", "w/a"),
    ("get", "w/a"),
    ("wait", "w/a"),
    ("publish", __file__, "--share", "w"),
    ("promote", "w/a", "--to", "prod"),
    ("rm", "w/a"),
    ("history", "w/a"),
    ("audit",),
    ("audit", "verify"),
    ("token", "list"),
    ("whoami",),
    ("limits", "show"),
    ("store", "usage"),
    ("munki", "status"),
    ("url", "sign", "w/a"),
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration of a daemon that does not run."""
    file = tmp_path / "replicad.toml"
    file.write_text(f'[node]\nname = "ams1"\ndata = "{tmp_path / "data"}"\n')
    return file


def test_every_verb_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    for verb in PLACES:
        assert f"  {verb} " in listed
        assert main([verb, "--help"]) == 0
        assert "Usage: replicad" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("status", "--nonsense"),
        ("peer", "add"),
        ("peer", "add", "https://127.0.0.1:8440"),
        ("peer", "add", "token", "--key", "K"),
        ("peer", "set", "ber1"),
        ("peer", "show", ""),
        ("peer", "check", " "),
        ("share", "set", "w"),
        ("share", "show", ""),
        ("publish",),
        ("publish", "x", "--wait", "0"),
        ("wait", "w/a", "--timeout", "soon"),
        ("wait", "w"),
        ("init",),
        ("promote", "w/a"),
        ("rm", "w/a", "v/b"),
        ("rm", "w"),
    ],
)
def test_a_command_line_that_cannot_be_understood(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(list(arguments)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Usage: replicad" in said.err


def test_an_empty_name_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["peer", "show", ""]) == 2
    assert "Invalid value for 'NODE': it is empty" in capsys.readouterr().err


def test_usage_errors_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--nonsense", "--json"]) == 2
    error = json.loads(capsys.readouterr().err)
    assert error["code"] == "usage"
    assert "--nonsense" in error["message"]


def test_without_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("REPLICAD_CONFIG", str(tmp_path / "none.toml"))
    assert main(["status", "--json"]) == 10
    error = json.loads(capsys.readouterr().err)
    assert error["code"] == "no-configuration"
    assert "none.toml" in error["message"]
    assert "replicad init" in error["hint"]


def test_a_wrong_configuration_ends_every_verb_with_all_its_errors(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(config.read_text() + '[storage]\nqota = "1 TB"\n[log]\nlevel = 3\n')
    assert main(["--config", str(config), "status"]) == 10
    said = capsys.readouterr().err
    assert "qota" in said
    assert "replicad.toml:5" in said
    assert "level" in said


def test_no_daemon(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(config), "status"]) == 5
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: the daemon does not answer at ")
    assert "replicad serve" in said.err


def test_global_options_stand_before_or_after_the_verb(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["--config", str(config), "--json", "peer", "list"],
        ["peer", "--json", "list", "--config", str(config)],
        ["peer", "list", "--json", "--config", str(config)],
    ):
        assert main(arguments) == 5
        assert json.loads(capsys.readouterr().err)["code"] == "unreachable"


def test_a_daemon_one_may_not_talk_to(config: Path, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "data" / "admin.sock"))
        door.listen()
        (tmp_path / "data" / "admin.sock").chmod(0)
        request.getfixturevalue("unprivileged")
        assert main(["--config", str(config), "status"]) == 6
    assert "group replicad" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "code"),
    [("http://127.0.0.1:1", 5), ("https://127.0.0.1:1", 5), ("127.0.0.1:8441", 2), ("ftp://x", 2), ("http://[", 2), ("http://x:y", 2), ("http://", 2)],
)
def test_a_remote_daemon_that_is_not_there(url: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", url, "status"]) == code
    assert url in capsys.readouterr().err


def test_a_token_that_is_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("REPLICAD_TOKEN", "a\nb")
    assert main(["--url", "http://127.0.0.1:1", "status"]) == 2
    assert "REPLICAD_TOKEN" in capsys.readouterr().err


def test_a_configuration_one_may_not_read(config: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    config.chmod(0)
    request.getfixturevalue("unprivileged")
    assert main(["--config", str(config), "status"]) == 10
    assert "replicad.toml" in capsys.readouterr().err


def test_something_else_behind_the_url(capsys: pytest.CaptureFixture[str]) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as door,
        subprocess.Popen([sys.executable, "-m", "replicad", "--url", f"http://127.0.0.1:{door.getsockname()[1]}", "status"], stderr=subprocess.PIPE) as asking,
    ):
        connection, _ = door.accept()
        connection.recv(4096)
        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        connection.close()
        assert asking.wait(20) == 5
        assert asking.stderr is not None
        assert b"does not answer" in asking.stderr.read()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"replicad {__version__}\n"
    assert main(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == __version__


def test_config_verbs(config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLICAD__LOG__LEVEL", "debug")
    assert main(["--config", str(config), "config", "check"]) == 0
    assert capsys.readouterr().out == f"{config}: ok\n"
    assert main(["--config", str(config), "config", "show", "--origin", "--json"]) == 0
    settings = {one["key"]: one for one in json.loads(capsys.readouterr().out)["settings"]}
    assert settings["node.name"] == {"key": "node.name", "value": '"ams1"', "origin": f"{config}:2"}
    assert settings["log.level"]["origin"] == "environment"
    assert settings["admin.listen"]["origin"] == "default"
    assert main(["config", "example"]) == 0
    assert "[downloads]" in capsys.readouterr().out


def test_client_verbs_load_neither_the_daemon_nor_what_they_do_not_need(config: Path) -> None:
    """What keeps them fast: one process asks them all, so what none of them has loaded is loaded by none."""
    code = (
        "import json, sys; from replicad.cli.main import main; [main([*sys.argv[1:3], *verb]) for verb in json.loads(sys.argv[3])]; print(sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, "--config", str(config), json.dumps(CLIENT_VERBS)], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1]
    assert done.stderr.count("error: ") == len(CLIENT_VERBS)
    heavy = (
        "aiohttp",
        "asyncio",
        "aiosqlite",
        "sqlite3",
        "uvloop",
        "rich",
        "nacl",
        "cryptography",
        "difflib",
        "zoneinfo",
        "replicad.services",
        "replicad.server.admin.routes",
    )
    assert [name for name in heavy if f"'{name}'" in loaded] == []


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("expires_s: expected `int` <= 86400", "--expires: at most 24h"),
        ("expires_s: expected `int` >= 1", "--expires: at least 1s"),
        ("expires_s: expected `int` <= 316224000", "--expires: at most 3660d"),
        ("password: expected `str` of length >= 8", "password: at least 8 characters"),
        ("shares[0]: expected `str` of length >= 1", "--share: at least 1 character"),
        ("stages: expected `array | null` of length <= 16", "--stage: at most 16 of them"),
        (
            "name: expected `str` matching regex '^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$'",
            "NAME: letters, digits and . _ @ - expected, at most 64, beginning with a letter or digit",
        ),
        ("code: expected `str | null` matching regex '^[0-9]{6}$'", "code: six digits expected"),
        ("from: a stage below prod expected", "--from: a stage below prod expected"),
        ("munki/a cannot be published: a takedown stands on its content", "munki/a cannot be published: a takedown stands on its content"),
    ],
)
def test_what_the_daemon_says_of_a_field_is_said_of_the_option(said: str, shown: str) -> None:
    parameters = [
        click.Argument(["name"]),
        click.Option(["--expires"]),
        click.Option(["-s", "--share", "shares"]),
        click.Option(["--stage", "stages"]),
        click.Option(["--from", "source"]),
    ]
    error = of_options(TooLargeError(said, hint="a hint", code="bad-input"), parameters)
    assert (type(error), error.message, error.hint, error.error_code) == (TooLargeError, shown, "a hint", "bad-input")


@pytest.mark.sockets
@pytest.mark.parametrize("verb", [("status",), ("publish", "large", "--share", "w")])
def test_a_daemon_that_dies_meanwhile_ended_the_connection(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("large").write_bytes(bytes(8 << 20))
    Path("r.toml").write_text('[node]\nname = "a"\ndata = "."\n[admin]\nsocket = "s"\n')
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        listener.listen()

        def die() -> None:
            accepted, _ = listener.accept()
            accepted.recv(100)
            accepted.close()

        dying = threading.Thread(target=die)
        dying.start()
        assert main(["--config", "r.toml", "-q", *verb]) == 5
        dying.join()
    assert "does not answer at s (it ended the connection)" in capsys.readouterr().err.replace(f"{tmp_path}/", "")
