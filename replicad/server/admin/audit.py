"""The audit: every record that this node has, of all shares, in order of time, with what it says and whether it counts; and what was done through this node's admin door."""

from __future__ import annotations

from replicad.model.access import OPEN
from replicad.model.ids import NodeId, RecordId, Stamp
from replicad.model.records import Body, Cut, Entry, Grant, Policy, Record, Takedown, Tombstone
from replicad.model.words import plural
from replicad.server.admin import bodies, nouns, paging, queries
from replicad.server.admin.routes import Call

_PLAIN = ("caller", "origin", "request", "method", "target", "detail", "status", "code")
"""Columns of an action that the API shows as they are."""


async def audit(call: Call[queries.AuditQuery]) -> nouns.Audit:
    """GET /audit."""
    asked, catalog = call.asked, call.services.catalog
    after: tuple[Stamp, bytes] | None = paging.read(asked.after, tuple[Stamp, RecordId])
    if after is None and asked.since is not None:
        after = Stamp.of(max(0, int(asked.since.timestamp() * 1000))), b""
    page, more = await catalog.records_in_time(after, limit=asked.limit)
    trust = catalog.replica.trust
    names = {**trust.named(), catalog.network: "the network key"}
    found = [_audited(record, names, reason="" if trust.takes_effect(record) else trust.why_not(record, place)) for record, place in page]
    return nouns.Audit(found, paging.write(page[-1][0].order) if more else None)


async def log(call: Call[queries.ActionsQuery]) -> nouns.Actions:
    """GET /audit/log."""
    asked = call.asked
    since_ms = 0 if asked.since is None else max(0, int(asked.since.timestamp() * 1000))
    found = await call.services.catalog.actions(since_ms=since_ms, after=asked.after, limit=asked.limit)
    shown = [nouns.Action(seq=one.seq, when=nouns.date(one.at_ms), **{name: getattr(one, name) for name in _PLAIN}) for one in found]
    return nouns.Actions(shown, found[-1].seq if len(found) == asked.limit else None)


async def verify(call: Call[bodies.Nothing]) -> nouns.ActionChain:
    """GET /audit/verify."""
    chain = await call.services.catalog.verify_actions()
    return nouns.ActionChain(chain.broken is None, chain.first, chain.last, chain.last_hash.hex(), chain.broken)


def _audited(record: Record, names: dict[NodeId, str], *, reason: str) -> nouns.Audited:
    header, body = record.header, record.body
    subject = body.subject if isinstance(body, Grant | Cut) else None
    return nouns.Audited(
        record=str(record.id),
        when=nouns.date(header.hlc.ms),
        origin=str(header.origin),
        origin_name=names.get(header.origin, header.origin.short),
        share=header.share,
        type=record.envelope.type,
        subject=None if subject is None else str(subject),
        subject_name=None if subject is None else names.get(subject, subject.short),
        path=getattr(body, "path", None),
        stage=getattr(body, "stage", None),
        detail=_detail(body),
        counts=not reason,
        reason=reason,
    )


def _detail(body: Body) -> str:
    """What a record says besides whom or which file it is about, for people."""
    if isinstance(body, Grant):
        lists = {"shares": body.shares, "paths": body.paths, "stages": body.stages, "networks": body.networks or None}
        parts = [body.role, *(f"{name} {','.join(value)}" for name, value in lists.items() if value is not None)]
        return "; ".join([*parts, *([f"site {body.site}"] if body.site else []), *([f"until {nouns.date(body.until.ms)}"] if body.until else [])])
    if isinstance(body, Cut):
        return body.reason
    if isinstance(body, Policy):
        access = body.access or OPEN
        redirects = [f"{network}={target}" for network, target in (body.redirects or {}).items()]
        named = {
            "layout": [body.layout or ""],
            "root": [body.root or ""],
            "checksums": body.checksums or (),
            "users": access.users,
            "tokens": access.tokens,
            "networks": access.networks,
            "redirects": redirects,
        }
        parts = [f"{name} {','.join(values)}" for name, values in named.items() if any(values)] + (["prestage key"] if access.prestage else [])
        kind = f"{'public' if body.public else 'private'}{', immutable' if body.immutable else ''}, stages {' < '.join(body.stages)}"
        return f"{body.name}: {'removed' if body.removed else '; '.join([kind, *parts])}"
    if isinstance(body, Entry):
        promoted = f" promoted from {body.source}" if body.source else ""
        return f"{body.content} ({plural(body.size, 'byte')}){promoted}{f' by {body.publisher}' if body.publisher else ''}"
    if isinstance(body, Takedown):
        return f"{body.content}: {'lifted' if body.lifted else 'taken down'}{f', {body.reason}' if body.reason else ''}"
    return f"removed{f' by {body.publisher}' if body.publisher else ''}" if isinstance(body, Tombstone) else ""
