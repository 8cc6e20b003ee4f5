"""The catalog of one simulated node, in memory: records into registers, rights into consequences, as ``replicad.catalog`` does it in SQLite, with the product's own rules (``merge``, ``carried_places``, the choice of a stage)."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from replicad.catalog import entries, supply
from replicad.model import paths
from replicad.model.records import Entry, Tombstone
from replicad.protocol import merge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from replicad.model.ids import NodeId, RecordId
    from replicad.model.records import Record
    from replicad.protocol.replica import Replica
    from replicad.protocol.runs import Place

Name = tuple[str, str]
"""Share and collision key."""


class Catalog:
    """``settled`` hears of every name that was resolved anew."""

    def __init__(self, replica: Replica, places: Mapping[RecordId, Place], settled: Callable[[Name], None]) -> None:
        self.counts: dict[RecordId, bool] = {}
        self.names: dict[Name, dict[str, dict[RecordId, Record]]] = {}
        self.resolutions: dict[tuple[str, str, str], merge.Resolution] = {}
        self.carried: Mapping[str, tuple[str, ...]] = {}
        self._replica = replica
        self._places = places
        self._settled = settled
        self._of: dict[NodeId, list[Record]] = defaultdict(list)
        self._immutable: frozenset[str] = frozenset()

    def add(self, new: Iterable[Record], now_ms: int) -> None:
        """Records that the replica has taken in, and what follows from them."""
        trust = self._replica.trust
        touched: set[Name] = set()
        network_wide = False
        for record in new:
            self.counts[record.id] = trust.counts(record, self._places[record.id])
            self._of[record.header.origin].append(record)
            network_wide = network_wide or record.header.share == ""
            if isinstance(record.body, Entry | Tombstone):
                touched.add(self._enter(record))
        touched |= self._follow_rights(trust.take_changed())
        if network_wide:
            immutable = frozenset(name for name, share in trust.shares().items() if share.immutable)
            touched |= {name for name in self.names if name[0] in immutable ^ self._immutable}
            self._immutable = immutable
            self.carry(now_ms)
        for name in touched:
            self._settle(name)

    def carry(self, now_ms: int) -> None:
        """Which stages this node shows may be different now."""
        self.carried = supply.carried_places(self._replica, self._replica.own, now_ms)

    def live(self, share: str, path: str, stage: str) -> tuple[RecordId, ...]:
        """What a new record of that register must supersede."""
        found = self.resolutions.get((share, paths.key(path), stage))
        return found.live if found else ()

    def winner(self, share: str, path: str, stage: str) -> Record | None:
        key = paths.key(path)
        found = self.resolutions.get((share, key, stage))
        return self.names[share, key][stage][found.winner] if found and found.winner else None

    def visible(self, name: Name) -> RecordId | None:
        """What this node shows under a name: the product's own choice among the winners of the stages that it carries."""
        stages = self.carried.get(name[0])
        rows = []
        for stage in self.names.get(name, ()) if stages else ():
            found = self.resolutions.get((*name, stage))
            if found and found.winner:
                row: list[object] = [found.winner, *[None] * entries._STAGE]
                row[entries._STAGE] = stage
                rows.append(row)
        chosen = entries._chosen(rows, stages or (), all_stages=False) if rows else ()
        return chosen[0][0] if chosen else None

    def _enter(self, record: Record) -> Name:
        name = (record.header.share, paths.key(record.body.path))
        self.names.setdefault(name, {}).setdefault(record.body.stage, {})[record.id] = record
        return name

    def _follow_rights(self, origins: Iterable[NodeId]) -> set[Name]:
        touched = set()
        for origin in origins:
            for record in self._of.get(origin, ()):
                counts = self._replica.trust.counts(record, self._places[record.id])
                if counts != self.counts[record.id]:
                    self.counts[record.id] = counts
                    if isinstance(record.body, Entry | Tombstone):
                        touched.add((record.header.share, paths.key(record.body.path)))
        return touched

    def _settle(self, name: Name) -> None:
        stages = self.names[name]
        moved: dict[str, set[RecordId]] = defaultdict(set)
        for one in (one for found in stages.values() for one in found.values() if self.counts[one.id]):
            for source in one.body.stages[1:]:
                moved[source].update(one.body.supersedes)
        for stage, found in stages.items():
            rows = [
                merge.RegisterRow(
                    one.id,
                    one.header.hlc,
                    "entry" if isinstance(one.body, Entry) else "tombstone",
                    one.body.content if isinstance(one.body, Entry) else None,
                    one.body.supersedes,
                    self.counts[one.id],
                )
                for one in found.values()
            ]
            self.resolutions[*name, stage] = merge.resolve(rows, immutable=name[0] in self._immutable, elsewhere=moved[stage])
        self._settled(name)
