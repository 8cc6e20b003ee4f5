"""What the parts of ``Catalog`` share: the file, this node's key, the committed replica, and what follows a commit.

Two replicas are kept. The ledger's is ahead by the transaction being written, lives in the writer's thread and is rolled back with it. ``replica`` is what is committed; it lives in the event loop
and takes in each transaction's records after its commit, in the same step that publishes the events. So nobody ever sees, signs or sends a state that the disk does not have.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from replicad.catalog import supply
from replicad.catalog.database import Database
from replicad.catalog.ledger import Ledger, Outcome
from replicad.catalog.memory import HeldSet, Shown
from replicad.crypto.keys import SigningKey
from replicad.model.callers import Retention
from replicad.model.events import ContentHeld, EntriesChanged, Event, RecordsCommitted, TrustChanged
from replicad.model.ids import NodeId, Stamp
from replicad.model.manifest import Manifest
from replicad.protocol.replica import Replica

T = TypeVar("T")

CHANGED_KEYS_MAX = 10_000
"""Keys in one EntriesChanged; more are told as "any of this share"."""
CARRIED_FRESH_MS = 1_000
"""For so long the stages this node carries are not computed again without a record that changes them: only grants that expire by themselves are noticed that late."""


class State:
    """Base of the parts of ``Catalog``: no methods of its own for others, one set of attributes."""

    def __init__(self, database: Database, ledger: Ledger, *, replica: Replica, held: HeldSet, key: SigningKey, clock_ms: Callable[[], int]) -> None:
        self.node: NodeId = key.id
        self.replica = replica
        self.on_event: Callable[[Event], None] = lambda _: None
        self.check_clock: Callable[[], None] = lambda: None
        self.retention = Retention()
        self._authored: set[tuple[str, Stamp]] = set()
        self._elsewhere: set[str] = set()
        self._opened_ms = clock_ms()
        self._database = database
        self._ledger = ledger
        self._held = held
        self._key = key
        self._clock_ms = clock_ms
        self._shown = Shown()
        self._carried: Mapping[str, tuple[str, ...]] = {}
        self._carried_at_ms = -CARRIED_FRESH_MS
        self._carried_stored: Mapping[str, tuple[str, ...]] | None = None

    @property
    def network(self) -> NodeId:
        """The network this catalog belongs to; ``move`` changes it."""
        return self.replica.network

    # -- writing --

    async def _write(self, unit: Callable[[sqlite3.Connection], T], *, durable: bool = False, after: Callable[[T], None] | None = None) -> T:
        """A transaction of its own; and, if a change of rights left records to be counted again because its caller was cancelled, one batch of those."""
        result = await self._database.write(unit, durable=durable, after=after)
        if self._ledger.unfinished:
            await self._database.write(self._ledger.recount, after=self._committed)
        return result

    async def _settle(self) -> None:
        """Count again, in batches, whatever a change of rights left to be counted."""
        while self._ledger.unfinished:
            await self._database.write(self._ledger.recount, after=self._committed)

    def _committed(self, outcome: Outcome) -> None:
        """In the event loop, after the commit: memory follows, then everybody hears of it."""
        outcome.follow(self.replica)
        changed = outcome.changed
        if outcome.rights_changed:
            self._carried_at_ms = -CARRIED_FRESH_MS
            self._shown.forget_all()
        for share, keys in changed.names.items():
            self._shown.forget(share, keys)
        if outcome.records:
            self.on_event(RecordsCommitted(tuple(outcome.records), outcome.source))
        if outcome.rights_changed:
            self.on_event(TrustChanged())
        for share in sorted(changed.shares | changed.names.keys()):
            keys = changed.names.get(share, set())
            self.on_event(EntriesChanged(share, () if share in changed.shares or len(keys) > CHANGED_KEYS_MAX else tuple(sorted(keys))))

    def _now_held(self, manifests: Sequence[Manifest]) -> None:
        held = tuple((manifest.content, manifest.size) for manifest in manifests)
        self._held.add(held)
        if held:
            self.on_event(ContentHeld(held))

    # -- what this node carries --

    def _carried_now(self) -> Mapping[str, tuple[str, ...]]:
        """Share name to the stages of it that this node carries, lowest first."""
        now_ms = self._clock_ms()
        if not 0 <= now_ms - self._carried_at_ms < CARRIED_FRESH_MS:
            places = supply.carried_places(self.replica, self.node, now_ms)
            if places != self._carried:
                self._shown.forget_all()
            self._carried, self._carried_at_ms = places, now_ms
        return self._carried

    async def _refresh_carried(self) -> None:
        """Bring the wanted contents up to date if the passing of time alone ended a grant of this node."""
        places = self._carried_now()
        if places != self._carried_stored:
            await self._write(lambda connection: supply.carry(connection, places), after=self._now_carried)
            self._carried_stored = places

    def _now_carried(self, shares: set[str]) -> None:
        for share in shares:
            self.on_event(EntriesChanged(share, ()))
