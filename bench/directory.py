"""2,000 files of 64 KiB published as a directory, verified on two other nodes; how long `ls`, `status` and `matrix` take meanwhile."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from support.network import Network, Node

FILE_BYTES = 64 * 1024
PAUSE_S = 0.2
"""Between two commands of the watcher: each takes a core for an eighth of a second, and people look less often than that."""


def main(arguments: list[str]) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="bench directory", description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="replicad-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        measure(Path(folder), files=options.files, rounds=options.rounds)


def measure(folder: Path, *, files: int, rounds: int) -> None:
    """Each round is a new network."""
    for number in range(rounds):
        network = Network(folder / f"net-{number}", python=[sys.executable])
        try:
            measure_once(network, folder / f"source-{number}", files=files)
        finally:
            for _ in network.close():
                pass


def measure_once(network: Network, source: Path, *, files: int) -> None:
    """One publication, watched until everybody holds it."""
    publisher, *others = network.three()
    publisher.cli("share", "create", "bench", "--public")
    network.wait_linked()
    source.mkdir()
    for index in range(files):
        (source / f"{index:05}.pkg").write_bytes(os.urandom(FILE_BYTES))
    begun = time.perf_counter()
    publisher.cli("publish", str(source), deadline_s=600)
    published = time.perf_counter() - begun
    slowest = watch(publisher, others, total=files)
    print(
        f"published {published:5.2f} s   on all nodes {time.perf_counter() - begun:5.2f} s   slowest meanwhile: "
        + ", ".join(f"{verb} {took:.2f} s" for verb, took in slowest.items()),
        flush=True,
    )


def watch(publisher: Node, others: list[Node], *, total: int) -> dict[str, float]:
    """Until the others hold so many files: the slowest answer of each verb, commands in full with their start."""
    slowest: dict[str, float] = {}
    while True:
        for verb in (("ls",), ("status",), ("matrix",)):
            begun = time.perf_counter()
            publisher.cli("--json", *verb)
            slowest[verb[0]] = max(slowest.get(verb[0], 0.0), time.perf_counter() - begun)
            time.sleep(PAUSE_S)
        if all(node.ask("status")["store"]["files"] >= total for node in others):
            return slowest
