"""Trust's laws: what counts depends on the set of records alone, and is what the rules say.

Random networks of five keys that admit, narrow, expel, rotate, publish, back-date, branch and lie. Every one is told to replicas in random order, asked in between or not, loaded from disk or not, and compared
with ``trust_model``, which follows the rules by the letter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from protocol_world import NOW_MS, Node, World, node_with
from trust_model import TrustModel

from replicad.crypto.hashing import sha256
from replicad.model.ids import NETWORK_SHARE, Stamp
from replicad.model.records import Cut, Grant, Policy, Role, Takedown
from replicad.protocol.replica import Replica, mentions

if TYPE_CHECKING:
    from random import Random

    from replicad.model.ids import NodeId, RecordId
    from replicad.model.records import Record

NAMES = ["network", "ann", "bob", "cid", "dan"]
CONTENTS = [sha256(b"x"), sha256(b"y")]
LAWS = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@st.composite
def worlds(draw: st.DrawFn) -> World:
    world = World().founded()
    for name in NAMES:
        world.id(name)
    admins = draw(st.lists(st.sampled_from([("ann", "bob"), ("ann", "cid"), ("bob", "cid"), ("bob", "dan"), ("cid", "dan")]), max_size=3))
    for by, subject in admins:
        world.grant(by, subject, "admin")
    for _ in range(draw(st.integers(1, 14))):
        say_something(draw, world)
    return world


def say_something(draw: st.DrawFn, world: World) -> None:
    by = draw(st.sampled_from(["network", *NAMES[1:] * 4]))
    kind = (
        draw(st.sampled_from(["grant", "grant", "cut", "cut", "entry", "entry", "policy", "takedown"]))
        if by != "network"
        else draw(st.sampled_from(["grant", "cut"]))
    )
    share = draw(st.sampled_from(["munki", "jamf"])) if kind == "entry" else ""
    said = where(draw, world, by, share)
    if kind == "entry":
        stage, source = draw(st.sampled_from([("dev", ""), ("prod", ""), ("prod", "dev"), ("dev", "prod")]))
        world.entry(by, draw(st.sampled_from(["a", "ab", "a/b", "A"])), share=share, stage=stage, source=source, **said)
    elif kind == "takedown":
        world.say(by, "", Takedown(draw(st.sampled_from(CONTENTS)), lifted=draw(st.booleans())), **said)  # type: ignore[arg-type]
    elif kind == "policy":
        world.policy(by, "munki", public=draw(st.booleans()), removed=draw(st.integers(0, 4)) == 0, said=said)
    elif kind == "grant":
        limits = {
            "shares": draw(st.sampled_from([None, None, ("munki",), ()])),
            "paths": draw(st.sampled_from([None, None, ("a",)])),
            "stages": draw(st.sampled_from([None, None, ("dev",)])),
            "until": draw(st.sampled_from([None, None, None, Stamp.of(1012)])),
        }
        world.grant(by, draw(st.sampled_from(NAMES[1:])), draw(st.sampled_from(["admin", "admin", "publisher", "mirror"])), **limits, **said)
    else:
        subject = draw(st.sampled_from(NAMES[1:]))
        world.cut(by, subject, some_ends(draw, world, subject), **said)


def where(draw: st.DrawFn, world: World, by: str, share: str) -> dict[str, object]:
    """Mostly right after the author's last record and now; sometimes on a branch of its own, in the same incarnation or another, with a clock as early as the chain allows."""
    own = [record for record in world.said if record.header.origin == world.id(by) and record.header.share == share]
    said: dict[str, object] = {}
    after = own[-1] if own else None
    if own and draw(st.integers(0, 5)) == 0:
        after = draw(st.sampled_from([*own, None]))
        said["after"] = after
    said["incarnation"] = (after.header.incarnation if after else 1) + draw(st.sampled_from([0, 0, 0, 0, 1]))
    if draw(st.integers(0, 3)) == 0:
        least = after.header.hlc.ms + 1 if after else 1000
        said["at"] = draw(st.integers(least, max(least, world.time)))
    return said


def some_ends(draw: st.DrawFn, world: World, subject: str) -> dict[str, list[Record]] | None:
    if draw(st.booleans()):
        return None
    ends: dict[str, list[Record]] = {}
    for share in ("", "munki"):
        own = [record for record in world.said if record.header.origin == world.id(subject) and record.header.share == share]
        if own and draw(st.booleans()):
            ends[share] = draw(st.lists(st.sampled_from(own), max_size=2, unique_by=lambda record: record.id))
    return ends


def everything(node: Node) -> tuple[object, ...]:
    trust = node.replica.trust
    frontiers = [node.replica.chains.frontier_hash(share) for share in ("", "munki", "jamf")]
    return node.counting(), dict(trust.members(NOW_MS)), dict(trust.shares()), dict(trust.taken_down()), frontiers


@LAWS
@given(worlds(), st.randoms(use_true_random=False))
def test_order_of_arrival_does_not_matter(world: World, random: Random) -> None:
    expected = everything(node_with(world))
    for _ in range(3):
        shuffled = list(world.said)
        random.shuffle(shuffled)
        assert everything(node_with(world, shuffled)) == expected


@LAWS
@given(worlds(), st.randoms(use_true_random=False))
def test_asking_in_between_changes_nothing_and_changes_are_announced(world: World, random: Random) -> None:
    """After every single record: the counts of records whose origin ``take_changed`` did not name are what they were."""
    shuffled = list(world.said)
    random.shuffle(shuffled)
    node = Node(world)
    before: dict[RecordId, bool] = {}
    for record in [*shuffled, *shuffled, *shuffled]:
        node.deliver([record])
        changed = node.replica.trust.take_changed()
        now = {stored.id: node.counts(stored) for stored in node.stored}
        silent = {stored.id for stored in node.stored if stored.header.origin not in changed}
        assert all(before[id_] == now[id_] for id_ in silent & before.keys())
        before = now
    assert everything(node.deliver(shuffled)) == everything(node_with(world))


@LAWS
@given(worlds())
def test_trust_follows_the_rules(world: World) -> None:
    node = node_with(world)
    model = TrustModel(world.network, node.stored)
    verdicts = {record.id: model.counts(record) for record in node.stored}
    assert {record.id: node.counts(record) for record in node.stored} == verdicts
    assert set(node.replica.trust.members(NOW_MS)) == model.members(NOW_MS)
    assert set(node.replica.trust.members(1005)) == model.members(1005)
    assert all(bool(node.why_not(record)) != verdicts[record.id] for record in node.stored)
    effective = {cut.id for office in model.offices for cut in model.effective(office)}
    assert {record.id for record in node.stored if node.replica.trust.takes_effect(record)} == effective
    said = [record for record in node.stored if isinstance(record.body, Takedown) and verdicts[record.id]]
    newest = {content: max((one for one in said if one.body.content == content), key=lambda one: one.order, default=None) for content in CONTENTS}  # type: ignore[union-attr]
    assert dict(node.replica.trust.taken_down()) == {content: one for content, one in newest.items() if one and not one.body.lifted}  # type: ignore[union-attr]


@LAWS
@given(worlds())
def test_a_replica_loaded_from_disk_is_the_same(world: World) -> None:
    node = node_with(world)
    everything(node)
    stored = [record for record in node.stored if record.header.share == NETWORK_SHARE]
    wanted = {id_ for record in stored for id_ in mentions(record)}
    loaded = Node(world)
    loaded.places, loaded.stored = dict(node.places), list(node.stored)
    loaded.replica = Replica(world.network, world.id("observer"))
    runs = {place.run: node.replica.chains.run(place.run) for place in node.places.values()}
    loaded.replica.load(
        runs.values(), [(record, node.places[record.id]) for record in stored], {id_: place for id_, place in node.places.items() if id_ in wanted}
    )
    assert everything(loaded) == everything(node)
    assert loaded.replica.trust.take_changed() == frozenset()
    assert loaded.replica.clock.last == node.replica.clock.last
    again = world.cut("network", "ann", {})
    assert loaded.offer(again) == node.offer(again)
    assert everything(loaded) == everything(node)


@LAWS
@given(
    worlds(),
    st.sampled_from(NAMES[1:]),
    st.sampled_from(["munki", "jamf"]),
    st.sampled_from(["a", "ab"]),
    st.sampled_from(["dev", "prod"]),
    st.sampled_from(["", "test"]),
)
def test_may_tells_what_will_count(world: World, name: str, share: str, path: str, stage: str, source: str) -> None:
    node = node_with(world)
    world.time = max(world.time, *(record.header.hlc.ms for record in world.said))
    tip = node.replica.chains.tip(world.id(name), share)
    after = next((record for record in node.stored if tip and record.id == tip.last_id), None)
    entry = world.entry(name, path, share=share, stage=stage, source=source, after=after, incarnation=100)
    allowed = node.replica.trust.may(world.id(name), share=share, path_key=path, stage=stage, role=Role.PUBLISHER, at=entry.header.hlc, source=source)
    if node.replica.trust.knows(world.id(name), share):
        node.deliver([entry])
        assert node.counts(entry) == allowed
    else:
        assert not allowed


def sound_ends(node: Node, name: str) -> dict[str, list[Record]]:
    """What a cut that keeps everything names."""
    chains, subject = node.replica.chains, node.world.id(name)
    stored = {(place.run, place.seq): record for record in node.stored for place in [node.places[record.id]]}
    return {share: [stored[segment.run, segment.last_seq] for segment in chains.sound_ends(subject, share)] for share in chains.shares_of(subject)}


@LAWS
@given(worlds())
def test_cutting_all_of_the_sound_ends_takes_nothing_back(world: World) -> None:
    """The network key ends everybody, naming what ``sound_ends`` says: every record that counted still does, and nobody is left."""
    node = node_with(world)
    before = node.counting()
    world.time = max(world.time, *(record.header.hlc.ms for record in world.said))
    for name in NAMES[1:]:
        node.deliver([world.cut("network", name, sound_ends(node, name))])
    forked = any(node.replica.chains.is_void(place) for place in node.places.values())
    assert before <= node.counting() or forked
    assert not node.replica.trust.members(NOW_MS)


@LAWS
@given(worlds(), st.sampled_from(NAMES[1:]), st.floats(0, 1))
def test_a_cut_at_a_time_takes_back_what_is_not_before_it_and_nothing_else(world: World, name: str, part: float) -> None:
    """What `peer revoke --from` signs: in every line of the chains, the last record before the time."""
    node = node_with(world)
    subject, chains = world.id(name), node.replica.chains
    stamps = sorted({record.header.hlc for record in world.said})
    before = stamps[int(part * (len(stamps) - 1))]
    stored = {(place.run, place.seq): record for record in node.stored for place in [node.places[record.id]]}
    ends: dict[str, list[Record]] = {}
    for share in chains.shares_of(subject):
        lines = [
            [stored[piece.run, seq] for piece in chains.line(end) for seq in range(piece.last_seq, 0, -1) if seq >= piece.first_seq]
            for end in chains.sound_ends(subject, share)
        ]
        last = (next((record for record in line if record.header.hlc < before), None) for line in lines)
        ends[share] = list({record.id: record for record in last if record}.values())
    counted = {record.id for record in node.stored if record.header.origin == subject and node.counts(record)}
    voided = any(chains.is_void(node.places[record.id]) for record in node.stored if record.header.origin == subject)
    world.time = max(world.time, *(record.header.hlc.ms for record in world.said))
    node.deliver([world.cut("network", name, ends)])
    still = {record.id for record in node.stored if record.header.origin == subject and node.counts(record)}
    assert {record.id for record in node.stored if record.id in still and record.header.hlc >= before} == set()
    ordained = any(record.header.origin == subject and record.header.share == "" and record.id in counted for record in node.stored)
    farewell = any(record.header.origin == subject and isinstance(record.body, Cut) and record.body.subject == subject for record in node.stored)
    # A farewell may exclude itself and yet be in effect: taken back, it takes nothing more.
    if not (voided or ordained or farewell):
        assert still == {record.id for record in node.stored if record.id in counted and record.header.hlc < before}


@LAWS
@given(worlds())
def test_nobody_can_expel_its_senior(world: World) -> None:
    """Take away every cut by the network key and by ann, who founded: ann stays, whatever the others do."""
    spared = [record for record in world.said if not (isinstance(record.body, Cut) and record.header.origin in {world.network, world.id("ann")})]
    founding = spared[0]
    node = node_with(world, [record for record in spared if _is_first(record, spared)])
    assert world.id("ann") in node.replica.trust.members(NOW_MS)
    assert node.counts(founding)


def _is_first(record: Record, said: list[Record]) -> bool:
    """Whether its predecessor is among them (a missing cut leaves a gap behind it)."""
    return record.header.prev is None or any(other.id == record.header.prev for other in said)


@LAWS
@given(worlds())
def test_only_admins_say_what_shares_are_and_who_belongs(world: World) -> None:
    node = node_with(world)
    admins: set[NodeId] = {world.network}
    for record in sorted(node.stored, key=lambda record: record.order):
        if isinstance(record.body, Grant) and record.body.role is Role.ADMIN and node.counts(record):
            admins.add(record.body.subject)
    for record in node.stored:
        if isinstance(record.body, Grant | Cut | Policy | Takedown) and node.counts(record):
            assert record.header.origin in admins


@LAWS
@given(worlds(), st.sampled_from(NAMES), st.sampled_from(NAMES[1:]))
def test_may_end_tells_whether_a_cut_ends_a_member(world: World, by: str, subject: str) -> None:
    node = node_with(world)
    world.time = max(world.time, *(record.header.hlc.ms for record in world.said))
    tip = node.replica.chains.tip(world.id(by), "")
    after = next((record for record in node.stored if tip and record.id == tip.last_id), None)
    cut = world.cut(by, subject, sound_ends(node, subject), after=after, incarnation=100)
    at_ms = cut.header.hlc.ms
    was_member = world.id(subject) in node.replica.trust.members(at_ms)
    expected = node.replica.trust.may_end(world.id(by), world.id(subject), cut.header.hlc)
    node.deliver([cut])
    still = world.id(subject) in node.replica.trust.members(at_ms)
    assert still == (was_member and not expected)
