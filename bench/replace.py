"""A 1 GiB file replaced, rolled back, deleted and restored 200 times under 50 clients that resume: everybody who ends with a file has one published version of it, whole.

Clients have lines of their own, as Macs do. Without that they take all of the machine, and what they compete with is the publishing.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from bench.load import cpu_s
from support.network import Network, Node
from support.resuming import Resuming

MIB = 1 << 20
VERSIONS = 3
DEADLINE_S = 7200.0
CUT = 4 / 3
"""A connection is broken off at a random place of so many times the file: a quarter is not. With more breaks hardly anybody ever ends: what replaces the file every few seconds leaves only one
resumption in three its version.
"""
AGAIN_S = 1.0
"""After a 404."""
KINDS = ("publish", "rollback", "rm", "undelete")


def main(arguments: list[str]) -> None:
    """Parse, run, print; exit code 1 if anybody has mixed bytes, or if too little happened to tell."""
    parser = argparse.ArgumentParser(prog="bench replace", description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--operations", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=3600.0, help="no more operations after that")
    parser.add_argument("--pause", type=float, default=1.0, help="mean seconds between two operations")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--rate", type=float, default=8.0, help="of a client's line, MiB/s: each has from half of that to twice that")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="replicad-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        network = Network(Path(folder) / "net", python=[sys.executable])
        try:
            node = network.found("ams1")
            node.cli("share", "create", "bench", "--public")
            Run(node, Path(folder), options).report()
        finally:
            for _ in network.close():
                pass


class Run:
    """One run: clients in threads, operations one after the other by the command line."""

    def __init__(self, node: Node, folder: Path, options: argparse.Namespace) -> None:
        self._node = node
        self._options = options
        self._dice = random.Random(options.seed)
        self._files: list[Path] = []
        self._clients: list[Resuming] = []
        self._published: set[str] = set()
        self._newest: Path | None = None
        self._deleted = False
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self.outcomes: Counter[str] = Counter()
        self.took_s: Counter[str] = Counter()
        self.versions: Counter[str] = Counter()
        self.wrong: list[str] = []
        for number in range(VERSIONS):
            self._files.append(folder / str(number) / "file.pkg")
            self._files[-1].parent.mkdir()
            hashed = hashlib.sha256()
            with self._files[-1].open("wb") as out:
                for _ in range(options.mib):
                    piece = os.urandom(MIB)
                    hashed.update(piece)
                    out.write(piece)
            self._published.add(hashed.hexdigest())

    def report(self) -> None:
        """Run and say what happened."""
        self._operate("publish")
        clients = [threading.Thread(target=self._client, args=(number,), daemon=True) for number in range(self._options.clients)]
        begun, spent_s, said = time.monotonic(), self._spent_s(), 0
        for client in clients:
            client.start()
        while self.done < self._options.operations and time.monotonic() - begun < self._options.seconds:
            self._operate(self._dice.choice(("undelete", "publish") if self._deleted else ("publish", "rollback", "rm")))
            if self.done >= said + 20:
                said = self.done
                self._say(time.monotonic() - begun)
            time.sleep(self._dice.uniform(0, 2 * self._options.pause))
        self._ended.set()
        for client in clients:
            client.join()
        self._say(time.monotonic() - begun)
        spent = [now - before for now, before in zip(self._spent_s(), spent_s, strict=True)]
        print(f"CPU: {spent[0]:.0f} s the daemon, {spent[1]:.0f} s the clients, {spent[2]:.0f} s the command line", flush=True)
        if self.wrong or self.done < self._options.operations or self.outcomes["downloads"] < self._options.clients:
            raise SystemExit(1)

    def _spent_s(self) -> tuple[float, float, float]:
        assert self._node.process is not None
        mine = os.times()
        return cpu_s([self._node.process.pid]), mine.user + mine.system, mine.children_user + mine.children_system

    @property
    def done(self) -> int:
        """Operations that had an effect."""
        return sum(self.outcomes[kind] for kind in KINDS)

    def _say(self, took_s: float) -> None:
        with self._lock:
            means = ", ".join(f"{kind} {self.took_s[kind] / max(1, self.outcomes[kind]):.1f}" for kind in KINDS)
            print(f"{self.done} operations in {took_s:.0f} s (mean seconds: {means}): {dict(self.outcomes)}", flush=True)
            restarts = sum(client.restarts for client in self._clients)
            print(f"  downloads of each version: {sorted(self.versions.values())}; parts given up: {restarts}; wrong: {self.wrong or 'none'}", flush=True)

    def _operate(self, kind: str) -> None:
        """Replace, roll back, delete or restore. What does not apply now (nothing to roll back to, the same content again) is refused or has no effect, and is counted apart."""
        arguments = ["bench/file.pkg"]
        if kind == "publish":
            self._newest = self._dice.choice([file for file in self._files if file != self._newest])
            arguments = [str(self._newest), "--share", "bench"]
        begun = time.monotonic()
        answer = self._node.run("--json", kind, *arguments, *(["--yes", "--expect", "1"] if kind == "rm" else []), deadline_s=600)
        took_s, idle = time.monotonic() - begun, kind == "publish" and answer.code == 0 and answer.json["published"][0]["state"] == "unchanged"
        if answer.code == 0:
            self._deleted = kind == "rm" or (self._deleted and idle)
        outcome = f"{kind}: exit {answer.code}" if answer.code else f"{kind}: unchanged" if idle else kind
        with self._lock:
            self.took_s[outcome] += took_s
            self.outcomes[outcome] += 1

    def _client(self, number: int) -> None:
        dice = random.Random(number)
        rate = self._options.rate * MIB * 2 ** dice.uniform(-1, 1)
        client = Resuming(
            self._node.downloads_port,
            "/bench/file.pkg",
            dice,
            if_range=number % 2 == 0,
            cut_bytes=int(self._options.mib * MIB * CUT),
            ended=self._ended.is_set,
            pace=lambda count: time.sleep(count / rate if count else AGAIN_S),
        )
        self._clients.append(client)
        while not self._ended.is_set():
            found = client.download(deadline_s=DEADLINE_S)
            with self._lock:
                if found is None:
                    return
                self.outcomes["downloads"] += 1
                self.outcomes["resumed"] += found.pieces > 1
                self.versions[found.sha256] += 1
                if found.sha256 not in self._published or found.tag != f'"{found.sha256}"':
                    self.wrong.append(f"client {number}: {found}")
