"""One folder from one node to many over shaped links, side by side with BitTorrent, Syncthing, rsync and nginx + curl where they are installed. Needs root. Writes bench/results/swarm-*.{md,json,png}.

Time is from giving the work until the last node has it, verified byte by byte afterwards. T1 is one plain copy to one node in the same round. Systems take turns; medians count.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.disk import fresh
from bench.namespaces import network
from bench.pages import kept
from bench.systems import SYSTEMS, Plain, System

RESULTS = Path(__file__).parent / "results"
POLL_S = 0.05
PROCESS_BYTES = 128 << 20
"""Memory of one node's processes."""
DISK_BYTES = 4 << 30
"""Room for databases, journals and what a file system needs for itself."""


@dataclass(frozen=True)
class Seen:
    """One run: seconds until the last node had everything, copies that left the source, CPU seconds of all processes of the system."""

    last_s: float
    copies: float
    cpu_s: float


def main(arguments: list[str]) -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(prog="bench swarm", description=__doc__)
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--mbit", type=float, default=200.0, help="of each node, up and down; 0: not limited [200]")
    parser.add_argument("--files", type=int, default=1)
    parser.add_argument("--kib", type=int, default=256 << 10, help="of each file [262144]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit-s", type=float, default=300.0)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the namespaces are removed then, too
    if os.geteuid() != 0 or shutil.which("tc") is None or shutil.which("ip") is None:
        print("needs root and iproute2: nothing measured")
        return
    chosen = [
        SYSTEMS[name]
        for name in options.systems
        if not (missing := [one for one in SYSTEMS[name].needs if not shutil.which(one)]) or print(f"{name}: without {missing}")
    ]
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(fresh((2 * (options.nodes + 2) * options.files * options.kib << 10) + DISK_BYTES))
        work = folder / "work"
        for number in range(options.files):
            path = work / f"{number % 50:02}" / f"{number}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(options.kib << 10))
        title = f"{options.files} x {options.kib} KiB to {options.nodes} nodes at {options.mbit:g} Mbit/s"
        print(title, flush=True)
        seen: dict[str, list[Seen]] = {}
        stack.enter_context(kept((options.nodes + 1) * ((2 * options.files * options.kib << 10) + PROCESS_BYTES)))
        for _ in range(options.rounds):
            turns = [("T1", Plain, 1)] if all(map(shutil.which, Plain.needs)) else []
            for name, kind, nodes in [*turns, *((kind.name, kind, options.nodes) for kind in chosen)]:
                try:
                    found = run(kind, folder, work, nodes=nodes, mbit=options.mbit, limit_s=options.limit_s)
                except RuntimeError as error:
                    print(f"  {name}: {error}", flush=True)
                    continue
                print(f"  {name:20} last node {found.last_s:6.1f} s   copies from the source {found.copies:5.2f}   CPU {found.cpu_s:5.1f} s", flush=True)
                seen.setdefault(name, []).append(found)
    write(title, seen, f"swarm-{options.files}x{options.kib}k-{options.nodes}")


def run(kind: type[System], folder: Path, work: Path, *, nodes: int, mbit: float, limit_s: float) -> Seen:
    """One system once. RuntimeError if it fails, is too late, or a copy is not the original."""
    truth = digests(work)
    with tempfile.TemporaryDirectory(dir=folder) as run_folder, network(Path(run_folder), hosts=nodes + 1, mbit=mbit) as hosts:
        system = kind(hosts, work)
        system.start()
        sent, cpu_s, begun = hosts[0].sent_bytes(), sum(host.cpu_s() for host in hosts), time.monotonic()
        system.give()
        waiting = hosts[1:]
        while waiting := [host for host in waiting if not system.has(host)]:
            if time.monotonic() - begun > limit_s:
                raise RuntimeError(f"{len(waiting)} nodes are not done in {limit_s:.0f} s")
            time.sleep(POLL_S)
        took_s = time.monotonic() - begun
        cpu_s = sum(host.cpu_s() for host in hosts) - cpu_s
        sent = hosts[0].sent_bytes() - sent
        for host in hosts[1:]:
            if digests(system.copy(host)) != truth:
                raise RuntimeError(f"host {host.number} has something else")
    return Seen(took_s, sent / sum(path.stat().st_size for path in work.rglob("*") if path.is_file()), cpu_s)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 by name, without what Syncthing adds."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith((".st", ".syncthing")) and ".stfolder" not in path.parts:
            with path.open("rb") as file:
                found[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def write(title: str, seen: dict[str, list[Seen]], name: str) -> None:
    """The table, the numbers and, with matplotlib, the picture."""
    t1_s = statistics.median(run.last_s for run in seen["T1"]) if "T1" in seen else 0.0
    lines = [
        f"# {title}",
        "",
        f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}; medians of {max(map(len, seen.values()), default=0)} rounds.",
        "",
    ]
    lines += ["| system | last node, s | / T1 | copies sent by the source | CPU-s, all processes |", "|---|---|---|---|---|"]
    for system, runs in seen.items():
        last_s, copies, cpu_s = (statistics.median(getattr(run, field) for run in runs) for field in ("last_s", "copies", "cpu_s"))
        ratio = f"{last_s / t1_s:.2f}" if t1_s else ""
        lines.append(
            f"| {system} | {last_s:.1f} ({min(run.last_s for run in runs):.1f}-{max(run.last_s for run in runs):.1f}) | {ratio} | {copies:.2f} | {cpu_s:.1f} |"
        )
    print("\n".join(lines))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n")
    (RESULTS / f"{name}.json").write_text(json.dumps({system: [asdict(run) for run in runs] for system, runs in seen.items()}, indent=1) + "\n")
    if importlib.util.find_spec("matplotlib") is None:
        print("(no picture: matplotlib is not installed)")
        return
    with contextlib.suppress(ImportError):
        picture(title, {system: statistics.median(run.last_s for run in runs) for system, runs in seen.items()}, RESULTS / f"{name}.png")


def picture(title: str, last_s: dict[str, float], path: Path) -> None:
    """One bar a system, the fastest on top."""
    plots = importlib.import_module("matplotlib.figure")
    figure = plots.Figure(figsize=(8, 0.5 * len(last_s) + 1.5), layout="constrained")
    axes = figure.subplots()
    ordered = sorted(last_s.items(), key=lambda one: -one[1])
    bars = axes.barh(
        [name for name, _ in ordered], [value for _, value in ordered], color=["#2a6f97" if name.startswith("replicad") else "#adb5bd" for name, _ in ordered]
    )
    axes.bar_label(bars, fmt="%.1f s", padding=3)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("seconds until the last node has it")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
