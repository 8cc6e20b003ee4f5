"""What a few hundred slow clients cost the process that serves them: figures from the kernel, of a real process."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from downloads_world import request_of

from support.processes import Process
from support.waiting import wait_for

CLIENTS = 300
RSS_PER_CLIENT_MAX = 20 << 10
"""performance.md section 2."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], tuple[Process, int]]]:
    processes: list[Process] = []

    def start(loop: str) -> tuple[Process, int]:
        script = Path(__file__).with_name("downloads_process.py")
        process = Process([sys.executable, str(script), loop, str(tmp_path)], log=tmp_path / "log")
        processes.append(process)
        process.wait_for_output(".")
        found = re.search(r"port (\d+)\.", process.output())
        assert found is not None, process.output()
        return process, int(found[1])

    yield start
    for process in processes:
        process.stop()


def rss(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def ask(port: int, *, receive_bytes: int) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(20)
    connection.connect(("127.0.0.1", port))
    connection.sendall(request_of("/jamf/huge"))
    return connection


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_memory_of_slow_clients(start: Callable[[str], tuple[Process, int]], loop: str) -> None:
    process, port = start(loop)
    with ExitStack() as connections:
        for _ in range(20):  # what the process needs once is not counted
            assert connections.enter_context(ask(port, receive_bytes=4096)).recv(9) == b"HTTP/1.1 "
        before = rss(process.pid)
        slow = [connections.enter_context(ask(port, receive_bytes=4096)) for _ in range(CLIENTS)]
        for connection in slow:
            assert connection.recv(9) == b"HTTP/1.1 "
        per_client = (rss(process.pid) - before) / CLIENTS
        for _ in range(20):
            for connection in slow:
                connection.recv(1024)
        reading = (rss(process.pid) - before) / CLIENTS
        assert max(per_client, reading) <= RSS_PER_CLIENT_MAX, f"{per_client:.0f} then {reading:.0f} bytes per client"
        with ask(port, receive_bytes=1 << 20) as quick:
            received = 0
            while received < 64 << 20:
                received += len(quick.recv(1 << 20))
    wait_for(lambda: len(list(Path(f"/proc/{process.pid}/fd").iterdir())) < 30, what="the descriptors of clients that left")
