"""The demo's nodes: real daemons in a temporary directory, on free loopback ports, with real keys. However the demo ends, no process and no file of it stays behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from replicad.cli.client import Client, path_of
from replicad.errors import ReplicadError, UnreachableError
from replicad.server.admin import bodies, nouns

SHARE = "demo"
START_S = 30.0
STOP_S = 10.0
LOOK_S = 0.05
LOG_TAIL_BYTES = 2000
SOCKET_PATH_BYTES_MAX = 107
"""sun_path of Linux's unix(7), without its terminating zero."""
_PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class DemoNode:
    """One node of the demo and its process."""

    name: str
    home: Path
    downloads: str
    peers: str
    admin: str
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def config(self) -> Path:
        """Its configuration."""
        return self.home / "replicad.toml"

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self.home / "data"

    @property
    def client(self) -> Client:
        """Its admin socket."""
        return Client(socket_path=str(self.data / "admin.sock"))

    @property
    def page(self) -> str:
        """The address of its page, with the token in the fragment."""
        return f"http://{self.admin}/ui/#token={(self.data / 'admin.token').read_text().strip()}"

    def make(self, environ: dict[str, str]) -> None:
        """``replicad init``."""
        self.home.mkdir()
        doors = ("--downloads", self.downloads, "--peers", self.peers, "--admin", self.admin)
        command = [*_PROGRAM, "--config", str(self.config), "init", "--name", self.name, "--data", str(self.data), *doors]
        done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)  # noqa: S603 - ourselves
        if done.returncode:
            raise ReplicadError(f"{self.name} could not be made: {done.stderr.strip()}")

    def start(self, environ: dict[str, str]) -> None:
        """``replicad serve``, in a session of its own so that Ctrl-C ends the demo first, and ended by the kernel should the demo be killed."""
        with (self.home / "log").open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603 - ourselves
                [*_PROGRAM, "--config", str(self.config), "serve"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environ,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - the demo has no threads yet
            )

    def wait_until_up(self, deadline_s: float) -> None:
        """Until it answers; raises with the end of its log if it ends instead."""
        while True:
            try:
                self.client.ask("GET", path_of("node"), answer=nouns.NodeAnswer, timeout_s=5.0)
            except UnreachableError:
                self.check_alive()
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(LOOK_S)
            else:
                return

    def check_alive(self) -> None:
        """Raises with the end of its log if its process has ended."""
        if self.process is not None and (code := self.process.poll()) is not None:
            said = (self.home / "log").read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
            raise ReplicadError(f"{self.name} ended with code {code}:\n{said}")


_PROGRAM = (sys.executable, "-m", "replicad")


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def running(count: int) -> Iterator[list[DemoNode]]:
    """That many nodes of one network, the first of them its admin, with a public share; afterwards they are gone."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("REPLICAD")}
    with _directory() as directory, contextlib.ExitStack() as processes:
        nodes = _places(directory, count)
        processes.callback(_stop, nodes)
        for node in nodes:
            node.make(environ)
            node.start(environ)
        deadline_s = time.monotonic() + START_S
        for node in nodes:
            node.wait_until_up(deadline_s)
        first, *others = nodes
        first.client.ask("POST", path_of("shares"), answer=nouns.ShareAnswer, body=bodies.NewShare(name=SHARE, public=True))
        for node in others:
            token = first.client.ask("POST", path_of("invites"), answer=nouns.Invited, body=bodies.Invite(shares=[SHARE])).token
            node.client.ask("POST", path_of("members", "join"), answer=nouns.Joined, body=bodies.Join(token=token))
        yield nodes


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    """A temporary directory whose path leaves room for a Unix socket's."""
    place = tempfile.gettempdir()
    if len(os.fsencode(place)) + len("/replicad-demo-12345678/demo16/data/admin.sock") > SOCKET_PATH_BYTES_MAX:
        place = "/tmp"  # noqa: S108 - the directory made in it is for its owner alone
    with tempfile.TemporaryDirectory(prefix="replicad-demo-", dir=place, ignore_cleanup_errors=True) as directory:
        yield Path(directory)


def _places(directory: Path, count: int) -> list[DemoNode]:
    """Names, directories and free ports. All ports are held open together while they are chosen, so they differ."""
    with contextlib.ExitStack() as doors:
        held = [doors.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3 * count)]
        addresses = [f"127.0.0.1:{door.getsockname()[1]}" for door in held]
    names = [f"demo{index + 1}" for index in range(count)]
    doors_of = zip(names, addresses[::3], addresses[1::3], addresses[2::3], strict=True)
    return [DemoNode(name, directory / name, downloads, peers, admin) for name, downloads, peers, admin in doors_of]


def _stop(nodes: list[DemoNode]) -> None:
    """End every process, politely first. Nothing interrupts this."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    alive = [node.process for node in nodes if node.process is not None]
    for process in alive:
        process.terminate()
    deadline_s = time.monotonic() + STOP_S
    for process in alive:
        try:
            process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
