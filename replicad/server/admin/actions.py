"""Writes down who did what: every write that somebody asked for, whatever became of it, every login, and every request of somebody who was not known. The row is there before the answer is; of an answer that is streamed when it ends, however it does.

Refused logins and the like are what a stranger can cause, so only some are written per minute, and the next row says how many were not: nobody can push the rest of the log out with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiohttp import web
from msgspec import UNSET

from replicad.catalog import Action
from replicad.errors import NotAllowedError, ReplicadError, UnauthorizedError
from replicad.server.admin.authority import named_paths
from replicad.server.admin.identity import Handler, origin
from replicad.server.admin.routes import Call
from replicad.server.admin.services import Services
from replicad.server.admin.trace import trace
from replicad.telemetry.log import get

log = get(__name__)

REFUSALS_PER_MINUTE = 10
TEXT_MAX = 500
"""Characters of a target or detail."""
PATHS_SHOWN_MAX = 5
_TOLD = ("name", "role", "shares", "stage", "to", "record", "dry_run", "merge", "reason", "publisher", "expires_s", "since")
"""Fields of a request that may be written down: whatever is not named here could be a secret."""


def describe(call: Call[Any]) -> str:
    """What the request says besides its path, without secrets."""
    return "; ".join(_parts(call))


def _parts(call: Call[Any]) -> Iterator[str]:
    names = [name for name in named_paths(call) if name != call.request.match_info.get("path")]
    if names:
        yield ", ".join(names[:PATHS_SHOWN_MAX]) + (f" and {len(names) - PATHS_SHOWN_MAX} more" if len(names) > PATHS_SHOWN_MAX else "")
    for name in _TOLD:
        value = getattr(call.asked, name, None)
        if isinstance(value, list):
            value = ",".join(str(one) for one in value)
        if value not in (None, "", False, UNSET):
            yield f"{name} {value}"


_REFUSED = (UnauthorizedError.http_status, NotAllowedError.http_status)


class Recorder:
    """The middleware of both listeners; stands around the one that makes documents of errors."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._minute = -1
        self._refused = 0
        self._unwritten = 0

    def middleware(self) -> Any:
        """For ``web.Application``."""

        @web.middleware
        async def record(request: web.Request, handler: Handler) -> web.StreamResponse:
            response = await handler(request)
            known = trace(request)
            by_stranger = known.caller is None and (known.writes or response.status in _REFUSED)
            if (by_stranger and self._may_write()) or (known.caller is not None and known.writes):
                await self._write(request, response)
            return response

        return record

    def _may_write(self) -> bool:
        minute = self._services.monotonic_ms() // 60_000
        if minute != self._minute:
            self._minute, self._refused = minute, 0
        self._refused += 1
        self._unwritten += self._refused > REFUSALS_PER_MINUTE
        return self._refused <= REFUSALS_PER_MINUTE

    async def _write(self, request: web.Request, response: web.StreamResponse) -> None:
        """An action that cannot be written is in the log of the daemon at least; it has happened, so its answer stands."""
        unwritten, self._unwritten = self._unwritten, 0
        more = f"{unwritten} refused logins before were not written" if unwritten else ""
        known = trace(request)
        action = Action(
            seq=0,
            at_ms=self._services.clock_ms(),
            caller="" if known.caller is None else known.caller.name,
            origin=origin(request),
            request=known.request_id,
            method=request.method,
            target=_text(request.path),
            detail=_text("; ".join(part for part in (known.detail, more) if part)),
            status=response.status,
            code=known.code,
        )
        try:
            await self._services.catalog.append_action(action)
        except ReplicadError as error:
            log.error("an action could not be written to the audit log", **{**action._asdict(), "reason": error.message})


def _text(given: str) -> str:
    """Bounded, and valid Unicode."""
    return given[:TEXT_MAX].encode(errors="replace").decode()
