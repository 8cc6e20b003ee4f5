"""A 1 GiB file replaced, rolled back, deleted and restored 200 times under 50 clients that resume: everybody who ends with a file has one published version of it, whole."""

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

from support.network import Network, Node
from support.resuming import Resuming

MIB = 1 << 20
VERSIONS = 3
DEADLINE_S = 3600.0


def main(arguments: list[str]) -> None:
    """Parse, run, print; exit code 1 if anybody has mixed bytes."""
    parser = argparse.ArgumentParser(prog="bench replace", description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--operations", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=3600.0, help="no more operations after that")
    parser.add_argument("--clients", type=int, default=50)
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
        self._published: set[str] = set()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self.outcomes: Counter[str] = Counter()
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
        self._operate(0)
        clients = [threading.Thread(target=self._client, args=(number,)) for number in range(self._options.clients)]
        for client in clients:
            client.start()
        begun, number = time.monotonic(), 1
        while number < self._options.operations and time.monotonic() - begun < self._options.seconds:
            self._operate(number)
            number += 1
        self._operate(0)
        self._ended.set()
        for client in clients:
            client.join()
        took_s = time.monotonic() - begun
        print(f"{number} operations in {took_s:.0f} s: {dict(self.outcomes)}; wrong: {self.wrong or 'none'}", flush=True)
        if self.wrong:
            raise SystemExit(1)

    def _operate(self, number: int) -> None:
        """Replace, roll back, delete, restore; what does not apply now (nothing to roll back to) is refused by the program and counted."""
        kind = ("publish", "rollback", "rm", "undelete")[number % 4]
        arguments = [str(self._dice.choice(self._files)), "--share", "bench"] if kind == "publish" else ["bench/file.pkg"]
        answer = self._node.run(kind, *arguments, *(["--yes", "--expect", "1"] if kind == "rm" else []), deadline_s=600)
        self.outcomes[kind if answer.code == 0 else f"{kind}: exit {answer.code}"] += 1

    def _client(self, number: int) -> None:
        client = Resuming(
            self._node.downloads_port, "/bench/file.pkg", random.Random(number), if_range=number % 2 == 0, cut_bytes=max(2, self._options.mib * MIB * 2 // 3)
        )
        while not self._ended.is_set():
            found = client.download(deadline_s=DEADLINE_S, ended=self._ended.is_set)
            if found is None:
                return
            with self._lock:
                self.outcomes["downloads"] += 1
                self.outcomes["resumed"] += found.pieces > 1
                if found.sha256 not in self._published or found.tag != f'"{found.sha256}"':
                    self.wrong.append(f"client {number}: {found}")
