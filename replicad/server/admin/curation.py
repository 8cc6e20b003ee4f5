"""What becomes of names after publishing, their history, and contents that are served nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from replicad.catalog.history import LAST
from replicad.errors import NotFoundError
from replicad.model import paths
from replicad.model.entries import Revision
from replicad.model.ids import Digest, RecordId, Stamp
from replicad.model.records import Entry, Takedown
from replicad.server.admin import bodies, nouns, paging, queries, views
from replicad.server.admin.routes import Call
from replicad.server.admin.services import Services
from replicad.services.curation import Change


async def promote(call: Call[bodies.Promote]) -> nouns.Changes:
    """POST /shares/{share}/promote."""
    asked = call.asked
    return _changes(call, [await call.services.curation.promote(call.share, asked.path, to=asked.to, source=asked.source, publisher=asked.publisher)])


async def remove(call: Call[bodies.Remove]) -> nouns.Changes:
    """POST /shares/{share}/remove: all of it or nothing."""
    asked = call.asked
    changes = await call.services.curation.remove(
        call.share, asked.paths, stage=asked.stage, publisher=asked.publisher, dry_run=asked.dry_run, expect=asked.expect
    )
    return _changes(call, changes)


async def undelete(call: Call[bodies.Undelete]) -> nouns.Changes:
    """POST /shares/{share}/undelete: all of it or nothing."""
    asked = call.asked
    return _changes(call, await call.services.curation.undelete(call.share, asked.path, stage=asked.stage, publisher=asked.publisher, dry_run=asked.dry_run))


async def rollback(call: Call[bodies.Rollback]) -> nouns.Changes:
    """POST /shares/{share}/rollback."""
    asked = call.asked
    return _changes(call, [await call.services.curation.rollback(call.share, asked.path, to=asked.to, stage=asked.stage, publisher=asked.publisher)])


def _changes(call: Call[Any], changes: Sequence[Change]) -> nouns.Changes:
    serves = call.services.catalog.serves
    shown = [
        nouns.Change(one.path, one.stage, one.kind, one.size, str(one.content), str(one.record) if one.record else None, serves(one.content)) for one in changes
    ]
    return nouns.Changes(call.share, shown, len({paths.key(one.path) for one in changes}))


async def history(call: Call[queries.PageQuery]) -> nouns.Revisions:
    """GET /shares/{share}/history/{path}: every record about the name, of all stages. NotFoundError if there never was one."""
    share, asked = views.find_share(call.services, call.share).name, call.asked
    before = paging.read(asked.after, tuple[Stamp, RecordId]) or LAST
    found = await call.services.catalog.history(share, paths.key(call.path), before=before, limit=asked.limit)
    if not found and before == LAST:
        raise NotFoundError(f"nothing was ever said about {call.path!r} in {share}", hint=f"replicad ls {share}", code="no-such-file")
    members = views.members_now(call.services)
    more = paging.write(found[-1].record.order) if len(found) == asked.limit else None
    return nouns.Revisions([_revision(one, members) for one in found], more)


def _revision(one: Revision, members: views.Members) -> nouns.Revision:
    body, header = one.body, one.record.header
    named = body if isinstance(body, Entry) else None
    return nouns.Revision(
        record=str(one.record.id),
        time=nouns.date(header.hlc.ms),
        origin=views.label(members, header.origin),
        publisher=body.publisher,
        path=body.path,
        stage=body.stage,
        kind=one.kind,
        source=named.source or None if named else None,
        state=one.state,
        why_not=one.why_not,
        size=named.size if named else None,
        sha256=str(named.content) if named else None,
        available=one.held and not one.taken_down,
        taken_down=one.taken_down,
    )


async def takedowns(call: Call[queries.PageQuery]) -> nouns.Takedowns:
    """GET /takedowns: newest first."""
    services = call.services
    members = views.members_now(services)
    standing, following = paging.page(services.catalog.replica.trust.taken_down().items(), call.asked, lambda one: (-one[1].header.hlc, str(one[0])))
    found = []
    for content, record in standing:
        share, path = await services.catalog.name_of(content) or ("", "")
        reason = record.body.reason if isinstance(record.body, Takedown) else ""
        found.append(nouns.Takedown(str(content), share, path, reason, views.label(members, record.header.origin), nouns.date(record.header.hlc.ms)))
    return nouns.Takedowns(found, following)


async def take_down(call: Call[bodies.TakeDown]) -> nouns.TakedownAnswer:
    """PUT /takedowns/{sha256}: the content is served nowhere any more, whatever its names."""
    return await _set(call.services, call.request.match_info["sha256"], lifted=False, reason=call.asked.reason)


async def lift(call: Call[bodies.Nothing]) -> nouns.TakedownAnswer:
    """DELETE /takedowns/{sha256}: it may be served again. NotFoundError if no takedown stands on it."""
    answer = await _set(call.services, call.request.match_info["sha256"], lifted=True, reason="")
    if not answer.changed:
        raise NotFoundError(f"no takedown stands on {answer.sha256}", code="no-such-takedown")
    return answer


async def _set(services: Services, named: str, *, lifted: bool, reason: str) -> nouns.TakedownAnswer:
    content = Digest.parse(named)
    changed = await services.curation.take_down(content, lifted=lifted, reason=reason)
    return nouns.TakedownAnswer(str(content), not lifted, changed)
