"""Which of several statements about one name wins: the catalog's conflict rule.

A register is one (share, collision key, stage). Its state is the set of its records; merging is set union, and ``resolve`` is a function of that set, so every node that has the same records shows the same file. *Live* is
what counts and is not superseded by something that counts. Several live entries are a conflict: the greatest (hlc, id) wins, the others stay retrievable as siblings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Collection

    from replicad.model.ids import Digest, RecordId, Stamp


@dataclass(frozen=True, slots=True)
class RegisterRow:
    """One record of a register. ``content`` is None for a tombstone; ``counts`` is trust's word on it."""

    record: RecordId
    hlc: Stamp
    kind: Literal["entry", "tombstone"]
    content: Digest | None
    supersedes: Collection[RecordId]
    counts: bool

    @property
    def order(self) -> tuple[int, bytes]:
        """``(hlc, id)``."""
        return self.hlc, self.record


@dataclass(frozen=True, slots=True)
class Resolution:
    """``winner`` is what the register shows (None: no file), ``siblings`` the other live entries, best first, ``live`` everything live including tombstones: what a new record of this register supersedes."""

    winner: RecordId | None
    siblings: tuple[RecordId, ...]
    live: tuple[RecordId, ...]


def resolve(rows: Collection[RegisterRow], *, immutable: bool, elsewhere: Collection[RecordId] = ()) -> Resolution:
    """The state of a register.

    ``rows``: all its records, each once, in any order. ``elsewhere``: what counting promotions of the same name out of this stage supersede. A tombstone removes only what it
    supersedes, so an update beats a concurrent delete. In an ``immutable`` share the first writer wins, and an entry that supersedes an entry is void: a replacement needs a delete before it.
    """
    counting = [row for row in rows if row.counts]
    if immutable:
        entries = {row.record for row in counting if row.kind == "entry"}
        counting = [row for row in counting if row.kind == "tombstone" or entries.isdisjoint(row.supersedes)]
    superseded = {record for row in counting for record in row.supersedes}.union(elsewhere)
    live = sorted((row for row in counting if row.record not in superseded), key=lambda row: row.order, reverse=not immutable)
    files = [row.record for row in live if row.kind == "entry"]
    return Resolution(files[0] if files else None, tuple(files[1:]), tuple(row.record for row in live))
