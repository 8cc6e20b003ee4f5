"""Trust: may this record be believed? Who is a member, and what is a share?

Whether a record counts is a pure function of the set of records, never of the order in which they arrived: some grant of its origin covers share, path, stage and role, the record's clock lies within
that grant's life, no later cut excludes it, and the grant itself counts, up to the network key (``tenures`` says how). Records that do not count stay stored and relayed, without effect.

``Trust`` is told every record of the share ``""``; the tree of tenures is computed anew when it is asked after a change (1,000 members: some tens of milliseconds), and ``counts`` is a look-up in
it (microseconds).
"""

from __future__ import annotations

from collections import defaultdict
from heapq import nlargest
from types import MappingProxyType
from typing import TYPE_CHECKING

from replicad.model import paths
from replicad.model.access import OPEN
from replicad.model.ids import NETWORK_SHARE, STAMP_MAX, NodeId, Stamp
from replicad.model.members import Member, Share
from replicad.model.records import Cut, Entry, Grant, Policy, Record, Role, Takedown, Tombstone, Unknown
from replicad.protocol.tenures import Authority, Held, Tenure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from replicad.model.ids import Digest, RecordId
    from replicad.protocol.chains import Chains
    from replicad.protocol.runs import Fork, Place

REASONS = ("stranger", "no-grant", "unknown-type", "role", "share", "stage", "path", "early", "expired", "fork", "cut")
"""What ``why_not`` answers. "stranger": never had a grant; "no-grant": none of its grants counts; "early": older than the grant; "expired": after the grant's life; the others name what forbids it."""

_NEVER_MS = 1 << 48


class Trust:
    """What the records of the share ``""`` add up to."""

    def __init__(self, network: NodeId, chains: Chains) -> None:
        self._network = network
        self._chains = chains
        self._grants: list[Held] = []
        self._cuts: list[Held] = []
        self._policies: list[Held] = []
        self._takedowns: list[Held] = []
        self._subjects: dict[NodeId, Role] = {network: Role.ADMIN}
        self._stale = True
        self._authority = Authority(network, chains, grants=(), cuts=())
        self._rights: dict[NodeId, object] = {}
        self._changed: set[NodeId] = set()
        self._shares: Mapping[str, Share] = MappingProxyType({})
        self._taken_down: Mapping[Digest, Record] = MappingProxyType({})
        self._members: Mapping[NodeId, Member] = MappingProxyType({})
        self._members_valid_ms = range(0)

    def load(self, records: Iterable[tuple[Record, Place]], places: Mapping[RecordId, Place]) -> None:
        """Take over the stored records of the share ``""``, at start, in any order. Nothing counts as changed afterwards. ``places``: of the ends that cuts among them name, as far as stored."""
        for record, place in records:
            self.add(record, place, places)
        self._settled()
        self._changed.clear()

    def add(self, record: Record, place: Place, places: Mapping[RecordId, Place]) -> bool:
        """Take in a record of the share ``""``; True if rights, members or shares may be different now. ``places``: of the ends it names, as far as stored."""
        held = Held(record, place)
        body = record.body
        if isinstance(body, Grant):
            self._grants.append(held)
            known = self._subjects.get(body.subject, body.role)
            self._subjects[body.subject] = max(known, body.role, key=lambda role: role.rank)
        elif isinstance(body, Cut):
            self._cuts.append(held)
            for ends in body.ends.values():
                self._chains.anchor(ends, places)
        elif isinstance(body, Policy):
            self._policies.append(held)
        elif isinstance(body, Takedown):
            self._takedowns.append(held)
        else:
            return False
        self._stale = True
        return True

    def knows(self, origin: NodeId, share: str) -> bool:
        """Whether the chain of that key in that share is accepted: it is the network's key, or some grant, whether that counts or not (so it does not depend on what else has arrived), gives it a role that
        may write there: publisher, or for the share ``""`` admin. What nobody with another role says can ever count, so a mirror costs nobody memory or disk.
        """
        role = self._subjects.get(origin)
        return role is not None and role.rank >= (Role.ADMIN if share == NETWORK_SHARE else Role.PUBLISHER).rank

    def named(self) -> dict[NodeId, str]:
        """Every key that some grant names, counting or not, with its name in the newest of them: former members are still spoken of."""
        grants = [(held.order, body) for held in self._grants if isinstance(body := held.record.body, Grant)]
        return {body.subject: body.name for _, body in sorted(grants, key=lambda pair: pair[0])}

    def grants_of(self, subject: NodeId) -> list[Grant]:
        """Every grant that names the key, counting or not, in order of arrival."""
        return [body for held in self._grants if isinstance(body := held.record.body, Grant) and body.subject == subject]

    def counts(self, record: Record, place: Place) -> bool:
        """Whether the record has an effect."""
        return not self.why_not(record, place)

    def why_not(self, record: Record, place: Place) -> str:
        """Why the record has no effect: one of ``REASONS``, of the grant that comes closest; empty if it counts."""
        header, body = record.header, record.body
        if isinstance(body, Unknown):
            return "unknown-type"
        if header.origin == self._network:
            return "" if header.share == NETWORK_SHARE else "role"
        tenures = self._settled().tenures.get(header.origin)
        if not tenures:
            return "no-grant" if header.origin in self._subjects else "stranger"
        named = body if isinstance(body, Entry | Tombstone) else None
        role = Role.PUBLISHER if named else Role.ADMIN
        path_key, stages = (paths.key(named.path), named.stages) if named else (None, ())
        void = self._chains.is_void(place)
        closest = 0
        for tenure in tenures:
            reason = tenure.uncovered(role=role, share=header.share, path_key=path_key, stages=stages) or tenure.objection(header.share, place, void=void)
            if not reason:
                return ""
            closest = max(closest, REASONS.index(reason))
        return REASONS[closest]

    def takes_effect(self, record: Record) -> bool:
        """Whether the record is a cut that ends some grant; it may exclude itself, and so not count, and do that all the same."""
        tenures = self._settled().tenures.get(record.body.subject, ()) if isinstance(record.body, Cut) else ()
        return any(cut.record.id == record.id for tenure in tenures for cut in tenure.cuts)

    def may(self, node: NodeId, *, share: str, path_key: str | None, stage: str | None, role: Role, at: Stamp, source: str | None = None) -> bool:
        """Whether a record that this node makes now, with clock ``at``, would count. ``path_key`` and ``stage`` are None for network-wide records; ``source`` is the stage that a promotion ends."""
        if node == self._network:
            return share == NETWORK_SHARE
        stages = [name for name in (stage, source) if name]
        return any(not tenure.uncovered(role=role, share=share, path_key=path_key, stages=stages) for tenure in self._in_force(node, at))

    def members(self, now_ms: int) -> Mapping[NodeId, Member]:
        """Every node with a grant in force at that time."""
        authority = self._settled()
        if now_ms not in self._members_valid_ms:
            now = Stamp.of(now_ms)
            alive = {node: [tenure for tenure in tenures if not tenure.cuts and tenure.until >= now] for node, tenures in authority.tenures.items()}
            self._members = MappingProxyType({node: _member(node, tenures) for node, tenures in alive.items() if tenures})
            self._members_valid_ms = range(now_ms, min((Stamp(tenure.until).ms + 1 for tenures in alive.values() for tenure in tenures), default=_NEVER_MS))
        return self._members

    def ended(self, node: NodeId) -> Stamp | None:
        """When the first cut of each grant, the last of them, ended what it gave a node. None: no cut did - it is a member, never was one, or its grants ran out by themselves."""
        tenures = [tenure for tenure in self._settled().tenures.get(node, ()) if tenure.cuts]
        first = ((min(cut.record.header.hlc for cut in tenure.cuts), tenure.until) for tenure in tenures)
        return max((end for end, until in first if end <= until), default=None)

    def is_revoked(self, node: NodeId) -> bool:
        """Whether some grant of the node was ended because its key was stolen."""
        return any(cut.cut.reason == "revoke" for tenure in self._settled().tenures.get(node, ()) for cut in tenure.cuts)

    def said(self, until: Stamp, count_max: int) -> list[Record]:
        """The newest ``count_max`` of the records taken in here that are not later than ``until``, oldest first. Each follows its predecessor and what gives it authority."""
        held = (one for kind in (self._grants, self._cuts, self._policies, self._takedowns) for one in kind)
        newest = nlargest(count_max, (one for one in held if one.record.header.hlc <= until), key=lambda one: one.order)
        return [one.record for one in reversed(newest)]

    def may_end(self, author: NodeId, subject: NodeId, at: Stamp, *, past: bool = False) -> bool:
        """Whether a cut that ``author`` makes now, with clock ``at``, would take effect on every grant of ``subject`` that is in force; with ``past`` also on those that are over, under which old
        records count. An admin ends mirrors, publishers, itself and the admins below it.
        """
        subjects = self._settled().tenures.get(subject, []) if past else self._in_force(subject, at)
        offices = [tenure for tenure in self._in_force(author, at) if tenure.is_admin]
        return author == self._network or all(tenure.yields_to(author, offices) for tenure in subjects)

    def forks(self, node: NodeId, at: Stamp) -> list[Fork]:
        """The proofs of equivocation of a member that no admin has decided about: something under a grant in force is void for them."""
        since = min((tenure.hlc for tenure in self._in_force(node, at)), default=at)
        return [fork for fork in self._chains.forks(node) if fork.last_hlc > since]

    def shares(self) -> Mapping[str, Share]:
        """Every share that exists, by name; removed ones are absent."""
        self._settled()
        return self._shares

    def taken_down(self) -> Mapping[Digest, Record]:
        """Every content on which a takedown stands, with the record that says so."""
        self._settled()
        return self._taken_down

    def take_changed(self) -> frozenset[NodeId]:
        """The origins whose records must be judged again, of all shares: their rights became different since the last call."""
        self._settled()
        changed, self._changed = frozenset(self._changed), set()
        return changed

    def _in_force(self, node: NodeId, at: Stamp) -> list[Tenure]:
        return [tenure for tenure in self._settled().tenures.get(node, ()) if not tenure.cuts and tenure.hlc < at <= tenure.until]

    def _settled(self) -> Authority:
        disturbed = self._chains.take_disturbed()
        if self._stale or disturbed:
            self._stale = False
            self._authority = Authority(self._network, self._chains, grants=self._grants, cuts=self._cuts)
            rights = {node: _rights(tenures) for node, tenures in self._authority.tenures.items()}
            self._changed |= disturbed | {node for node in rights.keys() | self._rights.keys() if rights.get(node) != self._rights.get(node)}
            self._rights = rights
            self._members_valid_ms = range(0)
            self._shares = MappingProxyType(self._find_shares())
            self._taken_down = MappingProxyType(self._find_taken_down())
        return self._authority

    def _find_shares(self) -> dict[str, Share]:
        named: dict[str, list[Held]] = defaultdict(list)
        for held in self._policies:
            if isinstance(held.record.body, Policy) and self.counts(held.record, held.place):
                named[held.record.body.name].append(held)
        found = {name: _share(policies) for name, policies in named.items()}
        return {name: share for name, share in sorted(found.items()) if share}

    def _find_taken_down(self) -> dict[Digest, Record]:
        newest: dict[Digest, tuple[Record, bool]] = {}
        for held in sorted(self._takedowns, key=lambda held: held.order):
            body = held.record.body
            if isinstance(body, Takedown) and self.counts(held.record, held.place):
                newest[body.content] = held.record, body.lifted
        return {content: record for content, (record, lifted) in newest.items() if not lifted}


def _rights(tenures: Iterable[Tenure]) -> object:
    """What decides about a node's records, comparable."""
    return [(tenure.record.id, tenure.until, [cut.record.id for cut in tenure.cuts]) for tenure in tenures]


def _member(node: NodeId, tenures: list[Tenure]) -> Member:
    """What the grants in force add up to: the highest role, the shares of all of them; name, site, networks and the stages it carries are those of the newest."""
    newest = tenures[-1]
    below = [None if tenure.is_admin else tenure.grant.paths for tenure in tenures if tenure.grant.role is not Role.MIRROR]
    paths = frozenset(path for prefixes in below for path in prefixes or ()) if below and None not in below else None
    until = max(tenure.until for tenure in tenures)
    shares = None if any(tenure.shares is None or tenure.is_admin for tenure in tenures) else frozenset().union(*(tenure.shares or () for tenure in tenures))
    stages = None if newest.grant.stages is None else frozenset(newest.grant.stages)
    role = max((tenure.grant.role for tenure in tenures), key=lambda role: role.rank)
    return Member(
        node,
        newest.grant.name,
        role,
        newest.grant.site,
        shares,
        stages,
        newest.hlc,
        newest.record.header.origin,
        paths,
        None if until == STAMP_MAX else Stamp(until),
        newest.grant.networks or (),
    )


def _share(policies: list[Held]) -> Share | None:
    """A share's history, oldest first: the first policy (or the first after a removal) creates it and fixes ``immutable``; later ones change the rest."""
    share: Share | None = None
    for held in sorted(policies, key=lambda held: held.order):
        policy = held.record.body
        if not isinstance(policy, Policy) or policy.removed:
            share = None
            continue
        created, immutable = (share.created, share.immutable) if share else (held.record.header.hlc, policy.immutable)
        more = policy.layout or "", policy.root or "", policy.checksums or (), policy.redirects or {}
        share = Share(policy.name, policy.public, immutable, policy.stages, created, policy.access or OPEN, *more)
    return share
