"""Munki repositories: which catalogs and manifests are held back, and by what."""

from __future__ import annotations

from replicad.model.members import MUNKI
from replicad.server.admin import nouns, queries
from replicad.server.admin.routes import Call


async def status(call: Call[queries.MunkiQuery]) -> nouns.MunkiStatus:
    """GET /munki: every share that is a Munki repository, or the one that is asked for."""
    services = call.services
    found = []
    for name, share in services.catalog.replica.trust.shares().items():
        if share.layout == MUNKI and call.asked.share in {None, name}:
            count, waiting = await services.repositories.waiting(name)
            indexes = [
                nouns.MunkiWaiting(
                    path=held.newest.path,
                    published=nouns.date(held.newest.hlc.ms),
                    shown=nouns.date(held.shown.hlc.ms) if held.shown else None,
                    missing=[reference.path for reference in held.missing],
                )
                for held in waiting[: queries.ANSWER_ITEMS_MAX]
            ]
            found.append(nouns.MunkiRepository(name, share.root, count, indexes))
    return nouns.MunkiStatus(found)
