"""Curation: what becomes of names after they were published. Promoted, removed, brought back, rolled back, taken down.

Every verb reads what stands, decides, and signs all its records in one transaction or none. Nothing here touches content: an entry names bytes that some node holds, wherever those are. Each verb
holds its share's turn, which publishing holds, too; what other nodes do at the same time is for the merge.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from replicad.catalog.answers import Standing
from replicad.catalog.catalog import Catalog
from replicad.errors import ConflictError, InputError, NotAllowedError, NotFoundError
from replicad.model import paths
from replicad.model.entries import Listed, Revision, RevisionKind
from replicad.model.ids import NETWORK_SHARE, Digest, RecordId, Stamp
from replicad.model.members import Share
from replicad.model.records import SUPERSEDES_MAX, Entry, Role, Takedown, Tombstone
from replicad.model.words import plural
from replicad.services.curation import versions

NAMES_UNGUARDED = 100
"""Removing more names than this at once must be confirmed by their number; so must removing more than half of a share of more than SHARE_UNGUARDED names. Guesses: a release is a few
files, an accident is a directory too high."""
SHARE_UNGUARDED = 10
REMOVED_MAX = 50_000
"""Files that one call removes: bounds the transaction, like a publication."""
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Change:
    """What a verb did to one name at one stage. ``record`` is None in a dry run; size and content are what the name stood for (removed) or stands for now."""

    path: str
    stage: str
    kind: RevisionKind
    size: int
    content: Digest
    record: RecordId | None


class Curation:
    """``turn`` gives the lock of a share; ``clock_ms`` is the wall clock, milliseconds since 1970."""

    def __init__(self, catalog: Catalog, *, turn: Callable[[str], asyncio.Lock], clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._catalog = catalog
        self._turn = turn
        self._clock_ms = clock_ms

    # -- verbs

    async def promote(self, share: str, path: str, *, to: str, source: str | None = None, publisher: str = "") -> Change:
        """The file of a lower stage (None: of the lowest that has one) stands at stage ``to`` from now on, and there no more.

        NotFoundError, InputError (stages), NotAllowedError (both stages are needed), ConflictError (immutable share with another file there). Where ``to`` of an immutable share shows that content
        already, only the source is ended.
        """
        found, key = self._share(share), paths.key(paths.check(path))
        below = found.stages[: found.stages.index(found.stage(to))]
        if source is not None and source not in below:
            raise InputError(f"from: a stage below {to} expected ({', '.join(below) or 'there is none'}), got {source!r}", code="no-such-stage")
        async with self._turn(share):
            standings = await self._standings(share, key, found.stages)
            origin = source or next((stage for stage in below if standings[stage].listed), None)
            lower, upper = standings[origin] if origin else None, standings[to]
            if origin is None or lower is None or lower.listed is None:
                raise self._nothing_to_promote(share, path, standings, below if source is None else (source,), to=to)
            if found.immutable and upper.listed is not None:
                return await self._end_source(share, lower.listed, upper.listed, lower.live, publisher)
            entry = Entry(
                path=lower.listed.path,
                stage=to,
                content=lower.listed.content,
                size=lower.listed.size,
                manifest=lower.listed.manifest,
                modified=max(lower.listed.modified, versions.after_all(await self._catalog.history(share, key), to)),
                publisher=publisher,
                supersedes=(*lower.live, *upper.live)[:SUPERSEDES_MAX],
                source=origin,
            )
            return (await self._sign(share, [entry], kind="promote"))[0]

    async def remove(
        self, share: str, given: Sequence[str], *, stage: str | None = None, publisher: str = "", dry_run: bool = False, expect: int | None = None
    ) -> list[Change]:
        """End these names and all that lie below them, at one stage or at all; by (path, stage). ``expect`` is how many names that must be.

        NotFoundError if there is nothing under one of them; NotAllowedError; ConflictError if it is another number of names than expected, or so many that a number is expected and none was given.
        """
        found = self._share(share)
        if stage is not None:
            found.stage(stage)
        keys = {paths.key(paths.check(path)): path for path in given}
        async with self._turn(share):
            doomed = await self._below(share, keys, stage)
            self._check_rights(share, doomed, "remove")
            if expect is not None or not dry_run:
                await self._guard(share, len({listed.key for listed in doomed}), expect)
            live = await self._live(share, doomed)
            ends = [Tombstone(listed.path, listed.stage, publisher, tuple(records)) for listed, records in zip(doomed, live, strict=True)]
            records = [] if dry_run else [record.id for record in await self._catalog.author(share, ends)]
        made: Sequence[RecordId | None] = records or [None] * len(doomed)
        return [Change(listed.path, listed.stage, "remove", listed.size, listed.content, record) for listed, record in zip(doomed, made, strict=True)]

    async def undelete(self, share: str, path: str, *, stage: str | None = None, publisher: str = "", dry_run: bool = False) -> list[Change]:
        """Bring back what the last removal of this name, or of what lies below it, ended, at each stage where it did; or what the last one at ``stage`` ended. All of it or nothing.

        NotFoundError if nothing was removed; ConflictError if there is a file now, or one in the way; NotAllowedError (rights, a takedown).
        """
        found, key = self._share(share), paths.key(paths.check(path))
        stages = found.stages if stage is None else (found.stage(stage),)
        async with self._turn(share):
            entries: list[Entry] = []
            for name in await self._catalog.removed(share, key, stages) or [key]:
                entries += await self._back(found, name, stages, publisher)
            if not entries:
                raise NotFoundError(
                    f"no removal of {share}/{path}, or of anything below it, is known", hint=f"replicad history {share}/{path}", code="not-removed"
                )
            self._check_rights(share, entries, "bring back")
            return await self._sign(share, entries, kind="restore", dry_run=dry_run)

    async def _back(self, share: Share, key: str, stages: Sequence[str], publisher: str) -> list[Entry]:
        """The entries with which one name comes back; none if nothing of it was removed."""
        standings, history = await self._standings(share.name, key, stages), await self._catalog.history(share.name, key)
        for name, standing in standings.items():
            if standing.listed is not None:
                raise ConflictError(
                    f"{share.name}/{standing.listed.path} is not removed: it stands at stage {name}",
                    hint="an older version: replicad rollback; another stage: --stage",
                    code="not-removed",
                )
        ended = versions.ended_by_last(history, stages, first=share.immutable)
        for one in ended:
            versions.check_room(share.name, one.entry.path, standings[one.entry.stage])
            self._check_served(share.name, one)
        return [versions.again(one, one.entry.stage, standings[one.entry.stage], publisher=publisher) for one in ended]

    async def rollback(self, share: str, path: str, *, to: str | None = None, stage: str | None = None, publisher: str = "") -> Change:
        """The file stands for an older version's content again: that of record ``to`` (its id or the beginning), else the one before the current.

        ``stage`` None: the only stage where the file stands. NotFoundError, ConflictError (immutable share), InputError (several stages), NotAllowedError (a takedown).
        """
        found, key = self._share(share), paths.key(paths.check(path))
        if found.immutable:
            raise ConflictError(
                f"the share {share} is immutable: a file of it is never replaced",
                hint=f"publish the older content under a new name, or as a new first version after: replicad rm {share}/{path}",
                code="immutable",
            )
        async with self._turn(share):
            standings = await self._standings(share, key, found.stages if stage is None else (found.stage(stage),))
            current = versions.only(share, path, standings)
            history = await self._catalog.history(share, key)
            older = versions.previous(history, current) if to is None else versions.pick(history, to, f"{share}/{path}")
            self._check_served(share, older)
            modified = max(self._clock_ms() // 1000, current.modified + 1)
            entry = versions.again(older, current.stage, standings[current.stage], modified=modified, publisher=publisher)
            return (await self._sign(share, [entry], kind="restore"))[0]

    async def revision(self, share: str, path: str, named: str) -> Revision:
        """The version of a file that a record id (or the beginning of one) names: a sibling, an older one. NotFoundError; NotAllowedError if a takedown stands on it."""
        found = versions.pick(await self._catalog.history(self._share(share).name, paths.key(paths.check(path))), named, f"{share}/{path}")
        self._check_served(share, found)
        return found

    async def take_down(self, content: Digest, *, lifted: bool = False, reason: str = "") -> bool:
        """Let a content be served nowhere, or lift that. False if it is so already. NotAllowedError unless this node is an admin."""
        if (content in self._catalog.replica.trust.taken_down()) != lifted:
            return False
        await self._catalog.author(NETWORK_SHARE, [Takedown(content, lifted, reason)])
        return True

    # -- steps

    def _share(self, name: str) -> Share:
        found = self._catalog.replica.trust.shares().get(name)
        if found is None:
            raise NotFoundError(f"there is no share {name!r}", hint="replicad share list", code="no-such-share")
        return found

    async def _standings(self, share: str, key: str, stages: Sequence[str]) -> dict[str, Standing]:
        return dict(zip(stages, await self._catalog.standings(share, [(key, stage) for stage in stages]), strict=True))

    async def _sign(self, share: str, entries: Sequence[Entry], *, kind: RevisionKind, dry_run: bool = False) -> list[Change]:
        made = [None] * len(entries) if dry_run else [record.id for record in await self._catalog.author(share, entries)]
        return [Change(entry.path, entry.stage, kind, entry.size, entry.content, record) for entry, record in zip(entries, made, strict=True)]

    async def _end_source(self, share: str, lower: Listed, upper: Listed, live: Sequence[RecordId], publisher: str) -> Change:
        if lower.content != upper.content:
            raise ConflictError(
                f"{share}/{upper.path} stands at stage {upper.stage} with different content (the share is immutable)",
                hint=f"replicad rm {share}/{upper.path} --stage {upper.stage}",
                code="immutable",
            )
        [record] = await self._catalog.author(share, [Tombstone(lower.path, lower.stage, publisher, tuple(live))])
        return Change(upper.path, upper.stage, "promote", upper.size, upper.content, record.id)

    @staticmethod
    def _nothing_to_promote(share: str, path: str, standings: dict[str, Standing], below: Sequence[str], *, to: str) -> NotFoundError:
        there = [stage for stage, standing in standings.items() if standing.listed]
        where = f"it stands at {', '.join(there)}" if there else "it stands at no stage"
        return NotFoundError(
            f"{share}/{path} cannot be promoted to {to}: {'at ' + ' or '.join(below) if below else 'below it'} there is no such file; {where}",
            hint=f"replicad history {share}/{path}",
            code="no-such-file",
        )

    async def _below(self, share: str, keys: dict[str, str], stage: str | None) -> list[Listed]:
        """The winners of these names and of all below them, each once."""
        doomed: dict[tuple[str, str], Listed] = {}
        for key, path in keys.items():
            after: tuple[str, str] | None = None
            found = False
            while page := await self._catalog.entries(share, prefix=key, after=after, limit=_PAGE, all_stages=True):
                after = (share, page[-1].key)
                chosen = [listed for listed in page if stage in (None, listed.stage)]
                found = found or bool(chosen)
                doomed |= {(listed.key, listed.stage): listed for listed in chosen}
                if len(doomed) > REMOVED_MAX:
                    raise InputError(f"paths: at most {REMOVED_MAX} files at once, there are more below {path}", hint="remove its directories one by one")
            if not found:
                raise NotFoundError(f"there is no {path!r} in {share}{f' at stage {stage}' if stage else ''}", hint=f"replicad ls {share}", code="no-such-file")
        return [doomed[name] for name in sorted(doomed)]

    def _check_rights(self, share: str, chosen: Sequence[Listed | Entry], verb: str) -> None:
        replica, node = self._catalog.replica, self._catalog.node
        at = Stamp(max(replica.clock.last + 1, Stamp.of(self._clock_ms())))
        for one in chosen:
            if not replica.trust.may(node, share=share, path_key=paths.key(one.path), stage=one.stage, role=Role.PUBLISHER, at=at):
                raise NotAllowedError(
                    f"this node may not {verb} {share}/{one.path} at stage {one.stage}: no grant of it covers that; nothing was changed",
                    hint="replicad peer list",
                )

    async def _guard(self, share: str, names: int, expect: int | None) -> None:
        if expect is not None:
            if expect != names:
                raise ConflictError(
                    f"{plural(names, 'name')} would be removed, not {expect}; none was", hint="look again with --dry-run", code="not-as-expected"
                )
            return
        if names > NAMES_UNGUARDED:
            reason = f"more than {NAMES_UNGUARDED}"
        elif names > SHARE_UNGUARDED // 2 and SHARE_UNGUARDED < await self._catalog.count_names(share, 2 * NAMES_UNGUARDED + 1) < 2 * names:
            reason = f"more than half of the share {share}"
        else:
            return
        raise ConflictError(
            f"this would remove {plural(names, 'name')}, {reason}; none was removed",
            hint=f"look with --dry-run; if it is right: --expect {names}",
            code="many-names",
        )

    async def _live(self, share: str, doomed: Sequence[Listed]) -> list[tuple[RecordId, ...]]:
        found: list[tuple[RecordId, ...]] = []
        for start in range(0, len(doomed), _PAGE):
            pairs = [(listed.key, listed.stage) for listed in doomed[start : start + _PAGE]]
            found += [standing.live for standing in await self._catalog.standings(share, pairs)]
        return found

    def _check_served(self, share: str, revision: Revision) -> None:
        if revision.taken_down:
            raise versions.taken_down(f"{share}/{revision.entry.path}", revision.entry.content)
