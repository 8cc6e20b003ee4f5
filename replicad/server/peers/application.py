"""The peer door's application: what is mounted, and the bounds on whoever connects."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from aiohttp import web

from replicad.protocol.wire import JOIN_BYTES_MAX
from replicad.server.bad_requests import BadRequestLog
from replicad.server.peers.join import JoinDoor
from replicad.server.peers.link import LinkDoor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from replicad.net.link import LinkConfig
    from replicad.net.links import LinkTable
    from replicad.protocol.handshake import Identity

LINE_BYTES_MAX = 4096
FIELD_BYTES_MAX = 4096
IDLE_S = 30.0
"""A connection that sends no whole request for so long is closed: the first one after connecting, too."""
SHUTDOWN_S = 3.0


class RunnerOptions(TypedDict):
    """Keyword arguments of ``aiohttp.web.AppRunner`` for this door."""

    access_log: None
    keepalive_timeout: float
    max_line_size: int
    max_field_size: int
    shutdown_timeout: float
    handler_cancellation: bool
    logger: BadRequestLog


RUNNER: RunnerOptions = {
    "access_log": None,
    "keepalive_timeout": IDLE_S,
    "max_line_size": LINE_BYTES_MAX,
    "max_field_size": FIELD_BYTES_MAX,
    "shutdown_timeout": SHUTDOWN_S,
    "handler_cancellation": True,
    "logger": BadRequestLog(),
}


def make(
    *,
    links: LinkTable,
    identity: Callable[[], Identity],
    answer_join: Callable[[bytes], Awaitable[bytes]],
    routes: Iterable[web.RouteDef] = (),
    link_config: LinkConfig | None = None,
) -> web.Application:
    """The application; run it with ``web.AppRunner(application, **RUNNER)``. ``routes``: what serves content (blobs, manifests, batches), mounted as it is."""
    application = web.Application(client_max_size=JOIN_BYTES_MAX)
    link_door = LinkDoor(links, identity, config=link_config)
    application.add_routes(link_door.routes())
    application.on_shutdown.append(link_door.stop)
    application.add_routes(JoinDoor(answer_join).routes())
    application.add_routes(list(routes))
    return application
