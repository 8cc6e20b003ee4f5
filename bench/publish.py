"""One large file: publishing against `openssl dgst` + `cp` + `sync`, then its way to a second node; memory of both daemons and the answers to 1-byte requests meanwhile."""

from __future__ import annotations

import argparse
import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from support.network import Network, Node

GIB = 1 << 30
BLOCK = 1 << 20
PROBE_EVERY_S = 0.005


class Probe:
    """Asks a downloads door for one byte, again and again, and remembers how long each answer took."""

    def __init__(self, node: Node, path: str) -> None:
        self._node = node
        self._path = path
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.took_ms: list[float] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._node.downloads_port, timeout=30)
        while not self._done.wait(PROBE_EVERY_S):
            begun = time.perf_counter()
            connection.request("GET", f"/{self._path}", headers={"Range": "bytes=0-0"})
            answer = connection.getresponse()
            if (answer.status, len(answer.read())) != (206, 1):
                raise RuntimeError(f"the probe was answered {answer.status}")
            self.took_ms.append((time.perf_counter() - begun) * 1000)
        connection.close()

    def __str__(self) -> str:
        took = sorted(self.took_ms)
        return f"{len(took)} answers, median {statistics.median(took):.1f} ms, 99th percentile {took[int(len(took) * 0.99)]:.1f} ms, worst {took[-1]:.1f} ms"


def write_random(path: Path, size: int) -> None:
    """A file of random bytes, in the page cache and on the disk."""
    with path.open("wb") as file:
        for _ in range(size // BLOCK):
            file.write(os.urandom(BLOCK))
        file.flush()
        os.fsync(file.fileno())


def change(path: Path, number: int) -> None:
    """Other content of the same size, so that nothing of it is there already."""
    with path.open("r+b") as file:
        file.write(number.to_bytes(8, "big"))
        os.fsync(file.fileno())


def timed(*commands: Sequence[str]) -> float:
    """Seconds for these commands one after the other."""
    begun = time.perf_counter()
    for command in commands:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def main(arguments: list[str]) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="bench publish", description=__doc__)
    parser.add_argument("--gib", type=float, default=1.0, help="size of the file [1; the acceptance test is 4]")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="replicad-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        measure(Path(folder), size=int(options.gib * GIB), rounds=options.rounds)


def measure(folder: Path, *, size: int, rounds: int) -> None:
    """Rounds side by side; every figure is printed as it comes, the ratio of the medians at the end."""
    source, copy = folder / "big.pkg", folder / "copy"
    write_random(source, size)
    (folder / "probe").write_bytes(b"x" * 100)
    network = Network(folder / "net", python=[sys.executable])
    try:
        publisher = network.found("ams1")
        publisher.cli("share", "create", "bench", "--public")
        publisher.cli("publish", str(folder / "probe"))
        plain, ours = [], []
        for number in range(rounds):
            change(source, number)
            plain.append(timed(["openssl", "dgst", "-sha256", str(source)], ["cp", "--reflink=never", str(source), str(copy)], ["sync", str(copy)]))
            copy.unlink()
            with Probe(publisher, "bench/probe") as probe:
                begun = time.perf_counter()
                publisher.cli("publish", str(source), "--as", f"big-{number}.pkg", deadline_s=600)
                ours.append(time.perf_counter() - begun)
            print(
                f"openssl + cp + sync {plain[-1]:6.2f} s   replicad publish {ours[-1]:6.2f} s   {size / GIB / ours[-1]:.2f} GiB/s   while publishing: {probe}",
                flush=True,
            )
        print(
            f"ratio of medians {statistics.median(ours) / statistics.median(plain):.2f}   publisher's peak memory {publisher.resident_bytes('VmHWM') >> 20} MiB",
            flush=True,
        )
        replicate(network, publisher, last=f"bench/big-{rounds - 1}.pkg", size=size, rounds=rounds)
    finally:
        for _ in network.close():
            pass


def replicate(network: Network, publisher: Node, *, last: str, size: int, rounds: int) -> None:
    """Bring a second node up to date."""
    receiver = network.add("ber1", to="ams1")
    receiver.wait_for_file("bench/probe")
    with Probe(receiver, "bench/probe") as probe:
        begun = time.perf_counter()
        receiver.wait_for_file(last, deadline_s=1200)
        took = time.perf_counter() - begun
    print(f"{rounds} files to a second node {took:6.2f} s   {rounds * size / GIB / took:.2f} GiB/s   while receiving: {probe}")
    print(f"peak memory: publisher {publisher.resident_bytes('VmHWM') >> 20} MiB, receiver {receiver.resident_bytes('VmHWM') >> 20} MiB", flush=True)
