"""Opening a door: an application or server bound to TCP or to a Unix socket until the stack unwinds."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, cast

from aiohttp import web

from replicad.crypto import certificate as certificates
from replicad.errors import ConfigurationError, ReplicadError
from replicad.net.tls import server_context
from replicad.server.admin.application import RUNNER as ADMIN_RUNNER
from replicad.server.handshakes import Handshakes
from replicad.server.peers.application import RUNNER as PEERS_RUNNER
from replicad.telemetry.log import get

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from replicad.model.ids import Digest
    from replicad.server.downloads.server import DownloadServer

log = get(__name__)

BACKLOG = 1024
SHUTDOWN_S = 3.0
"""How long answers under way may take to end when the door closes; the whole stop has 10 s."""
CONNECTIONS_MAX = 1024
"""Of the doors for nodes and for people, each, counted from the end of the TLS handshake: a node of a full mesh of 32 with four requests under way with each has 160."""
UNSENT_BYTES = 256 << 10
"""What the kernel takes from us for a connection beyond what is on its way to the client (tcp(7), TCP_NOTSENT_LOWAT). Without it a client that reads 1 KB/s holds up to 4 MiB, and a thousand of them bring the whole
machine to TCP's memory bound, where every connection's window shrinks."""
SOCKET_PATH_BYTES_MAX = 107
"""Linux: sun_path has 108 bytes, the last one zero."""


def peers_runner(application: web.Application) -> web.BaseRunner:
    """For the peer door."""
    return web.AppRunner(application, **PEERS_RUNNER)


def admin_runner(application: web.Application) -> web.BaseRunner:
    """For each listener of the admin door."""
    return web.AppRunner(application, **ADMIN_RUNNER)


async def open_tcp(
    stack: AsyncExitStack, runner: web.BaseRunner, *, host: str, port: int, key: str, tls: ssl.SSLContext | None = None, connections_max: int = CONNECTIONS_MAX
) -> None:
    """Listen on a TCP address (an empty host: every interface) until the stack unwinds. ``key`` is the configuration key, for people. When there are ``connections_max``, the oldest that has not asked
    anything yet makes room for a new one; if all have, the new one is cut off. Raises ReplicadError("listen").
    """
    await _setup(stack, runner)
    await _listen(stack, _bounded(runner, connections_max), host=host, port=port, key=key, tls=tls)


async def open_downloads(stack: AsyncExitStack, server: DownloadServer, *, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
    """The same for the downloads door, which counts for itself and answers whoever is too many."""
    stack.push_async_callback(server.close, timeout_s=SHUTDOWN_S)
    await _listen(stack, server, host=host, port=port, key="downloads.listen", tls=tls)


async def _listen(stack: AsyncExitStack, accept: Callable[[], asyncio.Protocol], *, host: str, port: int, key: str, tls: ssl.SSLContext | None) -> None:
    address = f"{host}:{port}"
    with _explained(f"{key} = {address}"):
        listeners = await _bind(stack, host, port)
    if tls is None:
        for listener in listeners:
            server = await asyncio.get_running_loop().create_server(accept, sock=listener, backlog=BACKLOG)
            stack.callback(server.close)
    else:
        group = await asyncio.TaskGroup().__aenter__()
        stack.push_async_callback(group.__aexit__, None, None, None)  # an error that unwinds the stack is none of the group's: it stays as it is
        handshakes = Handshakes(group, accept, tls)
        for listener in listeners:
            stack.callback(group.create_task(handshakes.run(listener)).cancel)
    log.info("listening", door=key.partition(".")[0], address=address)


async def _bind(stack: AsyncExitStack, host: str, port: int) -> list[socket.socket]:
    """Listening sockets, one for each address that the host's name has; of an empty one for IPv4 and, where the system has it, IPv6."""
    found = await asyncio.get_running_loop().getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners = []
    for family, where in dict.fromkeys((family, where) for family, _, _, _, where in found):
        try:
            listener = socket.create_server(where, family=family, backlog=BACKLOG)
        except OSError as error:
            if host or error.errno != errno.EAFNOSUPPORT:
                raise
            continue
        stack.callback(listener.close)
        listener.setblocking(False)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)  # connections inherit it
        listeners.append(listener)
    return listeners


async def open_socket(stack: AsyncExitStack, runner: web.BaseRunner, path: Path) -> None:
    """Listen on a Unix socket, for its owner and group. One that a dead daemon left is replaced: whoever calls holds the data directory's lock. Raises ConfigurationError, ReplicadError("listen")."""
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        raise ConfigurationError(
            f"admin.socket: {path} is longer than {SOCKET_PATH_BYTES_MAX} bytes", hint='set a shorter one: [admin] socket = "/run/replicad/admin.sock"'
        )
    await _setup(stack, runner)
    with _explained(f"admin.socket = {path}"):
        _remove(path)
        old = os.umask(0o117)
        try:
            await web.UnixSite(runner, path, backlog=BACKLOG).start()
        finally:
            os.umask(old)
    stack.callback(_remove, path)


def _bounded(runner: web.BaseRunner, connections_max: int) -> Callable[[], asyncio.Protocol]:
    """What makes the protocol of each new connection."""
    if (server := runner.server) is None:
        raise RuntimeError("a runner that is not set up has no server")

    def accept() -> asyncio.Protocol:
        connections = [one for one in server.connections if one.transport is not None]
        if len(connections) >= connections_max:
            log.seldom("connections", "more connections than the door has room for", connections=len(connections))
            if (silent := next((one for one in connections if not one._request_count), None)) is None:  # noqa: SLF001 - aiohttp does not tell otherwise
                return _CutOff()
            silent.force_close()
        return server()

    return accept


class _CutOff(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).abort()


def _remove(path: Path) -> None:
    """Only ever a socket: a misspelt admin.socket must not cost a file. For anything else binding says "Address already in use"."""
    if path.is_socket():
        path.unlink(missing_ok=True)


async def _setup(stack: AsyncExitStack, runner: web.BaseRunner) -> None:
    await runner.setup()
    stack.push_async_callback(runner.cleanup)


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise ReplicadError(f"cannot listen on {what}: {reason}", code="listen", hint="is another daemon running there?") from None


def read_token(path: Path) -> str:
    """The bearer token of the admin door. ConfigurationError if it cannot be read or is empty."""
    try:
        token = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the admin door's token {path}: {getattr(error, 'strerror', None) or error}") from None
    if not token:
        raise ConfigurationError(f"the admin door's token {path} is empty", hint="put a long random word into it, mode 0600")
    return token


def peer_tls(tls: str | tuple[Path, Path], *, own: tuple[Path, Path]) -> tuple[Digest | None, ssl.SSLContext | None]:
    """Fingerprint and context of the peer door's certificate: the self-made one at ``own`` ("auto"), the operator's, or none ("off"). Both are (certificate file, key file)."""
    if tls == "off":
        return None, None
    if isinstance(tls, str):
        return certificates.ensure(*own), server_context(*own)
    return certificates.load(tls[0]), server_context(*tls)
