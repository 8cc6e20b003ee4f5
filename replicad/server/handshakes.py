"""A door's TLS handshakes: bounded in time and in number, and strangers who never finish theirs keep nobody out."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from replicad.model.addresses import one_client, parse
from replicad.net.tls import TLS_HANDSHAKE_TIMEOUT_S
from replicad.telemetry.log import get

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

log = get(__name__)

TLS_HANDSHAKES_MAX = 512
"""Under way at one door. Each takes at most the timeout; a forty-node office that comes back dials in within a second."""
ACCEPT_AGAIN_S = 1.0
"""The pause after the system had no descriptor or memory for one more connection, as long as asyncio's."""


class Handshakes:
    """Of one door, which may have several listening sockets; ``group`` owns the tasks. With ``TLS_HANDSHAKES_MAX`` under way one more ends the oldest of the client that has the most: so a client takes room from others only as
    long as they have no use for it, and a proxy with many clients behind it needs no exception.
    """

    def __init__(self, group: asyncio.TaskGroup, accept: Callable[[], asyncio.Protocol], context: ssl.SSLContext) -> None:
        self._group = group
        self._accept = accept
        self._context = context
        self._under_way: dict[str, dict[asyncio.Task[None], None]] = {}

    async def run(self, listener: socket.socket) -> None:
        """Take connections until cancelled; then those that are not through are ended."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    connection, (host, *_) = await loop.sock_accept(listener)
                except OSError as error:
                    log.seldom("accept", "a connection cannot be taken; it will be tried again", reason=error.strerror)
                    await asyncio.sleep(ACCEPT_AGAIN_S)
                else:
                    self._begin(connection, one_client(parse(host)))
                    await asyncio.sleep(0)  # it begins; and whoever floods this door gets one turn among all others
        finally:
            for task in [task for tasks in self._under_way.values() for task in tasks]:
                task.cancel()

    def _begin(self, connection: socket.socket, client: str) -> None:
        if sum(map(len, self._under_way.values())) >= TLS_HANDSHAKES_MAX:
            self._make_room()
        task = self._group.create_task(self._shake(connection))
        self._under_way.setdefault(client, {})[task] = None
        task.add_done_callback(partial(self._forget, client))

    def _make_room(self) -> None:
        most, tasks = max(self._under_way.items(), key=lambda item: len(item[1]))
        log.seldom("full", "more TLS handshakes at once than the door has room for: the oldest are ended", client=most, handshakes=len(tasks))
        oldest = next(iter(tasks))
        self._forget(most, oldest)
        oldest.cancel()

    def _forget(self, client: str, task: asyncio.Task[None]) -> None:
        tasks = self._under_way.get(client, {})
        tasks.pop(task, None)
        if not tasks:
            self._under_way.pop(client, None)

    async def _shake(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(self._accept, connection, ssl=self._context, ssl_handshake_timeout=TLS_HANDSHAKE_TIMEOUT_S)
        except OSError as error:
            log.debug("no TLS handshake", reason=error)
        except Exception:
            log.exception("TLS handshake failed")
