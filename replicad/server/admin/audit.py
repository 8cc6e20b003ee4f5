"""The audit: every record that this node has, of all shares, in order of time, with what it says and whether it counts."""

from __future__ import annotations

import base64
import binascii

import msgspec

from replicad.errors import InputError
from replicad.model.access import OPEN
from replicad.model.ids import NodeId, RecordId, Stamp, from_wire, to_text
from replicad.model.records import Body, Cut, Entry, Grant, Policy, Record, Takedown, Tombstone
from replicad.server.admin import bodies, nouns
from replicad.server.admin.routes import Call


async def audit(call: Call[bodies.AuditQuery]) -> nouns.Audit:
    """GET /audit."""
    asked, catalog = call.asked, call.services.catalog
    after = _place(asked.after)
    if after is None and asked.since is not None:
        after = Stamp.of(max(0, int(asked.since.timestamp() * 1000))), b""
    page, more = await catalog.records_in_time(after, limit=asked.limit)
    trust = catalog.replica.trust
    names = {**trust.named(), catalog.network: "the network key"}
    found = [_audited(record, names, reason=trust.why_not(record, place)) for record, place in page]
    return nouns.Audit(found, _cursor(page[-1][0]) if more else None)


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
        lists = {"shares": body.shares, "paths": body.paths, "stages": body.stages}
        parts = [body.role, *(f"{name} {','.join(value)}" for name, value in lists.items() if value is not None)]
        return "; ".join([*parts, *([f"site {body.site}"] if body.site else []), *([f"until {nouns.date(body.until.ms)}"] if body.until else [])])
    if isinstance(body, Cut):
        return body.reason
    if isinstance(body, Policy):
        access = body.access or OPEN
        named = {"layout": [body.layout or ""], "users": access.users, "tokens": access.tokens, "networks": access.networks}
        parts = [f"{name} {','.join(values)}" for name, values in named.items() if any(values)] + (["prestage key"] if access.prestage else [])
        kind = f"{'public' if body.public else 'private'}{', immutable' if body.immutable else ''}, stages {' < '.join(body.stages)}"
        return f"{body.name}: {'removed' if body.removed else '; '.join([kind, *parts])}"
    if isinstance(body, Entry):
        promoted = f" promoted from {body.source}" if body.source else ""
        return f"{body.content} ({body.size} bytes){promoted}{f' by {body.publisher}' if body.publisher else ''}"
    if isinstance(body, Takedown):
        return f"{body.content}: {'lifted' if body.lifted else 'taken down'}{f', {body.reason}' if body.reason else ''}"
    return f"removed{f' by {body.publisher}' if body.publisher else ''}" if isinstance(body, Tombstone) else ""


def _cursor(last: Record) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode([last.header.hlc, last.id], enc_hook=to_text)).decode()


def _place(given: str | None) -> tuple[Stamp, bytes] | None:
    """Behind which record the page begins; InputError if it was not made by ``_cursor``."""
    if given is None:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(given), type=tuple[Stamp, RecordId], dec_hook=from_wire)
    except (binascii.Error, msgspec.DecodeError, InputError, UnicodeError, ValueError):
        raise InputError("after: not a cursor of this API; give the `next` of the page before") from None
