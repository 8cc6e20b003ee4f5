"""A swarm of real daemons over shaped links, one of them slow, frozen, resetting its connections or losing packets: how much longer the others take. Needs root. Writes bench/results/trouble.{md,json}.

Time is from ``publish`` until the last of the *other* nodes serves the file. The same without trouble is run in every round; medians count. Rounds are added to those
in the .json; remove that to begin anew.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.namespaces import Host, command, network
from bench.systems import REPLICAD, Replicad

RESULTS = Path(__file__).parent / "results" / "trouble"
MIB = 1 << 20
POLL_S = 0.1
BEGIN_S = 1.0
"""The node freezes, or begins to reset connections, so long after the work was given."""
RESETS_S = 0.3, 1.5
SLOW, LOSS = 0.01, 0.05


def main(arguments: list[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="bench trouble", description=__doc__)
    parser.add_argument("--nodes", type=int, default=5, help="besides the source, the one in trouble included")
    parser.add_argument("--mbit", type=float, default=100.0, help="of each node, up and down [100]")
    parser.add_argument("--mib", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit-s", type=float, default=200.0)
    parser.add_argument("--troubles", nargs="+", choices=list(TROUBLES), default=list(TROUBLES))
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the namespaces are removed then, too
    if os.geteuid() != 0 or shutil.which("tc") is None or shutil.which("ip") is None:
        print("needs root and iproute2: nothing measured")
        return
    seen: dict[str, list[float]] = json.loads(RESULTS.with_suffix(".json").read_text()) if RESULTS.with_suffix(".json").exists() else {}
    with tempfile.TemporaryDirectory(prefix="replicad-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        (Path(folder) / "work").mkdir()
        (Path(folder) / "work" / "big.bin").write_bytes(os.urandom(options.mib * MIB))
        for _ in range(options.rounds):
            whole_s = run("none", Path(folder), options)
            print(f"  {'none':8} last of the others {whole_s:6.1f} s", flush=True)
            for trouble in options.troubles:
                took_s = run(trouble, Path(folder), options)
                print(f"  {trouble:8} last of the others {took_s:6.1f} s   {took_s / whole_s:.2f} x", flush=True)
                seen.setdefault(trouble, []).append(round(took_s / whole_s, 3))
    RESULTS.with_suffix(".json").write_text(json.dumps(seen) + "\n")
    RESULTS.with_suffix(".md").write_text(page(seen, options))


def run(trouble: str, folder: Path, options: argparse.Namespace) -> float:
    """One swarm; seconds until the last node without trouble serves the file. RuntimeError if that takes too long."""
    with tempfile.TemporaryDirectory(dir=folder) as run_folder, network(Path(run_folder), hosts=options.nodes + 1, mbit=options.mbit) as hosts:
        system = Replicad(hosts, folder / "work")
        system.start()
        with TROUBLES.get(trouble, _nothing)(hosts[1], options.mbit):
            begun = time.monotonic()
            hosts[0].start(REPLICAD, "--config", hosts[0].folder / "replicad.toml", "publish", system.work, "--share", "w")
            left = hosts[2:]
            while left := [host for host in left if not serves(host)]:
                if time.monotonic() - begun > options.limit_s:
                    raise RuntimeError(f"{trouble}: {len(left)} nodes are not done in {options.limit_s:.0f} s")
                time.sleep(POLL_S)
            return time.monotonic() - begun


def serves(host: Host) -> bool:
    """Whether its downloads door gives the file."""
    return "200" in command(*host.inside("curl", "-sI", "-o", "/dev/null", "-w", "%{http_code}", f"http://{host.address}:8480/w/big.bin"), check=False)


@contextmanager
def _nothing(_host: Host, _mbit: float) -> Iterator[None]:
    yield


@contextmanager
def slow(host: Host, mbit: float) -> Iterator[None]:
    """A hundredth of the rate."""
    host.shape(mbit * SLOW)
    yield


@contextmanager
def lossy(host: Host, mbit: float) -> Iterator[None]:
    """A twentieth of its packets is lost, either way."""
    host.lose(LOSS, mbit)
    yield


@contextmanager
def frozen(host: Host, _mbit: float) -> Iterator[None]:
    """SIGSTOP in the middle."""
    pids = [int(pid) for pid in command("ip", "netns", "pids", host.name).split()]
    timer = threading.Timer(BEGIN_S, lambda: [os.kill(pid, signal.SIGSTOP) for pid in pids])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def resets(host: Host, _mbit: float) -> Iterator[None]:
    """Every now and then all its connections are reset."""
    over = threading.Event()

    def reset() -> None:
        wait_s = BEGIN_S
        while not over.wait(wait_s):
            command(*host.inside("ss", "--kill", "--tcp", "state", "established"), check=False)
            wait_s = random.uniform(*RESETS_S)

    thread = threading.Thread(target=reset)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


TROUBLES = {"slow": slow, "frozen": frozen, "resets": resets, "lossy": lossy}


def page(seen: dict[str, list[float]], options: argparse.Namespace) -> str:
    """The table for people."""
    what = {
        "slow": f"{SLOW:.0%} of the others' rate",
        "frozen": f"SIGSTOP {BEGIN_S:.0f} s after the beginning",
        "resets": f"all its connections reset every {RESETS_S[0]} to {RESETS_S[1]} s",
        "lossy": f"{LOSS:.0%} of its packets lost in each direction",
    }
    machine = f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    lines = [
        "# One node in trouble",
        "",
        f"`make bench BENCH=trouble`: {options.mib} MiB from one source to {options.nodes} nodes at {options.mbit:g} Mbit/s, TLS, real daemons; {machine}.",
        "*x*: until the last of the *other* nodes has it, over the same without trouble in the same round.",
        "",
        "| trouble | x, median | rounds |",
        "|---|---|---|",
        *(f"| {name}: {what[name]} | {statistics.median(times):.2f} | {', '.join(f'{time_:.2f}' for time_ in times)} |" for name, times in seen.items()),
        "",
    ]
    return "\n".join(lines)
