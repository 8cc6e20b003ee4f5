"""Resumable uploads by the public clients of tus, with the daemon killed (SIGKILL) twice in between: are the bytes right, how much did the disk hold, how much memory did the daemon need?"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from support.network import Network, Node
from support.tus_clients import PROGRAMS, upload_through_kills

MIB = 1 << 20
PIECE = 16 * MIB
OVERHEAD = 2 * MIB
"""Directories, and the end of a block."""


def main(arguments: list[str]) -> None:
    """One upload by each client."""
    parser = argparse.ArgumentParser(prog="bench uploads", description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--part", type=int, default=16, metavar="MIB", help="the size of a request")
    parser.add_argument("--client", choices=sorted(PROGRAMS), action="append")
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="replicad-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")) as root:
        network, source, truth = Network(Path(root), python=(sys.executable,)), Path(root) / "big.pkg", hashlib.sha256()
        dice = random.Random(options.seed)
        with source.open("wb") as file:
            for _ in range(options.mib * MIB // PIECE):
                piece = dice.randbytes(PIECE)
                truth.update(piece)
                file.write(piece)
        try:
            wrong = [client for client in options.client or sorted(PROGRAMS) if not run(network, client, source, truth.hexdigest(), options, dice)]
        finally:
            for _ in network.close():
                pass
    if wrong:
        raise SystemExit(f"FAILED: {', '.join(wrong)}")


def run(network: Network, client: str, source: Path, expected: str, options: argparse.Namespace, dice: random.Random) -> bool:
    """Whether all is well with one of them."""
    node = network.found(client)
    node.cli("share", "create", "munki", "--public")
    size = options.mib * MIB
    kill_at = sorted(dice.randrange(1, size - options.part * MIB) for _ in range(options.kills))
    begun = time.monotonic()
    peak = upload_through_kills(client, node, source, path="big.pkg", part_bytes=options.part * MIB, kill_at=kill_at, deadline_s=600.0)
    took_s = time.monotonic() - begun
    tag = node.download("munki/big.pkg", method="HEAD").headers["etag"]
    right = tag == f'"{expected}"' and digest(node, expected) == expected
    print(
        f"{client:<11} {options.mib} MiB, {options.kills} kills: {took_s:.1f} s; bytes {'equal' if right else 'DIFFER'}; at most {peak / MIB:.1f} MiB on the disk; "
        f"daemon since the last kill: {cpu_s(node):.2f} CPU-s, {node.resident_bytes('VmHWM') / MIB:.0f} MiB of memory at most"
    )
    node.stop()
    return right and peak <= size + OVERHEAD


def cpu_s(node: Node) -> float:
    """Of the daemon that runs now."""
    assert node.process is not None
    fields = Path(f"/proc/{node.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def digest(node: Node, name: str) -> str:
    """SHA-256 of what lies on the node's disk under that name."""
    with (node.data / "blobs" / name[:2] / name).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
