"""Starts that must fail, of the real program: one sentence, the right exit code, no traceback, no process left."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from support.network import Network, Node

pytestmark = pytest.mark.daemons
Spoil = Callable[[Node, Path], None]


def newer_database(node: Node, _: Path) -> None:
    with sqlite3.connect(node.data / "catalog.sqlite") as database:
        database.execute("PRAGMA user_version = 9999")
    database.close()


def garbage_database(node: Node, _: Path) -> None:
    (node.data / "catalog.sqlite").write_bytes(b"not a database" * 1000)


def damaged_database(node: Node, _: Path) -> None:
    with (node.data / "catalog.sqlite").open("r+b") as file:
        file.seek(2 * 4096)
        file.write(b"\xa5" * (32 * 4096))


def readable_key(node: Node, _: Path) -> None:
    (node.data / "node.key").chmod(0o644)


def no_token(node: Node, _: Path) -> None:
    (node.data / "admin.token").unlink()


def unknown_key(node: Node, _: Path) -> None:
    node.config.write_text(node.config.read_text() + '\n[storage]\nqota = "5 GiB"\n')


def no_data(node: Node, tmp_path: Path) -> None:
    node.data.rename(tmp_path / "elsewhere")


def long_socket(node: Node, tmp_path: Path) -> None:
    node.config.write_text(node.config.read_text().replace("[admin]\n", f'[admin]\nsocket = "{tmp_path}/{"x" * 120}.sock"\n'))


def file_in_the_sockets_place(node: Node, tmp_path: Path) -> None:
    (tmp_path / "Office.pkg").write_text("precious")
    node.config.write_text(node.config.read_text().replace("[admin]\n", f'[admin]\nsocket = "{tmp_path}/Office.pkg"\n'))


def no_authority_of_the_directory(node: Node, tmp_path: Path) -> None:
    section = f'[ldap]\nurls = ["ldaps://dc1"]\nbase = "dc=x"\ngroups = {{ "cn=a,dc=x" = "admin" }}\nca = "{tmp_path}/absent.pem"\n'
    node.config.write_text(f"{node.config.read_text()}\n{section}")


def no_secret_of_the_provider(node: Node, tmp_path: Path) -> None:
    section = f'[oidc]\nissuer = "https://x"\nclient_id = "x"\nurl = "https://y"\ngroups = {{ a = "admin" }}\nclient_secret_file = "{tmp_path}/absent"\n'
    node.config.write_text(f"{node.config.read_text()}\n{section}")


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (newer_database, 10, r"schema 9999, this program knows up to"),
        (garbage_database, 10, r"catalog\.sqlite"),
        (damaged_database, 10, r"catalog\.sqlite: the catalog is damaged: database disk image is malformed$"),
        (readable_key, 10, r"others may read"),
        (no_token, 10, r"admin\.token"),
        (unknown_key, 10, r'replicad\.toml:\d+: unknown key "qota" in \[storage\]; did you mean "quota"\?'),
        (no_data, 10, r"no data directory"),
        (no_authority_of_the_directory, 10, r"ldap\.ca: cannot use \S+absent\.pem: No such file"),
        (no_secret_of_the_provider, 10, r"oidc\.client_secret_file: cannot read \S+absent: No such file"),
        (long_socket, 10, r"longer than 107 bytes"),
        (file_in_the_sockets_place, 1, r"cannot listen on admin\.socket = \S+Office\.pkg: Address already in use"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_start_that_must_fail(network: Network, tmp_path: Path, spoil: Spoil, code: int, words: str) -> None:
    node = network.node("ams1")
    spoil(node, tmp_path)
    process = node.launch()
    assert process.wait(deadline_s=60) == code, process.output()
    said = [line for line in process.output().splitlines() if not re.match(r"\d{4}-\d\d-\d\dT", line)]
    assert re.search(words, said[0]), said
    assert said[0].startswith("error: ")
    assert "Traceback" not in process.output()
    assert all(file.read_text() == "precious" for file in tmp_path.glob("*.pkg"))


@pytest.mark.parametrize("door", ["downloads", "admin"])
def test_a_taken_port(network: Network, door: str) -> None:
    node = network.node("ams1")
    port = {"downloads": node.downloads_port, "admin": node.admin_port}[door]
    with socket.create_server(("127.0.0.1", port)):
        process = node.launch()
        assert process.wait(deadline_s=60) == 1, process.output()
    assert re.search(rf"error: cannot listen on {door}\.listen = 127\.0\.0\.1:{port}: Address already in use", process.output())
    assert "Traceback" not in process.output()
    node.start()


def test_a_second_daemon_on_the_same_data(network: Network) -> None:
    node = network.found("ams1")
    first = node.process
    assert first is not None
    second = node.launch()
    assert second.wait(deadline_s=60) == 1
    assert f"in use by another daemon (process {first.pid})" in second.output()
    assert node.cli("status").code == 0
    assert first.stop() == 0


def test_a_clean_stop_leaves_nothing_open(network: Network) -> None:
    node = network.found("ams1")
    assert node.process is not None
    assert (node.data / "admin.sock").is_socket()
    children = Path(f"/proc/{node.process.pid}/task/{node.process.pid}/children").read_text()
    node.stop()
    assert children == ""
    assert not (node.data / "admin.sock").exists()
    assert not list(node.data.glob("catalog.sqlite-*")), "the write-ahead log was not folded in"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", node.downloads_port))
    assert "ResourceWarning" not in node.log
    assert os.access(node.data / "daemon.lock", os.R_OK)


def test_a_client_that_does_not_say_goodbye_holds_nothing_up(network: Network) -> None:
    """TLS lets each side close when it has said that it does; waiting for the other one would leave the connection to whoever tears down the loop."""
    node = network.found("ams1")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", node.peers_port)) as plain, context.wrap_socket(plain) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: ams1\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 404"
        node.stop()
    assert "rror" not in node.log
