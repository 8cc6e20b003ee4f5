"""Chains: named cases of admission, frontiers, pulls and forks; then random trees against a model that keeps every record."""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol_world import NOW_MS, Node, World, node_with

from replicad.model.ids import NodeId, RecordId, Stamp
from replicad.protocol.chains import ENDS_MAX, Admission, Chains, Place, Segment, mentions
from replicad.protocol.gossip.pulls import STEP_BACK_MAX, _forked
from replicad.protocol.replica import Replica
from replicad.protocol.wire import End

if TYPE_CHECKING:
    from random import Random

    from replicad.model.records import Record

SHARE = "munki"


def line(count: int, **said: int) -> tuple[World, list[Record]]:
    world = World().founded()
    return world, [world.entry("ann", **said) for _ in range(count)]


def end_of(record: Record) -> End:
    return End(record.header.incarnation, record.header.seq, record.id)


def ends(node: Node, author: str = "ann") -> tuple[End, ...]:
    return node.replica.chains.ends(node.world.id(author), SHARE)


def seqs(segments: list[Segment]) -> list[tuple[int, int]]:
    return [(segment.first_seq, segment.last_seq) for segment in segments]


# --- Admission ---


def test_a_chain_grows_record_by_record() -> None:
    world, (one, two, three) = line(3)
    node = node_with(world, world.said[:1])
    assert [node.offer(record) for record in (two, one, three, two, three, one)] == ["gap", "new", "gap", "new", "new", "duplicate"]
    assert ends(node) == (end_of(three),)


def test_a_duplicate_in_the_middle_is_known_by_its_id() -> None:
    world, records = line(3)
    node = node_with(world)
    assert [node.offer(record) for record in records] == [Admission.DUPLICATE] * 3


@pytest.mark.parametrize(
    ("change", "admission"),
    [
        pytest.param({}, "new", id="a good successor"),
        pytest.param({"seq": 4}, "broken", id="seq jumps"),
        pytest.param({"seq": 2}, "broken", id="seq stays"),
        pytest.param({"hlc": Stamp.of(1)}, "broken", id="clock goes back"),
        pytest.param({"hlc": "same"}, "broken", id="clock stays"),
        pytest.param({"incarnation": Stamp(1)}, "broken", id="incarnation goes back"),
        pytest.param({"incarnation": Stamp(3)}, "new", id="a new incarnation"),
        pytest.param({"share": "other"}, "broken", id="predecessor in another share"),
        pytest.param({"origin": "bob"}, "broken", id="predecessor of another origin"),
        pytest.param({"prev": RecordId(bytes(32))}, "gap", id="unknown predecessor"),
        pytest.param({"prev": None, "seq": 1}, "new", id="a second start"),
    ],
)
def test_a_successor(change: dict[str, object], admission: str) -> None:
    world, (_, second) = line(2, incarnation=2)
    world.grant("ann", "bob", "admin")
    node = node_with(world)
    third = world.entry("ann", incarnation=2)
    if change.get("origin"):
        change["origin"] = world.id("bob")
    if change.get("hlc") == "same":
        change["hlc"] = second.header.hlc
    header = msgspec.structs.replace(third.header, **change)
    assert node.offer(type(third)(third.envelope, third.id, header, third.body)) == admission


def test_a_gap_is_filled_from_the_middle_of_a_run() -> None:
    """A branch of a restored backup starts behind a record that is not the last of its run."""
    world, (_, second, third) = line(3, incarnation=1)
    node = node_with(world)
    branch = world.entry("ann", after=second, incarnation=2)
    assert node.offer(branch) is Admission.NEW
    assert ends(node) == (end_of(third), end_of(branch))


def test_mentions_name_what_must_be_looked_up() -> None:
    world, (one, two) = line(2)
    cut = world.cut("ann", "bob", {SHARE: [one], "": [two]})
    assert mentions(one) == {one.id}
    assert mentions(two) == {one.id, two.id}
    assert mentions(cut) == {cut.id, cut.header.prev, one.id, two.id} - {None}


# --- Runs, ends and frontiers ---


def test_a_run_is_one_row_however_long() -> None:
    world, records = line(50)
    node = node_with(world)
    assert len({node.places[record.id].run for record in records}) == 1
    run = node.replica.chains.run(node.places[records[0].id].run)
    assert (run.first_seq, run.last_seq, run.last_id, run.last_hlc, run.parent) == (1, 50, records[-1].id, records[-1].header.hlc, None)


def test_a_restart_continues_the_chain_in_a_new_run() -> None:
    world, (one,) = line(1, incarnation=1)
    two = world.entry("ann", incarnation=2)
    node = node_with(world)
    first, second = node.places[one.id], node.places[two.id]
    assert second.run > first.run
    assert node.replica.chains.run(second.run).parent == (first.run, 1)
    assert ends(node) == (end_of(two),)


def test_a_process_that_runs_on_after_its_clone_started_adds_to_its_own_run() -> None:
    world, (one,) = line(1, incarnation=1)
    clone = world.entry("ann", after=one, incarnation=2)
    two = world.entry("ann", after=one, incarnation=1)
    node = node_with(world)
    assert node.places[two.id].run == node.places[one.id].run
    assert ends(node) == (end_of(two), end_of(clone))


def test_the_frontier_names_every_origin_of_one_share() -> None:
    world, (one,) = line(1)
    world.grant("ann", "bob", "publisher")
    other = world.entry("bob")
    world.entry("bob", share="else")
    node = node_with(world)
    assert node.replica.chains.frontier(SHARE) == {world.id("ann"): (end_of(one),), world.id("bob"): (end_of(other),)}
    assert node.replica.chains.frontier("nowhere") == {}
    assert node.replica.chains.shares_of(world.id("bob")) == ["else", SHARE]


def test_the_frontier_hash_changes_with_every_record_and_with_nothing_else() -> None:
    world, records = line(3)
    node = node_with(world, world.said[:1])
    hashes = [node.replica.chains.frontier_hash(SHARE)]
    for record in records:
        node.offer(record)
        hashes.append(node.replica.chains.frontier_hash(SHARE))
    assert len(set(hashes)) == 4
    node.offer(records[0])
    world.entry("ann", share="else")
    node.deliver(world.said)
    assert node.replica.chains.frontier_hash(SHARE) == hashes[-1]


def test_the_frontier_hash_is_pinned() -> None:
    """Golden value of format 1: msgpack of [[origin, [[incarnation, seq, id], ...]], ...], hashed."""
    world, records = line(2)
    node = node_with(world)
    origin, last = world.id("ann"), records[-1]
    packed = msgspec.msgpack.encode([[bytes(origin), [[int(last.header.incarnation), 2, bytes(last.id)]]]])
    assert node.replica.chains.frontier_hash(SHARE) == hashlib.sha256(packed).digest()
    assert node.replica.chains.frontier_hash("empty") == hashlib.sha256(b"\x90").digest()


def test_ends_are_bounded_to_the_newest() -> None:
    world, (one,) = line(1, incarnation=1)
    branches = [world.entry("ann", after=one, incarnation=number) for number in range(2, ENDS_MAX + 12)]
    node = node_with(world)
    assert ends(node) == tuple(end_of(branch) for branch in branches[-ENDS_MAX:])
    assert len(node.replica.chains.have(world.id("ann"), SHARE)) == ENDS_MAX


def test_loading_stored_runs_gives_the_same_chains() -> None:
    world, (one, two, _) = line(3, incarnation=1)
    world.entry("ann", after=one, incarnation=2)
    world.entry("ann", after=two, incarnation=1)
    node = node_with(world)
    chains = node.replica.chains
    runs = {place.run: chains.run(place.run) for place in node.places.values()}
    loaded = Chains()
    loaded.load(reversed(list(runs.values())))
    assert loaded.frontier(SHARE) == chains.frontier(SHARE)
    assert loaded.frontier_hash("") == chains.frontier_hash("")
    assert loaded.last_hlc() == chains.last_hlc()
    assert [loaded.is_void(place) for place in node.places.values()] == [chains.is_void(place) for place in node.places.values()]
    following = world.entry("ann", after=world.said[-1], incarnation=9)
    assert loaded.add(following, dict(node.places)) == chains.add(following, node.places)


# --- Pulls ---


def test_a_pull_brings_what_is_missing_in_order() -> None:
    world, records = line(5, incarnation=1)
    world.entry("ann", incarnation=2)
    full, half = node_with(world), node_with(world, [world.said[0], *records[:3]])
    ann = world.id("ann")
    assert half.replica.chains.have(ann, SHARE) == {Stamp(1): 3}
    assert seqs(full.replica.chains.missing(ann, SHARE, half.replica.chains.have(ann, SHARE))) == [(4, 5), (6, 6)]
    assert full.replica.chains.missing(ann, SHARE, full.replica.chains.have(ann, SHARE)) == []
    assert seqs(full.replica.chains.missing(ann, SHARE, {})) == [(1, 5), (6, 6)]
    assert half.replica.chains.missing(world.id("bob"), SHARE, {}) == []
    assert half.replica.chains.have(world.id("bob"), SHARE) == {}


def test_a_claim_for_a_later_incarnation_covers_all_before_it() -> None:
    world, _ = line(5, incarnation=1)
    world.entry("ann", incarnation=2)
    assert node_with(world).replica.chains.missing(world.id("ann"), SHARE, {Stamp(2): 6}) == []


def test_a_claim_beyond_or_besides_what_is_here_is_ignored() -> None:
    world, _ = line(5, incarnation=1)
    chains = node_with(world).replica.chains
    assert chains.missing(world.id("ann"), SHARE, {Stamp(1): 99}) == []
    assert seqs(chains.missing(world.id("ann"), SHARE, {Stamp(9): 99})) == [(1, 5)]


def test_stepping_back_claims_less() -> None:
    world, _ = line(5, incarnation=1)
    chains = node_with(world).replica.chains
    assert chains.have(world.id("ann"), SHARE, step_back=2) == {Stamp(1): 3}
    assert chains.have(world.id("ann"), SHARE, step_back=5) == {}


def test_claims_are_those_of_the_ends_and_then_of_the_newest_runs() -> None:
    world, (one,) = line(1, incarnation=1)
    world.entry("ann", after=one, incarnation=2)
    following = one
    for number in range(3, ENDS_MAX + 10):
        following = world.entry("ann", after=following, incarnation=number)
    claims = node_with(world).replica.chains.have(world.id("ann"), SHARE)
    assert sorted(claims) == [2, *range(11, ENDS_MAX + 10)]


def test_of_a_forked_incarnation_only_the_part_before_the_fork_is_claimed_or_believed() -> None:
    world, (one, two, three) = line(3, incarnation=1)
    world.entry("ann", "twin", after=two, incarnation=1)
    node, ann = node_with(world), world.id("ann")
    assert node.replica.chains.have(ann, SHARE) == {Stamp(1): 2}
    assert seqs(node.replica.chains.missing(ann, SHARE, {Stamp(1): 3})) == [(3, 3), (3, 3)]
    assert [end.id for end in ends(node)] == sorted([three.id, world.said[-1].id])
    assert one.id in node.places


def test_the_other_side_of_a_fork_shows_although_another_incarnation_continues_ours() -> None:
    """Found by the simulator: of a machine cloned while it ran, one side ends where the other goes on, and the other is restarted."""
    world, (one, two) = line(2)
    world.entry("ann", "b", after=two, incarnation=2)
    here = node_with(world)
    other = world.entry("ann", "c", after=one, incarnation=1)
    there = node_with(world)
    lines = there.replica.chains.frontier(SHARE)
    assert [end.incarnation for end in lines[world.id("ann")]] == [1, 2]
    assert here.replica.chains.unsure(SHARE, lines) == set()
    assert here.replica.chains.behind(lines, set()) == [world.id("ann")]
    here.deliver([other])
    assert here.replica.chains.behind(lines, set()) == []


def test_two_ends_at_one_position_show_each_side_that_the_other_has_more() -> None:
    """Found by the simulator: a machine and its clone, one step each after they parted; every node that had one of the two took it for both."""
    world, (one,) = line(1)
    twins = [world.entry("ann", name, after=one, incarnation=one.header.incarnation) for name in ("b", "c")]
    left, right = (node_with(world, [record for record in world.said if record is not other]) for other in twins)
    for here, there in ((left, right), (right, left)):
        lines = there.replica.chains.frontier(SHARE)
        assert here.replica.chains.unsure(SHARE, lines) == set()
        assert here.replica.chains.behind(lines, set()) == [world.id("ann")]


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ([(1, None)], [(1, None), (1, 2), (2, 3), (2, 4), (2, 4)]),
        ([(2, None)], [(1, None), (1, 2), (2, 3), (3, 4)]),
    ],
    ids=["the other side is forked again", "an incarnation opened at two heights"],
)
def test_who_has_the_longer_side_of_a_fork_learns_of_the_shorter(mine: list[tuple[int, int | None]], theirs: list[tuple[int, int | None]]) -> None:
    """Found by the law below. Records as (incarnation, number of the one before); the two sides have nothing in common."""
    world = World().founded()
    for number, (incarnation, before) in enumerate([*mine, *theirs], 1):
        world.entry("ann", f"record {number}", after=world.said[before] if before else None, incarnation=incarnation)
    left = node_with(world, world.said[: len(mine) + 1])
    right = node_with(world, [world.said[0], *world.said[len(mine) + 1 :]])
    converge(left, right, world.id("ann"))
    assert left.replica.chains.frontier_hash(SHARE) == right.replica.chains.frontier_hash(SHARE)


def test_a_frontier_tells_who_is_behind() -> None:
    world, records = line(3)
    world.grant("ann", "bob", "publisher")
    other = world.entry("bob")
    full, half = node_with(world), node_with(world, [*world.said[:1], *records[:2]])
    lines = full.replica.chains.frontier(SHARE)
    assert half.replica.chains.unsure(SHARE, lines) == set()
    assert half.replica.chains.behind(lines, set()) == [world.id("ann"), world.id("bob")]
    back = half.replica.chains.frontier(SHARE)
    assert full.replica.chains.unsure(SHARE, back) == {records[1].id}
    assert full.replica.chains.behind(back, {records[1].id}) == []
    assert full.replica.chains.behind(back, set()) == [world.id("ann")]
    assert full.replica.chains.behind({world.id("bob"): (end_of(other),)}, set()) == []


# --- Forks ---


def test_two_records_at_one_position_make_the_rest_void() -> None:
    world, (one, two, three) = line(3, incarnation=1)
    twin = world.entry("ann", "twin", after=one, incarnation=1)
    later = world.entry("ann", after=three, incarnation=2)
    node = node_with(world)
    void = {record.id: node.replica.chains.is_void(node.places[record.id]) for record in (one, two, three, twin, later)}
    assert list(void.values()) == [False, True, True, True, True]
    assert ends(node) == (end_of(twin), end_of(later)), "the proof belongs to the frontier"
    assert node.replica.chains.tip(world.id("ann"), SHARE) is None
    assert node.replica.chains.sound_ends(world.id("ann"), SHARE) == [Segment(node.places[one.id].run, 1, 1)]


def test_a_branch_of_another_incarnation_is_no_fork() -> None:
    world, (one, two) = line(2, incarnation=1)
    world.entry("ann", after=one, incarnation=2)
    node = node_with(world)
    assert not any(node.replica.chains.is_void(place) for place in node.places.values())
    assert len(node.replica.chains.sound_ends(world.id("ann"), SHARE)) == 2
    assert two.id in node.places


def test_an_incarnation_with_two_openings_is_void() -> None:
    world, (one,) = line(1, incarnation=1)
    opened = world.entry("ann", after=one, incarnation=5)
    again = world.entry("ann", "again", after=None, incarnation=5)
    node = node_with(world)
    assert [node.replica.chains.is_void(node.places[record.id]) for record in (one, opened, again)] == [False, True, True]


def test_a_third_twin_and_an_earlier_fork() -> None:
    world, (one, two, three) = line(3, incarnation=1)
    third_twins = [world.entry("ann", f"twin {number}", after=two, incarnation=1) for number in range(2)]
    node = node_with(world)
    chains = node.replica.chains
    assert [chains.is_void(node.places[record.id]) for record in (one, two, three, *third_twins)] == [False, False, True, True, True]
    node.offer(world.entry("ann", "earlier", after=one, incarnation=1))
    assert [chains.is_void(node.places[record.id]) for record in (one, two, three)] == [False, True, True]


def test_a_fork_elsewhere_harms_nobody_else() -> None:
    world, (one, _) = line(2, incarnation=1)
    world.grant("ann", "bob", "publisher")
    other, network = world.entry("bob"), world.said[0]
    world.entry("ann", "twin", after=one, incarnation=1)
    node = node_with(world)
    assert not node.replica.chains.is_void(node.places[other.id])
    assert not node.replica.chains.is_void(node.places[network.id])


def test_a_fork_is_found_by_pulling_with_less_and_less_claimed() -> None:
    world, (one, _, three) = line(3, incarnation=1)
    twins = [world.entry("ann", f"twin {number}", after=one if not number else "last", incarnation=1) for number in range(5)]
    left = node_with(world, [record for record in world.said if record not in twins])
    right = node_with(world, [world.said[0], one, *twins])
    converge(left, right, world.id("ann"))
    assert ends(left) == ends(right) == (end_of(three), end_of(twins[-1]))
    assert left.replica.chains.frontier_hash(SHARE) == right.replica.chains.frontier_hash(SHARE)


# --- Random trees against a model ---


def converge(left: Node, right: Node, origin: NodeId) -> None:
    """What gossip does: compare frontiers, pull, claim less while the answers have gaps. Nothing is looked up: what memory is not sure of is taken for known, unless the line itself shows a fork."""
    for _ in range(10):
        for here, there in ((left, right), (right, left)):
            lines = there.replica.chains.frontier(SHARE)
            step_back = 0
            while step_back <= STEP_BACK_MAX and origin in here.replica.chains.behind(lines, here.replica.chains.unsure(SHARE, lines) - _forked(lines)):
                have = here.replica.chains.have(origin, SHARE, step_back=step_back)
                for segment in there.replica.chains.missing(origin, SHARE, have):
                    for record in there.stored:
                        place = there.places[record.id]
                        if place.run == segment.run and segment.first_seq <= place.seq <= segment.last_seq:
                            here.offer(record)
                step_back = step_back * 2 or 1
        if left.replica.chains.frontier_hash(SHARE) == right.replica.chains.frontier_hash(SHARE):
            return


@st.composite
def trees(draw: st.DrawFn) -> World:
    """One origin's chain with restarts, restored backups, clones and lies."""
    world = World().founded()
    said: list[Record | None] = [None]
    for number in range(draw(st.integers(1, 12))):
        after = said[draw(st.integers(max(0, len(said) - 3), len(said) - 1))] if draw(st.booleans()) else said[-1]
        least = after.header.incarnation if after else 1
        said.append(world.entry("ann", f"record {number}", after=after, incarnation=least + draw(st.sampled_from([0, 0, 0, 1, 2]))))
    return world


class Model:
    """Keeps every record and does everything the slow way."""

    def __init__(self, said: list[Record]) -> None:
        self.records = {record.id: record for record in said if record.header.share == SHARE}

    def line(self, record: Record) -> list[Record]:
        """The record and its predecessors."""
        found = [record]
        while found[-1].header.prev:
            found.append(self.records[found[-1].header.prev])
        return found

    def leaves(self) -> set[RecordId]:
        return set(self.records) - {record.header.prev for record in self.records.values() if record.header.prev}

    def fork(self, incarnation: Stamp) -> int | None:
        mine = [record for record in self.records.values() if record.header.incarnation == incarnation]
        openings = [record for record in mine if not record.header.prev or self.records[record.header.prev].header.incarnation != incarnation]
        if len(openings) > 1:
            return min(record.header.seq for record in openings)
        seqs = sorted(record.header.seq for record in mine)
        return next((one for one, other in itertools.pairwise(seqs) if one == other), None)

    def is_void(self, record: Record) -> bool:
        forks = [(self.fork(above.header.incarnation), above.header.seq) for above in self.line(record)]
        return any(fork is not None and seq >= fork for fork, seq in forks)


@settings(max_examples=150, deadline=None)
@given(trees(), st.randoms(use_true_random=False))
def test_chains_agree_with_the_model_whatever_the_order(world: World, random: Random) -> None:
    model = Model(world.said)
    shuffled = list(world.said)
    random.shuffle(shuffled)
    node, straight = node_with(world, shuffled), node_with(world)
    chains, ann = node.replica.chains, world.id("ann")
    assert len(node.stored) == len(world.said)
    assert {end.id for end in ends(node)} == model.leaves()
    assert chains.frontier_hash(SHARE) == straight.replica.chains.frontier_hash(SHARE)
    for record in model.records.values():
        assert chains.is_void(node.places[record.id]) == model.is_void(record)
        reached = chains_closure(chains, node, ann, [record])
        assert reached == {above.id for above in model.line(record)}
    sound = {record.id for record in model.records.values() if not model.is_void(record)}
    named = {(segment.run, segment.last_seq) for segment in chains.sound_ends(ann, SHARE)}
    last = [record for record in model.records.values() if node.places[record.id][:2] in named]
    assert chains_closure(chains, node, ann, last) == sound
    tip = chains.tip(ann, SHARE)
    leaves = [model.records[leaf] for leaf in model.leaves() if leaf in sound]
    assert (tip and tip.last_id) == (max(leaves, key=lambda record: record.order).id if leaves else None)


@settings(max_examples=150, deadline=None)
@given(trees(), st.integers(1, 5), st.randoms(use_true_random=False))
def test_who_follows_another_by_runs_is_where_that_one_is(world: World, batch: int, random: Random) -> None:
    """As the event loop's replica follows the ledger's, a transaction at a time; a cut keeps part of the chain, whose record may come before it or later."""
    ann = world.id("ann")
    world.cut("network", "ann", {SHARE: [random.choice([record for record in world.said if record.header.share == SHARE])]})
    node, follower = Node(world), Replica(world.network, world.id("observer"))
    waiting = list(world.said)
    random.shuffle(waiting)
    while waiting:
        known = len(node.stored)
        runs = {}
        for record in waiting[:]:
            if len(node.stored) - known < batch and node.replica.judge(record, NOW_MS, node.places) is Admission.NEW:
                run = node.replica.add(record, node.places)
                runs[run.number] = run
                node.stored.append(record)
                waiting.remove(record)
        added = node.stored[known:]
        mentioned = {record_id for record in added for record_id in mentions(record)}
        follower.follow(added, runs.values(), {record_id: place for record_id, place in node.places.items() if record_id in mentioned})
        leader = node.replica
        assert follower.clock.last == leader.clock.last
        for share in (SHARE, ""):
            assert follower.chains.frontier_hash(share) == leader.chains.frontier_hash(share)
        assert follower.chains.forks(ann) == leader.chains.forks(ann)
        assert follower.chains.have(ann, SHARE) == leader.chains.have(ann, SHARE)
        assert follower.chains.sound_ends(ann, SHARE) == leader.chains.sound_ends(ann, SHARE)
        for record in node.stored:
            assert follower.trust.why_not(record, node.places[record.id]) == node.why_not(record)


def chains_closure(chains: Chains, node: Node, origin: NodeId, records: list[Record]) -> set[RecordId]:
    chains.anchor([record.id for record in records], node.places)
    reached = chains.closure(origin, SHARE, [record.id for record in records])
    return {record for record, place in node.places.items() if reached.get(place.run, 0) >= place.seq}


@settings(max_examples=150, deadline=None)
@given(trees(), st.integers(0, 12), st.integers(0, 12))
def test_two_nodes_converge_by_pulling(world: World, one: int, two: int) -> None:
    """Each has a part of the tree; afterwards both have the union and nothing is sent twice in one answer."""
    ann = world.id("ann")
    left = node_with(world, world.said[: one + 1])
    right = node_with(world, [world.said[0], *world.said[two + 1 :]])
    union = {record.id for record in left.stored} | {record.id for record in right.stored}
    converge(left, right, ann)
    assert {record.id for record in left.stored} == {record.id for record in right.stored} == union


@settings(max_examples=100, deadline=None)
@given(trees(), st.integers(0, 12))
def test_an_answer_to_a_pull_has_no_gaps_where_claims_are_true(world: World, known: int) -> None:
    ann = world.id("ann")
    full, half = node_with(world), node_with(world, world.said[: known + 1])
    answer = full.replica.chains.missing(ann, SHARE, half.replica.chains.have(ann, SHARE))
    forked = any(full.replica.chains.is_void(place) for place in full.places.values())
    for segment in answer:
        for record in sorted(full.stored, key=lambda record: record.header.seq):
            place: Place = full.places[record.id]
            if place.run == segment.run and segment.first_seq <= place.seq <= segment.last_seq:
                assert half.offer(record) in {Admission.NEW, Admission.DUPLICATE} or forked
    assert forked or {record.id for record in half.stored} == {record.id for record in full.stored}
