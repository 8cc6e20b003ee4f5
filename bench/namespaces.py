"""Network namespaces with shaped links: every host has an address of its own and a bounded rate up and down. Linux, root, iproute2. Everything is removed at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
LATENCY_MS = 100
"""How long the shaper lets packets queue."""
QUEUE_PACKETS = 1000
RANDOM, ALL = 0xFFFFF000 + 56, 0xFFFFFFFF
"""In the language of classic BPF: where a random number is read, and "yes" (linux/filter.h)."""


def command(*words: str | Path, check: bool = True) -> str:
    """Run it and return what it printed; RuntimeError with what it complained about."""
    ran = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if check and ran.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}: {ran.stderr.strip()[-300:]}")
    return ran.stdout


class Host:
    """One namespace and the processes in it. Number 0 is the source."""

    def __init__(self, number: int, folder: Path, prefix: str) -> None:
        self.number = number
        self.name = f"{prefix}-{number}"
        self._ends = (self.name, "eth0"), (f"{prefix}-hub", f"port{number}")
        self.address = f"10.78.0.{number + 1}"
        self.folder = folder / f"host{number}"
        self.folder.mkdir()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._ended_cpu_s = 0.0

    def inside(self, *words: str | Path) -> list[str]:
        """The command that runs ``words`` in this namespace."""
        return ["ip", "netns", "exec", self.name, *map(str, words)]

    def start(self, *words: str | Path, environ: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """A process that is ended with the network."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                self.inside(*words), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **(environ or {})}
            )
        self._processes.append(process)
        return process

    def shape(self, mbit: float) -> None:
        """Limit what it sends and what it is sent to that rate."""
        for namespace, device in self._ends:
            _tc(namespace, "qdisc", "replace", "dev", device, "root", "tbf", "rate", f"{mbit}mbit", "burst", "128k", "latency", f"{LATENCY_MS}ms")

    def lose(self, share: float, mbit: float) -> None:
        """Lose that share of the packets in both directions, at random, and limit the rest to that rate: a filter sends them to a queue of length zero."""
        dice = f"4,32 0 0 {RANDOM},53 1 0 {int(share * (1 << 32))},6 0 0 {ALL},6 0 0 0"
        for namespace, device in self._ends:
            _tc(namespace, "qdisc", "del", "dev", device, "root")
            _tc(namespace, "qdisc", "add", "dev", device, "root", "handle", "1:", "htb", "default", "1")
            for number, packets in ((1, QUEUE_PACKETS), (2, 0)):
                _tc(namespace, "class", "add", "dev", device, "parent", "1:", "classid", f"1:{number}", "htb", "rate", f"{mbit}mbit", "burst", "128k")
                _tc(namespace, "qdisc", "add", "dev", device, "parent", f"1:{number}", "pfifo", "limit", str(packets))
            _tc(namespace, "filter", "add", "dev", device, "parent", "1:", "protocol", "all", "bpf", "bytecode", dice, "classid", "1:2")

    def done(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether it has ended well; RuntimeError if it failed. What it used is counted."""
        if process.returncode is None:
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            if pid == 0:
                return False
            process.returncode = os.waitstatus_to_exitcode(status)
            self._ended_cpu_s += used.ru_utime + used.ru_stime
        if process.returncode:
            raise RuntimeError(f"exit {process.returncode}: {(self.folder / 'log').read_text(errors='replace')[-300:]}")
        return True

    def cpu_s(self) -> float:
        """CPU seconds of everything that runs here or was waited for by ``done``."""
        ticks = 0
        for pid in command("ip", "netns", "pids", self.name, check=False).split():
            with contextlib.suppress(OSError):
                ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:15]))
        return ticks / TICK + self._ended_cpu_s

    def sent_bytes(self) -> int:
        """Bytes that left this host, headers included."""
        return int(subprocess.run(self.inside("cat", "/sys/class/net/eth0/statistics/tx_bytes"), capture_output=True, check=True).stdout)

    def end(self) -> None:
        """End what was started here."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._processes:
            killer = threading.Timer(5.0, _kill, [process.pid])
            killer.start()
            process.wait()
            killer.cancel()


def _tc(namespace: str, *words: str) -> None:
    command("ip", "netns", "exec", namespace, "tc", *words)


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


@contextlib.contextmanager
def network(folder: Path, *, hosts: int, mbit: float) -> Iterator[list[Host]]:
    """That many hosts on one bridge, each limited to ``mbit`` up and down (0: not at all)."""
    prefix = f"bench{os.getpid()}"
    hub = f"{prefix}-hub"
    made: list[Host] = []
    try:
        command("ip", "netns", "add", hub)
        command("ip", "-n", hub, "link", "add", "br0", "type", "bridge")
        command("ip", "-n", hub, "link", "set", "br0", "up")
        for number in range(hosts):
            host = Host(number, folder, prefix)
            port = f"port{number}"
            command("ip", "netns", "add", host.name)
            made.append(host)
            command("ip", "link", "add", "eth0", "netns", host.name, "type", "veth", "peer", "name", port, "netns", hub)
            command("ip", "-n", hub, "link", "set", port, "master", "br0", "up")
            for device in ("lo", "eth0"):
                command("ip", "-n", host.name, "link", "set", device, "up")
            command("ip", "-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
            if mbit:
                host.shape(mbit)
        yield made
    finally:
        for host in made:
            host.end()
        for name in [*(host.name for host in made), hub]:
            command("ip", "netns", "del", name, check=False)
