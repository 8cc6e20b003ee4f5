"""The downloads door against nginx, round by round: one 1 GiB file (1 and 8 clients), random 1 MiB ranges and 4 KiB files over 64 connections, 304s; and the file over TLS 1.3."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import load
from replicad.crypto import certificate as certificates
from support.network import Network, free_port
from support.waiting import wait_for

BIG_BYTES = 1 << 30
RANGE_BYTES = 1 << 20
SMALL_BYTES = 4 << 10
RANGES = 512
CONNECTIONS = 64
REVALIDATE = "revalidate"
NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; default_type application/octet-stream;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; root {root}; }}
  server {{ listen 127.0.0.1:{tls_port} ssl; ssl_certificate {folder}/tls.crt; ssl_certificate_key {folder}/tls.key; ssl_protocols TLSv1.3; root {root}; }}
}}
"""


@dataclass(frozen=True)
class Server:
    """Somebody who serves the files at ``prefix``."""

    name: str
    port: int
    tls_port: int
    prefix: str
    pids: tuple[int, ...]
    tls_pids: tuple[int, ...]

    def request(self, path: str, *fields: str) -> bytes:
        """``REVALIDATE`` among the fields stands for a condition on the tag that this server gives the file."""
        fields = tuple(f"If-None-Match: {self.tag(path)}" if field == REVALIDATE else field for field in fields)
        lines = [f"GET {self.prefix}{path} HTTP/1.1", "Host: bench", "User-Agent: bench", "Accept: */*", *fields]
        return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"

    def tag(self, path: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("HEAD", f"{self.prefix}{path}")
        tag = connection.getresponse().getheader("ETag")
        connection.close()
        assert tag is not None
        return tag


@dataclass(frozen=True)
class Kind:
    """One kind of load. ``by_bytes``: compared by MiB/s and CPU per GiB instead of answers/s and CPU per answer."""

    name: str
    path: str
    clients: int
    fields: tuple[tuple[str, ...], ...] = ((),)
    status: bytes = b"200"
    by_bytes: bool = False
    target: str = ""

    def run(self, server: Server, seconds: float) -> load.Load:
        requests = [server.request(self.path, *fields) for fields in self.fields]
        return load.run(server.port, requests, clients=self.clients, seconds=seconds, pids=server.pids, status=self.status)


@dataclass(frozen=True)
class TlsKind(Kind):
    """The file over TLS, by curl: it decrypts faster than Python does."""

    def run(self, server: Server, seconds: float) -> load.Load:
        command = ["curl", "--silent", "--fail", "--insecure", "--tlsv1.3", "--output", "/dev/null", "--write-out", "%{size_download}"]
        cpu_before, begun = load.cpu_s(server.tls_pids), time.perf_counter()
        answers = body_bytes = 0
        while time.perf_counter() - begun < seconds:
            done = subprocess.run([*command, f"https://127.0.0.1:{server.tls_port}{server.prefix}{self.path}"], capture_output=True, check=True)
            answers += 1
            body_bytes += int(done.stdout)
        took_s = time.perf_counter() - begun
        return load.Load(took_s, answers, body_bytes, took_s / answers * 1000, load.cpu_s(server.tls_pids) - cpu_before)


def kinds() -> Iterator[Kind]:
    """What is measured. Targets: performance.md section 2 of the design."""
    dice = random.Random(7)
    starts = [dice.randrange(BIG_BYTES - RANGE_BYTES) for _ in range(RANGES)]
    ranges = tuple((f"Range: bytes={start}-{start + RANGE_BYTES - 1}",) for start in starts)
    yield Kind("1 GiB file, 1 client", "/big.pkg", 1, by_bytes=True, target=">= 0.95, CPU <= 1.4")
    yield Kind("1 GiB file, 8 clients", "/big.pkg", 8, by_bytes=True, target=">= 0.95, CPU <= 1.4")
    yield Kind("random 1 MiB ranges, 64 connections", "/big.pkg", CONNECTIONS, ranges, b"206", target=">= 0.9")
    yield Kind("4 KiB file, 64 connections", "/small.pkg", CONNECTIONS, target=">= 0.24, p99 <= 15 ms")
    yield TlsKind("1 GiB file over TLS 1.3, 1 client", "/big.pkg", 1, by_bytes=True, target=">= 1.2")
    yield Kind("304, 64 connections", "/small.pkg", CONNECTIONS, ((REVALIDATE,),), b"304", target=">= 0.25")


def main(arguments: list[str]) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="bench serve", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run [2]")
    parser.add_argument("--only", default="", help="the kinds whose name contains this")
    options = parser.parse_args(arguments)
    if shutil.which("nginx") is None:
        print("nginx is not installed: nothing to compare with")
        return
    with tempfile.TemporaryDirectory(prefix="replicad-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")) as folder, servers(Path(folder)) as pair:
        for kind in (kind for kind in kinds() if options.only in kind.name):
            measure(kind, pair, rounds=options.rounds, seconds=options.seconds)


@contextlib.contextmanager
def servers(folder: Path) -> Iterator[tuple[Server, Server]]:
    """nginx and a real daemon with the same files, in the page cache."""
    files = folder / "files"
    files.mkdir()
    with (files / "big.pkg").open("wb") as big:
        for _ in range(BIG_BYTES >> 20):
            big.write(os.urandom(1 << 20))
    (files / "small.pkg").write_bytes(os.urandom(SMALL_BYTES))
    certificates.ensure(folder / "tls.crt", folder / "tls.key")
    tls = {"REPLICAD__DOWNLOADS__TLS_CERTIFICATE": str(folder / "tls.crt"), "REPLICAD__DOWNLOADS__TLS_KEY": str(folder / "tls.key")}
    network = Network(folder / "net", python=[sys.executable])
    try:
        plain, secure = network.node("ams1"), network.node("ber1", environ=tls)
        pids = []
        for node in (plain, secure):
            node.start()
            node.cli("share", "create", "bench", "--public")
            node.cli("publish", str(files), deadline_s=600)
            assert node.process is not None
            pids.append(node.process.pid)
        with nginx(folder, files) as other:
            yield other, Server("replicad", plain.downloads_port, secure.downloads_port, "/bench", (pids[0],), (pids[1],))
    finally:
        for _ in network.close():
            pass


@contextlib.contextmanager
def nginx(folder: Path, root: Path) -> Iterator[Server]:
    """One process, like the daemon's."""
    folder.chmod(0o755)
    port, tls_port = free_port(), free_port()
    config = folder / "nginx.conf"
    config.write_text(("user root;" if os.geteuid() == 0 else "") + NGINX.format(folder=folder, root=root, port=port, tls_port=tls_port))
    process = subprocess.Popen(["nginx", "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        wait_for((folder / "nginx.pid").exists, what="nginx")
        yield Server("nginx", port, tls_port, "", (process.pid,), (process.pid,))
    finally:
        process.terminate()
        process.wait()


def measure(kind: Kind, pair: Sequence[Server], *, rounds: int, seconds: float) -> None:
    """Rounds of both in turn, the first not counted; medians and their ratios."""
    seen: dict[str, list[load.Load]] = {server.name: [] for server in pair}
    for number in range(rounds + 1):
        for server in pair if number % 2 else reversed(pair):
            found = kind.run(server, seconds)
            if number:
                seen[server.name].append(found)
    print(f"{kind.name}   (target {kind.target})")
    rates, costs = [], []
    for name, runs in seen.items():
        rate = statistics.median(run.mib_s if kind.by_bytes else run.rate for run in runs)
        cost = statistics.median(run.cpu_s_gib if kind.by_bytes else run.cpu_us for run in runs)
        p99_ms = statistics.median(run.p99_ms for run in runs)
        units = (f"{rate:8.0f} MiB/s", f"{cost:6.3f} CPU-s/GiB") if kind.by_bytes else (f"{rate:8.0f} answers/s", f"{cost:6.1f} CPU-us each")
        print(f"  {name:<10} {units[0]}   {units[1]}   99th percentile {p99_ms:.1f} ms")
        rates.append(rate)
        costs.append(cost)
    print(f"  ratio      {rates[1] / rates[0]:.2f} of the rate at {costs[1] / costs[0]:.2f} of the CPU", flush=True)
