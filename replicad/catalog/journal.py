"""How records get in and out: the write path of everything that is signed.

``receive`` verifies in a reader's thread (80 microseconds a record, most of it with the interpreter lock released), and hands what is verified to the ledger meanwhile. What
is stored already is recognised by its id before that: a signature is checked once in a node's life.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from replicad.catalog import contents, rows
from replicad.catalog.answers import Received, Refusal, Voided
from replicad.catalog.ledger import Outcome
from replicad.catalog.state import State
from replicad.crypto.envelope import record_id
from replicad.crypto.keys import SigningKey
from replicad.errors import DistrustError
from replicad.model.ids import NETWORK_SHARE, STAMP_MAX, NodeId, RecordId, Stamp
from replicad.model.manifest import Manifest
from replicad.model.records import Body, Cut, Envelope, Header, Reason, Record
from replicad.protocol import records as formats
from replicad.protocol.clock import FUTURE_MAX_MS
from replicad.protocol.replica import Replica
from replicad.protocol.runs import Fork, Place
from replicad.protocol.wire import RECORDS_PER_MESSAGE_MAX

RECEIVE_PART = 256
"""Envelopes in one transaction; a longer batch is received in several, in order. Small, so that two threads are busy with one answer to a pull: verifying a part, writing the one before."""
WITNESSES_MAX = 8
PAGE_BYTES = 4 << 20


class Journal(State):
    """Part of ``Catalog``."""

    async def receive(self, envelopes: Sequence[Envelope], *, source: NodeId | None) -> Received:
        """Verify, judge, store and merge, RECEIVE_PART envelopes in one transaction, in any order among themselves. Idempotent: what is here already is a duplicate.

        Records that do not count are stored and relayed without effect. Refused and too early ones (``gaps``) leave no trace. Publishes RecordsCommitted, TrustChanged and EntriesChanged after
        the commit. Raises StorageError or NoSpaceError with nothing applied of the transaction that failed.
        """
        try:
            async with asyncio.TaskGroup() as group:
                received = await self._receive(group, envelopes, source)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        await self._settle()
        return received

    async def _receive(self, group: asyncio.TaskGroup, envelopes: Sequence[Envelope], source: NodeId | None) -> Received:
        """One part is verified while the one before it is written."""
        network = self.network
        parts = (envelopes[start : start + RECEIVE_PART] for start in range(0, len(envelopes), RECEIVE_PART))
        checks = (group.create_task(self._database.check(partial(_check, envelopes=part, network=network))) for part in parts)
        received = Received((), 0, (), 0)
        ahead = next(checks, None)
        while ahead is not None:
            checked = await ahead
            ahead = next(checks, None)
            outcome = Outcome()
            if checked.records:
                unit = partial(self._ledger.receive, records=checked.records, network=network, source=source)
                outcome = await self._database.write(unit, after=self._received)
            received = _sum(received, checked, outcome)
        return received

    async def author(self, share: str, bodies: Sequence[Body], *, held: Sequence[Manifest] = ()) -> tuple[Record, ...]:
        """Sign and store one record per body, all or none, and mark the contents of ``held`` as held in the same transaction; durable on return.

        Raises NotAllowedError if this node's grants do not cover one of them, RecordError if a body breaks a rule of the format, and what ``check_clock`` raises unless they are all cuts: ending
        rights must never wait for a clock, and a liar who makes this node's look wrong can be ended. Concurrent callers share commits.
        """
        return await self._author(share, bodies, key=self._key, held=held)

    async def author_as(self, key: SigningKey, bodies: Sequence[Body]) -> tuple[Record, ...]:
        """The same in the share "" under another key: the network key's own grants and cuts."""
        return await self._author(NETWORK_SHARE, bodies, key=key, held=())

    async def author_cut(
        self,
        subject: NodeId,
        *,
        reason: Reason,
        before: Stamp = Stamp(STAMP_MAX),  # noqa: B008 - immutable
        then: Sequence[Body] = (),
        key: SigningKey | None = None,
    ) -> tuple[Record, ...]:
        """A cut that keeps everything said so far, or only what was said ``before`` a time: it names the last such records of each chain, before any fork, as they are in this transaction.

        ``then``: further bodies for the share "", signed with it. ``key``: the network's, instead of this node's. Raises as ``author``.
        """
        unit = partial(self._ledger.cut, subject=subject, reason=reason, before=before, then=then, key=key or self._key)
        if then:
            self.check_clock()
        outcome = await self._database.write(unit, durable=True, after=self._own_committed)
        await self._settle()
        return tuple(outcome.records)

    def _received(self, outcome: Outcome) -> None:
        self._committed(outcome)
        self._elsewhere.update(record.header.share for record in outcome.records if self._is_from_elsewhere(record.header, outcome.places))

    def _is_from_elsewhere(self, header: Header, places: Mapping[RecordId, Place]) -> bool:
        """Of a record that was received: whether another process made it with this node's key while this one ran. What comes back after a restore was made before, by a clock that may have been ahead."""
        if header.origin != self.node or (header.share, header.incarnation) in self._authored:
            return False
        before = places[header.prev].run if header.prev else None
        continues_ours = before is not None and (header.share, self.replica.chains.run(before).incarnation) in self._authored
        return continues_ours or header.hlc.ms > self._opened_ms + FUTURE_MAX_MS

    def _own_committed(self, outcome: Outcome) -> None:
        self._authored.update((record.header.share, record.header.incarnation) for record in outcome.records)
        self._committed(outcome)

    async def _author(self, share: str, bodies: Sequence[Body], *, key: SigningKey, held: Sequence[Manifest]) -> tuple[Record, ...]:
        if not all(isinstance(body, Cut) for body in bodies):
            self.check_clock()

        def unit(connection: sqlite3.Connection) -> tuple[Outcome, Sequence[Manifest]]:
            newly = contents.hold(connection, manifests=held)
            return self._ledger.author(connection, share, bodies, key=key), newly

        def after(result: tuple[Outcome, Sequence[Manifest]]) -> None:
            self._now_held(result[1])
            self._own_committed(result[0])

        outcome, _ = await self._database.write(unit, durable=True, after=after)
        await self._settle()
        return tuple(outcome.records)

    async def move(self, network: NodeId, envelopes: Sequence[Envelope]) -> Received:
        """Leave the network: forget its records, heads, invites and requests (not contents, manifests, partials), take up ``network`` with these records, all in one durable transaction.

        ``replica`` is another object afterwards. Close all links before.
        """
        checked = await self._database.check(partial(_check, envelopes=envelopes, network=network))
        unit = partial(self._ledger.move, records=checked.records, network=network)
        outcome = await self._database.write(unit, durable=True, after=partial(self._moved, network))
        await self._settle()
        return _sum(Received((), 0, (), 0), checked, outcome)

    def _moved(self, network: NodeId, outcome: Outcome) -> None:
        self.replica = Replica(network, self.node)
        self._elsewhere.clear()
        self._shown.forget_all()
        self._committed(outcome)

    async def records_for_pull(self, share: str, origin: NodeId, have: Mapping[Stamp, int], *, bytes_max: int) -> tuple[list[Envelope], bool]:
        """The records of one chain that are neither in ``have`` (incarnation to last seq) nor before those, every predecessor first; True if more follow.

        Payloads of at most ``bytes_max`` in all and 1024 records, but at least one if there is any.
        """
        segments = self.replica.chains.missing(origin, share, have)

        def unit(connection: sqlite3.Connection) -> tuple[list[Envelope], bool]:
            return _fill(rows.envelopes(connection, segments), bytes_max)

        return await self._database.scan(unit)

    def signed_elsewhere(self) -> list[str]:
        """The shares in which another process signed with this node's key since this one opened the catalog: the disk was cloned, or the key stolen.

        Told by what others sent, never by what was here at the start: a record that continues one of this process, or one that is later than the start by more than any clock may be ahead (ten minutes).
        """
        return sorted(self._elsewhere)

    async def witnesses(self, fork: Fork) -> tuple[RecordId, ...]:
        """The records that prove it."""

        def unit(connection: sqlite3.Connection) -> tuple[RecordId, ...]:
            found = (rows.last_before(connection, [segment], Stamp(STAMP_MAX)) for segment in fork.witnesses[:WITNESSES_MAX])
            return tuple(record for record in found if record)

        return await self._database.read(unit)

    async def said_since(self, origin: NodeId, since: Stamp) -> Voided:
        """How much a key has said from that time on, as far as it is here."""
        return Voided(*await self._database.scan(partial(rows.said_since, origin=origin, since=since)))

    async def record(self, record: RecordId) -> Record | None:
        """A stored record by id, whether or not it counts."""
        return await self._database.read(partial(rows.find_record, record=record))

    async def records_in_time(self, after: tuple[Stamp, bytes] | None, *, limit: int) -> tuple[list[tuple[Record, Place]], bool]:
        """A page of all stored records in order of (hlc, id), behind ``after``; True if more follow. At most ``limit``, and payloads of at most 4 MiB, but at least one if there is any."""

        def unit(connection: sqlite3.Connection) -> tuple[list[tuple[Record, Place]], bool]:
            page: list[tuple[Record, Place]] = []
            size_bytes = 0
            for record, place in rows.in_time(connection, after or (Stamp(0), b""), limit=limit + 1):
                size_bytes += len(record.envelope.payload)
                if page and (size_bytes > PAGE_BYTES or len(page) == limit):
                    return page, True
                page.append((record, place))
            return page, False

        return await self._database.scan(unit)

    async def known(self, ids: Iterable[RecordId]) -> set[RecordId]:
        """Which of these records are stored."""
        return set(await self._database.read(partial(rows.find_places, ids=list(ids))))


class _Checked:
    """Envelopes after verification."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.refused: list[Refusal] = []
        self.duplicates = 0


def _check(connection: sqlite3.Connection, *, envelopes: Sequence[Envelope], network: NodeId) -> _Checked:
    checked = _Checked()
    ids = [record_id(network, envelope.type, envelope.payload) for envelope in envelopes]
    stored = rows.find_places(connection, ids)
    for envelope, known in zip(envelopes, ids, strict=True):
        if known in stored:
            checked.duplicates += 1
            continue
        try:
            checked.records.append(formats.parse(envelope, network))
        except DistrustError as error:
            checked.refused.append(Refusal(error.error_code, error.message))
    return checked


def _sum(received: Received, checked: _Checked, outcome: Outcome) -> Received:
    return Received(
        received.new + tuple(outcome.records),
        received.duplicates + checked.duplicates + outcome.duplicates,
        received.refused + tuple(checked.refused) + tuple(outcome.refused),
        received.gaps + outcome.gaps,
    )


def _fill(envelopes: Iterable[Envelope], bytes_max: int) -> tuple[list[Envelope], bool]:
    chosen: list[Envelope] = []
    size_bytes = 0
    for envelope in envelopes:
        size_bytes += len(envelope.payload)
        if chosen and (size_bytes > bytes_max or len(chosen) == RECORDS_PER_MESSAGE_MAX):
            return chosen, True
        chosen.append(envelope)
    return chosen, False
