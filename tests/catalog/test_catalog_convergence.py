"""Two catalogs that have the same records give the same answers, whatever the order of arrival, and those answers are what the records say."""

from __future__ import annotations

import asyncio
import random
import tempfile
from pathlib import Path
from typing import Any

from catalog_world import START_MS, World, audit, content_of, entry, key, rows, sign, tombstone
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.catalog import Catalog
from replicad.catalog import ledger as ledger_module
from replicad.model import paths
from replicad.model.ids import RecordId, Stamp
from replicad.model.manifest import Manifest
from replicad.model.records import Body, Cut, Entry, Envelope, Grant, Policy, Record, Role, Takedown, Tombstone
from replicad.protocol.replica import Replica
from replicad.protocol.runs import Place

AUTHORS = ("ann", "bob", "cid")
FILES = ("a", "A", "a/b", "ä", "x.pkg")
STAGES = ("dev", "test", "prod")
CONTENTS = [content_of(name) for name in "vwxyz"]


class Story:
    """Everything that was said in a network, by authors who each knew only a part of what had been said before."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.network = key("network")
        self.said: list[Record] = []
        self.keys = {"network": self.network, **{name: key(name) for name in AUTHORS}}
        self.replicas = {name: Replica(self.network.id, signer.id) for name, signer in self.keys.items()}
        self.places: dict[str, dict[RecordId, Place]] = {name: {} for name in self.keys}
        self.heard = dict.fromkeys(self.keys, 0)
        self.now_ms = START_MS - 1_000_000

    def catch_up(self, name: str) -> None:
        for record in self.said[self.heard[name] :]:
            if record.id not in self.places[name] and self.replicas[name].judge(record, START_MS, self.places[name]).value == "new":
                self.replicas[name].add(record, self.places[name])
        self.heard[name] = len(self.said)

    def say(self, name: str, share: str, body: Body) -> Record:
        self.now_ms += self.dice.randrange(3)
        replica = self.replicas[name]
        header = replica.next_header(share, now_ms=self.now_ms, random16=self.dice.randrange(65536))
        record = sign(self.keys[name], self.network.id, header, body)
        replica.add(record, self.places[name])
        self.said.append(record)
        return record

    def equivocate(self) -> None:
        """Somebody says something else in the place of something said."""
        old = self.dice.choice([record for record in self.said if isinstance(record.body, Entry)] or [None])  # type: ignore[list-item]
        if old is not None:
            name = next(name for name, signer in self.keys.items() if signer.id == old.header.origin)
            self.said.append(sign(self.keys[name], self.network.id, old.header, entry("forked", "other")))

    def step(self) -> None:
        name = self.dice.choice(AUTHORS)
        if self.dice.random() < 0.7:
            self.catch_up(name)
        kind = self.dice.choices(("entry", "tombstone", "grant", "cut", "policy", "takedown", "equivocate"), (10, 3, 2, 2, 1.5, 1.5, 0.5))[0]
        if kind == "equivocate":
            self.equivocate()
        elif kind in ("entry", "tombstone"):
            self.say(name, self.dice.choice(("munki", "jamf")), self._named(name, kind))
        else:
            self.say(name, "", getattr(self, f"_{kind}")())

    def _named(self, name: str, kind: str) -> Entry | Tombstone:
        path, stage = self.dice.choice(FILES), self.dice.choice(STAGES)
        known = [
            record
            for record in self.said
            if record.id in self.places[name] and isinstance(record.body, Entry | Tombstone) and paths.key(record.body.path) == paths.key(path)
        ]
        supersedes = [record.id for record in self.dice.sample(known, min(len(known), self.dice.randrange(4)))]
        if kind == "tombstone":
            return tombstone(path, stage=stage, supersedes=supersedes)
        source = self.dice.choice([other for other in STAGES if other != stage]) if self.dice.random() < 0.5 else None
        return entry(path, self.dice.choice("vwxyz"), stage=stage, supersedes=supersedes, source=source)

    def _grant(self) -> Grant:
        subject = self.dice.choice((*AUTHORS, "observer"))
        shares = self.dice.choice((None, None, ("munki",), ("jamf", "munki")))
        stages = self.dice.choice((None, None, ("prod",), ("dev", "prod")))
        until = self.dice.choice((None, None, None, Stamp.of(self.now_ms + self.dice.randrange(50))))
        return Grant(key(subject).id, subject, self.dice.choice(tuple(Role)), shares=shares, stages=stages, until=until)

    def _cut(self) -> Cut:
        subject = self.dice.choice((*AUTHORS, "observer"))
        ends: dict[str, tuple[RecordId, ...]] = {}
        for share in ("", "munki", "jamf"):
            theirs = [record.id for record in self.said if record.header.origin == key(subject).id and record.header.share == share]
            if theirs and self.dice.random() < 0.8:
                ends[share] = (self.dice.choice(theirs[-3:]),)
        return Cut(key(subject).id, ends, "change")

    def _policy(self) -> Policy:
        return Policy(self.dice.choice(("munki", "jamf")), public=True, immutable=self.dice.random() < 0.5, removed=self.dice.random() < 0.15)

    def _takedown(self) -> Takedown:
        return Takedown(self.dice.choice(CONTENTS).content, lifted=self.dice.random() < 0.4)

    def told(self, length: int) -> list[Record]:
        self.say("network", "", Grant(key("ann").id, "ann", Role.ADMIN))
        self.say("network", "", Grant(key("observer").id, "observer", Role.MIRROR))
        for name in AUTHORS:
            self.catch_up(name)
        for body in (
            Grant(key("bob").id, "bob", Role.ADMIN),
            Grant(key("cid").id, "cid", Role.PUBLISHER),
            Policy("munki", public=True),
            Policy("jamf", public=True, immutable=True),
        ):
            self.say("ann", "", body)
        for _ in range(length):
            self.step()
        return self.said


async def play(catalog: Catalog, envelopes: list[Envelope], dice: random.Random) -> None:
    """Deliver in random order and batches, again and again until nothing new is accepted; contents come and go and names are asked for meanwhile."""
    fresh = True
    while fresh:
        fresh = False
        dice.shuffle(envelopes)
        position = 0
        while position < len(envelopes):
            size = dice.randrange(1, 12)
            fresh |= bool((await catalog.receive(envelopes[position : position + size], source=None)).new)
            position += size
            await (catalog.lose(dice.choice(CONTENTS).content) if dice.random() < 0.5 else catalog.hold([dice.choice(CONTENTS)]))
            for path in FILES:
                await catalog.visible("munki", paths.key(path))


ANSWERS = (
    "SELECT share, key, stage, siblings, record.id FROM register LEFT JOIN record ON record.record = register.winner WHERE winner IS NOT NULL ORDER BY 1, 2, 3",
    "SELECT id, counts, live, wins FROM entry JOIN record USING (record) ORDER BY id",
    "SELECT id, wanted.share, content, manifest, size_bytes FROM wanted JOIN record USING (record) ORDER BY id",
    "SELECT share, stage FROM carried ORDER BY 1, 2",
    "SELECT content FROM taken_down ORDER BY 1",
    "SELECT kind, amount, bytes FROM tally WHERE amount ORDER BY kind",
)


async def answers(catalog: Catalog) -> list[Any]:
    found: list[Any] = [await rows(catalog, sql) for sql in ANSWERS]
    found.append({share: catalog.replica.chains.frontier_hash(share) for share in ("", "munki", "jamf")})
    found.append([(one.record, one.siblings) for one in await catalog.entries(all_stages=True)])
    return found


@given(seed=st.integers(0, 2**32), length=st.integers(0, 60), batch=st.sampled_from([1, 3, 2000]))
@settings(max_examples=25)
def test_any_order_of_arrival_gives_the_same_true_answers(seed: int, length: int, batch: int) -> None:
    asyncio.run(_exchange(seed, length, batch))


async def _exchange(seed: int, length: int, batch: int) -> None:
    dice = random.Random(seed)
    said = [record.envelope for record in Story(dice).told(length)]
    kept = dice.sample(CONTENTS, 2)
    before, ledger_module.RECOUNT_BATCH = ledger_module.RECOUNT_BATCH, batch
    try:
        with tempfile.TemporaryDirectory() as directory:
            world = World(Path(directory))
            first, second = [await _life(world, name, said, kept, dice) for name in ("first", "second")]
            assert first == second
    finally:
        ledger_module.RECOUNT_BATCH = before


async def _life(world: World, name: str, said: list[Envelope], kept: list[Manifest], dice: random.Random) -> list[Any]:
    path = world.path(name)
    async with world.open("observer", network=world.network.id, path=path) as catalog:
        await catalog.hold(CONTENTS)
        await play(catalog, said.copy(), dice)
        await catalog.hold(kept)
        for content in CONTENTS:
            if content not in kept:
                await catalog.lose(content.content)
        await audit(catalog)
        found = await answers(catalog)
    async with world.open("observer", path=path) as catalog:
        await audit(catalog)
        assert await answers(catalog) == found
        return found
