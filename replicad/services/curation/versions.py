"""Which versions of a name a verb means, and what becomes of them: choices among what stands and what the history tells. Nothing here reads or signs."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET, structs

from replicad.catalog.answers import Standing
from replicad.catalog.history import HISTORY_MAX
from replicad.errors import ConflictError, InputError, NotAllowedError, NotFoundError
from replicad.model.entries import Listed, Revision
from replicad.model.ids import Digest
from replicad.model.records import Entry, Tombstone

RECORD_DIGITS_MIN = 8


def taken_down(name: str, content: Digest) -> NotAllowedError:
    """The error of whoever wants a content on which a takedown stands."""
    return NotAllowedError(
        f"{name}: a takedown stands on its content ({content})", hint=f"on an admin's node: replicad takedown {content} --lift", code="taken-down"
    )


def pick(history: Sequence[Revision], named: str, name: str) -> Revision:
    """The version that a record id or the beginning of one means: an entry that counts. InputError, NotFoundError, ConflictError."""
    if len(named) < RECORD_DIGITS_MIN or not set(named) <= set("0123456789abcdef"):
        raise InputError(f"record: at least {RECORD_DIGITS_MIN} lower-case hexadecimal digits of its id expected, got {named[:80]!r}")
    found = [one for one in versions(history) if str(one.record.id).startswith(named)]
    if not found:
        raise NotFoundError(
            f"no version of {name} among its newest {HISTORY_MAX} records has an id that begins with {named}",
            hint=f"replicad history {name}",
            code="no-such-record",
        )
    if len(found) > 1:
        raise ConflictError(f"{named} could be {' or '.join(str(one.record.id)[:16] for one in found)}", hint="write more of it", code="ambiguous-record")
    return found[0]


def versions(history: Sequence[Revision]) -> list[Revision]:
    """The entries that count, newest first."""
    return [one for one in history if isinstance(one.body, Entry) and one.state != "void"]


def after_all(history: Sequence[Revision], stage: str) -> int:
    """The earliest Last-Modified at that stage with which nobody takes what comes now for what stood there before."""
    return max((one.entry.modified + 1 for one in versions(history) if one.entry.stage == stage), default=0)


def check_room(share: str, path: str, standing: Standing) -> None:
    """ConflictError if a file is in the way."""
    if standing.collides is not None:
        raise ConflictError(f"{share}/{path} cannot come back: {share}/{standing.collides} is a file", hint=f"replicad show {share}/{standing.collides}")


def only(share: str, path: str, standings: dict[str, Standing]) -> Listed:
    """The file at the one stage where it stands."""
    there = {stage: standing.listed for stage, standing in standings.items() if standing.listed}
    if not there:
        raise NotFoundError(f"there is no {path!r} in {share} at {', '.join(standings)}", hint=f"replicad undelete {share}/{path}", code="no-such-file")
    if len(there) > 1:
        raise InputError(f"{share}/{path} stands at {', '.join(there)}: which stage?", hint=f"--stage {next(iter(there))}", code="which-stage")
    return next(iter(there.values()))


def previous(history: Sequence[Revision], current: Listed) -> Revision:
    """The newest version of the stage before the current one, with another content: what it replaced, or what lost against it."""
    for one in versions(history):
        if one.entry.stage == current.stage and one.entry.content != current.content and one.record.order < (current.hlc, current.record):
            return one
    raise NotFoundError(
        f"{current.share}/{current.path} has no older version at stage {current.stage}",
        hint=f"replicad history {current.share}/{current.path}",
        code="no-such-record",
    )


def ended_by_last(history: Sequence[Revision], stages: Sequence[str], *, first: bool) -> list[Revision]:
    """What the last removal at any of these stages ended: the winners of then (``first``: of an immutable share).

    The tombstones of one removal come from one node in one millisecond.
    """
    graves = [one for one in history if one.state == "current" and isinstance(one.body, Tombstone) and one.body.stage in stages]
    if not graves:
        return []
    removal = graves[0].record.header
    together = [one.body for one in graves if (one.record.header.origin, one.record.header.hlc.ms) == (removal.origin, removal.hlc.ms)]
    ended = []
    for grave in sorted(together, key=lambda body: stages.index(body.stage)):
        files = [one for one in versions(history) if one.record.id in grave.supersedes]
        if files:
            ended.append(files[-1] if first else files[0])
    return ended


def again(older: Revision, stage: str, standing: Standing, *, publisher: str, modified: int | None = None) -> Entry:
    """A new entry for old content; ``modified`` None: as old as that."""
    body = older.entry
    return structs.replace(
        body, stage=stage, modified=body.modified if modified is None else modified, publisher=publisher, supersedes=standing.live, source=UNSET
    )
