"""What a door does with connections that never finish their TLS handshake, on both loops."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import ExitStack
from pathlib import Path

import pytest

from replicad.crypto import certificate as certificates
from replicad.net.tls import TLS_HANDSHAKES_MAX, client_context, server_context

pytestmark = pytest.mark.sockets


async def test_handshakes_that_never_end_have_a_bound_and_make_room_when_they_go(tmp_path: Path) -> None:
    certificate, key = certificates.make()
    (tmp_path / "chain.pem").write_bytes(certificate)
    (tmp_path / "key.pem").write_bytes(key)
    made = asyncio.Event()
    connections = 0

    class Counted(asyncio.Protocol):
        def __init__(self) -> None:
            nonlocal connections
            connections += 1
            if connections == TLS_HANDSHAKES_MAX:
                made.set()

    server = await asyncio.get_running_loop().create_server(
        Counted, "127.0.0.1", 0, ssl=server_context(tmp_path / "chain.pem", tmp_path / "key.pem"), backlog=1024
    )
    async with server:
        port = server.sockets[0].getsockname()[1]

        async def shake() -> str | None:
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_context(), server_hostname="127.0.0.1")
            version = writer.get_extra_info("ssl_object").version()
            writer.transport.abort()
            return version if isinstance(version, str) else None

        with ExitStack() as silent:
            for _ in range(TLS_HANDSHAKES_MAX):
                silent.enter_context(socket.create_connection(("127.0.0.1", port)))
            await made.wait()
            with pytest.raises((ConnectionError, ssl.SSLError)):
                await shake()
        for _ in range(1000):  # the loop hears of one end after the other
            try:
                assert await shake() == "TLSv1.3"
                break
            except (ConnectionError, ssl.SSLError):
                await asyncio.sleep(0)
        else:
            pytest.fail("those who went still take room")
