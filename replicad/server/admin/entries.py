"""Names: listing, showing and publishing them."""

from __future__ import annotations

from replicad.errors import NotFoundError
from replicad.model import paths
from replicad.model.entries import Listed
from replicad.model.ids import Digest, check_share_name
from replicad.model.records import STAGES_MAX
from replicad.server.admin import bodies, nouns, paging, queries, views
from replicad.server.admin.routes import Call
from replicad.services.ingest import Item, Published


def cursor(page: list[Listed], limit: int) -> str | None:
    """What ``after`` takes for the page that follows; None if this one is the last. A page never splits a name, so it may be short by almost one name's stages and yet not be the last."""
    if not page or len(page) <= limit - STAGES_MAX:
        return None
    return paging.write((page[-1].share, page[-1].key))


def place(given: str | None) -> tuple[str, str] | None:
    """The (share, key) in a cursor; InputError if it was not made by ``cursor``."""
    return paging.read(given, tuple[str, str])


async def list_(call: Call[queries.EntriesQuery]) -> nouns.Entries:
    """GET /entries: what this node shows, as far as the caller may see it; so a page may hold few, or none, and still have a ``next``."""
    asked = call.asked
    if asked.share is not None:
        views.find_share(call.services, check_share_name(asked.share))
    page = await call.services.catalog.entries(asked.share, prefix=paths.key(asked.prefix), after=place(asked.after), limit=asked.limit)
    members, checksums = views.members_now(call.services), await call.services.catalog.checksums([listed.content for listed in page])
    shown = [views.entry(listed, members, checksums) for listed in page if call.caller.reaches(listed.share, listed.path)]
    return nouns.Entries(shown, cursor(page, asked.limit))


async def find(call: Call[bodies.Nothing] | Call[queries.GetFileQuery]) -> Listed:
    """The entry of the path as this node shows it; NotFoundError says what is there instead."""
    share = views.find_share(call.services, call.share)
    key = paths.key(call.path)
    listed = await call.services.catalog.visible(share.name, key)
    if listed is not None:
        return listed
    for stage in share.stages:
        if await call.services.catalog.register(share.name, key, stage):
            raise NotFoundError(f"{share.name}/{call.path} is at stage {stage}, which this node does not carry", code="not-carried")
    raise NotFoundError(f"there is no {call.path!r} in {share.name}", hint=f"replicad ls {share.name}", code="no-such-file")


async def show(call: Call[bodies.Nothing]) -> nouns.EntryAnswer:
    """GET /shares/{share}/entries/{path}."""
    services = call.services
    shown = await find(call)
    found = [listed for stage in views.find_share(services, shown.share).stages for listed in await services.catalog.register(shown.share, shown.key, stage)]
    members = views.members_now(services)
    linked = views.linked_members(services) | {services.node}
    copies = [
        nouns.Copy(str(member.id), member.name, member.id in linked, views.percent(services, member.id, shown))
        for member in sorted(members.values(), key=lambda member: (member.id != services.node, member.name, member.id))
        if member.carries(shown.share, shown.stage) and not shown.taken_down
    ]
    checksums = await services.catalog.checksums([shown.content, *(listed.content for listed in found)])
    others = [views.entry(listed, members, checksums) for listed in found if listed.record != shown.record]
    return nouns.EntryAnswer(views.entry(shown, members, checksums), others, copies, await services.catalog.collides(shown.share, shown.key))


async def publish(call: Call[bodies.Publish]) -> nouns.Publication:
    """POST /shares/{share}/entries: names contents that were uploaded before, all of them or none. A caller with limits names those that it uploaded itself or may see; others are, to it, not here."""
    asked = call.asked
    items = [Item(path=one.path, content=Digest.parse(one.sha256), size=one.size) for one in asked.entries]
    published = await call.services.ingest.publish(
        call.share, items, stage=asked.stage, publisher=asked.publisher, urgent=asked.urgent, dry_run=asked.dry_run, caller=call.caller
    )
    return nouns.Publication(call.share, [published_noun(one) for one in published])


def published_noun(one: Published) -> nouns.Published:
    """One published file as the API shows it."""
    return nouns.Published(
        path=one.path,
        stage=one.stage,
        size=one.size,
        sha256=str(one.content),
        record=str(one.record) if one.record else None,
        state=one.state,
        former=one.former,
        hides=one.hides,
    )
