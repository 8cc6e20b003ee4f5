"""backup: one file out of a real admin door, and a node out of that file, whatever somebody did to it."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli_terminal import Terminal

from replicad.crypto import encryption
from replicad.crypto.keys import SigningKey
from replicad.daemon import locked
from replicad.model.records import Policy
from replicad.services.backup import archive
from support.admin_door import Door
from support.waiting import eventually

PASSPHRASE = "correct horse battery"
BLOCK = tarfile.BLOCKSIZE


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A passphrase that costs little to try."""
    monkeypatch.setattr(encryption, "_PASSES", 1)
    monkeypatch.setattr(encryption, "_MEMORY_BYTES", 1 << 20)


@pytest.fixture
def word(tmp_path: Path) -> Path:
    """The file of the passphrase."""
    (file := tmp_path / "word").write_text(f"{PASSPHRASE}\nand more\n")
    return file


@pytest.fixture
def keys(door: Door) -> Door:
    """The door, with the secret files of its node."""
    door.services.catalog._key.save(door.data / "node.key")
    for name in ("network.key", "peer.crt", "peer.key", "admin.token"):
        (door.data / name).write_text(f"the {name} of ams1\n")
    return door


class Elsewhere:
    """Another machine: a directory for configuration and data, and the command line there."""

    def __init__(self, home: Path, capture: pytest.CaptureFixture[str]) -> None:
        home.mkdir()
        self.data = home / "data"
        self.config = home / "replicad.toml"
        self.terminal = Terminal(self.config, capture)
        self.configure()

    def configure(self) -> None:
        self.config.write_text(f'[node]\nname = "ams1"\ndata = "{self.data}"\n')

    def files(self) -> set[str]:
        return {path.name for path in self.data.iterdir()} if self.data.exists() else set()


@pytest.fixture
def elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Elsewhere:
    return Elsewhere(tmp_path / "elsewhere", capsys)


async def test_a_node_moves_to_another_machine(keys: Door, terminal: Terminal, elsewhere: Elsewhere, tmp_path: Path, word: Path) -> None:
    await keys.publish("munki", "a.pkg", b"content")
    await keys.ask("POST", "/tokens", {"role": "viewer", "name": "ci"})
    made = await terminal.json("backup", "create", str(tmp_path / "b"), "--identity", "--passphrase-file", str(word))
    counts = {name: made["backup"][name] for name in ("name", "members", "shares", "files", "records", "tokens", "actions")}
    assert counts == {"name": "ams1", "members": 1, "shares": 2, "files": 1, "records": 4, "tokens": 1, "actions": 3}
    assert (made["backup"]["node"], made["identity"], made["decrypted"]) == (str(keys.services.node), True, True)
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"b", "data", "word", "replicad.toml", "elsewhere"}, "nothing is left beside it"
    assert not (keys.data / "catalog.sqlite.copy").exists()
    assert b"ams1\n" not in (tmp_path / "b").read_bytes(), "no secret in the clear"
    with tarfile.open(tmp_path / "b") as tar:
        assert tar.getnames() == ["backup.json", "replicad.toml", "catalog.sqlite", "identity.json"]
    assert await terminal.json("backup", "inspect", str(tmp_path / "b")) == {**made, "decrypted": False}
    elsewhere.config.write_bytes(terminal.config.read_bytes().replace(str(keys.data).encode(), str(elsewhere.data).encode()))
    said = await elsewhere.terminal.json("backup", "restore", str(tmp_path / "b"), "--passphrase-file", str(word))
    assert (said["data"], said["replaced"], said["backup"]) == (str(elsewhere.data), None, made["backup"])
    for name in ("node.key", "network.key", "peer.crt", "peer.key", "admin.token"):
        assert (elsewhere.data / name).read_bytes() == (keys.data / name).read_bytes()
        assert (elsewhere.data / name).stat().st_mode & 0o777 == 0o600
    assert elsewhere.files() == {"node.key", "network.key", "peer.crt", "peer.key", "admin.token", "catalog.sqlite", "daemon.lock"}
    assert elsewhere.data.stat().st_mode & 0o777 == 0o700


async def test_without_a_configuration_that_of_the_backup_is_written(keys: Door, terminal: Terminal, elsewhere: Elsewhere, tmp_path: Path, word: Path) -> None:
    elsewhere.config.unlink()
    terminal.config.write_text(f'# mine\n[node]\nname = "ams1"\ndata = "{elsewhere.data}"\n')
    await terminal.run("--url", "", "version")
    keys_terminal = Terminal(terminal.config, terminal.capture)
    target = elsewhere.data
    target.mkdir()
    for path in keys.data.glob("*.*"):
        if path.is_file() and "catalog" not in path.name:
            (target / path.name).write_bytes(path.read_bytes())
            (target / path.name).chmod(0o600)
    (target / "admin.sock").symlink_to(keys.data / "admin.sock")
    await keys_terminal.json("backup", "create", str(tmp_path / "b"), "--identity", "--passphrase-file", str(word))
    for path in target.iterdir():
        path.unlink()
    target.rmdir()
    said = await elsewhere.terminal.json("backup", "restore", str(tmp_path / "b"), "--passphrase-file", str(word))
    assert said["config"] == str(elsewhere.config)
    assert elsewhere.config.read_text().startswith("# mine\n")


async def test_without_keys_inside_the_directory_must_have_the_node_s(keys: Door, terminal: Terminal, elsewhere: Elsewhere, tmp_path: Path) -> None:
    assert (await terminal.json("backup", "create", str(tmp_path / "b")))["identity"] is False
    restore = ("backup", "restore", str(tmp_path / "b"))
    code, error = await elsewhere.terminal.error(*restore)
    assert (code, error["code"], elsewhere.data.exists()) == (10, "no-key", False)
    elsewhere.data.mkdir()
    SigningKey.generate().save(elsewhere.data / "node.key")
    code, error = await elsewhere.terminal.error(*restore)
    assert (code, error["code"], elsewhere.files()) == (9, "other-node", {"node.key", "daemon.lock"})
    (elsewhere.data / "node.key").write_bytes((keys.data / "node.key").read_bytes())
    await elsewhere.terminal.json(*restore)
    assert elsewhere.files() == {"node.key", "daemon.lock", "catalog.sqlite", "admin.token"}
    assert len((elsewhere.data / "admin.token").read_text()) > 40, "a new root token where there is none"


async def test_what_is_there_is_replaced_only_by_force_and_kept_aside(keys: Door, terminal: Terminal, elsewhere: Elsewhere, tmp_path: Path, word: Path) -> None:
    await terminal.json("backup", "create", str(tmp_path / "b"), "--identity", "--passphrase-file", str(word))
    elsewhere.data.mkdir()
    for name, text in {"catalog.sqlite": "former", "catalog.sqlite-wal": "log", "node.key.next": "next", "access.log": "stays"}.items():
        (elsewhere.data / name).write_text(text)
    restore = ("backup", "restore", str(tmp_path / "b"), "--passphrase-file", str(word))
    code, error = await elsewhere.terminal.error(*restore)
    assert (code, error["code"], (elsewhere.data / "catalog.sqlite").read_text()) == (9, "exists", "former")
    (elsewhere.data / "catalog.sqlite").rename(elsewhere.data / "c")
    (elsewhere.data / "peer.key").write_text("another")
    code, error = await elsewhere.terminal.error(*restore)
    assert (code, error["code"], "peer.key" in error["message"]) == (9, "exists", True)
    (elsewhere.data / "c").rename(elsewhere.data / "catalog.sqlite")
    with locked(elsewhere.data):
        code, error = await elsewhere.terminal.error(*restore, "--force")
    assert (code, error["code"]) == (1, "in-use")
    said = await elsewhere.terminal.json(*restore, "--force")
    aside = {path.name: path.read_text() for path in Path(said["replaced"]).iterdir()}
    assert aside == {"catalog.sqlite": "former", "catalog.sqlite-wal": "log", "node.key.next": "next", "peer.key": "another"}
    assert elsewhere.files() & {"catalog.sqlite-wal", "node.key.next", "restoring"} == set()
    assert (elsewhere.data / "access.log").read_text() == "stays"


async def test_the_file_and_the_passphrase_are_looked_at_first(keys: Door, terminal: Terminal, tmp_path: Path, word: Path) -> None:
    target = str(tmp_path / "b")
    assert (await terminal.error("backup", "create", target, "--identity"))[1]["message"] == "the identity needs a passphrase"
    (tmp_path / "short").write_text("seven77\n")
    code, error = await terminal.error("backup", "create", target, "--identity", "--passphrase-file", str(tmp_path / "short"))
    assert (code, error["message"]) == (2, "passphrase: 8 to 1024 bytes expected")
    (tmp_path / "b").write_text("mine")
    code, error = await terminal.error("backup", "create", target)
    assert (code, error["code"], (tmp_path / "b").read_text()) == (9, "exists", "mine")
    code, error = await terminal.error("backup", "create", str(tmp_path / "no" / "b"))
    assert (code, error["code"]) == (1, "unwritable")
    code, error = await terminal.error("backup", "inspect", str(tmp_path / "none"))
    assert (code, error["code"]) == (4, "unreadable")
    await terminal.json("backup", "create", str(tmp_path / "c"), "--identity", "--passphrase-file", str(word))
    word.write_text("another passphrase")
    code, error = await terminal.error("backup", "inspect", str(tmp_path / "c"), "--passphrase-file", str(word))
    assert (code, error["code"]) == (7, "passphrase")
    code, out, _ = await terminal.run("backup", "inspect", str(tmp_path / "c"))
    assert (code, "inside, encrypted" in out, "2 shares, 0 files" in out) == (0, True, True)


def at(whole: bytes, name: str) -> int:
    """Where the header of that file begins."""
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        return tar.getmember(name).offset


def flipped(offset: int) -> Callable[[bytes], bytes]:
    return lambda whole: whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :]


def header(name: str, **attributes: Any) -> bytes:
    entry = tarfile.TarInfo(name)
    for key, value in attributes.items():
        setattr(entry, key, value)
    return entry.tobuf()


def relabelled(whole: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """With another label, whose checksum is right."""
    label = json.loads(whole[BLOCK : whole.index(b"\0", BLOCK)])
    change(label)
    label["sha256"] = hashlib.sha256(msgspec.json.encode(label["backup"])).hexdigest()
    return archive._whole("backup.json", msgspec.json.encode(label)) + whole[at(whole, "replicad.toml") :]


def in_part(name: str, by: int = BLOCK) -> Callable[[bytes], bytes]:
    return lambda whole: flipped(at(whole, name) + by)(whole)


def instead(name: str, **attributes: Any) -> Callable[[bytes], bytes]:
    """That header in place of the catalog's."""

    def change(whole: bytes) -> bytes:
        start = at(whole, "catalog.sqlite")
        return whole[:start] + header(name, **attributes) + whole[start + BLOCK :]

    return change


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "another file": lambda _: b"#!/bin/sh\n" * 1000,
    "an empty tar": lambda _: archive.END,
    "cut in the label": lambda whole: whole[: BLOCK + 5],
    "cut in the catalog": lambda whole: whole[: at(whole, "catalog.sqlite") + 5000],
    "cut before the identity": lambda whole: whole[: at(whole, "identity.json")],
    "cut in the end": lambda whole: whole[:-1],
    "more at the end": lambda whole: whole + b"x",
    "another file at the end": lambda whole: whole[: -len(archive.END)] + header("x") + archive.END,
    "a bit of the label": flipped(BLOCK + 100),
    "a bit of the configuration": in_part("replicad.toml"),
    "a bit of the catalog": in_part("catalog.sqlite", 3000),
    "a bit of a header": in_part("catalog.sqlite", 3),
    "a bit of the identity": in_part("identity.json", BLOCK + 250),
    "a way out": instead("../catalog.sqlite", size=1),
    "an absolute name": instead("/catalog.sqlite", size=1),
    "a symbolic link": instead("catalog.sqlite", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "a hard link": instead("catalog.sqlite", type=tarfile.LNKTYPE, linkname="replicad.toml"),
    "a device": instead("catalog.sqlite", type=tarfile.CHRTYPE),
    "a directory": instead("catalog.sqlite", type=tarfile.DIRTYPE),
    "a sparse file": instead("catalog.sqlite", type=tarfile.GNUTYPE_SPARSE, size=1),
    "a long header": instead("catalog.sqlite", type=tarfile.XHDTYPE, size=1 << 33),
    "another length": instead("catalog.sqlite", size=4096),
    "an endless configuration": lambda whole: whole[: at(whole, "replicad.toml")] + header("replicad.toml", size=1 << 32) + bytes(1 << 21),
    "a longer catalog than there is": lambda whole: relabelled(whole, lambda label: label["backup"]["catalog"].update(size=1 << 39)),
    "no catalog at all": lambda whole: relabelled(whole, lambda label: label["backup"].pop("catalog")),
    "of another node": lambda whole: relabelled(whole, lambda label: label["backup"].update(node="x")),
}


async def test_no_damaged_or_hostile_backup_leaves_anything(keys: Door, terminal: Terminal, elsewhere: Elsewhere, tmp_path: Path, word: Path) -> None:
    await terminal.json("backup", "create", str(tmp_path / "b"), "--identity", "--passphrase-file", str(word))
    whole = (tmp_path / "b").read_bytes()
    for name, damage in DAMAGES.items():
        (file := tmp_path / "damaged").write_bytes(damage(whole))
        code, error = await elsewhere.terminal.error("backup", "restore", str(file), "--passphrase-file", str(word))
        assert (code, error["message"].startswith(str(file))) == (7, True), (name, error)
        assert not elsewhere.data.exists(), name
        if name not in {"of another node", "a bit of the identity"}:
            assert (await terminal.error("backup", "inspect", str(file)))[0] == 7, name
    newer = relabelled(whole, lambda label: label.update(format=2))
    file.write_bytes(newer)
    code, error = await elsewhere.terminal.error("backup", "restore", str(file), "--passphrase-file", str(word))
    assert (code, error["code"], elsewhere.data.exists()) == (10, "newer-format", False)
    assert (await elsewhere.terminal.json("backup", "restore", str(tmp_path / "b"), "--passphrase-file", str(word)))["replaced"] is None


async def test_a_token_of_an_admin_is_enough_but_not_for_the_keys(keys: Door, terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bearer = (await keys.ask("POST", "/tokens", {"role": "admin"})).json["secret"]
    monkeypatch.setenv("REPLICAD_TOKEN", bearer)
    await keys.services.catalog.author("", [Policy("fonts", public=True)])
    made = await terminal.json("--url", f"http://127.0.0.1:{keys.port}", "backup", "create", str(tmp_path / "b"))
    assert (made["backup"]["shares"], made["identity"]) == (3, False)
    [action] = await until_written(keys, 1)
    assert (action["method"], action["target"], action["status"]) == ("GET", "/api/v1/backup", 200), "it is written down"


async def until_written(door: Door, after: int) -> list[dict[str, Any]]:
    """The actions after that one, once there is one: of an answer that is streamed it is written at its end."""

    async def look() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await door.ask("GET", f"/audit/log?after={after}")).json["actions"]
        return found

    return await eventually(look, what="an action in the log")


async def test_one_at_a_time_and_who_goes_away_is_written_down(door: Door, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalog is made larger than what sockets take, so that the daemon still sends when the client is gone."""
    terminal.config.touch()
    await door.services.catalog.set_meta("service/filler", "x" * (16 << 20))
    reader, writer = await asyncio.open_unix_connection(str(door.socket))
    writer.write(b"GET /api/v1/backup HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    reply = await door.ask("GET", "/backup")
    assert (reply.status, reply.json["code"]) == (429, "busy")
    writer.close()
    [busy, cut_off] = await eventually(lambda: two_actions(door), what="both actions")
    assert (busy["code"], cut_off["target"], cut_off["code"]) == ("busy", "/api/v1/backup", "cut-off")
    assert (await door.ask("GET", "/backup")).status == 200
    monkeypatch.setattr(door.services.backups, "_room", lambda: 16 << 20)
    reply = await door.ask("GET", "/backup")
    assert (reply.status, reply.json["code"]) == (507, "no-space")


async def two_actions(door: Door) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await door.ask("GET", "/audit/log")).json["actions"]
    return found if len(found) == 2 else []
