"""sd_notify against a real socket, as the service manager listens."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicad.telemetry import notify


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        name = str(tmp_path / "notify") if request.param == "path" else f"@replicad-test-{os.getpid()}"
        listening.bind(name.replace("@", "\0"))
        listening.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield listening


@pytest.mark.parametrize("message", ["READY=1", "STOPPING=1", "WATCHDOG=1", "STATUS=412 files, 6 of 7 peers linked", "READY=1\nSTATUS=ready"])
def test_send(manager: socket.socket, message: str) -> None:
    notify.send(message)
    assert manager.recv(4096).decode() == message


def test_a_manager_that_does_not_listen_is_not_waited_for(manager: socket.socket) -> None:
    for _ in range(10_000):  # far more than its queue takes
        notify.send("WATCHDOG=1")
    assert manager.recv(4096) == b"WATCHDOG=1"


@pytest.mark.parametrize("address", [None, "", "relative", "/nowhere/notify"])
def test_without_a_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert notify.send("READY=1") is None


INTERVALS = {
    "none": ({}, None),
    "for us": ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
    "for whoever": ({"WATCHDOG_USEC": "1500000"}, 1.5),
    "for another process": ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
    "nothing": ({"WATCHDOG_USEC": "0"}, None),
    "nonsense": ({"WATCHDOG_USEC": "soon"}, None),
}


@pytest.mark.parametrize(("environ", "expected"), INTERVALS.values(), ids=INTERVALS)
def test_watchdog(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], expected: float | None) -> None:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert notify.watchdog_s() == expected
