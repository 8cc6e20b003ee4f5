"""A swarm in which a random node is killed (SIGKILL) every few seconds: does everything arrive, is anything corrupt, how much is fetched twice? Ends with exit code 1 if a bound is broken."""

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

MIB = 1 << 20
LOSS_PER_KILL = 64 * MIB
PIECE = 16 * MIB


def main(arguments: list[str]) -> None:
    """One run."""
    parser = argparse.ArgumentParser(prog="bench kills", description=__doc__)
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--every", type=float, default=5.0, metavar="SECONDS")
    parser.add_argument("--limit", type=float, default=900.0, metavar="SECONDS", help="give up after so long")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    dice = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="replicad-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")) as root:
        network = Network(Path(root), python=(sys.executable,))
        try:
            failures = run(network, Path(root) / "big.pkg", options, dice)
        finally:
            for _ in network.close():
                pass
    for failure in failures:
        print(f"FAILED: {failure}")
    if failures:
        raise SystemExit(1)


def run(network: Network, source: Path, options: argparse.Namespace, dice: random.Random) -> list[str]:
    """Publish, kill until every node has it, compare."""
    first, *others = nodes = [network.found("n0"), *(network.add(f"n{number}", to="n0") for number in range(1, options.nodes))]
    first.cli("share", "create", "munki", "--public")
    network.wait_linked()
    truth = hashlib.sha256()
    with source.open("wb") as file:
        for _ in range(options.mib * MIB // PIECE):
            piece = dice.randbytes(PIECE)
            truth.update(piece)
            file.write(piece)
    first.cli("publish", str(source), "--share", "munki", deadline_s=600)
    begun, kills, written = time.monotonic(), dict.fromkeys(nodes, 0), dict.fromkeys(nodes, 0)
    due = begun + options.every
    while not all(has(node) for node in others):
        if time.monotonic() - begun > options.limit:
            return [f"not everywhere after {options.limit:.0f} s and {sum(kills.values())} kills"]
        if time.monotonic() >= due:
            victim = dice.choice(nodes)
            written[victim] += written_bytes(victim)
            victim.kill()
            victim.start()
            kills[victim] += 1
            due = time.monotonic() + options.every
        time.sleep(0.2)
    took_s = time.monotonic() - begun
    failures = []
    print(f"{options.nodes} nodes, {options.mib} MiB, {sum(kills.values())} kills: everywhere after {took_s:.0f} s")
    for node in others:
        total = written[node] + written_bytes(node)
        allowed = options.mib * MIB + kills[node] * LOSS_PER_KILL
        print(
            f"  {node.name}: {kills[node]} kills, {total / MIB:.0f} MiB written for {options.mib} MiB: {(total / MIB - options.mib) / max(1, kills[node]):.0f} MiB for each kill"
        )
        if total > allowed * 1.02:
            failures.append(f"{node.name} wrote {total / MIB:.0f} MiB, at most {allowed / MIB:.0f} MiB were allowed")
    for node in nodes:
        wrong = [path.name for path in (node.data / "blobs").rglob("*") if path.is_file() and digest(path) != path.name]
        if wrong or not (node.data / "blobs" / truth.hexdigest()[:2] / truth.hexdigest()).exists():
            failures.append(f"{node.name} holds wrong bytes")
    return failures


def has(node: Node) -> bool:
    """Whether its downloads door gives the file; False while it is starting."""
    try:
        return node.download("munki/big.pkg", method="HEAD").status == 200
    except OSError:
        return False


def written_bytes(node: Node) -> int:
    """What the daemon's present process has put into files: content that arrived, and a little SQLite."""
    assert node.process is not None
    (line,) = [line for line in Path(f"/proc/{node.process.pid}/io").read_text().splitlines() if line.startswith("write_bytes:")]
    return int(line.split()[1])


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return found
