"""All connections of the downloads door: how many there may be, in all and of one client, and how they end."""

from __future__ import annotations

import asyncio
from collections import Counter
from http import HTTPStatus
from typing import TYPE_CHECKING

from replicad.model.addresses import one_client, parse
from replicad.server.downloads.clients import is_in
from replicad.server.downloads.connections import Connection
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from replicad.server.downloads.config import DownloadsConfig
    from replicad.server.downloads.requests import Request
    from replicad.server.downloads.respond import Response
    from replicad.telemetry.access_log import Answered

log = get(__name__)
FULL = b"Retry-After: 5\r\n"


class DownloadServer:
    """A protocol factory for ``loop.create_server``. ``note`` hears of every answer."""

    def __init__(
        self, handler: Callable[[Request], Awaitable[Response]], config: DownloadsConfig, *, note: Callable[[Answered], object] = lambda _: None
    ) -> None:
        self.handler = handler
        self.config = config
        self.note = note
        self.connections: set[Connection] = set()
        self._of_client: Counter[str] = Counter()

    def __call__(self) -> Connection:
        """A new connection."""
        return Connection(self)

    def admit(self, connection: Connection) -> None:
        """Count it; beyond a bound it gets a 503 at once. Trusted proxies have many clients."""
        self.connections.add(connection)
        address = parse(connection.client)
        client = one_client(address)
        self._of_client[client] += 1
        if len(self.connections) > self.config.connections_max:
            log.seldom("connections", "more clients than connections_max", connections=len(self.connections))
        elif self._of_client[client] > self.config.connections_per_client_max and not is_in(address, self.config.proxies):
            log.seldom(client, "a client has more connections than connections_per_client_max", client=client)
        else:
            return
        connection.turn_away(HTTPStatus.SERVICE_UNAVAILABLE, FULL)

    def dismiss(self, connection: Connection) -> None:
        """It has ended."""
        if connection in self.connections:
            self.connections.discard(connection)
            client = one_client(parse(connection.client))
            self._of_client[client] -= 1
            if not self._of_client[client]:
                del self._of_client[client]

    async def close(self, *, timeout_s: float) -> None:
        """Idle clients leave at once, answers under way have so long to end. Stop listening first."""
        for connection in list(self.connections):
            connection.finish()
        answering = [connection.task for connection in self.connections if connection.task is not None]
        if answering:
            await asyncio.wait(answering, timeout=timeout_s)
        for connection in list(self.connections):
            connection.cut()
        if answering:
            await asyncio.wait(answering)
