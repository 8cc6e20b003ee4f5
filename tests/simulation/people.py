"""Who takes part: a founder, admins under it, publishers of every kind of grant, mirrors, liars; and what honest people do with their nodes."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from replicad.crypto.hashing import sha256
from replicad.model.manifest import Manifest
from replicad.model.records import DEFAULT_STAGES, Cut, Entry, Grant, Policy, Role, Takedown, Tombstone
from replicad.protocol.gossip.events import Store
from simulation.node import Disk, Node
from simulation.watch import Watch
from simulation.wire import Wires

if TYPE_CHECKING:
    from collections.abc import Iterable

    from replicad.crypto.keys import SigningKey
    from replicad.model.ids import NodeId, RecordId
    from replicad.model.records import Record

SHARES = ("munki", "jamf", "fixed", "secret")
"""Of all; of many; immutable, of some; of four nodes, and the liars are not among them."""
NAMES = (
    "Apps/Tool.pkg",
    "apps/tool.pkg",
    "Apps/Übung.dmg",
    "apps/one.pkg",
    "apps2/one.pkg",
    "App/two.pkg",
    "tools/three.pkg",
    "Tools/four.pkg",
    "five.pkg",
    "six.pkg",
)
CONTENTS = tuple(f"content {number}".encode() for number in range(6))
PREFIX = "apps"
_MANY = ("munki", "jamf")
_SOME = ("munki", "fixed")
_KINDS: tuple[dict[str, object], ...] = (
    {"role": Role.PUBLISHER, "shares": (*SHARES,)},
    {"role": Role.PUBLISHER, "shares": _MANY},
    {"role": Role.PUBLISHER, "shares": _SOME},
    {"role": Role.PUBLISHER, "shares": _MANY, "paths": (PREFIX,)},
    {"role": Role.PUBLISHER, "shares": ("munki",), "stages": ("dev",)},
    {"role": Role.PUBLISHER, "shares": (*_MANY, "fixed"), "stages": ("test", "prod")},
    {"role": Role.MIRROR, "shares": _MANY},
    {"role": Role.MIRROR, "shares": ("munki",), "stages": ("prod",)},
)


class People:
    """The nodes of one network and what they are told to do. ``nodes`` are those that run or will run again; clones beside them."""

    def __init__(self, seed: int | str, *, nodes: int = 20, liars: int = 4) -> None:
        self.wires = Wires(seed)
        self.dice = self.wires.dice
        self.watch = Watch(self.wires)
        self.nodes = [Node(self.wires, f"n{number}", watch=self.watch) for number in range(nodes)]
        self.founder, self.admin, self.junior = self.nodes[:3]
        self.liars = self.nodes[nodes - liars :]
        self.clones: list[Node] = []
        self.retired: list[Node] = []
        self.watch.founder = self.founder.id
        for liar in self.liars:
            liar.honest = False
        self._found()

    @property
    def honest(self) -> list[Node]:
        return [node for node in self.nodes if node.honest and node.alive]

    def _found(self) -> None:
        founder = self.founder
        founder.author("", Grant(founder.id, founder.name, Role.ADMIN), key=self.wires.key)
        founder.author("", *(Policy(share, public=True, immutable=share == "fixed") for share in SHARES))
        founder.author("", Grant(self.admin.id, self.admin.name, Role.ADMIN))
        self.join(self.admin)
        self.admin.author("", Grant(self.junior.id, self.junior.name, Role.ADMIN))
        self.wires.link(founder, self.admin)
        self.wires.run(1000)
        kinds = {node: self._kind(index) for index, node in enumerate(self.nodes[3:])}
        for node, kind in kinds.items():
            (founder if node in self.liars else self.dice.choice((founder, self.admin))).author(
                "", Grant(node.id, node.name, site=f"s{self.dice.randrange(3)}", **kind)
            )
        self.wires.run(1000)
        entitled = {node for node, kind in kinds.items() if kind["shares"] is None or "secret" in kind["shares"]} | {founder, self.admin, self.junior}
        self.watch.never["secret"] = {node.id for node in self.nodes if node not in entitled}
        for node in self.nodes[2:]:
            self.join(node)

    def _kind(self, index: int) -> dict[str, object]:
        liar = index - (len(self.nodes) - 3 - len(self.liars))
        if liar < 0:
            return _KINDS[index % len(_KINDS)]
        return (
            {"role": Role.PUBLISHER, "shares": _MANY, "paths": (PREFIX,), "stages": ("dev",)},
            {"role": Role.MIRROR, "shares": ("munki",)},
            {"role": Role.ADMIN, "shares": None},
            {"role": Role.PUBLISHER, "shares": _MANY},
        )[liar % 4]

    def join(self, node: Node, via: Node | None = None) -> None:
        """What joining does: all network-wide records at once."""
        via = via or self.founder
        node._store(Store(via.id, tuple(record.envelope for record in via.stored.values() if record.header.share == ""), 0, more=False))
        node.sync()

    # -- publishing ---------------------------------------------------------------------------------------------------------------------------------

    def publish(self, node: Node) -> list[Record]:
        """A new file, another version, or an older one again."""
        share, path, stage = self.name(node)
        live = node.catalog.live(share, path, stage)
        if share == "fixed" and node.catalog.winner(share, path, stage):
            return []
        return node.author(share, self.entry(path, stage, live))

    def delete(self, node: Node) -> list[Record]:
        share, path, stage = self.name(node)
        live = node.catalog.live(share, path, stage)
        return node.author(share, Tombstone(path, stage, supersedes=live[:256])) if node.catalog.winner(share, path, stage) else []

    def promote(self, node: Node) -> list[Record]:
        """What lives at one stage is moved to the next."""
        share, path, _ = self.name(node)
        source, target = self.dice.choice((("dev", "test"), ("test", "prod"), ("dev", "prod")))
        winner = node.catalog.winner(share, path, source)
        if winner is None or (share == "fixed" and node.catalog.winner(share, path, target)):
            return []
        supersedes = (*node.catalog.live(share, path, source), *node.catalog.live(share, path, target))
        body = winner.body
        return node.author(share, Entry(body.path, target, body.content, body.size, body.manifest, body.modified, supersedes=supersedes[:256], source=source))

    def name(self, node: Node) -> tuple[str, str, str]:
        """Some name that the node has to do with: mostly one that exists."""
        share = self.dice.choice([share for share in node.shares() if share] or ["munki"])
        path = self.dice.choice(NAMES)
        if self.dice.random() < 0.2:
            path = unicodedata.normalize("NFD", path)
        return share, path, self.dice.choice(DEFAULT_STAGES)

    def entry(self, path: str, stage: str, supersedes: Iterable[RecordId] = ()) -> Entry:
        content = self.dice.choice(CONTENTS)
        digest = sha256(content)
        manifest = Manifest.implied(digest, len(content))
        assert manifest is not None
        return Entry(path, stage, digest, len(content), manifest.id, 1_700_000_000, supersedes=tuple(supersedes)[:256])

    # -- administration -----------------------------------------------------------------------------------------------------------------------------

    def narrow(self, by: Node, node: Node) -> list[Record]:
        """What the node may do becomes less, or something else."""
        member = by.replica.trust.members(by.now.wall_ms).get(node.id)
        if member is None or member.role is Role.ADMIN:
            return []
        shares = tuple(share for share in SHARES if share in (member.shares or SHARES) and self.dice.random() < 0.8)
        stages = self.dice.choice((None, ("dev", "prod"), ("prod",)))
        grant = Grant(node.id, node.name, self.dice.choice((Role.MIRROR, Role.PUBLISHER)), member.site, shares or ("munki",), stages=stages)
        return by.author("", Cut(node.id, by.cut_ends(node.id), "change"), grant)

    def widen(self, by: Node, node: Node) -> list[Record]:
        """Shares that everybody may have are granted again."""
        member = by.replica.trust.members(by.now.wall_ms).get(node.id)
        if member is None or member.role is Role.ADMIN:
            return []
        return by.author("", Grant(node.id, node.name, Role.PUBLISHER, member.site, (*_MANY, "fixed")))

    def remove(self, by: Node, node: Node) -> list[Record]:
        return by.author("", Cut(node.id, by.cut_ends(node.id), "remove"))

    def revoke(self, by: Node, node: Node) -> list[Record]:
        """Its key is stolen: what it said from some earlier moment on is void."""
        ends: dict[str, tuple[RecordId, ...]] = {}
        for share, last in by.cut_ends(node.id).items():
            record = by.stored[last[0]] if last else None
            for _ in range(self.dice.randrange(6)):
                record = by.stored.get(record.header.prev) if record and record.header.prev else None
            if record:
                ends[share] = (record.id,)
        return by.author("", Cut(node.id, ends, "revoke"))

    def admit(self, by: Node, node: Node) -> list[Record]:
        """Somebody who was expelled comes back, and joins again."""
        if by.admits(node.id):
            return []
        made = by.author("", Grant(node.id, node.name, Role.PUBLISHER, "s0", _MANY))
        if made and node.alive:
            self.join(node, by)
        return made

    def change_share(self, by: Node) -> list[Record]:
        """A share gets other stages, ends, or begins anew."""
        share = by.replica.trust.shares().get("fixed")
        if share is None:
            return by.author("", Policy("fixed", public=True, immutable=self.dice.random() < 0.7))
        if self.dice.random() < 0.5:
            return by.author("", Policy("fixed", public=True, removed=True))
        return by.author("", Policy("fixed", public=False, stages=self.dice.choice((DEFAULT_STAGES, ("prod", "dev", "test"), ("dev", "prod")))))

    def take_down(self, by: Node) -> list[Record]:
        """A content is served nowhere from now on; or again."""
        return by.author("", Takedown(sha256(self.dice.choice(CONTENTS)), lifted=self.dice.random() < 0.5))

    # -- machines -----------------------------------------------------------------------------------------------------------------------------------

    def restart(self, node: Node) -> None:
        if not node.alive:
            node.start()
            self.watch.forget(node)

    def restore(self, node: Node) -> None:
        """The disk is put back to an earlier state."""
        if node.alive:
            node.crash(1.0)
        kept = node.disk.until(self.dice.randint(_joined(node), len(node.disk.commits)))
        gone = {record.id for record in node.disk.records()} - {record.id for record in kept.records()}
        node.disk = kept
        self.watch.lost |= gone - self._safe(but=node)

    def _safe(self, *, but: Node) -> set[RecordId]:
        """What the founder keeps, whatever happens next but a restore of its own disk: a crash may forget what is not synced."""
        founder = self.founder
        return set() if founder is but else {record.id for commit in founder.disk.commits[: founder.disk.synced] for record in commit}

    def clone(self, node: Node, *, in_memory: bool) -> Node:
        """A second machine with the same key: from a copy of the disk, or from a copy of the running machine."""
        twin = Node(self.wires, f"{node.name}'{len(self.retired) + len(self.clones)}", key=node.key, watch=self.watch)
        twin.stop()
        twin.disk = Disk(list(node.disk.commits), len(node.disk.commits), node.disk.heads)
        twin.honest = node.honest
        twin.start()
        self.watch.forget(twin)
        if in_memory:
            twin.replica._opened = dict(node.replica._opened)
        self.clones.append(twin)
        return twin

    def retire(self, twin: Node) -> None:
        """The second machine is switched off for good: what only it had is gone."""
        twin.stop()
        self.clones.remove(twin)
        self.retired.append(twin)
        self.watch.lost |= {record.id for record in twin.acknowledged} - self._safe(but=twin)


def _joined(node: Node) -> int:
    """Commits until the node was a member: nobody restores what was before."""
    return next((count for count, commit in enumerate(node.disk.commits, 1) if len(commit) > 10), 1)


__all__ = ["NAMES", "PREFIX", "SHARES", "NodeId", "People", "SigningKey"]
