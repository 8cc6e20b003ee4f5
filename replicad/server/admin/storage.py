"""The disk: what takes how much of it, reading it again, and what may go."""

from __future__ import annotations

import shutil
from collections.abc import Iterable

from replicad.catalog import Damage
from replicad.model.ids import Digest
from replicad.server.admin import bodies, nouns
from replicad.server.admin.routes import Call
from replicad.server.admin.services import Services
from replicad.services.collect import Unneeded
from replicad.services.reconcile import reconcile

SHOWN_MAX = 1000


async def usage(call: Call[bodies.Nothing]) -> nouns.StoreUsage:
    """GET /store/usage."""
    services = call.services
    store, totals = services.store, await services.catalog.usage()
    partials, uploads, aside = await store.partial_sizes(), (await store.resumables.sizes()).values(), store.aside
    return nouns.StoreUsage(
        used_bytes=store.used_bytes,
        free_bytes=store.free_bytes(),
        total_bytes=shutil.disk_usage(services.facts.data).total,
        reserve_bytes=store.reserve_bytes(),
        quota_bytes=store.quota_bytes,
        held=nouns.Amount(totals.contents, totals.content_bytes),
        wanted=nouns.Amount(totals.wanted, totals.wanted_bytes),
        partials=nouns.Amount(len(partials), sum(partials)),
        uploads=nouns.Amount(len(uploads), sum(uploads)),
        aside=nouns.Amount(len(aside), sum(aside.values())),
        records=nouns.Amount(totals.records, totals.record_bytes),
        places=[nouns.Place(*place) for place in await services.catalog.places()],
        damaged=[await damaged(services, one) for one in await services.catalog.damaged()],
    )


async def scrub(call: Call[bodies.Scrub]) -> nouns.Scrubbed:
    """POST /store/scrub: answers when everything was read."""
    found = await call.services.scrub.whole(call.asked.sample)
    return nouns.Scrubbed(found.files, found.size_bytes, [await damaged(call.services, one) for one in found.damaged[:SHOWN_MAX]])


async def collect(call: Call[bodies.Collect]) -> nouns.Collected:
    """POST /store/gc."""
    services, dry_run = call.services, call.asked.dry_run
    found = await (services.collect.preview() if dry_run else services.collect.collect())
    return nouns.Collected(
        due=[await _unneeded(services, one) for one in found.due[:SHOWN_MAX]],
        files=len(found.due),
        bytes=sum(one.size for one in found.due),
        waiting=nouns.Amount(len(found.waiting), sum(one.size for one in found.waiting)),
        removed=not dry_run,
    )


async def repair(call: Call[bodies.Nothing]) -> nouns.Repaired:
    """POST /store/repair."""
    found = await reconcile(call.services.catalog, call.services.store)
    return nouns.Repaired(
        lost=_digests(found.lost),
        adopted=_digests(found.adopted),
        corrupt=_digests(found.corrupt),
        unclaimed=_digests(found.unclaimed),
        partials=found.partials_removed,
        unreadable=_digests(found.unreadable),
    )


async def damaged(services: Services, one: Damage) -> nouns.Damaged:
    """As the API shows it."""
    name = await _name(services, one.content)
    return nouns.Damaged(str(one.content), name, one.size, nouns.date(one.found_ms), one.detail, one.content in services.store.aside)


async def _unneeded(services: Services, one: Unneeded) -> nouns.Unneeded:
    goes_ms = one.since_ms + services.collect.grace_ms
    return nouns.Unneeded(str(one.content), await _name(services, one.content), one.size, nouns.date(one.since_ms), nouns.date(goes_ms))


async def _name(services: Services, content: Digest) -> str:
    return "/".join(await services.catalog.name_of(content) or ())


def _digests(contents: Iterable[Digest]) -> list[str]:
    return [str(content) for content in sorted(contents)]
