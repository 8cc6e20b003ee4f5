"""A new node catches up with a network of many entries, names only: how long, how much memory and processor time at both, and what two idle nodes with that catalog cost.

All entries name one small content, so that nothing but records travels. Arguments: ``--entries`` (100,000), ``--idle`` seconds of watching idle nodes (60; 0: none).
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from replicad.server.admin.bodies import ENTRIES_PER_CALL_MAX
from support.network import Network, Node
from support.waiting import wait_for

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def main(arguments: list[str]) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="bench catchup", description=__doc__)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--idle", type=float, default=60.0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="replicad-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        measure(Path(folder), entries=options.entries, idle_s=options.idle)


def measure(folder: Path, *, entries: int, idle_s: float) -> None:
    """Publish, add a node, watch both."""
    network = Network(folder / "net", python=[sys.executable])
    try:
        source = network.found("ams1")
        source.cli("share", "create", "bench", "--public")
        begun = time.perf_counter()
        name_many(source, folder, entries)
        print(f"{entries} entries published in {time.perf_counter() - begun:.1f} s; {memory(source)}", flush=True)
        spent_s = processor_s(source)
        newcomer = network.found("ber1")
        token = source.cli("peer", "invite").lines[-1]
        begun = time.perf_counter()
        newcomer.cli("peer", "add", "-", stdin=token, deadline_s=600)
        wait_for(lambda: living(newcomer) == entries, what="all entries on the new node", deadline_s=600)
        took_s = time.perf_counter() - begun
        print(f"caught up in {took_s:.1f} s, {took_s / entries * 1e6:.0f} microseconds an entry")
        print(f"  source: {processor_s(source) - spent_s:.1f} s of processor time, {memory(source)}")
        print(f"  new node: {processor_s(newcomer):.1f} s of processor time, {memory(newcomer)}", flush=True)
        if idle_s:
            watch_idle(source, newcomer, seconds=idle_s)
    finally:
        for _ in network.close():
            pass


def name_many(node: Node, folder: Path, count: int) -> None:
    """Publish one small content under that many names, through the admin door."""
    (folder / "small").write_bytes(b"content of every name")
    node.cli("publish", str(folder / "small"))
    one = node.ask("ls", "bench")["entries"][0]
    token = (node.data / "admin.token").read_text().strip()
    for start in range(1, count, ENTRIES_PER_CALL_MAX):
        names = [
            {"path": f"pkgs/d{number % 97}/file{number:07}.pkg", "sha256": one["sha256"], "size": one["size"]}
            for number in range(start, min(count, start + ENTRIES_PER_CALL_MAX))
        ]
        connection = http.client.HTTPConnection("127.0.0.1", node.admin_port, timeout=600)
        connection.request("POST", "/api/v1/shares/bench/entries", json.dumps({"entries": names}), {"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        if answer.status != 200:
            raise RuntimeError(f"publishing was answered {answer.status}: {body[:500]!r}")


def living(node: Node) -> int:
    """Files that the node's catalog has."""
    return int(sum(node.ask("status")["stages"].values()))


def processor_s(node: Node) -> float:
    """User and system time of the daemon so far."""
    assert node.process is not None
    fields = Path(f"/proc/{node.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def memory(node: Node) -> str:
    """Resident memory, now and at most."""
    return f"{node.resident_bytes() >> 20} MiB resident, {node.resident_bytes('VmHWM') >> 20} MiB at most"


def watch_idle(*nodes: Node, seconds: float) -> None:
    """Processor time of nodes that nobody asks for anything."""
    before = [processor_s(node) for node in nodes]
    time.sleep(seconds)
    for node, spent_s in zip(nodes, before, strict=True):
        print(f"  {node.name} idle for {seconds:.0f} s: {(processor_s(node) - spent_s) / seconds:.2%} of one processor", flush=True)
