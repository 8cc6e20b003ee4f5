"""What can bring a folder from one host to all others: replicad, and what people would use instead. Each is started first, then given the work, then asked who has it all."""

from __future__ import annotations

import hashlib
import http.client
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.namespaces import Host, command

PIECE = 1 << 20
READY_S = 60.0
REPLICAD = Path(sys.executable).with_name("replicad")


class System:
    """``hosts[0]`` has ``work``; ``copy`` tells where another one keeps it."""

    name = ""
    needs: Sequence[str] = ()

    def __init__(self, hosts: list[Host], work: Path) -> None:
        self.source, self.others, self.work = hosts[0], hosts[1:], work
        self.hosts = hosts
        self.jobs: dict[int, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Everything that may happen before the work is there."""

    def give(self) -> None:
        """The clock runs from here."""
        self.jobs = {host.number: self.fetch(host) for host in self.others}

    def fetch(self, host: Host) -> subprocess.Popen[bytes]:
        raise NotImplementedError

    def has(self, host: Host) -> bool:
        """Whether this host has all of it."""
        return host.done(self.jobs[host.number])

    def copy(self, host: Host) -> Path:
        return host.folder / "copy"


def until(what: str, ready: Callable[[], object]) -> None:
    """Wait until the callable ``ready`` says so."""
    end = time.monotonic() + READY_S
    while not ready():
        if time.monotonic() > end:
            raise RuntimeError(f"{what} did not happen in {READY_S:.0f} s")
        time.sleep(0.2)


def curl_list(base: str, work: Path) -> str:
    """For curl -K: every file of ``work`` below ``base``, each to its own name."""
    names = sorted(path.relative_to(work) for path in work.rglob("*") if path.is_file())
    return "".join(f'url = "{base}/{name}"\noutput = "{name}"\n' for name in names)


class Plain(System):
    """nginx at the source, curl everywhere else."""

    name, needs = "nginx + curl", ("nginx", "curl")

    def start(self) -> None:
        folder = self.source.folder
        scratch = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (folder / "nginx.conf").write_text(
            f"user root; daemon off; pid {folder}/pid; error_log {folder}/errors; events {{ worker_connections 1024; }}\n"
            f"http {{ access_log off; sendfile on; keepalive_requests 1000000; {scratch} server {{ listen {self.source.address}:80; root {self.work}; }} }}\n"
        )
        (folder / "list").write_text(curl_list(f"http://{self.source.address}", self.work))
        self.source.start("nginx", "-c", folder / "nginx.conf")
        until("nginx", (folder / "pid").exists)

    def fetch(self, host: Host) -> subprocess.Popen[bytes]:
        words = [
            "-sS",
            "--fail",
            "--create-dirs",
            "--parallel",
            "--parallel-max",
            "8",
            "--output-dir",
            str(self.copy(host)),
            "-K",
            str(self.source.folder / "list"),
        ]
        return host.start("curl", *words)


class Rsync(System):
    """A daemon at the source, everybody pulls."""

    name, needs = "rsync", ("rsync",)

    def start(self) -> None:
        configuration = self.source.folder / "rsyncd.conf"
        configuration.write_text(f"use chroot = no\n[files]\npath = {self.work}\nuid = 0\ngid = 0\n")
        self.source.start("rsync", "--daemon", "--no-detach", f"--config={configuration}", f"--address={self.source.address}")
        time.sleep(1)

    def fetch(self, host: Host) -> subprocess.Popen[bytes]:
        return host.start("rsync", "-a", "-W", f"rsync://{self.source.address}/files/", f"{self.copy(host)}/")


class Aria2(System):
    """BitTorrent with pieces of 1 MiB and a tracker at the source, which has the finished torrent before the clock runs."""

    name, needs = "aria2 (BitTorrent)", ("aria2c",)
    options = (
        "--enable-dht=false",
        "--bt-enable-lpd=false",
        "--enable-peer-exchange=true",
        "--seed-ratio=0",
        "--bt-max-peers=0",
        "--summary-interval=0",
        "--file-allocation=none",
        "--bt-request-peer-speed-limit=1000M",
        "--disk-cache=64M",
        "--bt-tracker-interval=5",
        "--bt-max-open-files=5000",
    )

    def start(self) -> None:
        self.torrent = self.source.folder / "work.torrent"
        self.torrent.write_bytes(torrent(self.work, f"http://{self.source.address}:6969/announce"))
        self.source.start(sys.executable, "-m", "bench.systems", self.source.address)
        self.source.start("aria2c", *self.options, "--check-integrity=true", "-d", self.work.parent, self.torrent)
        for host in self.others:
            hook = host.folder / "complete"
            hook.write_text(f"#!/bin/sh\ntouch {host.folder}/done\n")
            hook.chmod(0o755)
        time.sleep(4)

    def fetch(self, host: Host) -> subprocess.Popen[bytes]:
        return host.start("aria2c", *self.options, f"--on-bt-download-complete={host.folder}/complete", "-d", host.folder / "copy", self.torrent)

    def has(self, host: Host) -> bool:
        return (host.folder / "done").exists()

    def copy(self, host: Host) -> Path:
        return host.folder / "copy" / self.work.name


class Syncthing(System):
    """Full mesh without discovery, relays or limits; told to scan at once, so the delay of its watcher does not count."""

    name, needs = "Syncthing", ("syncthing",)

    def start(self) -> None:
        environ = {"STNOUPGRADE": "1"}
        ids: list[str] = []
        for host in self.hosts:
            environ["HOME"] = str(host.folder)
            home = f"--home={host.folder / 'home'}"
            subprocess.run(
                ["syncthing", "generate", home, "--no-default-folder", "--skip-port-probing"], env={**os.environ, **environ}, capture_output=True, check=True
            )
            ids.append(command("env", f"HOME={host.folder}", "syncthing", home, "--device-id").strip())
        devices = "".join(
            f'<device id="{own}" compression="never"><address>tcp://{host.address}:22000</address></device>' for own, host in zip(ids, self.hosts, strict=True)
        )
        members = "".join(f'<device id="{own}"></device>' for own in ids)
        self.ids = ids
        for host in self.hosts:
            self.copy(host).mkdir()
            (host.folder / "home" / "config.xml").write_text(
                f'<configuration version="36"><folder id="f" path="{self.copy(host)}" type="sendreceive" rescanIntervalS="3600" fsWatcherEnabled="false">{members}'
                f'<minDiskFree unit="%">0</minDiskFree></folder>{devices}<gui enabled="true" tls="false"><address>{host.address}:8384</address><apikey>key</apikey></gui>'
                "<options><globalAnnounceEnabled>false</globalAnnounceEnabled><localAnnounceEnabled>false</localAnnounceEnabled><relaysEnabled>false</relaysEnabled>"
                f"<listenAddress>tcp://{host.address}:22000</listenAddress><natEnabled>false</natEnabled><startBrowser>false</startBrowser><urAccepted>-1</urAccepted>"
                "<crashReportingEnabled>false</crashReportingEnabled><reconnectionIntervalS>1</reconnectionIntervalS></options></configuration>"
            )
            host.start("syncthing", "serve", f"--home={host.folder / 'home'}", "--no-browser", "--no-restart", environ={**environ, "HOME": str(host.folder)})
        for host in self.hosts:
            until("the mesh", lambda host=host: self._linked(host) >= len(self.hosts) - 1)

    def _ask(self, host: Host, path: str, *words: str) -> dict[str, object]:
        answer = command(*host.inside("curl", "-s", "-H", "X-API-Key: key", *words, f"http://{host.address}:8384{path}"), check=False)
        return dict(json.loads(answer or "{}"))

    def _linked(self, host: Host) -> int:
        connections = self._ask(host, "/rest/system/connections").get("connections", {})
        return sum(one["connected"] for one in connections.values())  # type: ignore[attr-defined]

    def give(self) -> None:
        self.files = sum(path.is_file() for path in self.work.rglob("*"))
        command("cp", "-al", f"{self.work}/.", self.copy(self.source))
        self._ask(self.source, "/rest/db/scan?folder=f", "-X", "POST")

    def has(self, host: Host) -> bool:
        seen = self._ask(self.source, f"/rest/db/completion?folder=f&device={self.ids[host.number]}")
        return (
            seen.get("completion") == 100
            and int(str(seen.get("globalItems", 0))) >= self.files
            and self._ask(host, "/rest/db/status?folder=f")["needTotalItems"] == 0
        )


class Replicad(System):
    """One ``publish --wait all``, timed whole; what every node then serves to its clients is what is compared."""

    name = "replicad"
    tls = "auto"

    def start(self) -> None:
        scheme = "http" if self.tls == "off" else "https"
        for host in self.hosts:
            door = f"{scheme}://{host.address}:8440"
            listen = ("--downloads", f"{host.address}:8480", "--peers", f"{host.address}:8440", "--admin", "127.0.0.1:8441", "--peers-url", door)
            self._cli(host, "init", "--name", f"n{host.number}", "--data", host.folder / "data", *listen)
            host.start(
                REPLICAD,
                "--config",
                host.folder / "replicad.toml",
                "serve",
                environ={"REPLICAD__PEERS__TLS": self.tls, "REPLICAD__DOWNLOADS__ON_MISSING": "404"},
            )
        for host in self.hosts:
            until("the daemon", lambda host=host: self._cli(host, "status", check=False))
        self._cli(self.source, "share", "create", "w", "--public")
        for host in self.others:
            self._cli(host, "peer", "add", self._cli(self.source, "peer", "invite", "--role", "mirror", "--share", "w").split()[-1])
        time.sleep(2)

    def _cli(self, host: Host, *words: str | Path, check: bool = True) -> str:
        return command(*host.inside("env", f"REPLICAD__PEERS__TLS={self.tls}", REPLICAD, "--config", host.folder / "replicad.toml", *words), check=check)

    def give(self) -> None:
        self.publish = self.source.start(REPLICAD, "--config", self.source.folder / "replicad.toml", "publish", self.work, "--share", "w", "--wait", "all")

    def has(self, host: Host) -> bool:  # noqa: ARG002
        return self.source.done(self.publish)

    def copy(self, host: Host) -> Path:
        wanted = host.folder / "wanted"
        wanted.write_text(curl_list(f"http://{host.address}:8480/w", self.work))
        command(*host.inside("curl", "-sS", "--fail", "--create-dirs", "--parallel", "--output-dir", host.folder / "copy", "-K", wanted))
        return host.folder / "copy"


class ReplicadPlain(Replicad):
    """The same without TLS between nodes."""

    name, tls = "replicad, TLS off", "off"


SYSTEMS: dict[str, type[System]] = {
    "replicad": Replicad,
    "replicad-plain": ReplicadPlain,
    "aria2": Aria2,
    "syncthing": Syncthing,
    "rsync": Rsync,
    "nginx": Plain,
}


def torrent(work: Path, announce: str) -> bytes:
    """A torrent of the folder (BEP 3)."""
    files = sorted(path for path in work.rglob("*") if path.is_file())
    whole, rest = bytearray(), b""
    for path in files:
        with path.open("rb") as file:
            while piece := file.read(PIECE - len(rest)):
                rest += piece
                if len(rest) == PIECE:
                    whole += hashlib.sha1(rest).digest()
                    rest = b""
    whole += hashlib.sha1(rest).digest() if rest else b""
    listed = [{"length": path.stat().st_size, "path": list(path.relative_to(work).parts)} for path in files]
    return bencode({"announce": announce, "info": {"files": listed, "name": work.name, "piece length": PIECE, "pieces": bytes(whole)}})


def bencode(value: object) -> bytes:
    match value:
        case int():
            return b"i%de" % value
        case str() | bytes():
            raw = value.encode() if isinstance(value, str) else value
            return b"%d:%b" % (len(raw), raw)
        case list():
            return b"l" + b"".join(map(bencode, value)) + b"e"
        case dict():
            return b"d" + b"".join(bencode(key) + bencode(value[key]) for key in sorted(value)) + b"e"
    raise TypeError(type(value))


class Tracker(http.server.BaseHTTPRequestHandler):
    """Tells everybody of everybody (BEP 3, 23)."""

    known: dict[bytes, None] = {}  # noqa: RUF012 - all requests share it
    lock = threading.Lock()

    def do_GET(self) -> None:
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query, encoding="latin-1"))
        own = socket.inet_aton(self.client_address[0]) + int(query.get("port", 0)).to_bytes(2, "big")
        with self.lock:
            self.known[own] = None
            peers = b"".join(one for one in self.known if one != own)
        body = bencode({"interval": 5, "min interval": 5, "peers": peers})
        self.send_response(http.client.OK)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    http.server.ThreadingHTTPServer((sys.argv[1], 6969), Tracker).serve_forever()
