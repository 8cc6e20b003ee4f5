"""What the log says of those whom the peer door turns away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.model.addresses import one_client, parse

if TYPE_CHECKING:
    from aiohttp import web

    from replicad.errors import ReplicadError
    from replicad.telemetry.log import Log


def tell(log: Log, sentence: str, request: web.Request, error: ReplicadError) -> None:
    """One line a minute for each client and code: anybody can be turned away as often as they like."""
    log.seldom((one_client(parse(request.remote or "")), error.error_code), sentence, address=request.remote, code=error.error_code, reason=error.message)
