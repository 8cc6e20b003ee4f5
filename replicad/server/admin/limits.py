"""Limits on transfers with other nodes, pauses, and reading the configuration again."""

from __future__ import annotations

from replicad.model.ids import NodeId
from replicad.server.admin import bodies, nouns, views
from replicad.server.admin.routes import Call
from replicad.server.admin.services import Services

ORIGINS = {True: "set", False: "configuration"}


async def show(call: Call[bodies.Nothing]) -> nouns.Limits:
    """GET /limits."""
    return _limits(call.services)


async def change(call: Call[bodies.LimitsChange]) -> nouns.Limits:
    """PATCH /limits: counts at once, is kept over a restart, and goes before the configuration."""
    await call.services.limits.set(rates=call.asked.rates, windows=call.asked.windows)
    return _limits(call.services)


async def limit_peer(call: Call[bodies.PeerLimit]) -> nouns.Changed:
    """PUT /members/{id}/limit: in each direction; ``none`` lifts it."""
    member = views.find_other(call.services, call.request.match_info["id"])
    await call.services.limits.limit_peer(member.id, call.asked.rate)
    return nouns.Changed(str(member.id), member.name)


async def pause_peer(call: Call[bodies.Nothing]) -> nouns.Changed:
    """POST /members/{id}/pause: no content goes in either direction; everything else does."""
    return await _pause(call, paused=True)


async def resume_peer(call: Call[bodies.Nothing]) -> nouns.Changed:
    """POST /members/{id}/resume."""
    return await _pause(call, paused=False)


async def reload(call: Call[bodies.Nothing]) -> nouns.Reloaded:
    """POST /reload: reads the configuration again. An error of code ``configuration`` if it is refused; then nothing has changed."""
    found = call.services.reload()
    return nouns.Reloaded(found.applied, found.restart)


async def _pause(call: Call[bodies.Nothing], *, paused: bool) -> nouns.Changed:
    member = views.find_other(call.services, call.request.match_info["id"])
    await call.services.limits.pause_peer(member.id, paused=paused)
    return nouns.Changed(str(member.id), member.name)


def _limits(services: Services) -> nouns.Limits:
    members = views.members_now(services)
    names = {str(member.id): member.name for member in members.values()}
    windows, are_set = services.limits.windows
    return nouns.Limits(
        limits=[nouns.Limit(row.scope, names.get(row.scope, ""), row.now, row.rate, ORIGINS[row.is_set]) for row in services.limits.rows()],
        windows=[str(window) for window in windows],
        windows_origin=ORIGINS[are_set],
        zone=services.limits.zone,
        paused=[views.label(members, NodeId.parse(node)) for node in services.limits.paused],
    )
