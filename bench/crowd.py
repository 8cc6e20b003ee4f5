"""What a crowd costs the downloads door: 5,000 idle and 1,000 slow clients (1 KB/s), the memory of each, and the rate of one normal client among them against its rate alone."""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bench import load
from support.network import Network, Node

BIG_BYTES = 512 << 20
TRICKLE_BYTES = 1000
RECEIVE_BYTES = 4096


def main(arguments: list[str]) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="bench crowd", description=__doc__)
    parser.add_argument("--idle", type=int, default=5000)
    parser.add_argument("--slow", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each run of the normal client [3]")
    options = parser.parse_args(arguments)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
    with tempfile.TemporaryDirectory(prefix="replicad-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")) as folder, node(Path(folder)) as served:
        measure(served, idle=options.idle, slow=options.slow, seconds=options.seconds)


@contextlib.contextmanager
def node(folder: Path) -> Iterator[Node]:
    """A daemon that serves one large file."""
    with (folder / "big.pkg").open("wb") as big:
        for _ in range(BIG_BYTES >> 20):
            big.write(os.urandom(1 << 20))
    (folder / "small.pkg").write_bytes(os.urandom(4096))
    network = Network(folder / "net", python=[sys.executable])
    try:
        served = network.found("ams1")
        served.cli("share", "create", "bench", "--public")
        served.cli("publish", str(folder / "big.pkg"), str(folder / "small.pkg"), deadline_s=600)
        yield served
    finally:
        for _ in network.close():
            pass


def request(path: str) -> bytes:
    return f"GET /bench/{path} HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench\r\n\r\n".encode()


def connect(port: int, path: str) -> socket.socket:
    """A client that has asked and has the beginning of its answer."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
    connection.connect(("127.0.0.1", port))
    connection.sendall(request(path))
    if not connection.recv(9 if path == "big.pkg" else 1 << 16).startswith(b"HTTP/1.1 "):
        raise RuntimeError("no answer")
    return connection


def measure(served: Node, *, idle: int, slow: int, seconds: float) -> None:
    """Alone, then with each crowd."""
    port = served.downloads_port
    with contextlib.ExitStack() as connections:
        for _ in range(50):  # what the process needs once is not counted
            connections.enter_context(connect(port, "small.pkg"))
        alone = rate(served, seconds)
        before = served.resident_bytes()
        for _ in range(idle):
            connections.enter_context(connect(port, "small.pkg"))
        with_idle = served.resident_bytes()
        print(f"{idle} idle clients: {(with_idle - before) / idle / 1024:.1f} KiB each   (target <= 20)")
        slow_ones = [connections.enter_context(connect(port, "big.pkg")) for _ in range(slow)]
        with trickling(slow_ones):
            among = rate(served, seconds)
            with_slow = served.resident_bytes()
        print(f"{slow} slow clients: {(with_slow - with_idle) / slow / 1024:.1f} KiB each   (target <= 20)")
        print(f"one normal client: {alone:.0f} MiB/s alone, {among:.0f} MiB/s among them: {among / alone:.2f}   (target >= 0.8)", flush=True)


def rate(served: Node, seconds: float) -> float:
    """MiB/s of one client, the median of three runs."""
    assert served.process is not None
    pids = (served.process.pid,)
    return statistics.median(load.run(served.downloads_port, [request("big.pkg")], clients=1, seconds=seconds, pids=pids).mib_s for _ in range(3))


@contextlib.contextmanager
def trickling(slow: list[socket.socket]) -> Iterator[None]:
    """Meanwhile each takes ``TRICKLE_BYTES`` a second."""
    ended = threading.Event()

    def trickle() -> None:
        while not ended.is_set():
            begun = time.monotonic()
            for connection in slow:
                connection.recv(TRICKLE_BYTES)
            ended.wait(max(0.0, 1 - (time.monotonic() - begun)))

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
