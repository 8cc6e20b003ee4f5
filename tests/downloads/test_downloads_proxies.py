"""The table of requests again, through the reverse proxies that stand before such doors: whatever they pass on must come out as it went in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from downloads_cases import CASES, Case, differences, fill
from downloads_world import Client, World, request_of

from replicad.crypto import certificate
from support.network import free_port
from support.processes import Process
from support.waiting import eventually

pytestmark = pytest.mark.sockets

NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log; {user}
events {{ worker_connections 256; }}
http {{
  access_log off; large_client_header_buffers 4 32k; {temporary}
  server {{
    listen 127.0.0.1:{port}{front}; ssl_certificate {folder}/tls.crt; ssl_certificate_key {folder}/tls.key;
    location / {{ proxy_pass {scheme}://127.0.0.1:{door}; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""
HAPROXY = """
global
  tune.bufsize 65536
defaults
  mode http
  timeout connect 10s
  timeout client 60s
  timeout server 60s
listen door
  bind 127.0.0.1:{port}{front}
  server door 127.0.0.1:{door}{back}
"""
OWN_ANSWERS = {
    "nginx": {
        "TRACE",
        "OPTIONS of everything",
        "up and out",
        "up and out, escaped",
        "NUL",
        "bad escape",
        "GET expecting 100-continue",
        "If-None-Match two fields",
    },
    "haproxy": {"many headers", "absolute form", "upgrade declined"},
}
"""What the proxy judges or answers by itself."""


def nginx(world: World, *, port: int, door: int, tls: bool) -> list[str]:
    config = world.root / "nginx.conf"
    temporary = " ".join(f"{kind}_temp_path {world.root}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    config.write_text(
        NGINX.format(
            folder=world.root, port=port, door=door, temporary=temporary, user="user root;", front=" ssl" if tls else "", scheme="https" if tls else "http"
        )
    )
    return ["nginx", "-c", str(config), "-e", f"{world.root}/nginx.log"]


def haproxy(world: World, *, port: int, door: int, tls: bool) -> list[str]:
    config, both = world.root / "haproxy.cfg", world.root / "both.pem"
    both.write_bytes((world.root / "tls.crt").read_bytes() + (world.root / "tls.key").read_bytes())
    config.write_text(HAPROXY.format(port=port, door=door, front=f" ssl crt {both}" if tls else "", back=" ssl verify none" if tls else ""))
    return ["haproxy", "-db", "-f", str(config)]


PROXIES = {"nginx": nginx, "haproxy": haproxy}


@asynccontextmanager
async def behind(name: str, world: World, *, tls: bool) -> AsyncIterator[Client]:
    """A client of the proxy before the door of ``world``."""
    certificate.ensure(world.root / "tls.crt", world.root / "tls.key")
    async with world.serve(tls=tls) as direct:
        port = free_port()
        process = Process(PROXIES[name](world, port=port, door=direct.port, tls=tls), log=world.root / "proxy.out")
        try:

            async def accepts() -> bool:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    return False
                writer.close()
                return True

            await eventually(accepts, what=f"{name}: {process.output()}")
            async with Client(port, tls=tls, server=direct.server) as client:
                yield client
        finally:
            process.stop()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.needs(name)) for name in PROXIES])
async def test_requests_through_a_proxy(tmp_path: Path, name: str, tls: bool) -> None:
    world = fill(World(tmp_path))
    passed_on: dict[str, Case] = {case: CASES[case] for case in CASES.keys() - OWN_ANSWERS[name] if not CASES[case].raw}
    assert len(passed_on) >= 80
    failures = {}
    async with behind(name, world, tls=tls) as client:
        for case in sorted(passed_on):
            asked = passed_on[case]
            reply = await client.ask(request_of(asked.target, *asked.headers, "Connection: close", method=asked.method))
            if found := differences(asked, reply, through=name):
                failures[case] = found
    assert failures == {}
    assert world.lost == []
