"""How long a client command takes from start to answer, beside a bare Python."""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from support.network import Network

VERBS = (("version",), ("status",), ("ls",), ("matrix",))


def main(arguments: list[str]) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="bench start", description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="replicad-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        network = Network(Path(folder) / "net", python=[sys.executable])
        try:
            node = network.found("ams1")
            report("python -c pass", [sys.executable, "-c", "pass"], runs=options.runs)
            for verb in VERBS:
                report(f"replicad {' '.join(verb)}", [sys.executable, "-m", "replicad", "--config", str(node.config), *verb], runs=options.runs)
        finally:
            for _ in network.close():
                pass


def report(name: str, command: list[str], *, runs: int) -> None:
    """Medians of CPU and wall time."""
    took = [once(command) for _ in range(runs)]
    cpu_ms, wall_ms = (1000 * statistics.median(column) for column in zip(*took, strict=True))
    print(f"  {name:<20} CPU {cpu_ms:4.0f} ms   wall {wall_ms:4.0f} ms", flush=True)


def once(command: list[str]) -> tuple[float, float]:
    """CPU and wall seconds of one run."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    wall_s, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall_s
