"""The replica: admission in the right order, authoring after starts, clones and forks; and how fast a big network is judged."""

from __future__ import annotations

import pytest
from protocol_world import NOW_MS, Node, World, entry_body, make, node_with

from replicad.model.ids import Stamp
from replicad.model.records import Header, Record, Role
from replicad.protocol.chains import Admission
from replicad.protocol.clock import FUTURE_MAX_MS
from replicad.protocol.replica import Replica

START_MS = 2_000_000


def authoring(world: World, name: str = "ann", node: Node | None = None) -> Node:
    """A node that writes as ``name``, as if just started with what ``node`` has stored."""
    started = Node(world)
    started.replica = Replica(world.network, world.id(name))
    return started.deliver(world.said if node is None else node.stored)


def author(node: Node, share: str = "munki", *, now_ms: int = START_MS, random16: int = 0) -> Record:
    header = node.replica.next_header(share, now_ms=now_ms, random16=random16)
    record = make(node.world.keys[node.world.name(header.origin)], node.world.network, header, entry_body("a"))
    assert node.offer(record) is Admission.NEW
    return record


def position(record: Record) -> tuple[int, int]:
    return record.header.incarnation.ms, record.header.seq


# --- Admission ---


def test_a_stranger_is_told_first_and_then_the_future() -> None:
    world = World().founded()
    soon, late = world.entry("ann", at=NOW_MS + FUTURE_MAX_MS), world.entry("ann", at=NOW_MS + FUTURE_MAX_MS + 1)
    stranger = world.entry("eve", at=NOW_MS * 2)
    node = node_with(world, world.said[:1])
    assert [node.offer(record) for record in (stranger, late, soon, late)] == ["stranger", "future", "new", "future"]


def test_the_future_moves_no_clock_and_everything_else_does() -> None:
    world = World().founded()
    entry, future = world.entry("ann", at=5000), world.entry("ann", at=NOW_MS * 2)
    node = node_with(world)
    assert node.replica.clock.last == entry.header.hlc
    assert future not in node.stored
    header = node.replica.next_header("munki", now_ms=10, random16=0)
    assert header.hlc == entry.header.hlc + 1


def test_a_record_from_the_future_is_welcome_when_its_time_has_come() -> None:
    world = World().founded()
    entry = world.entry("ann", at=NOW_MS + FUTURE_MAX_MS + 5)
    node = node_with(world)
    assert node.replica.judge(entry, NOW_MS + 4, node.places) is Admission.FUTURE
    assert node.replica.judge(entry, NOW_MS + 5, node.places) is Admission.NEW


# --- Authoring ---


def test_the_first_records() -> None:
    node = authoring(World().founded())
    assert [position(author(node, random16=7)) for _ in range(3)] == [(START_MS, 1), (START_MS, 2), (START_MS, 3)]
    assert author(node, "jamf").header.seq == 1


def test_the_header_of_a_first_record() -> None:
    world = World().founded()
    header = authoring(world).replica.next_header("munki", now_ms=START_MS, random16=0xABCD)
    assert header == Header(world.id("ann"), "munki", Stamp.of(START_MS, 0xABCD), 1, None, Stamp.of(START_MS))


def test_every_start_opens_an_incarnation_with_its_first_record() -> None:
    world = World().founded()
    first = authoring(world)
    one = author(first)
    second = authoring(world, node=first)
    two, three = author(second, now_ms=START_MS + 5), author(second, now_ms=START_MS + 6)
    assert [position(record) for record in (one, two, three)] == [(START_MS, 1), (START_MS + 5, 2), (START_MS + 5, 3)]
    assert (two.header.prev, three.header.prev) == (one.id, two.id)


def test_an_incarnation_is_later_than_all_before_it_when_time_went_back() -> None:
    world = World().founded()
    first = authoring(world)
    one = author(first, random16=0xFFFF)
    two = author(authoring(world, node=first), now_ms=10, random16=3)
    assert two.header.incarnation == Stamp.of(START_MS + 1, 3)
    assert two.header.hlc > one.header.hlc


def test_a_header_that_was_never_used_costs_no_incarnation() -> None:
    node = authoring(World().founded())
    unused = node.replica.next_header("munki", now_ms=START_MS, random16=1)
    used = author(node, now_ms=START_MS + 50, random16=2)
    assert used.header.incarnation == unused.incarnation
    assert used.header.hlc > unused.hlc


def test_after_a_restored_backup_the_chain_branches_and_each_side_goes_on() -> None:
    world = World().founded()
    original = authoring(world)
    one = author(original)
    backup = authoring(world, node=original)
    two = author(original)
    branch = author(backup, now_ms=START_MS + 9)
    assert branch.header.prev == two.header.prev == one.id
    for node, other in ((original, branch), (backup, two)):
        node.offer(other)
    on = [author(original, now_ms=START_MS + 20), author(backup, now_ms=START_MS + 10)]
    assert [record.header.prev for record in on] == [two.id, branch.id]
    assert all(node.replica.trust.counts(record, node.places[record.id]) for node, record in zip((original, backup), on, strict=True))


def test_a_restart_continues_the_newest_end() -> None:
    world = World().founded()
    original = authoring(world)
    author(original)
    backup = authoring(world, node=original)
    author(original)
    newest = author(backup, now_ms=START_MS + 9)
    original.offer(newest)
    assert author(authoring(world, node=original), now_ms=START_MS + 20).header.prev == newest.id


def test_a_cloned_running_machine_recovers_by_itself() -> None:
    """Both copies wrote at the same position: that part is void, and the node starts a chain of its own that counts."""
    world = World().founded()
    node = authoring(world)
    author(node)
    header = node.replica.next_header("munki", now_ms=START_MS, random16=0)
    mine, clones = (make(world.keys["ann"], world.network, header, entry_body(path)) for path in ("mine", "clone's"))
    assert [node.offer(record) for record in (mine, clones)] == [Admission.NEW] * 2
    assert [node.why_not(record) for record in (mine, clones)] == ["fork", "fork"]
    again, more = author(node, now_ms=START_MS + 5), author(node, now_ms=START_MS + 6)
    assert [position(record) for record in (again, more)] == [(START_MS + 5, 1), (START_MS + 5, 2)]
    assert node.counts(again)
    assert node.counts(more)


def test_authoring_as_the_network() -> None:
    world = World()
    node = authoring(world)
    header = node.replica.next_header("", now_ms=START_MS, random16=0, origin=world.network)
    assert (header.origin, header.seq) == (world.network, 1)
    assert node.replica.next_header("", now_ms=START_MS, random16=0).origin == world.id("ann")


# --- Figures ---


def big_network() -> tuple[World, list[Record]]:
    """1,000 members by ten admins, a tenth narrowed once (cut and grant), and the entries of one publisher."""
    world = World().founded()
    admins = [f"admin {number}" for number in range(10)]
    for admin in admins:
        world.grant("ann", admin, "admin")
    for number in range(990):
        role = Role.PUBLISHER if number % 10 == 0 else Role.MIRROR
        world.grant(admins[number % 10], f"node {number}", role, shares=("munki", "jamf"), paths=("apps",))
    for number in range(0, 990, 10):
        world.cut(admins[number % 10], f"node {number}", reason="change")
        world.grant(admins[number % 10], f"node {number}", Role.PUBLISHER, shares=("munki",))
    return world, [world.entry("node 0", f"apps/{number}") for number in range(200)]


@pytest.fixture(scope="module")
def big() -> tuple[World, list[Record], Node]:
    world, entries = big_network()
    return world, entries, node_with(world)


def test_a_thousand_members_and_their_entries_are_judged(big: tuple[World, list[Record], Node]) -> None:
    """Measured: 0.02 s for the members after a change, 5 microseconds for an entry."""
    world, entries, node = big
    world.policy("ann", "munki")
    grant = world.grant("ann", "one more", "mirror")
    node.deliver(world.said[-2:])
    assert len(node.replica.trust.members(NOW_MS)) == 1002
    assert node.counts(grant)
    assert all(node.counts(entry) for entry in entries)


def test_ten_thousand_records_of_one_chain_are_one_run() -> None:
    """Admission is constant in the length of a chain: 6 microseconds a record were measured."""
    world = World().founded()
    template = world.entry("ann")
    node = node_with(world)
    previous, offered = template, []
    for number in range(2, 10_002):
        record = Record(
            template.envelope,
            type(template.id)(number.to_bytes(32, "big")),
            Header(template.header.origin, "munki", Stamp(1), number, previous.id, Stamp(previous.header.hlc + 1)),
            template.body,
        )
        offered.append(record)
        previous = record
    assert all(node.offer(record) is Admission.NEW for record in offered)
    assert node.replica.chains.ends(world.id("ann"), "munki")[0].seq == 10_001
