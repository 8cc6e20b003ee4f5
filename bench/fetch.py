"""One content from one node to one other: rate, CPU of sender and receiver per GiB, peak memory; with TLS and without, beside `curl -o` and `openssl dgst` of the same file where they are installed."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.pages import narrowed, warm
from support.network import Network, Node

MIB = 1 << 20
ROOM = 4
"""Times the size: publishing writes a copy, fetching another one."""
POLL_S = 0.05
"""Each look costs the receiver half a millisecond of CPU, which is no part of fetching."""
TICK = os.sysconf("SC_CLK_TCK")


def main(arguments: list[str]) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="bench fetch", description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="replicad-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")) as folder, narrowed(ROOM * options.mib * MIB):
        for tls in ("off", "auto"):
            measure(Path(folder) / tls, mib=options.mib, rounds=options.rounds, tls=tls)


def measure(folder: Path, *, mib: int, rounds: int, tls: str) -> None:
    """Each round publishes a new content."""
    network = Network(folder / "net", python=[sys.executable], environ={"REPLICAD__PEERS__TLS": tls})
    try:
        source, sink = network.found("ams1"), network.add("ber1", to="ams1", invite=("--role", "publisher"))
        source.cli("share", "create", "bench", "--public")
        network.wait_linked()
        for number in range(rounds):
            path = folder / f"{number}.pkg"
            with path.open("wb") as file:
                for _ in range(mib):
                    file.write(os.urandom(MIB))
            print(f"tls {tls:4}  {_round(source, sink, path, mib=mib)}", flush=True)
            path.unlink()
    finally:
        for _ in network.close():
            pass


def _round(source: Node, sink: Node, path: Path, *, mib: int) -> str:
    warm()
    source.cli("publish", str(path), deadline_s=600)
    begun, before = time.perf_counter(), (_cpu(source), _cpu(sink))
    while sink.download(f"bench/{path.name}", method="HEAD").status != 200:
        time.sleep(POLL_S)
    took = time.perf_counter() - begun
    sent, received = (after - earlier for after, earlier in zip((_cpu(source), _cpu(sink)), before, strict=True))
    peers = f"{mib / took:6.0f} MiB/s   CPU-s/GiB sender {sent * 1024 / mib:.2f} receiver {received * 1024 / mib:.2f}   peak RSS {sink.resident_bytes('VmHWM') / MIB:.0f} MiB"
    return peers + _curl(source.url(f"bench/{path.name}"), path.with_suffix(".copy"), mib=mib)


def _curl(url: str, copy: Path, *, mib: int) -> str:
    if not shutil.which("curl") or not shutil.which("openssl"):
        return "   (no curl or openssl to compare with)"
    warm()
    begun = time.perf_counter()
    subprocess.run(["curl", "-sS", "-o", str(copy), url], check=True)
    subprocess.run(["openssl", "dgst", "-sha256", str(copy)], check=True, stdout=subprocess.DEVNULL)
    took = time.perf_counter() - begun
    copy.unlink()
    return f"   curl + openssl {mib / took:.0f} MiB/s"


def _cpu(node: Node) -> float:
    assert node.process is not None
    fields = Path(f"/proc/{node.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK
