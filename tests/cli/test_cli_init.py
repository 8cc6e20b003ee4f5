"""init and key: files, modes, and nothing overwritten or left behind."""

from __future__ import annotations

import json
import os
import pwd
import stat
from pathlib import Path

import pytest

from replicad.cli.main import main
from replicad.config import load
from replicad.crypto.keys import SigningKey


def init(root: Path, *more: str) -> int:
    """``replicad init`` into a directory."""
    return main(["--config", str(root / "etc" / "replicad.toml"), "init", "--name", "ams1", "--data", str(root / "data"), *more])


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_init_makes_a_node_and_prints_its_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    doors = ("--downloads", "127.0.0.1:18480", "--peers", "127.0.0.1:18440", "--admin", "127.0.0.1:18441", "--peers-url", "https://ams1.example.org:18440")
    assert init(tmp_path, "--site", "ams", *doors) == 0
    said = capsys.readouterr()
    node = said.out.strip()
    config = load(tmp_path / "etc" / "replicad.toml", {})
    assert (config.node.name, config.node.site, config.node.data) == ("ams1", "ams", tmp_path / "data")
    assert (str(config.downloads.listen), str(config.peers.listen), str(config.admin.listen)) == ("127.0.0.1:18480", "127.0.0.1:18440", "127.0.0.1:18441")
    assert config.peers_url == "https://ams1.example.org:18440"
    assert "#" in config.path.read_text()
    assert str(SigningKey.load(config.node_key).id) == node
    assert mode(tmp_path / "data") == 0o700
    assert {path.name: mode(path) & 0o077 for path in (tmp_path / "data").iterdir() if not path.name.startswith("catalog")} == {
        "node.key": 0,
        "network.key": 0,
        "admin.token": 0,
    }
    assert {mode(path) for path in (config.node_key, config.network_key, config.admin_token)} == {0o600}
    assert len(config.admin_token.read_text().strip()) >= 43


def test_init_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init(tmp_path) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert init(tmp_path) == 9
    assert "never overwrites" in capsys.readouterr().err
    (tmp_path / "etc" / "replicad.toml").rename(tmp_path / "etc" / "old.toml")
    assert init(tmp_path) == 9
    assert "belongs to a node" in capsys.readouterr().err
    (tmp_path / "etc" / "old.toml").rename(tmp_path / "etc" / "replicad.toml")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        (("--downloads", "nonsense"), 2, "downloads.listen"),
        (("--peers-url", "ftp://x"), 2, "peers.url"),
        (("--site", "x" * 64), 2, "node.site"),
        (("--admin", "127.0.0.1:99999"), 2, "admin.listen"),
    ],
)
def test_a_value_that_cannot_be_leaves_nothing(tmp_path: Path, options: tuple[str, ...], code: int, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert init(tmp_path, *options) == code
    assert named in capsys.readouterr().err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_step_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The environment overrules the file with nonsense, which only shows when the written file is read again."""
    monkeypatch.setenv("REPLICAD__LOG__LEVEL", "nonsense")
    assert init(tmp_path) == 10
    assert "nonsense" in capsys.readouterr().err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    monkeypatch.delenv("REPLICAD__LOG__LEVEL")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "admin.token").touch()
    assert init(tmp_path) == 9
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["admin.token"]


def test_what_init_makes_belongs_to_the_owner_of_the_directory(tmp_path: Path) -> None:
    """So that root can prepare the directory of the daemon's user."""
    (tmp_path / "data").mkdir(mode=0o755)
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(tmp_path / "data", nobody.pw_uid, nobody.pw_gid)
    assert init(tmp_path) == 0
    assert {path.stat().st_uid for path in (tmp_path / "data").iterdir()} == {(tmp_path / "data").stat().st_uid}
    assert mode(tmp_path / "data") == 0o700


def test_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init(tmp_path, "--json") == 0
    made = json.loads(capsys.readouterr().out)
    config = ["--config", made["config"]]
    assert main([*config, "id"]) == 0
    assert capsys.readouterr().out.strip() == made["id"]
    assert main([*config, "key", "show", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["node"], shown["network"]) == (made["id"], made["network"])
    backup = tmp_path / "network.key"
    assert main([*config, "key", "export", str(backup)]) == 0
    assert (mode(backup), str(SigningKey.load(backup).id)) == (0o600, made["network"])
    assert (tmp_path / "data" / "network.key").exists()
    assert main([*config, "key", "export", str(backup), "--move"]) == 9
    assert main([*config, "key", "export", str(tmp_path / "again"), "--move", "--yes"]) == 0
    assert not (tmp_path / "data" / "network.key").exists()
    assert main([*config, "key", "export", str(tmp_path / "third")]) == 4
    capsys.readouterr()
    assert main([*config, "key", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["network"] is None


def test_a_key_is_exported_to_where_nobody_can_write(tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever loses its privileges reads nothing of the program any more: that may lie where only root can look."""
    assert init(tmp_path, "--json") == 0
    config = ["--config", json.loads(capsys.readouterr().out)["config"]]
    assert main([*config, "key", "export", str(tmp_path / "spare")]) == 0
    request.getfixturevalue("unprivileged")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    for place, code, reason in ((tmp_path / "none" / "x", 1, "No such file or directory"), (closed / "x", 6, "Permission denied")):
        assert main([*config, "key", "export", str(place)]) == code
        assert f"{place}: the key cannot be written: {reason}" in capsys.readouterr().err


def test_an_unreadable_key_is_a_configuration_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init(tmp_path) == 0
    (tmp_path / "data" / "node.key").chmod(0o644)
    config = ["--config", str(tmp_path / "etc" / "replicad.toml")]
    assert main([*config, "id"]) == 10
    assert "chmod 600" in capsys.readouterr().err
