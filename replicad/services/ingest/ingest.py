"""Ingest: contents come in and get names, all of one call or none.

Two steps, so that a directory of any size is published whole or not at all: first every content is received (verified, durable, held, but unnamed), then ``publish`` checks all names and signs all entries
in one transaction. What cannot be named is refused before anything is signed, with every reason at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from msgspec import UNSET

from replicad.catalog.answers import Standing
from replicad.catalog.catalog import Catalog
from replicad.errors import BusyError, ConflictError, InputError, NotAllowedError, NotFoundError, ReplicadError
from replicad.model import checksums, paths
from replicad.model.callers import Caller
from replicad.model.checksums import Checksum
from replicad.model.entries import Listed
from replicad.model.ids import Digest, RecordId, Stamp
from replicad.model.manifest import Manifest
from replicad.model.members import Member, Share
from replicad.model.records import LABEL_MAX, Entry, Role
from replicad.services.ingest.sent import Sent
from replicad.store.blobs import BlobStore
from replicad.store.sources import Incoming

ITEMS_MAX = 100_000
"""Names in one call: a whole Munki repository with room to spare; bounds the memory of one transaction to about 100 MB."""
PROBLEMS_SHOWN = 10
_STANDINGS = 1_000

State = Literal["new", "unchanged", "replaced"]
"""What publishing does to a name."""


@dataclass(frozen=True, slots=True)
class Item:
    """A name to publish for content that was received before. ``size`` is what a dry run answers for content that is not here."""

    path: str
    content: Digest
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """What became of one item. ``record`` is the entry's id, None in a dry run unless the name was "unchanged". ``former``: how the name was written that it replaced, if otherwise.

    ``hides``: the share's last stage, if that has a file of this name which nodes that carry both stages, as this one does, show no more.
    """

    path: str
    stage: str
    size: int
    content: Digest
    record: RecordId | None
    state: State
    former: str | None = None
    hides: str | None = None


class Ingest:
    """The way in for clients of the admin door. ``clock_ms`` is the wall clock, milliseconds since 1970; ``sent`` is to be told who sent what ``publish`` shall name for that caller."""

    def __init__(self, catalog: Catalog, store: BlobStore, *, clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._catalog = catalog
        self._store = store
        self._clock_ms = clock_ms
        self._turns: dict[str, asyncio.Lock] = {}
        self.sent = Sent()

    def turn(self, share: str) -> asyncio.Lock:
        """Whoever changes names of an existing share holds this meanwhile, so that what is signed here is about what stands."""
        return self._turns.setdefault(share, asyncio.Lock())

    @asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        """Every turn at once: nobody decides and signs meanwhile."""
        async with AsyncExitStack() as stack:
            for share in sorted(self._catalog.replica.trust.shares()):
                await stack.enter_async_context(self.turn(share))
            yield

    def algorithms(self, share: str | None) -> tuple[str, ...]:
        """What that share asks for besides SHA-256."""
        found = None if share is None else self._catalog.replica.trust.shares().get(share)
        return found.checksums if found is not None else ()

    async def receive(
        self, source: Incoming, *, size: int | None, expect: Digest | None = None, also: Checksum | None = None, share: str | None = None
    ) -> Manifest:
        """Store and hold one content; durable on return, without a name yet. What ``share`` asks for is computed on the way. Raises what ``BlobStore.receive`` raises; then nothing is left of it."""
        more = checksums.begin(self.algorithms(share))
        manifest = await self._store.receive(source, size=size, expect=expect, also=also, more=more)
        await self.hold([manifest], {manifest.content: checksums.digests(more)})
        return manifest

    async def receive_small(self, bodies: Sequence[bytes | memoryview], *, share: str | None = None) -> list[Manifest]:
        """Many contents of at most 1 MiB each, in the same order, sharing hops, syncs and the transaction."""
        manifests = await self._store.put_bodies(bodies)
        algorithms = self.algorithms(share)
        contents = [manifest.content for manifest in manifests]
        await self.hold(manifests, await asyncio.to_thread(_checksums, contents, bodies, algorithms) if algorithms else {})
        return manifests

    async def hold(self, manifests: Sequence[Manifest], found: Mapping[Digest, Mapping[str, bytes]]) -> None:
        """Count blobs that just came in as held, durably, with the checksums found on the way. BusyError: one is gone again.

        Whoever removes a blob that nothing needs does so only while it is not held: one that went before it was is missed here, before the upload is acknowledged.
        """
        await self._catalog.hold(manifests, durable=True)
        for manifest in manifests:
            if not self._store.has(manifest.content):
                await self._catalog.lose(manifest.content)
                raise BusyError(f"content {manifest.content} was collected while it came in", hint="send it again")
        if any(found.values()):
            await self._catalog.add_checksums(found)

    async def publish(
        self,
        share: str,
        items: Sequence[Item],
        *,
        stage: str | None = None,
        publisher: str = "",
        urgent: bool = False,
        dry_run: bool = False,
        caller: Caller | None = None,
    ) -> list[Published]:
        """Name contents in a share at one stage (None: its last), all of them or none; the answers are in the order of ``items``.

        The same content under the same path is "unchanged" and makes no record. ``urgent``: no node's limits hold the contents up. A dry run checks everything except that the contents are here - instead, that there is room for them (NoSpaceError) - and signs nothing. ``caller`` names contents by their hash alone: if it is limited, one that it neither sent nor may see is as if it was not here. Raises InputError (paths, doubles, stage,
        bounds), NotFoundError (share; content that was not received), NotAllowedError (this node's grants), ConflictError (immutable share; a file where a directory would have to be, or the reverse).
        """
        where = self._where(share, stage)
        if len(items) > ITEMS_MAX or len(publisher) > LABEL_MAX:
            raise InputError(f"at most {ITEMS_MAX} files at once and {LABEL_MAX} characters of publisher")
        keys = _keys(items)
        self._check_rights(where, items, keys)
        async with self.turn(share):
            facts = await self._facts(items, caller, dry_run=dry_run)
            plans = [
                _Plan(item, standing, *facts[item.content], _state(where, item, standing.listed))
                for item, standing in zip(items, await self._standings(where.share.name, where.stage, keys), strict=True)
            ]
            self._check_standings(where, plans)
            hides = await self._hides(where, keys)
            changed = [plan for plan in plans if plan.state != "unchanged"]
            now_s = self._clock_ms() // 1000
            entries = [_entry(where, plan, publisher=publisher, urgent=urgent, now_s=now_s) for plan in changed]
            records = await self._catalog.author(share, entries) if entries and not dry_run else ()
        if caller is not None and not dry_run:
            self.sent.discard(caller.name, facts)
        signed = {id(plan): record.id for plan, record in zip(changed, records, strict=not dry_run)}
        return [
            Published(plan.item.path, where.stage, plan.size, plan.item.content, signed.get(id(plan), plan.unchanged_record), plan.state, plan.former, hidden)
            for plan, hidden in zip(plans, hides, strict=True)
        ]

    def _where(self, share: str, stage: str | None) -> _Where:
        found = self._catalog.replica.trust.shares().get(share)
        if found is None:
            raise NotFoundError(f"there is no share {share!r}", hint="replicad share list", code="no-such-share")
        return _Where(found, found.stage(stage))

    def _check_rights(self, where: _Where, items: Sequence[Item], keys: Sequence[str]) -> None:
        replica = self._catalog.replica
        at = Stamp(max(replica.clock.last + 1, Stamp.of(self._clock_ms())))
        own = self._own()
        shares = "every share" if own is None or own.shares is None else ", ".join(sorted(own.shares))
        why = "no grant of it covers that" + (f"; it may publish below {', '.join(sorted(own.paths))} in {shares}" if own and own.paths else "")
        _refuse(
            NotAllowedError(f"this node may not publish {where.share.name}/{item.path} at stage {where.stage}: {why}", hint="replicad peer list")
            for item, key in zip(items, keys, strict=True)
            if not replica.trust.may(self._catalog.node, share=where.share.name, path_key=key, stage=where.stage, role=Role.PUBLISHER, at=at)
        )

    async def _facts(self, items: Sequence[Item], caller: Caller | None, *, dry_run: bool) -> dict[Digest, tuple[int, Digest]]:
        """Content to (size, manifest id). In a dry run contents that are not here have the announced size and no manifest."""
        contents = list(dict.fromkeys(item.content for item in items))
        found = await self._catalog.held_facts(contents if caller is None else await self._known_to(caller, contents))
        if dry_run:
            announced = {item.content: (item.size or 0, item.content) for item in items}
            self._store.check_room(sum(size for content, (size, _) in announced.items() if content not in found))
            return announced | found
        _refuse(
            NotFoundError(f"the content of {item.path} ({item.content}) is not on this node: upload it first", code="no-such-content")
            for item in items
            if item.content not in found
        )
        return found

    def _own(self) -> Member | None:
        return self._catalog.replica.trust.members(self._clock_ms()).get(self._catalog.node)

    async def _hides(self, where: _Where, keys: Sequence[str]) -> list[str | None]:
        """See ``Published``."""
        share, last, own = where.share.name, where.share.stages[-1], self._own()
        if where.stage == last or own is None or not (own.carries(share, where.stage) and own.carries(share, last)):
            return [None] * len(keys)
        return [last if standing.listed else None for standing in await self._standings(share, last, keys)]

    async def _known_to(self, caller: Caller, contents: Sequence[Digest]) -> Sequence[Digest]:
        """Those that the caller sent or may see. All are looked up alike, so that it takes as long whether an unknown one is here or not."""
        if not caller.limited:
            return contents
        shares = [share for share in self._catalog.replica.trust.shares() if caller.reaches(share)]
        known = self.sent.by(caller) | await self._catalog.named_below(contents, shares, caller.path)
        return [content for content in contents if content in known]

    async def _standings(self, share: str, stage: str, keys: Sequence[str]) -> list[Standing]:
        standings: list[Standing] = []
        for start in range(0, len(keys), _STANDINGS):
            standings += await self._catalog.standings(share, [(key, stage) for key in keys[start : start + _STANDINGS]])
        return standings

    def _check_standings(self, where: _Where, plans: Sequence[_Plan]) -> None:
        _refuse(problem for plan in plans if (problem := self._problem(where, plan)) is not None)

    def _problem(self, where: _Where, plan: _Plan) -> ReplicadError | None:
        name, listed = f"{where.share.name}/{plan.item.path}", plan.standing.listed
        if plan.item.content in self._catalog.replica.trust.taken_down():
            return NotAllowedError(
                f"{name} cannot be published: a takedown stands on its content",
                hint=f"on an admin's node: replicad takedown {plan.item.content} --lift",
                code="taken-down",
            )
        if plan.standing.collides is not None:
            return ConflictError(
                f"{name} cannot be published: {where.share.name}/{plan.standing.collides} is a file",
                hint="publish it under another name",
            )
        if where.share.immutable and plan.state == "replaced" and listed is not None:
            return ConflictError(
                f"{name} already exists with different content (the share is immutable)\n"
                f"  published {self._provenance(listed)}, sha256 {listed.content}; your file has {plan.item.content}",
                hint=f"publish it under a new name, or as a new first version after: replicad rm {where.share.name}/{listed.path}",
                code="immutable",
            )
        return None

    def _provenance(self, listed: Listed) -> str:
        """When, by whom and where an entry was made, as far as known."""
        member = self._catalog.replica.trust.members(self._clock_ms()).get(listed.origin)
        day = datetime.fromtimestamp(listed.hlc.ms / 1000, UTC).date().isoformat()
        return f"{day}{' by ' if listed.publisher else ''}{listed.publisher} at {member.name if member else listed.origin.short}"


@dataclass(frozen=True, slots=True)
class _Where:
    share: Share
    stage: str


@dataclass(frozen=True, slots=True)
class _Plan:
    """One item, what it meets, and what it will become."""

    item: Item
    standing: Standing
    size: int
    manifest: Digest
    state: State

    @property
    def unchanged_record(self) -> RecordId | None:
        listed = self.standing.listed
        return listed.record if listed is not None and self.state == "unchanged" else None

    @property
    def former(self) -> str | None:
        listed = self.standing.listed
        return listed.path if listed is not None and self.state == "replaced" and listed.path != self.item.path else None


def _checksums(contents: Sequence[Digest], bodies: Sequence[bytes | memoryview], algorithms: Sequence[str]) -> dict[Digest, dict[str, bytes]]:
    return {content: checksums.of(body, algorithms) for content, body in zip(contents, bodies, strict=True)}


def _keys(items: Sequence[Item]) -> list[str]:
    """The collision keys, after checking that all paths are legal and can stand side by side."""
    problems: list[ReplicadError] = []
    keys: list[str] = []
    first: dict[str, str] = {}
    for item in items:
        try:
            keys.append(paths.key(paths.check(item.path)))
        except InputError as error:
            problems.append(error)
            continue
        if keys[-1] in first:
            problems.append(InputError(f"{first[keys[-1]]!r} and {item.path!r} are the same name", code="same-name"))
        first.setdefault(keys[-1], item.path)
    for key, path in first.items():
        problems += (InputError(f"{first[parent]!r} and {path!r} cannot both be files", code="same-name") for parent in paths.parents(key) if parent in first)
    _refuse(problems)
    return keys


def _state(where: _Where, item: Item, listed: Listed | None) -> State:
    if listed is None:
        return "new"
    same = listed.content == item.content and (listed.path == item.path or where.share.immutable)
    return "unchanged" if same else "replaced"


def _entry(where: _Where, plan: _Plan, *, publisher: str, urgent: bool, now_s: int) -> Entry:
    """``modified`` of a replacement is always later than what it replaces, so that Last-Modified is a strong validator (RFC 9110, section 8.8.2.2)."""
    previous = plan.standing.listed
    return Entry(
        path=plan.item.path,
        stage=where.stage,
        content=plan.item.content,
        size=plan.size,
        manifest=plan.manifest,
        modified=now_s if previous is None else max(now_s, previous.modified + 1),
        publisher=publisher,
        supersedes=plan.standing.live,
        urgent=True if urgent else UNSET,
    )


def _refuse(problems: Iterable[ReplicadError]) -> None:
    """Raise the problem if there is one, or one that tells the first ones and how many there are."""
    found = list(problems)
    if len(found) == 1:
        raise found[0]
    if found:
        shown = "".join(f"\n  {problem.message}" for problem in found[:PROBLEMS_SHOWN])
        more = f"\n  and {len(found) - PROBLEMS_SHOWN} more" if len(found) > PROBLEMS_SHOWN else ""
        raise type(found[0])(f"{len(found)} files cannot be published, so none was:{shown}{more}", hint=found[0].hint, code=found[0].error_code)
