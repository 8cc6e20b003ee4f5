"""The clients' door's certificate follows its files: over real handshakes, on both loops."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from replicad.crypto import certificate as certificates
from replicad.errors import ConfigurationError
from replicad.net.tls import LiveCertificate, seen_certificate

pytestmark = pytest.mark.sockets


class Files:
    def __init__(self, folder: Path) -> None:
        self.certificate, self.key = folder / "chain.pem", folder / "key.pem"

    def put(self, certificate: bytes, key: bytes) -> None:
        """As certbot and its like do: new files, renamed over the old ones."""
        for path, content in ((self.certificate, certificate), (self.key, key)):
            fresh = path.with_suffix(".new")
            fresh.write_bytes(content)
            fresh.rename(path)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    files = Files(tmp_path)
    files.put(*certificates.make())
    return files


@asynccontextmanager
async def door(live: LiveCertificate) -> AsyncIterator[int]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=live.context)
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def connected(
    port: int, *, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, name: str | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name or "127.0.0.1")
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("name", [None, "downloads.example.org"], ids=["no server name", "server name"])
async def test_new_files_are_shown_to_new_connections(files: Files, name: str | None) -> None:
    live = LiveCertificate(files.certificate, files.key)
    first = certificates.load(files.certificate)
    async with door(live) as port, asyncio.TaskGroup() as group:
        following = group.create_task(live.follow(look_s=0.01))
        async with connected(port, name=name) as (reader, writer):
            assert seen_certificate(writer.transport) == first
            files.put(*certificates.make())
            second = certificates.load(files.certificate)
            assert second != first

            async def shown() -> bool:
                async with connected(port, name=name) as (_, other):
                    return seen_certificate(other.transport) == second

            end = asyncio.get_running_loop().time() + 30
            while not await shown():
                assert asyncio.get_running_loop().time() < end
            writer.write(b"still here\n")
            assert await reader.readline() == b"still here\n"
        following.cancel()


async def test_files_that_cannot_be_used_change_nothing_and_are_told_of(files: Files) -> None:
    live = LiveCertificate(files.certificate, files.key)
    first, old_key = certificates.load(files.certificate), files.key.read_bytes()
    (certificate, key), (_, foreign_key) = certificates.make(), certificates.make()
    async with door(live) as port:
        for broken in ((certificate, foreign_key), (certificate, old_key), (b"", key), (b"garbage", key), (certificate, b"")):
            files.put(*broken)
            live.refresh()
            assert str(files.certificate) in live.problem
            async with connected(port) as (_, writer):
                assert seen_certificate(writer.transport) == first
        files.key.unlink()
        live.refresh()
        assert live.problem
        files.put(certificate, key)
        live.refresh()
        assert live.problem == ""
        async with connected(port) as (_, writer):
            assert seen_certificate(writer.transport) == certificates.load(files.certificate)


async def test_versions(files: Files) -> None:
    live = LiveCertificate(files.certificate, files.key)
    async with door(live) as port:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            async with connected(port, version=version) as (_, writer):
                assert writer.get_extra_info("ssl_object").version() == version.name.replace("_", ".")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"), pytest.raises((ssl.SSLError, ConnectionError)):
            async with connected(port, version=ssl.TLSVersion.TLSv1_1):
                pass


def test_a_door_without_usable_files_does_not_open(files: Files) -> None:
    files.key.write_bytes(certificates.make()[1])
    with pytest.raises(ConfigurationError, match="cannot use the TLS certificate"):
        LiveCertificate(files.certificate, files.key)
