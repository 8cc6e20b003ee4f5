"""Records that should not be, sent by members over real links: none changes what the honest node believes, and who sends what no honest node could is named."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec.structs import replace

from replicad.crypto.envelope import record_id
from replicad.crypto.keys import SigningKey
from replicad.model.records import Cut, Envelope, Grant, Policy, Role, Tombstone
from support.peer_node import PeerNode, admit, entry, peer_node
from support.villain import MINUTE_MS, appears, forge, linked, named, offences, stamp, tell
from support.waiting import until


@asynccontextmanager
async def network(tmp_path: Path) -> AsyncIterator[tuple[PeerNode, PeerNode, PeerNode]]:
    """An admin, a publisher of the share munki below the path "a" and "é", a mirror of it. A file of the admin's is at "b" and in the share jamf."""
    async with peer_node(tmp_path / "a", "ann") as ann, peer_node(tmp_path / "p", "pub") as pub, peer_node(tmp_path / "m", "mir") as mir:
        await ann.create_share("munki")
        await ann.create_share("jamf")
        await admit(ann, pub, mir, role="mirror")
        grant = Grant(pub.id, "pub", Role.PUBLISHER, shares=("munki",), paths=("a", "é"))
        await ann.catalog.author("", [Cut(pub.id, {}, "change"), grant, Cut(mir.id, {}, "change"), Grant(mir.id, "mir", Role.MIRROR, shares=("munki",))])
        await ann.publish("munki", "b")
        await ann.publish("jamf", "c")
        await until(lambda: {pub.hash(), mir.hash()} == {ann.hash()}, what="the grants everywhere")
        await linked(pub, ann)
        await linked(mir, ann)
        yield ann, pub, mir


def believed(node: PeerNode) -> object:
    """Everything that rights depend on."""
    trust = node.catalog.replica.trust
    return dict(trust.members(node.clock())), dict(trust.shares()), node.hash("")


async def test_nothing_that_a_publisher_signs_beyond_its_grant_has_an_effect(tmp_path: Path) -> None:
    async with network(tmp_path) as (ann, pub, _mir):
        before, eve, id_ = believed(ann), SigningKey.generate(), ann.catalog.network
        foreign = (await ann.catalog.register("munki", "b", "prod"))[0].record
        admitted = ann.catalog.replica.trust.members(ann.clock())[pub.id].admitted
        attacks = {
            "prefix of another segment": forge(pub.key, id_, "munki", entry("ab/evil")),
            "a letter that only looks like its prefix": forge(pub.key, id_, "munki", entry("e/evil")),
            "the path itself in another share": forge(pub.key, id_, "jamf", entry("a/evil")),
            "a share that does not exist": forge(pub.key, id_, "nowhere", entry("a/evil")),
            "an entry from before its grant": forge(pub.key, id_, "munki", entry("a/evil"), ahead_ms=admitted.ms - ann.clock() - MINUTE_MS),
            "an entry from the future": forge(pub.key, id_, "munki", entry("a/evil"), ahead_ms=60 * MINUTE_MS),
            "a deletion of what it may not write": forge(pub.key, id_, "munki", Tombstone("b", "prod", supersedes=(foreign,))),
            "admin for itself": forge(pub.key, id_, "", Grant(pub.id, "pub", Role.ADMIN)),
            "admin for somebody": forge(pub.key, id_, "", Grant(eve.id, "eve", Role.ADMIN)),
            "the end of the admin": forge(pub.key, id_, "", Cut(ann.id, {}, "revoke")),
            "the end of a share": forge(pub.key, id_, "", Policy("munki", public=True, removed=True)),
            "a share of its own": forge(pub.key, id_, "", Policy("evil", public=True)),
            "the end of somebody else's file": forge(pub.key, id_, "munki", replace(entry("a/fine"), supersedes=(foreign,))),
            "its own prefix in another spelling, which is no attack": forge(pub.key, id_, "munki", entry("A/e\u0301")),
        }
        for number, (name, attack) in enumerate(attacks.items()):
            tell(pub, ann, attack, forge(pub.key, id_, "munki", entry(f"a/after {number} {name}")))
            await appears(ann, f"munki/a/after {number} {name}")
        honest = {f"munki/a/after {number} {name}" for number, name in enumerate(attacks)}
        assert await ann.files() == {"munki/b", "jamf/c", "munki/a/fine", "munki/A/e\u0301", *honest}
        assert believed(ann) == before
        assert ann.catalog.replica.clock.last < stamp(MINUTE_MS), "the future moved no clock"
        assert not await offences(ann, pub)


TRICKS = [b"../evil", b"/evil", b"a/../evil", b"a//evil", b"a/./evil", b"a\\\\evil", b"C:evil", b"a/evil.", b"a/\\u0000", b"a/" + b"x" * 256, b""]


def forgeries(ann: PeerNode, pub: PeerNode, honest: Envelope) -> dict[str, Envelope]:
    """What cannot come from anybody honest."""
    id_ = ann.catalog.network
    good = forge(pub.key, id_, "munki", entry("a/evil"))
    return {
        "cross-network": forge(pub.key, SigningKey.generate().id, "munki", entry("a/evil")),
        "cross-type": replace(good, type="tombstone"),
        "altered": replace(good, payload=good.payload.replace(b"a/evil", b"b/evil")),
        "under another key": replace(good, key=ann.id),
        "in another's name": forge(pub.key, id_, "munki", entry("b/evil"), origin=ann.id),
        "a successor that is none": forge(pub.key, id_, "munki", entry("a/evil"), after=(4711, record_id(id_, honest.type, honest.payload))),
        "another spelling": forge(pub.key, id_, "munki", entry("a/evil"), instead=(b'"path":', b'"path": ')),
        "a type where it does not belong": forge(pub.key, id_, "munki", entry("a/evil"), instead=(b'"share":"munki"', b'"share":""')),
        **{f"path {trick[:20]!r}": forge(pub.key, id_, "munki", entry("a/evil"), instead=(b'"a/evil"', b'"%s"' % trick)) for trick in TRICKS},
    }


async def test_whoever_sends_what_no_honest_node_could_is_named_and_nothing_of_it_is_kept(tmp_path: Path) -> None:
    async with network(tmp_path) as (ann, pub, _mir):
        before = believed(ann)
        honest = forge(pub.key, ann.catalog.network, "munki", entry("a/first"))
        tell(pub, ann, honest)
        await appears(ann, "munki/a/first")
        frontier = ann.hash("munki")
        for number, (name, forged) in enumerate(forgeries(ann, pub, honest).items(), start=1):
            await linked(pub, ann)
            tell(pub, ann, forged)
            await named(ann, pub, times=number, what=name)
        assert ann.hash("munki") == frontier
        assert await ann.files() == {"munki/a/first", "munki/b", "jamf/c"}
        assert believed(ann) == before


async def test_what_a_mirror_says_is_kept_by_nobody_whoever_passes_it_on(tmp_path: Path) -> None:
    async with network(tmp_path) as (ann, pub, mir):
        before, id_ = believed(ann), ann.catalog.network
        said = [
            forge(mir.key, id_, "munki", entry("a/evil")),
            forge(mir.key, id_, "", Grant(mir.id, "mir", Role.ADMIN)),
            forge(mir.key, id_, "", Grant(SigningKey.generate().id, "eve", Role.MIRROR)),
        ]
        for teller in (mir, pub):
            tell(teller, ann, *said, forge(pub.key, id_, "munki", entry(f"a/told by {teller.name}")))
            await appears(ann, f"munki/a/told by {teller.name}")
        assert await ann.files() == {"munki/a/told by mir", "munki/a/told by pub", "munki/b", "jamf/c"}
        assert believed(ann) == before
        assert not ann.catalog.replica.chains.shares_of(mir.id)


async def test_a_revoked_key_adds_nothing_though_an_accomplice_passes_it_on(tmp_path: Path) -> None:
    async with network(tmp_path) as (ann, pub, mir):
        id_ = ann.catalog.network
        first = forge(pub.key, id_, "munki", entry("a/first"))
        tell(pub, ann, first)
        await appears(ann, "munki/a/first")
        await ann.membership.remove(pub.id)
        await until(lambda: ann.table.get(pub.id) is None and pub.id not in mir.catalog.replica.trust.members(mir.clock()), what="the end of its links")
        before = believed(ann)
        behind = (1, record_id(id_, first.type, first.payload))
        late = [
            forge(pub.key, id_, "munki", entry("a/late")),
            forge(pub.key, id_, "munki", entry("a/back-dated"), ahead_ms=-1),
            forge(pub.key, id_, "munki", entry("a/behind"), after=behind, incarnation=stamp()),
        ]
        tell(mir, ann, *late)
        await until(lambda: len(ann.catalog.replica.chains.ends(pub.id, "munki")) == len(late), what="what the accomplice passes on")
        assert await ann.files() == {"munki/a/first", "munki/b", "jamf/c"}
        assert believed(ann) == before
        assert not await offences(ann, mir), "a record that does not count is no offence of who relays it"
