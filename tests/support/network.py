"""Real networks of real daemons: each node has its own data directory, its own loopback ports and its own process, and everything is said to it through the real command line.

A test asks the ``network`` fixture for nodes::

    ams, ber = network.found("ams1"), network.add("ber1", to="ams1", role="publisher")
    ams.cli("share", "create", "munki")

Daemons are ended by their own ids when the test ends; what they logged is shown when it failed, and a traceback in a log fails the test.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.processes import PYTHON, Process
from support.waiting import wait_for

FIRST_PORT, LAST_PORT = 12_000, 32_000
"""Below Linux's ephemeral ports, so that no outgoing connection takes one of them between two looks."""
START_S = 60.0
CLI_S = 60.0
_worker, _workers = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_own = range(FIRST_PORT, LAST_PORT)[_worker::_workers]
"""No two workers take the same one between its probe and the daemon's start."""
_begin = os.getpid() * 61 % len(_own)
_ports = itertools.cycle((*_own[_begin:], *_own[:_begin]))


def free_port() -> int:
    """A loopback port that nobody listens on now; every call gives another one."""
    for port in _ports:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("unreachable: the cycle is endless")


@dataclass(frozen=True)
class Answer:
    """What one invocation of the command line said."""

    command: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@dataclass(frozen=True)
class Download:
    """What the downloads door answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Node:
    """One node. Its configuration is ``home/replicad.toml``, its data ``home/data``."""

    def __init__(self, home: Path, name: str, *, environ: Mapping[str, str] | None = None, python: Sequence[str] = PYTHON) -> None:
        self.home = home
        self.name = name
        self.config = home / "replicad.toml"
        self.data = home / "data"
        self.downloads_port, self.peers_port, self.admin_port = free_port(), free_port(), free_port()
        self.environ = dict(environ or {})
        self.python = python
        self.process: Process | None = None
        self.may_complain = False
        """Set by tests that provoke errors on purpose: tracebacks in the log are then no failure."""
        home.mkdir(parents=True)

    def run(self, *arguments: str, stdin: str | None = None, deadline_s: float = CLI_S, environ: Mapping[str, str] | None = None) -> Answer:
        """One invocation, whatever its exit code."""
        command = [sys.executable, "-m", "replicad", "--config", str(self.config), *arguments]
        done = subprocess.run(
            command, input=stdin or "", capture_output=True, text=True, timeout=deadline_s, check=False, env={**os.environ, **self.environ, **(environ or {})}
        )
        return Answer(arguments, done.returncode, done.stdout, done.stderr)

    def cli(self, *arguments: str, code: int = 0, stdin: str | None = None, deadline_s: float = CLI_S) -> Answer:
        """One invocation that must end with this exit code."""
        answer = self.run(*arguments, stdin=stdin, deadline_s=deadline_s)
        assert answer.code == code, f"replicad {' '.join(arguments)}: exit {answer.code}, expected {code}\n{answer.out}{answer.err}"
        return answer

    def ask(self, *arguments: str, code: int = 0) -> Any:
        """The same with ``--json``; the decoded object."""
        return self.cli("--json", *arguments, code=code).json

    def init(self, *options: str) -> Node:
        """``replicad init`` with this node's directory and ports."""
        doors = {"--downloads": self.downloads_port, "--peers": self.peers_port, "--admin": self.admin_port}
        addresses = [part for option, port in doors.items() for part in (option, f"127.0.0.1:{port}")]
        self.cli("init", "--name", self.name, "--data", str(self.data), *addresses, *options)
        return self

    def launch(self) -> Process:
        """Start the daemon without waiting for it."""
        self.process = Process([*self.python, "-m", "replicad", "--config", str(self.config), "serve"], log=self.home / "log", environ=self.environ)
        return self.process

    def start(self) -> Node:
        """Start the daemon and wait until it is ready."""
        self.launch().wait_for_output(": ready ", deadline_s=START_S)
        return self

    def stop(self) -> None:
        """SIGTERM; the daemon must end well."""
        assert self.process is not None
        code = self.process.stop()
        assert code == 0, self.process.output()

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()

    def restart(self) -> Node:
        """Stop well, start again."""
        self.stop()
        return self.start()

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.alive

    @property
    def id(self) -> str:
        return self.cli("id").out.strip()

    @property
    def log(self) -> str:
        path = self.home / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def url(self, path: str = "") -> str:
        """Of the downloads door."""
        return f"http://127.0.0.1:{self.downloads_port}/{path}"

    def api(self, path: str) -> Any:
        """The JSON of a GET below /api/v1/, asked over TCP with the root token."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=60)
        try:
            connection.request("GET", f"/api/v1/{path}", headers={"Authorization": f"Bearer {(self.data / 'admin.token').read_text().strip()}"})
            return json.load(connection.getresponse())
        finally:
            connection.close()

    @property
    def linked(self) -> set[str]:
        """The names of those it is linked with now. Like ``shares`` for looking again and again: a question to the API costs a hundredth of a process."""
        return {peer["name"] for peer in self.api("members")["peers"] if peer["linked"]}

    @property
    def shares(self) -> set[str]:
        """The names of the shares that it knows of."""
        return {share["name"] for share in self.api("shares")["shares"]}

    def download(self, path: str, *, method: str = "GET", **headers: str) -> Download:
        """One request to the downloads door; underscores in header names become dashes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.downloads_port, timeout=CLI_S)
        try:
            connection.request(method, f"/{path}", headers={name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return Download(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
        finally:
            connection.close()

    def wait_for_file(self, path: str, *, deadline_s: float = 60.0) -> Download:
        """Until the downloads door answers 200 to HEAD for ``share/path``."""
        wait_for(lambda: self.download(path, method="HEAD").status == 200, what=f"{path} on {self.name}", deadline_s=deadline_s)
        return self.download(path, method="HEAD")

    def resident_bytes(self, field: str = "VmRSS") -> int:
        """Memory of the running daemon; ``VmHWM`` for the most it ever had."""
        assert self.process is not None
        (line,) = [line for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines() if line.startswith(f"{field}:")]
        return int(line.split()[1]) * 1024


class Network:
    """The nodes of one test. Their doors say 404 for what is not here yet, unless ``environ`` says otherwise: so a test can ask a door whether a file has come. ``python`` runs the daemons: by default with Python's development mode, which is slow; measurements give the plain one."""

    def __init__(self, root: Path, *, environ: Mapping[str, str] | None = None, python: Sequence[str] = PYTHON) -> None:
        self._root = root
        self._python = python
        self._environ = {"REPLICAD__DOWNLOADS__ON_MISSING": "404", **(environ or {})}
        self.nodes: dict[str, Node] = {}

    def node(self, name: str, *options: str, environ: Mapping[str, str] | None = None) -> Node:
        """A node with its configuration, not started, in a network of its own."""
        node = self.nodes[name] = Node(self._root / name, name, environ={**self._environ, **(environ or {})}, python=self._python)
        return node.init(*options)

    def found(self, name: str, *options: str) -> Node:
        """A running node in a network of its own."""
        return self.node(name, *options).start()

    def add(self, name: str, *options: str, to: str, invite: tuple[str, ...] = ()) -> Node:
        """A running node that has joined the network of ``to``; ``invite`` are options of ``peer invite``."""
        newcomer = self.found(name, *options)
        token = self.nodes[to].cli("peer", "invite", *invite).lines[-1]
        newcomer.cli("peer", "add", "-", stdin=token)
        return newcomer

    def three(self, *, role: str = "publisher") -> tuple[Node, Node, Node]:
        """Three linked nodes, the last two with this role."""
        return self.found("ams1"), self.add("ber1", to="ams1", invite=("--role", role)), self.add("cdg1", to="ams1", invite=("--role", role))

    def wait_linked(self, *, deadline_s: float = 30.0) -> None:
        """Until every running node is linked with every other one."""
        running = {node.name: node for node in self.nodes.values() if node.alive}
        for name, node in running.items():
            wait_for(lambda name=name, node=node: running.keys() <= node.linked | {name}, what=f"links of {name}", deadline_s=deadline_s)  # type: ignore[misc]

    def close(self) -> Iterator[str]:
        """End every daemon; yields what each logged, and fails on a traceback that the test did not announce."""
        for node in self.nodes.values():
            if node.alive:
                node.kill()
        complaints = []
        for node in self.nodes.values():
            yield f"-- {node.name}\n{node.log[-8000:]}"
            if "Traceback" in node.log and not node.may_complain:
                complaints.append(node.name)
        assert not complaints, f"a traceback in the log of {', '.join(complaints)}"
