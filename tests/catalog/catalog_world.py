"""Real catalogs in real files, with keys by name and a clock that stands still unless told; and an auditor that computes from the stored records alone what a catalog must answer."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import UNSET

from replicad.catalog import Catalog
from replicad.catalog.supply import carried_places
from replicad.crypto.envelope import record_id, seal
from replicad.crypto.keys import SigningKey
from replicad.model import paths
from replicad.model.events import Event
from replicad.model.ids import Digest, NodeId, RecordId, Stamp
from replicad.model.manifest import Manifest
from replicad.model.records import Body, Entry, Envelope, Grant, Header, Policy, Record, Role, Tombstone
from replicad.protocol import records as formats
from replicad.protocol.merge import RegisterRow, resolve
from replicad.protocol.replica import Replica
from replicad.protocol.runs import Place

START_MS = 1_700_000_000_000
SHARE = "munki"
EVERYTHING = "SELECT type, payload, origin, signature, share FROM record JOIN run USING (run) ORDER BY record"


def key(name: str) -> SigningKey:
    return SigningKey(hashlib.sha256(name.encode()).digest())


def content_of(name: str | bytes) -> Manifest:
    """Some content of one chunk."""
    text = name if isinstance(name, bytes) else name.encode()
    manifest = Manifest.implied(Digest(hashlib.sha256(text).digest()), len(text))
    assert manifest
    return manifest


def big_content(name: str, chunks: int = 3) -> Manifest:
    """Some content of several chunks."""
    digests = b"".join(hashlib.sha256(f"{name} {number}".encode()).digest() for number in range(chunks))
    return Manifest(Digest(hashlib.sha256(name.encode()).digest()), (chunks - 1) * (1 << 20) + 17, 1 << 20, digests)


def entry(path: str, content: str | Manifest = "x", *, stage: str = "prod", supersedes: Iterable[RecordId] = (), source: str | None = None) -> Entry:
    manifest = content if isinstance(content, Manifest) else content_of(content)
    return Entry(path, stage, manifest.content, manifest.size, manifest.id, 1_700_000_000, "jane", tuple(supersedes), source or UNSET)


def tombstone(path: str, *, stage: str = "prod", supersedes: Iterable[RecordId] = ()) -> Tombstone:
    return Tombstone(path, stage, "jane", tuple(supersedes))


def sign(author: SigningKey, network: NodeId, header: Header, body: Body) -> Record:
    envelope = seal(author, network, formats.type_of(body), formats.encode(header, body))
    return Record(envelope, record_id(network, envelope.type, envelope.payload), header, body)


class World:
    """One network's keys, one clock, and a directory for the files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.network = key("network")
        self.now_ms = START_MS
        self.random = 0
        self.events: dict[str, list[Event]] = defaultdict(list)

    def clock_ms(self) -> int:
        return self.now_ms

    def random16(self) -> int:
        self.random = (self.random + 1) % 65536
        return self.random

    def path(self, name: str) -> Path:
        return self.directory / f"{name}.sqlite"

    def open(self, name: str, *, network: NodeId | None = None, path: Path | None = None) -> AbstractAsyncContextManager[Catalog]:
        return self._opened(name, network, path or self.path(name))

    @asynccontextmanager
    async def _opened(self, name: str, network: NodeId | None, path: Path) -> AsyncIterator[Catalog]:
        async with Catalog.open(path, node=key(name), clock_ms=self.clock_ms, random16=self.random16, network=network) as catalog:
            catalog.on_event = self.events[name].append
            yield catalog

    @asynccontextmanager
    async def founded(self, name: str = "ann", *, share: str = SHARE, immutable: bool = False) -> AsyncIterator[Catalog]:
        """A new catalog whose node is an admin of the network, with one share."""
        async with self.open(name, network=self.network.id) as catalog:
            await catalog.author_as(self.network, [Grant(key(name).id, name, Role.ADMIN)])
            await catalog.author("", [Policy(share, public=True, immutable=immutable)])
            yield catalog

    @asynccontextmanager
    async def joined(self, name: str, inviter: Catalog, grant: Grant | None = None) -> AsyncIterator[Catalog]:
        """A new catalog with a grant by ``inviter`` (a mirror's unless told otherwise) and everything the inviter has."""
        async with self.open(name, network=self.network.id) as catalog:
            await inviter.author("", [grant or Grant(key(name).id, name, Role.MIRROR)])
            await copy(inviter, catalog)
            yield catalog


async def stored(catalog: Catalog, share: str | None = None) -> list[Envelope]:
    """Every envelope a catalog has (of one share), in order of arrival."""

    def unit(connection: sqlite3.Connection) -> list[Envelope]:
        rows = connection.execute(EVERYTHING)
        return [Envelope(type_, payload, NodeId(origin), signature) for type_, payload, origin, signature, of in rows if share in (None, of)]

    return await catalog._database.scan(unit)


async def copy(source: Catalog, target: Catalog) -> None:
    """Everything, in one batch."""
    await target.receive(await stored(source), source=source.node)


async def rows(catalog: Catalog, sql: str, *values: object) -> list[tuple[Any, ...]]:
    return await catalog._database.scan(lambda connection: connection.execute(sql, values).fetchall())


def threads() -> list[str]:
    """Names of the threads that live now, this one aside."""
    return [thread.name for thread in threading.enumerate() if thread is not threading.current_thread()]


Name = tuple[str, str]


class Audit:
    """What a catalog must answer, computed the slow way: every record judged and every register resolved from nothing."""

    def __init__(self, network: NodeId, node: NodeId, now_ms: int, stored_rows: Sequence[tuple[Any, ...]], held: Sequence[tuple[Any, ...]]) -> None:
        self.held = {Digest(content): size for content, size in held}
        replica = Replica(network, node)
        places: dict[RecordId, Place] = {}
        self.records: dict[RecordId, Record] = {}
        for type_, payload, origin, signature in stored_rows:
            record = formats.parse(Envelope(type_, payload, NodeId(origin), signature), network)
            replica.add(record, places)
            self.records[record.id] = record
        self.counts = {identifier for identifier, record in self.records.items() if replica.trust.counts(record, places[identifier])}
        self.shares = replica.trust.shares()
        self.taken_down = set(replica.trust.taken_down())
        self.carried = carried_places(replica, node, now_ms)
        self.frontiers = {share: replica.chains.frontier_hash(share) for share in ["", *self.shares]}
        self.registers = self._resolved()
        self.winners = {name: self.records[found.winner] for name, found in self.registers.items() if found.winner}
        self.files = [
            (share, stage, self.records[record])
            for (share, _, stage), found in self.registers.items()
            if found.winner
            for record in (found.winner, *found.siblings)
        ]
        """Share and stage of every live entry."""

    def _resolved(self) -> dict[tuple[str, str, str], Any]:
        named: dict[Name, list[Record]] = defaultdict(list)
        for record in self.records.values():
            if isinstance(record.body, Entry | Tombstone):
                named[record.header.share, paths.key(record.body.path)].append(record)
        found = {}
        for (share, name), records in named.items():
            for stage in {record.body.stage for record in records}:  # type: ignore[union-attr]
                here = [record for record in records if record.body.stage == stage]  # type: ignore[union-attr]
                elsewhere = {
                    target
                    for record in records
                    if record not in here and record.id in self.counts and stage in record.body.stages
                    for target in record.body.supersedes
                }  # type: ignore[union-attr]
                immutable = share in self.shares and self.shares[share].immutable
                found[share, name, stage] = resolve([self._row(record) for record in here], immutable=immutable, elsewhere=elsewhere)
        return found

    def _row(self, record: Record) -> RegisterRow:
        body = record.body
        assert isinstance(body, Entry | Tombstone)
        kind, content = ("entry", body.content) if isinstance(body, Entry) else ("tombstone", None)
        return RegisterRow(record.id, record.header.hlc, kind, content, body.supersedes, record.id in self.counts)  # type: ignore[arg-type]

    def visible(self, share: str, name: str) -> RecordId | None:
        found = (self.winners.get((share, name, stage)) for stage in self.carried.get(share, ()))
        return next((record.id for record in found if record), None)

    def wanted(self) -> dict[tuple[Digest, Digest, int], Stamp]:
        found: dict[tuple[Digest, Digest, int], Stamp] = {}
        for share, stage, record in self.files:
            body = record.body
            assert isinstance(body, Entry)
            if stage in self.carried.get(share, ()) and body.content not in self.held and body.content not in self.taken_down:
                name = (body.content, body.manifest, body.size)
                found[name] = min(found.get(name, record.header.hlc), record.header.hlc)
        return found

    def naming(self, content: Digest) -> set[str]:
        """Every share with an entry that counts and has that content."""
        bodies = [(record.header.share, record.body) for record in self.records.values() if record.id in self.counts]
        return {share for share, body in bodies if isinstance(body, Entry) and body.content == content}

    def showing(self, content: Digest) -> set[str]:
        """Every share in which a winner at a stage that is carried has that content."""
        return {share for (share, _, stage), record in self.winners.items() if stage in self.carried.get(share, ()) and record.body.content == content}  # type: ignore[union-attr]


async def audit(catalog: Catalog) -> Audit:
    """Check everything a catalog says against its records; returns the truth."""
    stored_rows = await rows(catalog, "SELECT type, payload, origin, signature FROM record JOIN run USING (run) ORDER BY record")
    truth = Audit(catalog.network, catalog.node, catalog._clock_ms(), stored_rows, await rows(catalog, "SELECT content, size_bytes FROM held"))
    await _check_names(catalog, truth)
    await _check_contents(catalog, truth)
    for share, digest in truth.frontiers.items():
        assert catalog.replica.chains.frontier_hash(share) == digest
    assert dict(catalog.replica.trust.shares()) == dict(truth.shares)
    return truth


async def _check_names(catalog: Catalog, truth: Audit) -> None:
    for (share, name, stage), resolution in truth.registers.items():
        listed = await catalog.register(share, name, stage)
        assert [one.record for one in listed] == (
            [resolution.winner, *sorted(resolution.siblings, key=lambda id_: truth.records[id_].order, reverse=True)] if resolution.winner else []
        )
        assert set(await catalog.live_records(share, name, stage)) == set(resolution.live)
        assert [one and one.record for one in await catalog.registers(share, [(name, stage)])] == [resolution.winner]
        assert not listed or listed[0].siblings == len(resolution.siblings)
    for share, name in {(share, name) for share, name, _ in truth.registers}:
        shown = await catalog.visible(share, name)
        again = await catalog.visible(share, name)
        assert (shown and shown.record) == truth.visible(share, name)
        assert shown == again
        assert not shown or shown.available == (shown.content in truth.held and shown.content not in truth.taken_down)
        assert not shown or shown.taken_down == (shown.content in truth.taken_down)
    living = sorted((share, name, stage) for share, name, stage in truth.winners if share in truth.shares)
    assert sorted((one.share, one.key, one.stage) for one in await catalog.entries(all_stages=True)) == living
    visible = sorted({(share, name) for share, name, _ in living if truth.visible(share, name)})
    assert [(one.share, one.key) for one in await catalog.entries()] == visible


async def _check_contents(catalog: Catalog, truth: Audit) -> None:
    wanted = truth.wanted()
    said = await catalog.wanted()
    assert {(one.content, one.manifest, one.size): one.hlc for one in said} == wanted
    for origin in {one.origin for one in said}:
        hlcs = [one.hlc for one in said if one.origin == origin]
        assert hlcs == sorted(hlcs)
    usage = await catalog.usage()
    stages: dict[str, int] = defaultdict(int)
    for _, _, stage in truth.winners:
        stages[stage] += 1
    assert usage.stages == stages
    assert (usage.records, usage.contents, usage.content_bytes) == (len(truth.records), len(truth.held), sum(truth.held.values()))
    assert usage.wanted == len({content for content, _, _ in wanted})
    for content in {record.body.content for record in truth.records.values() if isinstance(record.body, Entry)}:
        assert await catalog.named_by_many([content]) == {content: truth.naming(content)}
        assert {share for share in truth.shares if await catalog.is_named(content, [share])} == truth.showing(content)
        assert catalog.is_held(content) == (content in truth.held)
        assert catalog.serves(content) == (content in truth.held and content not in truth.taken_down)
        assert await catalog.is_wanted(content) == any(content == name[0] for name in wanted)
    for share in truth.shares:
        missing = await catalog.missing(share)
        files = [record for of, stage, record in truth.files if of == share and stage in truth.carried.get(share, ())]
        lacked = [record for record in files if record.body.content not in {*truth.held, *truth.taken_down}]  # type: ignore[union-attr]
        assert missing.count == len({record.body.content for record in lacked})  # type: ignore[union-attr]
        assert missing.oldest == min((record.header.hlc for record in lacked), default=None)
        assert set(missing.newest) == {record.body.content for record in lacked}  # type: ignore[union-attr]
