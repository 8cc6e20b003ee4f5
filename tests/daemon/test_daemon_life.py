"""The daemon's life in real processes: every way it starts, ends and refuses to, on both event loops."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import daemon_driver
from support.processes import PYTHON, Process
from support.waiting import wait_for

Start = Callable[..., Process]


@pytest.fixture(params=["asyncio", "uvloop"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    started: list[Process] = []

    def start(behaviour: str, *, port: int = 0, stop_s: float = 10.0, environ: dict[str, str] | None = None) -> Process:
        command = [*PYTHON, daemon_driver.__file__, request.param, behaviour, str(tmp_path), str(port), str(stop_s)]
        started.append(Process(command, log=tmp_path / f"{len(started)}.log", environ=environ))
        return started[-1]

    yield start
    for process in started:
        if process.alive:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_order(start: Start, number: signal.Signals) -> None:
    process = start("serve")
    process.wait_for_output("ready")
    process.send(number)
    assert process.wait() == 0
    assert process.output().index("stopping") < process.output().index("unwound") < process.output().index("stopped")


def test_it_is_built_anew_when_it_asks_for_that_and_still_stops(start: Start) -> None:
    process = start("again")
    process.wait_for_output("built anew")
    assert process.stop() == 0
    assert process.output().count("unwound") == 2


def test_a_signal_during_the_start_undoes_the_start(start: Start) -> None:
    process = start("slow_start")
    process.wait_for_output("starting")
    assert process.stop() == 0
    assert "start undone" in process.output()
    assert "ready" not in process.output()


@pytest.mark.parametrize(
    ("behaviour", "code", "sentence"),
    [
        ("bad_start", 10, "error: the database is newer than this program\n"),
        ("give_up", 1, "error: the disk is gone\n"),
        ("crash", 1, "error: internal error: ZeroDivisionError: nobody foresaw this\n"),
        ("finish", 0, "unwound\n"),
    ],
)
def test_how_it_ends_by_itself(start: Start, behaviour: str, code: int, sentence: str) -> None:
    process = start(behaviour)
    assert process.wait() == code
    assert sentence in process.output()
    assert ("Traceback" in process.output()) is (behaviour == "crash")


def test_a_taken_port_is_one_sentence(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start("serve", port=port)
        assert process.wait() == 1
    lines = process.output().splitlines()
    assert len(lines) == 1, lines
    assert "address already in use" in lines[0].lower()
    assert str(port) in lines[0]


def test_a_data_directory_belongs_to_one_daemon(start: Start) -> None:
    first = start("serve")
    first.wait_for_output("ready")
    second = start("serve")
    assert second.wait() == 1
    assert second.output() == f"error: the data directory {Path(first.log).parent} is in use by another daemon (process {first.pid})\n"
    first.kill()
    third = start("serve")
    third.wait_for_output("ready")
    assert third.stop() == 0


def test_a_missing_data_directory(tmp_path: Path) -> None:
    process = Process([*PYTHON, daemon_driver.__file__, "auto", "serve", str(tmp_path / "absent")], log=tmp_path / "log")
    assert process.wait() == 10
    assert process.output() == f"error: there is no data directory {tmp_path / 'absent'}\n"


def test_what_does_not_stop_is_ended_within_the_bound(start: Start) -> None:
    process = start("deaf", stop_s=0.5)
    process.wait_for_output("ready")
    process.send(signal.SIGTERM)
    assert process.wait(deadline_s=30) == 1
    assert "did not stop within 0.5 s" in process.output()


@pytest.mark.parametrize("behaviour", ["leave_a_thread", "bad_start_with_a_thread"])
def test_a_thread_left_behind_does_not_keep_the_process(start: Start, behaviour: str) -> None:
    process = start(behaviour, stop_s=0.5)
    assert process.wait(deadline_s=30) == 1
    assert "did not stop within 0.5 s" in process.output()


def test_a_second_interrupt_ends_it_at_once(start: Start) -> None:
    process = start("deaf")
    process.wait_for_output("ready")
    process.send(signal.SIGINT)
    process.wait_for_output("not now")
    process.send(signal.SIGINT)
    assert process.wait(deadline_s=30) == 130


def test_reload_and_its_refusal(start: Start) -> None:
    process = start("serve")
    process.wait_for_output("ready")
    process.send(signal.SIGHUP)
    process.wait_for_output("reloaded 1")
    process.send(signal.SIGHUP)
    process.wait_for_output("reload refused")
    assert "replicad.toml:1: nonsense" in process.output()
    process.send(signal.SIGHUP)
    process.wait_for_output("reloaded 3")
    assert process.stop() == 0


class Manager:
    """The service manager's end of the notification socket."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)
        self.heard: list[str] = []
        self.environ = {"NOTIFY_SOCKET": str(path)}

    def listen(self) -> list[str]:
        try:
            while True:
                self.heard.append(self.socket.recv(4096).decode())
        except BlockingIOError:
            return self.heard


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.socket.close()


def test_the_service_manager_hears_everything(start: Start, manager: Manager) -> None:
    process = start("serve", environ=manager.environ)
    wait_for(lambda: "READY=1" in manager.listen(), what="READY")
    process.send(signal.SIGHUP)
    wait_for(lambda: manager.listen().count("READY=1") == 2, what="READY after the reload")
    assert process.stop() == 0
    assert manager.listen() == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]


def test_the_watchdog_beats_while_the_loop_turns(start: Start, manager: Manager) -> None:
    process = start("serve", environ={**manager.environ, "WATCHDOG_USEC": "100000"})
    wait_for(lambda: manager.listen().count("WATCHDOG=1") >= 4, what="four beats")
    assert process.stop() == 0


def test_a_stuck_loop_beats_no_more(start: Start, manager: Manager) -> None:
    process = start("stuck_loop", environ={**manager.environ, "WATCHDOG_USEC": "100000"})
    process.wait_for_output("stuck")
    assert manager.listen().count("WATCHDOG=1") == 0
    process.kill()


def test_failed_starts_never_say_ready(start: Start, manager: Manager) -> None:
    assert start("bad_start", environ=manager.environ).wait() == 10
    assert manager.listen() == []


def test_open_files_are_raised_to_what_the_administrator_allows(tmp_path: Path) -> None:
    script = "import resource, sys; from replicad import daemon; daemon._raise_open_files(); print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    command = ["/bin/sh", "-c", f'ulimit -Sn 256; ulimit -Hn 4096; exec "{sys.executable}" -c "{script}"']
    process = Process(command, log=tmp_path / "log", environ=dict(os.environ))
    assert process.wait() == 0
    assert process.output() == "4096\n"
