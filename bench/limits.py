"""A limit set live on a running transfer: bytes on the wire in the ten seconds after that against the rate, limited by the receiver and by the sender; and an urgent file past a limit. Ends with exit code 1 if more than 5 % off."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from support.network import Network, Node
from support.relay import Relay

MIB = 1 << 20
BEFORE = "80 MB/s"
BEFORE_BYTES = 20 * MIB
OFF_MAX = 5.0
"""Percent that the wire may be off the rate."""
URGENT_MIB = 64


def main(arguments: list[str]) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="bench limits", description=__doc__)
    parser.add_argument("--mib", type=int, default=300)
    parser.add_argument("--rate", type=float, default=5.0, help="MB/s")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="replicad-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        off = [measure(Path(folder) / tls, mib=options.mib, rate=options.rate, seconds=options.seconds, tls=tls) for tls in ("auto", "off")]
    if max(off) > OFF_MAX:
        raise SystemExit(1)


def measure(folder: Path, *, mib: int, rate: float, seconds: float, tls: str) -> float:
    """Two nodes and a relay between them that counts what the second receives. Returns by how many percent it was off the rate at worst."""
    off = 0.0
    network = Network(folder, python=[sys.executable], environ={"REPLICAD__PEERS__TLS": tls})
    try:
        source = network.node("ams1")
        with Relay(source.peers_port).running() as relay:
            source.environ["REPLICAD__PEERS__URL"] = relay.url if tls == "auto" else relay.url.replace("https", "http")
            source.start()
            sink = network.add("ber1", to="ams1")
            source.cli("share", "create", "bench", "--public")
            network.wait_linked()
            for place, limited, direction in (("receiver", sink, "download"), ("sender", source, "upload")):
                limited.cli("limits", "set", direction, BEFORE)
                before = relay.received
                _publish(source, folder / f"{direction}.pkg", mib=mib)
                _wait_until(lambda before=before: relay.received - before > BEFORE_BYTES)  # type: ignore[misc]
                limited.cli("limits", "set", direction, f"{rate} MB/s")
                begun, before = time.monotonic(), relay.received
                time.sleep(seconds)
                took, moved = time.monotonic() - begun, relay.received - before
                share = 100 * moved / took / rate / 1e6
                off = max(off, abs(share - 100))
                print(f"tls {tls:4}  {rate} MB/s set live in the {place}: {moved / took / 1e6:.3f} MB/s over {took:.2f} s, {share:.1f} % of it", flush=True)
                if place == "receiver":
                    print(f"tls {tls:4}  {_urgent(source, sink, folder)} (at the limit {URGENT_MIB * MIB / rate / 1e6:.1f} s)", flush=True)
                limited.cli("limits", "set", direction, "none")
                sink.wait_for_file(f"bench/{direction}.pkg")
    finally:
        for _ in network.close():
            pass
    return off


def _urgent(source: Node, sink: Node, folder: Path) -> str:
    begun = time.monotonic()
    _publish(source, folder / "urgent.pkg", "--urgent", mib=URGENT_MIB)
    published = time.monotonic()
    _wait_until(lambda: sink.download("bench/urgent.pkg", method="HEAD").status == 200)
    return f"{URGENT_MIB} MiB urgent past it: published in {published - begun:.2f} s, there {time.monotonic() - published:.2f} s later"


def _publish(node: Node, path: Path, *options: str, mib: int) -> None:
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))
    node.cli("publish", str(path), *options, deadline_s=600)
    path.unlink()


def _wait_until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.01)
