"""What this node is and how it is."""

from __future__ import annotations

import shutil

from replicad import __version__
from replicad.catalog import Usage
from replicad.server.admin import bodies, nouns, views
from replicad.server.admin.diagnosis import findings, troubles
from replicad.server.admin.routes import Call
from replicad.server.admin.services import Services


async def status(call: Call[bodies.Nothing]) -> nouns.Status:
    """GET /status."""
    services = call.services
    usage = await services.catalog.usage()
    linked = views.linked_members(services)
    others = [member for member in views.members_now(services).values() if member.id != services.node]
    total_bytes = usage.content_bytes + usage.wanted_bytes
    problems = await troubles(services)
    return nouns.Status(
        node=_node(services, degraded=bool(problems)),
        store=_store(services, usage),
        stages=_stages(services, usage),
        peers=[
            views.peer(services, member, linked=member.id in linked, total_bytes=total_bytes) for member in sorted(others, key=lambda one: (one.name, one.id))
        ],
        problems=problems,
    )


async def node(call: Call[bodies.Nothing]) -> nouns.NodeAnswer:
    """GET /node."""
    return nouns.NodeAnswer(_node(call.services, degraded=bool(await troubles(call.services))))


async def rotate(call: Call[bodies.Rotate]) -> nouns.Rotated:
    """POST /node/rotate: answers when the new key is in place; the daemon starts anew with it right after."""
    services = call.services
    former = services.node
    node = await services.membership.rotate(call.asked.token)
    services.renewal.set()
    return nouns.Rotated(str(node), str(former))


async def doctor(call: Call[bodies.Nothing]) -> nouns.Examined:
    """GET /doctor."""
    return nouns.Examined(await findings(call.services))


async def configuration(call: Call[bodies.Nothing]) -> nouns.Settings:
    """GET /config."""
    return call.services.settings()


def _node(services: Services, *, degraded: bool) -> nouns.Node:
    facts = services.facts
    own = views.members_now(services).get(services.node)
    return nouns.Node(
        id=str(services.node),
        name=own.name if own else facts.name,
        site=own.site if own else facts.site,
        network=str(services.catalog.network),
        role=own.role if own else "none",
        version=__version__,
        started=nouns.date(facts.started_ms),
        uptime_s=max(0, services.clock_ms() - facts.started_ms) // 1000,
        state="degraded" if degraded else "ok",
        downloads_url=facts.downloads_url,
    )


def _store(services: Services, usage: Usage) -> nouns.StoreUse:
    return nouns.StoreUse(
        files=usage.contents,
        used_bytes=services.store.used_bytes,
        free_bytes=services.store.free_bytes(),
        quota_bytes=services.store.quota_bytes,
        total_bytes=shutil.disk_usage(services.facts.data).total,
        wanted=usage.wanted,
        wanted_bytes=usage.wanted_bytes,
        taken_down=len(services.catalog.replica.trust.taken_down()),
    )


def _stages(services: Services, usage: Usage) -> dict[str, int]:
    """In the order of the shares' stages, lowest first; names that no share has any more come last."""
    names = [name for share in services.catalog.replica.trust.shares().values() for name in share.stages]
    return {name: usage.stages.get(name, 0) for name in [*dict.fromkeys(names), *(name for name in usage.stages if name not in names)]}
