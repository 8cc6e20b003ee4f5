"""The tree of authority: which grants count, who stands above whom, and which cuts take effect.

A *tenure* is a grant that counts. Tenures form a tree: the network key's grants stand at level 0, a grant that counts under an admin's tenure stands one level below it. If several tenures of the issuer
would do, the most senior is the parent: the least level, then the least (hlc, id). A grant to oneself does not outlive its parent.

A *cut* by X against S, later than the grant of S's tenure U, takes effect on U if

- X is the network key, or
- U is mirror or publisher, and the cut counts under some admin tenure of X, or
- U belongs to X itself, and the cut counts, later self-cuts aside, under U, or (if U is mirror or publisher) under an admin tenure of X, or
- U is admin and descends from a tenure of X, and the cut counts under an admin tenure of X of a lower level.

So nobody expels a peer or a senior, and a renewed admin keeps authority over those it admitted. A record counts *under* a tenure if it is later than the grant, within its life, and every cut in effect on
the tenure keeps it: it is among the records the cut names, or their predecessors. Behind a fork nothing counts, unless a cut by somebody else names it: an admin has then decided which branch is true.

What is true of a tenure depends only on tenures of lower levels, so one pass from the root computes it, and the result is a function of the set of records.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicad.model import paths
from replicad.model.ids import STAMP_MAX
from replicad.model.records import Cut, Grant, Role

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from replicad.model.ids import NodeId, Stamp
    from replicad.model.records import Record
    from replicad.protocol.chains import Chains
    from replicad.protocol.runs import Place


@dataclass(frozen=True, slots=True)
class Held:
    """A stored record of the share ``""``."""

    record: Record
    place: Place

    @property
    def order(self) -> tuple[int, bytes]:
        """``(hlc, id)``."""
        return self.record.order


@dataclass(eq=False, slots=True)
class CutInForce:
    """A cut with what it keeps, resolved against the chains when first asked. ``closures``: share to (run number to last seq)."""

    record: Record
    cut: Cut
    chains: Chains
    closures: dict[str, dict[int, int]] = field(default_factory=dict)

    def keeps(self, share: str, place: Place) -> bool:
        """Whether a record of the cut's subject still counts after it."""
        kept = self.closures.get(share)
        if kept is None:
            kept = self.closures[share] = self.chains.closure(self.cut.subject, share, self.cut.ends.get(share, ()))
        return kept.get(place.run, 0) >= place.seq


@dataclass(eq=False, slots=True)
class Tenure:
    """A grant that counts. ``until`` is the last stamp of its life; ``cuts`` are those in effect, any of which ends it for what comes later."""

    record: Record
    grant: Grant
    level: int
    parent: Tenure | None
    until: int
    cuts: tuple[CutInForce, ...] = ()
    shares: frozenset[str] | None = field(init=False)
    named: bool = False
    """A cut by somebody else is in effect: it, not the fork rule, decides about forked chains."""

    def __post_init__(self) -> None:
        self.shares = None if self.grant.shares is None else frozenset(self.grant.shares)

    @property
    def hlc(self) -> Stamp:
        """When the grant was made."""
        return self.record.header.hlc

    @property
    def is_admin(self) -> bool:
        """Whether grants, cuts and policies can count under it."""
        return self.grant.role is Role.ADMIN

    def descends_from(self, node: NodeId) -> bool:
        """Whether some tenure above this one belongs to that node."""
        above = self.parent
        while above:
            if above.grant.subject == node:
                return True
            above = above.parent
        return False

    def yields_to(self, author: NodeId, offices: Sequence[Tenure]) -> bool:
        """Whether a cut by ``author`` that counts under its admin tenures ``offices`` takes effect on this one."""
        if not self.is_admin:
            return bool(offices)
        if author == self.grant.subject:
            return self in offices
        return self.descends_from(author) and any(office.level < self.level for office in offices)

    def keeps(self, share: str, place: Place, *, void: bool) -> bool:
        """Whether time, forks and cuts let a record of this subject at that place count."""
        return not self.objection(share, place, void=void)

    def objection(self, share: str, place: Place, *, void: bool) -> str:
        """Why not: "early", "expired", "fork", "cut", or empty. ``void``: it stands behind a fork."""
        if place.hlc <= self.hlc:
            return "early"
        if place.hlc > self.until:
            return "expired"
        if void and not self.named:
            return "fork"
        return "" if all(cut.keeps(share, place) for cut in self.cuts) else "cut"

    def uncovered(self, *, role: Role, share: str, path_key: str | None, stages: Collection[str]) -> str:
        """What the grant does not cover: "role", "share", "stage", "path", or empty. An admin's grant covers every share, stage and path."""
        if self.grant.role.rank < role.rank:
            return "role"
        if self.is_admin:
            return ""
        if self.shares is not None and share not in self.shares:
            return "share"
        if self.grant.stages is not None and not set(stages) <= set(self.grant.stages):
            return "stage"
        if self.grant.paths is not None and path_key is not None and not any(paths.is_below(path_key, prefix) for prefix in self.grant.paths):
            return "path"
        return ""


class Authority:
    """All tenures, computed at once from every grant and cut, and not changed afterwards. ``tenures`` maps a node to its own, in order of (hlc, id)."""

    def __init__(self, network: NodeId, chains: Chains, *, grants: Iterable[Held], cuts: Iterable[Held]) -> None:
        self._network = network
        self._chains = chains
        self._cuts: dict[NodeId, list[tuple[Held, CutInForce]]] = defaultdict(list)
        for held in cuts:
            if isinstance(held.record.body, Cut):
                self._cuts[held.record.body.subject].append((held, CutInForce(held.record, held.record.body, chains)))
        for against in self._cuts.values():
            against.sort(key=lambda pair: pair[0].record.order)
        self.tenures: dict[NodeId, list[Tenure]] = {}
        self._settle(grants)
        for tenures in self.tenures.values():
            tenures.sort(key=lambda tenure: tenure.record.order)
            for tenure in tenures:
                if not tenure.is_admin:
                    self._apply_cuts(tenure)

    def counts_under(self, held: Held, tenure: Tenure) -> bool:
        """Whether a network-wide record of the tenure's subject counts under it."""
        return tenure.is_admin and tenure.keeps(held.record.header.share, held.place, void=self._chains.is_void(held.place))

    def _settle(self, grants: Iterable[Held]) -> None:
        """Find every grant's level and parent, one level after the other: what is true of a level depends only on those above."""
        issued: dict[NodeId, list[Held]] = defaultdict(list)
        for held in grants:
            issued[held.record.header.origin].append(held)
        tier: list[tuple[Held, Tenure | None]] = [(held, None) for held in issued[self._network]]
        settled = {held.record.id for held, _ in tier}
        level = 0
        while tier:
            entered = sorted((self._enter(held, level, parent) for held, parent in tier), key=lambda tenure: tenure.record.order)
            tier = []
            for tenure in entered:
                for child in issued[tenure.grant.subject]:
                    if child.record.id not in settled and self.counts_under(child, tenure):
                        settled.add(child.record.id)
                        tier.append((child, tenure))
            level += 1

    def _enter(self, held: Held, level: int, parent: Tenure | None) -> Tenure:
        grant = held.record.body
        assert isinstance(grant, Grant)  # noqa: S101 - the caller sorts records by type; for the type checker
        until = STAMP_MAX if grant.until is None else int(grant.until)
        if parent and _is_renewal(held):
            until = min(until, parent.until)
        tenure = Tenure(held.record, grant, level, parent, until)
        self.tenures.setdefault(grant.subject, []).append(tenure)
        if tenure.is_admin:
            self._apply_cuts(tenure)
        return tenure

    def _apply_cuts(self, tenure: Tenure) -> None:
        subject = tenure.grant.subject
        later = [(held, cut) for held, cut in self._cuts.get(subject, ()) if held.record.header.hlc > tenure.hlc]
        tenure.cuts = tuple(cut for held, cut in later if held.record.header.origin != subject and self._takes_effect(held, tenure))
        tenure.named = bool(tenure.cuts)
        for held, cut in later:
            if held.record.header.origin == subject and self._is_farewell(held, cut, tenure):
                tenure.cuts += (cut,)

    def _takes_effect(self, held: Held, tenure: Tenure) -> bool:
        """Whether somebody else's cut ends that tenure."""
        author = held.record.header.origin
        offices = [other for other in self.tenures.get(author, ()) if self.counts_under(held, other)]
        return author == self._network or tenure.yields_to(author, offices)

    def _is_farewell(self, held: Held, cut: CutInForce, tenure: Tenure) -> bool:
        """Whether a self-cut ends that tenure. It may exclude itself, so it is judged before it is in effect, and after those that came before it."""
        if tenure.is_admin:
            return self.counts_under(held, tenure)
        return any(cut in other.cuts for other in self.tenures[tenure.grant.subject] if other.is_admin)


def _is_renewal(held: Held) -> bool:
    return isinstance(held.record.body, Grant) and held.record.body.subject == held.record.header.origin
