"""A client of a node that still fetches what it asks for, over a line of known rate: the first byte in chunk times, the whole against the fetch itself, and what it sees when the source dies."""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from replicad.protocol.fetch.config import MAKE_WAY_S
from support.network import Network, Node
from support.relay import Relay
from support.waiting import wait_for

MIB = 1 << 20


def main(arguments: list[str]) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="bench arriving", description=__doc__)
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--rate", type=float, default=8.0, help="of the line, MiB/s")
    parser.add_argument("--only", default="", help="of whole, first_bytes, dies: those whose name contains this")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="replicad-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        network = Network(Path(folder) / "net", python=[sys.executable])
        try:
            ams = network.node("ams1")
            with Relay(ams.peers_port, rate=options.rate * MIB).running() as relay:
                ams.environ["REPLICAD__PEERS__URL"] = relay.url
                ams.start()
                ber = network.node("ber1", environ={"REPLICAD__DOWNLOADS__ON_MISSING": "stream"}).start()
                ber.cli("peer", "add", "-", stdin=ams.cli("peer", "invite").lines[-1])
                ams.cli("share", "create", "bench", "--public")
                for part in (whole, first_bytes, dies):
                    if options.only in part.__name__:
                        part(ams, ber, Path(folder), options)
        finally:
            for _ in network.close():
                pass


def publish(ams: Node, ber: Node, folder: Path, name: str, mib: int) -> str:
    """A new file; its hash, once the second node knows of it."""
    content = os.urandom(mib * MIB)
    (folder / name).write_bytes(content)
    ams.cli("publish", str(folder / name))
    wait_for(lambda: ber.download(f"bench/{name}", method="HEAD").status == 200, what="the name at the second node")
    return hashlib.sha256(content).hexdigest()


def is_held(node: Node, name: str) -> bool:
    return bool(node.ask("show", f"bench/{name}")["entry"]["available"])


def whole(ams: Node, ber: Node, folder: Path, options: argparse.Namespace) -> None:
    """One client of the whole, from the moment the node knows of it; the fetch ends when the node says that it holds it."""
    held_s: list[float] = []
    sha256 = publish(ams, ber, folder, "whole.pkg", options.mib)
    begun = time.monotonic()

    def watch() -> None:
        wait_for(lambda: is_held(ber, "whole.pkg"), what="the content")
        held_s.append(time.monotonic() - begun)

    watching = threading.Thread(target=watch)
    watching.start()
    found = ber.download("bench/whole.pkg")
    took_s = time.monotonic() - begun
    watching.join()
    right = hashlib.sha256(found.body).hexdigest() == sha256
    print(f"whole file: {took_s:.2f} s, the fetch {held_s[0]:.2f} s: {took_s / held_s[0]:.2f}, {'right' if right else 'WRONG'}   (target <= 1.1)", flush=True)


def first_bytes(ams: Node, ber: Node, folder: Path, options: argparse.Namespace) -> None:
    """Clients that ask for far places, one after the other, while the fetch goes on from the beginning."""
    publish(ams, ber, folder, "far.pkg", 4 * options.mib)
    chunk_s = 1 / options.rate
    waits = []
    for place in (0.95, 0.8, 0.9, 0.85):
        time.sleep(MAKE_WAY_S)
        connection = http.client.HTTPConnection("127.0.0.1", ber.downloads_port, timeout=60)
        begun = time.monotonic()
        connection.request("GET", "/bench/far.pkg", headers={"Range": f"bytes={int(place * 4 * options.mib) * MIB}-"})
        connection.getresponse().read(1)
        waits.append((time.monotonic() - begun) / chunk_s)
        connection.close()
    here = is_held(ber, "far.pkg")
    print(f"first byte of a far range: {', '.join(f'{wait:.1f}' for wait in waits)} chunk times, median {statistics.median(waits):.1f}   (target <= 2)")
    print(f"  (a chunk time is {chunk_s * 1000:.0f} ms; meanwhile the file {'was complete: repeat with more MiB' if here else 'was not complete'})", flush=True)


def dies(ams: Node, ber: Node, folder: Path, options: argparse.Namespace) -> None:
    """The only node that has the file dies in the middle."""
    publish(ams, ber, folder, "cut.pkg", options.mib)
    connection = http.client.HTTPConnection("127.0.0.1", ber.downloads_port, timeout=120)
    connection.request("GET", "/bench/cut.pkg")
    response = connection.getresponse()
    promised, got = int(response.getheader("Content-Length", "0")), len(response.read(8 * MIB))
    ams.kill()
    begun = time.monotonic()
    try:
        while piece := response.read(MIB):
            got += len(piece)
        ended = "the end of the connection"
    except http.client.IncompleteRead as error:
        got += len(error.partial)
        ended = "an incomplete body"
    print(f"the source dead: {ended} after {time.monotonic() - begun:.0f} s, {got / MIB:.1f} of {promised / MIB:.1f} MiB", flush=True)
