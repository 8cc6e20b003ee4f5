"""Whether a stopwatch tells what is forbidden from what is absent: medians of both, asked in turn, for each kind of share and each credential. Writes bench/results/absent.md."""

from __future__ import annotations

import argparse
import base64
import hashlib
import http.client
import json
import os
import random
import re
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from replicad.server.downloads.passwords import GUESSES
from support.network import Network, Node

RESULTS = Path(__file__).parent / "results"
TARGET = 0.05
USERS, TOKENS = 48, 128
NEAR, FAR = "10.4.0.1", "10.9.0.1"
BODY = b"customer a's package"
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
FRESH = "a new wrong password each time"
Shown = tuple[str, tuple[str, ...]]
"""A query string and fields."""


def main(arguments: list[str]) -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(prog="bench absent", description=__doc__)
    parser.add_argument("--requests", type=int, default=1000, help="of each of the two [1000]")
    parser.add_argument("--only", default="", help="the cases whose name contains this; writes nothing")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="replicad-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")) as folder, node(Path(folder)) as served:
        rows = [measure(served.downloads_port, *case, count=options.requests) for case in cases(served) if options.only in " ".join(case[:2])]
    if not options.only:
        (RESULTS / "absent.md").write_text(report(rows, options.requests))


@contextmanager
def node(folder: Path) -> Iterator[Node]:
    """A daemon with as many kinds of private shares as there are, each with the same file, and the largest lists of users and tokens that a client could tell by its time."""
    (folder / "a.pkg").write_bytes(BODY)
    (folder / "other.pkg").write_bytes(BODY)
    network = Network(folder / "net", python=[sys.executable], environ={"REPLICAD__DOWNLOADS__TRUSTED_PROXIES": "127.0.0.0/8"})
    try:
        served = network.found("ams1")
        for share in ("sealed", "private", "narrow"):
            served.cli("share", "create", share)
            if share != "sealed":
                give_access(served, share, networks=["10.4.0.0/16"] if share == "narrow" else [])
            served.cli("publish", str(folder / "a.pkg"), str(folder / "other.pkg"), "--share", share)
        yield served
    finally:
        for _ in network.close():
            pass


def give_access(served: Node, share: str, *, networks: list[str]) -> None:
    """Every way in."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    for first in range(0, USERS, 16):
        change = {"passwords": {f"user{number}": f"secret {number}" for number in range(first, first + 16)}, "networks": networks, "prestage_key": pem}
        ask_admin(served, "PATCH", f"shares/{share}", change)
    for number in range(TOKENS):
        ask_admin(served, "POST", f"shares/{share}/tokens", {"name": f"token{number}"})


def ask_admin(served: Node, method: str, path: str, body: Mapping[str, object]) -> None:
    """Over TCP, with the root token."""
    connection = http.client.HTTPConnection("127.0.0.1", served.admin_port, timeout=60)
    token = (served.data / "admin.token").read_text().strip()
    connection.request(method, f"/api/v1/{path}", json.dumps(body), {"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status >= 400:
        raise RuntimeError(response.read().decode())
    connection.close()


def prestage_token() -> str:
    """In every respect as it should be, but of a stranger."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    said = [{"alg": "RS256", "typ": "JWT"}, {"sub": "AppManifest", "iss": "JSS", "exp": 4_000_000_000}]
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in said]
    signature = key.sign(".".join(parts).encode(), padding.PKCS1v15(), hashes.SHA256())
    return ".".join([*parts, base64.urlsafe_b64encode(signature).decode().rstrip("=")])


def basic(user: str, password: str) -> str:
    return f"Authorization: Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def credentials(served: Node) -> Iterator[tuple[str, Callable[[int], Shown]]]:
    """What is shown at the nth request; none of it lets anybody in."""
    query = urlsplit(served.cli("url", "sign", "sealed/other.pkg", "--expires", "24h").out.strip()).query
    expired, token = re.sub(r"until=\d+", "until=1000", query), prestage_token()
    yield "nothing", lambda _: ("", ())
    yield "a wrong password, always the same", lambda _: ("", (basic("user1", "wrong"),))
    yield "a user that does not exist", lambda _: ("", (basic("mallory", "wrong"),))
    yield "an unknown bearer token", lambda _: ("", ("Authorization: Bearer rshare_guessed",))
    yield "an expired signed URL", lambda _: (expired, ())
    yield "a URL signed for another file", lambda _: (query, ())
    yield "a PreStage token of a stranger", lambda _: (f"token={token}", ())
    yield FRESH, lambda number: ("", (basic(f"user{number % USERS}", f"guess {number}"), f"X-Forwarded-For: 10.4.{number % 50}.{number // GUESSES % 250}"))


Case = tuple[str, str, str, str, Callable[[int], Shown]]
"""The kind of share, the credential, a forbidden target, an absent one and what is shown."""


def cases(served: Node) -> Iterator[Case]:
    """Every kind with every credential; then what else could tell that a file is there; then absent against absent, which shows how much a difference means."""
    forbidden, absent = hashlib.sha256(BODY).hexdigest(), hashlib.sha256(b"nobody has this").hexdigest()
    for credential, shown in credentials(served):
        for share in ("private", "sealed", "narrow"):
            if credential != FRESH or share == "private":
                yield share, credential, f"/{share}/a.pkg", "/absent/a.pkg", shown
        if credential in {"nothing", "an unknown bearer token", "a wrong password, always the same"}:
            yield "private, no such file", credential, "/private/a.pkg", "/private/b.pkg", shown
            yield "blob", credential, f"/-/blob/{forbidden}", f"/-/blob/{absent}", shown
            yield "metalink", credential, "/-/metalink/private/a.pkg.meta4", "/-/metalink/absent/a.pkg.meta4", shown
            yield "directory", credential, "/private/", "/absent/", shown
            yield "absent twice (noise)", credential, "/missing/a.pkg", "/absent/a.pkg", shown


def measure(port: int, kind: str, credential: str, forbidden: str, absent: str, shown: Callable[[int], Shown], *, count: int) -> tuple[str, str, float, float]:
    """Medians in microseconds. Each pair is asked over one connection, in an order that dice decide."""
    count = min(count, USERS * GUESSES // 4) if credential == FRESH else count
    dice, took = random.Random(kind + credential), {forbidden: [], absent: []}  # type: ignore[var-annotated]
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answers = set()
        for number in range(-20, count):
            for target in dice.sample([forbidden, absent], 2):
                answer, elapsed_s = timed(connection, request(target, *shown(max(number, 0)), near=kind != "narrow"))
                answers.add(answer)
                if number >= 0:
                    took[target].append(elapsed_s)
    if len(answers) != 1:
        raise RuntimeError(f"{kind}, {credential}: the answers differ: {answers}")
    medians = [statistics.median(took[target]) * 1e6 for target in (forbidden, absent)]
    print(f"{kind:<22} {credential:<34} {medians[0]:9.1f} us forbidden {medians[1]:9.1f} us absent   ratio {medians[0] / medians[1]:.3f}", flush=True)
    return kind, credential, medians[0], medians[1]


def request(target: str, query: str, fields: tuple[str, ...], *, near: bool) -> bytes:
    """From an address inside the networks that ``narrow`` serves, or outside."""
    where = () if any(field.startswith("X-Forwarded-For") for field in fields) else (f"X-Forwarded-For: {NEAR if near else FAR}",)
    lines = [f"GET {target}{f'?{query}' if query else ''} HTTP/1.1", "Host: bench", *fields, *where]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"


def timed(connection: socket.socket, asked: bytes) -> tuple[bytes, float]:
    """(the answer without its date, seconds until all of it was here)."""
    begun = time.perf_counter()
    connection.sendall(asked)
    found = b""
    while not is_complete(found):
        piece = connection.recv(65536)
        if not piece:
            raise RuntimeError(f"the door closed after {found!r}")
        found += piece
    elapsed_s = time.perf_counter() - begun
    return re.sub(rb"\r\nDate: [^\r]*", b"", found), elapsed_s


def is_complete(found: bytes) -> bool:
    head, end, body = found.partition(b"\r\n\r\n")
    length = LENGTH.search(head + b"\r\n")
    return bool(end) and length is not None and len(body) >= int(length[1])


def report(rows: list[tuple[str, str, float, float]], count: int) -> str:
    """The page of results."""
    worst = max(abs(forbidden / absent - 1) for _, _, forbidden, absent in rows)
    lines = "\n".join(f"| {kind} | {credential} | {forbidden:.1f} | {absent:.1f} | {forbidden / absent:.3f} |" for kind, credential, forbidden, absent in rows)
    return (
        f"# Forbidden and absent by the stopwatch\n\n`make bench BENCH=absent`: {count} requests of each, in turn over one connection to a real daemon; shares with {USERS} users, {TOKENS} tokens and a PreStage "
        f"key. Medians in microseconds. Target: they differ by less than {TARGET:.0%}; the worst here {worst:.1%}.\n\n| share | shown | forbidden | absent | ratio |\n|---|---|---|---|---|\n{lines}\n"
    )
