"""Trust: who may say what, case by case. Each is a story of a network; ``world`` says it, ``node_with`` believes what counts."""

from __future__ import annotations

import msgspec
import pytest
from protocol_world import NOW_MS, Node, World, node_with

from replicad.crypto.hashing import sha256
from replicad.model.ids import Stamp
from replicad.model.records import Record, Role, Takedown, Unknown
from replicad.protocol.chains import Admission
from replicad.protocol.gossip.parting import parting
from replicad.protocol.trust import REASONS
from replicad.protocol.wire import RECORDS_BYTES_PER_MESSAGE


def counting(world: World, *records: Record) -> list[bool]:
    node = node_with(world)
    return [node.counts(record) for record in records]


def names(world: World, now_ms: int = NOW_MS) -> set[str]:
    return {member.name for member in node_with(world).replica.trust.members(now_ms).values()}


def network_of(*admins: str) -> World:
    """Founded by ann, who made the others admins."""
    world = World().founded()
    for admin in admins:
        world.grant("ann", admin, "admin")
    return world


# --- Founding and admitting ---


def test_the_network_key_founds() -> None:
    world = World().founded()
    founding = world.said[0]
    node = node_with(world)
    assert node.counts(founding)
    member = node.replica.trust.members(NOW_MS)[world.id("ann")]
    assert (member.name, member.role, member.shares, member.stages, member.admitted_by, member.admitted) == (
        "ann", Role.ADMIN, None, None, world.network, founding.header.hlc,
    )  # fmt: skip


def test_nobody_else_founds() -> None:
    world = World()
    world.grant("ann", "ann", "admin")
    node = node_with(world)
    assert node.stored == []
    assert node.offer(world.said[0]) is Admission.STRANGER


@pytest.mark.parametrize("role", Role)
def test_an_admin_admits(role: Role) -> None:
    world = World().founded()
    grant = world.grant("ann", "bob", role, site="berlin", shares=("munki",), stages=("dev",))
    node = node_with(world)
    member = node.replica.trust.members(NOW_MS)[world.id("bob")]
    assert node.counts(grant)
    assert (member.role, member.site, member.stages, member.admitted_by) == (role, "berlin", {"dev"}, world.id("ann"))
    assert member.shares == (None if role is Role.ADMIN else {"munki"}), "an admin holds every share"


def test_a_stranger_is_not_accepted_and_a_named_one_is() -> None:
    world = World().founded()
    entry = world.entry("bob")
    node = node_with(world)
    assert node.offer(entry) is Admission.STRANGER
    node.offer(world.grant("ann", "bob", "mirror"))
    assert not node.replica.trust.knows(world.id("bob"), "munki")
    assert node.offer(entry) is Admission.STRANGER, "what a mirror says is kept by nobody"
    node.offer(world.grant("ann", "bob", "publisher"))
    assert [node.replica.trust.knows(world.id("bob"), share) for share in ("munki", "")] == [True, False]
    assert node.offer(entry) is Admission.NEW
    assert node.offer(world.policy("bob", "munki")) is Admission.STRANGER, "nor what somebody who is no admin says about the network"
    node.offer(world.grant("ann", "bob", "admin"))
    assert node.replica.trust.knows(world.id("bob"), "")


def test_admins_admit_admins_down_the_tree() -> None:
    world = World().founded()
    chain = [world.grant(by, subject, "admin") for by, subject in ("ab", "bc", "cd") for by, subject in [(by.replace("a", "ann"), subject)]]
    entry = world.entry("d")
    assert counting(world, *chain, entry) == [True] * 4


# --- What a grant covers ---


@pytest.mark.parametrize(
    ("role", "entry", "tombstone", "policy", "grant"),
    [("mirror", False, False, False, False), ("publisher", True, True, False, False), ("admin", True, True, True, True)],
)
def test_roles(role: str, *, entry: bool, tombstone: bool, policy: bool, grant: bool) -> None:
    world = World().founded()
    world.grant("ann", "bob", role)
    said = [world.entry("bob"), world.tombstone("bob"), world.policy("bob", "munki"), world.grant("bob", "eve", "mirror")]
    assert counting(world, *said) == [entry, tombstone, policy, grant]


@pytest.mark.parametrize("role", ["mirror", "publisher"])
def test_nobody_grants_above_its_role(role: str) -> None:
    world = World().founded()
    world.grant("ann", "bob", role)
    made = [world.grant("bob", "bob", "admin"), world.grant("bob", "eve", "admin"), world.entry("eve"), world.grant("eve", "eve", "admin")]
    assert counting(world, *made) == [False] * 4
    assert names(world) == {"ann", "bob"}


def test_a_network_key_names_no_files() -> None:
    world = World().founded()
    entry = world.entry("network")
    node = node_with(world)
    assert node.why_not(entry) == "role"


def test_shares_and_stages() -> None:
    world = World().founded()
    world.grant("ann", "bob", "publisher", shares=("munki",), stages=("dev", "test"))
    said = [world.entry("bob", stage="dev"), world.entry("bob", stage="prod"), world.entry("bob", share="jamf", stage="dev")]
    assert counting(world, *said) == [True, False, False]


def test_an_admins_grant_covers_everything_whatever_it_names() -> None:
    world = World().founded()
    world.grant("ann", "bob", "admin", shares=("munki",), stages=("dev",), paths=("apps",))
    assert counting(world, world.entry("bob", "other", share="jamf"), world.policy("bob", "new")) == [True, True]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("apps/Foo.pkg", True),
        ("apps", True),
        ("apps/sub/x", True),
        ("APPS/Foo.pkg", True),
        ("gru\u0308n/x", True),
        ("GR\u00dcN/x", True),
        ("appsy/Foo.pkg", False),
        ("apps.d/x", False),
        ("app", False),
        ("other/apps/x", False),
        ("grun/x", False),
    ],
)
def test_path_prefixes_go_by_segments_of_the_collision_key(path: str, *, allowed: bool) -> None:
    world = World().founded()
    world.grant("ann", "bob", "publisher", paths=("apps", "gr\u00fcn"))
    assert counting(world, world.entry("bob", path), world.tombstone("bob", path)) == [allowed] * 2


def test_grants_add_up() -> None:
    world = World().founded()
    world.grant("ann", "bob", "publisher", shares=("munki",), stages=("dev",), site="old")
    world.grant("ann", "bob", "mirror", shares=("jamf",), stages=("prod",), site="new")
    node = node_with(world)
    member = node.replica.trust.members(NOW_MS)[world.id("bob")]
    assert (member.role, member.shares, member.stages, member.site) == (Role.PUBLISHER, {"munki", "jamf"}, {"prod"}, "new")
    assert member.carries("munki", "prod")
    entry = world.entry("bob", share="jamf", stage="prod")
    assert node.offer(entry) is Admission.NEW
    assert not node.counts(entry), "rights are those of one grant, not a mixture"


# --- Time ---


def test_a_record_older_than_the_grant_does_not_count() -> None:
    world = World().founded()
    entry = world.entry("bob")
    world.grant("ann", "bob", "publisher")
    assert counting(world, entry, world.entry("bob")) == [False, True]


def test_a_record_at_the_clock_of_the_grant_does_not_count() -> None:
    world = World().founded()
    grant = world.grant("ann", "bob", "publisher")
    assert counting(world, world.entry("bob", at=grant.header.hlc.ms)) == [False]


def test_a_grant_has_a_life() -> None:
    world = World().founded()
    world.grant("ann", "bob", "publisher", until=Stamp.of(5000))
    said = [world.entry("bob", at=5000), world.entry("bob", at=5001)]
    assert counting(world, *said) == [True, False]
    assert names(world, 5000) == {"ann", "bob"}
    assert names(world, 5001) == {"ann"}


def test_what_an_admin_did_in_its_life_outlives_it() -> None:
    world = World().founded()
    world.grant("ann", "bob", "admin", until=Stamp.of(5000))
    inside, outside = world.grant("bob", "cid", "mirror"), world.grant("bob", "dan", "mirror", at=6000)
    assert counting(world, inside, outside) == [True, False]
    assert names(world) == {"ann", "cid"}


def test_nobody_prolongs_its_own_life() -> None:
    world = World().founded()
    world.grant("ann", "bob", "admin", until=Stamp.of(5000))
    world.grant("bob", "bob", "admin")
    assert counting(world, world.policy("bob", "x", said={"at": 5001})) == [False]
    assert "bob" not in names(world, 5001)


def test_members_change_as_time_passes() -> None:
    world = World().founded()
    world.grant("ann", "bob", "mirror", until=Stamp.of(5000))
    world.grant("ann", "cid", "mirror", until=Stamp.of(6000))
    trust = node_with(world).replica.trust
    seen = [{member.name for member in trust.members(now_ms).values()} for now_ms in (4000, 5000, 5001, 6000, 6001)]
    assert seen == [{"ann", "bob", "cid"}] * 2 + [{"ann", "cid"}] * 2 + [{"ann"}]


# --- Narrowing, removal, revocation ---


def test_removal_keeps_what_was_said_and_ends_the_rest() -> None:
    world = World().founded()
    world.grant("ann", "bob", "publisher")
    before = world.entry("bob")
    world.cut("ann", "bob")
    after = world.entry("bob")
    assert counting(world, before, after) == [True, False]
    assert names(world) == {"ann"}


def test_a_cut_is_not_escaped_by_back_dating() -> None:
    world = World().founded()
    world.grant("ann", "bob", "publisher")
    seen = world.entry("bob", at=2000)
    world.cut("ann", "bob", at=9000)
    assert counting(world, world.entry("bob", at=2001), world.entry("bob", at=8999), seen) == [False, False, True]


def test_nor_by_branching_off_before_it() -> None:
    world = World().founded()
    world.grant("ann", "bob", "publisher")
    first, seen = world.entry("bob"), world.entry("bob")
    world.cut("ann", "bob", at=9000)
    inserted = [world.entry("bob", after=first, incarnation=2, at=3000), world.entry("bob", after=None, incarnation=3, at=3000)]
    assert counting(world, *inserted, first, seen) == [False, False, True, True]


def test_revocation_from_an_earlier_time() -> None:
    world = World().founded()
    world.grant("ann", "bob", "publisher")
    good, stolen = world.entry("bob"), world.entry("bob")
    world.cut("ann", "bob", {"munki": [good]}, reason="revoke")
    assert counting(world, good, stolen) == [True, False]


def test_a_share_that_a_cut_does_not_name_ends_altogether() -> None:
    world = World().founded()
    world.grant("ann", "bob", "publisher")
    entries = [world.entry("bob"), world.entry("bob", share="jamf")]
    world.cut("ann", "bob", {"munki": [entries[0]]})
    assert counting(world, *entries) == [True, False]


def test_a_cut_may_name_several_branches() -> None:
    world = World().founded()
    world.grant("ann", "bob", "publisher")
    root = world.entry("bob")
    one, two = world.entry("bob"), world.entry("bob", after=root, incarnation=2)
    three = world.entry("bob", after=root, incarnation=3)
    world.cut("ann", "bob", {"munki": [one, two]})
    assert counting(world, root, one, two, three) == [True, True, True, False]


def test_two_cuts_keep_what_both_keep() -> None:
    world = network_of("bob")
    world.grant("ann", "cid", "publisher")
    one, two = world.entry("cid"), world.entry("cid")
    world.cut("ann", "cid", {"munki": [two]})
    world.cut("bob", "cid", {"munki": [one]})
    assert counting(world, one, two) == [True, False]


def test_ends_of_somebody_else_or_another_share_keep_nothing() -> None:
    world = World().founded()
    world.grant("ann", "bob", "publisher")
    mine, theirs = world.entry("bob"), world.entry("ann")
    world.cut("ann", "bob", {"jamf": [mine], "munki": [theirs]})
    assert counting(world, mine) == [False]


def test_narrowing_is_a_cut_and_a_grant() -> None:
    world = World().founded()
    world.grant("ann", "bob", "publisher")
    wide = world.entry("bob", share="jamf")
    world.cut("ann", "bob", reason="change")
    world.grant("ann", "bob", "publisher", shares=("munki",))
    assert counting(world, wide, world.entry("bob", share="jamf"), world.entry("bob")) == [True, False, True]
    member = node_with(world).replica.trust.members(NOW_MS)[world.id("bob")]
    assert member.shares == {"munki"}


def test_demotion() -> None:
    world = network_of("bob")
    admitted = world.grant("bob", "cid", "publisher")
    world.cut("ann", "bob", reason="change")
    world.grant("ann", "bob", "mirror")
    assert counting(world, admitted, world.entry("cid"), world.grant("bob", "dan", "mirror")) == [True, True, False]


def test_readmission_counts_only_what_comes_later() -> None:
    world = World().founded()
    world.grant("ann", "bob", "publisher")
    first = world.entry("bob")
    world.cut("ann", "bob")
    between = world.entry("bob")
    world.grant("ann", "bob", "publisher")
    assert counting(world, first, between, world.entry("bob")) == [True, False, True]
    assert names(world) == {"ann", "bob"}


def test_a_cut_does_not_touch_later_grants() -> None:
    world = World().founded()
    world.grant("ann", "bob", "publisher")
    cut = world.cut("ann", "bob", {})
    world.grant("ann", "bob", "publisher", at=cut.header.hlc.ms + 1)
    assert counting(world, world.entry("bob")) == [True]


def test_a_cut_by_somebody_without_the_right_is_nothing() -> None:
    world = World().founded()
    world.grant("ann", "bob", "publisher")
    world.grant("ann", "eve", "publisher")
    world.cut("eve", "bob", {})
    world.cut("eve", "ann", {})
    assert counting(world, world.entry("bob"), world.entry("ann")) == [True, True]


# --- Admins among themselves ---


def test_peers_cannot_expel_each_other() -> None:
    world = network_of("bob", "cid")
    cuts = [world.cut("bob", "cid", {}), world.cut("cid", "bob", {})]
    assert counting(world, *cuts, world.grant("bob", "x"), world.grant("cid", "y")) == [True] * 4
    assert names(world) >= {"bob", "cid"}


def test_a_senior_expels_a_junior() -> None:
    world = network_of("bob")
    before = world.grant("bob", "cid", "mirror")
    world.cut("ann", "bob")
    assert counting(world, before, world.grant("bob", "dan", "mirror")) == [True, False]


def test_a_junior_cannot_expel_its_senior() -> None:
    world = network_of("bob")
    world.cut("bob", "ann", {})
    world.grant("bob", "cid", "admin")
    world.cut("cid", "ann", {})
    world.cut("cid", "bob", {})
    assert counting(world, world.grant("ann", "x"), world.grant("bob", "y")) == [True, True]
    assert names(world) >= {"ann", "bob", "cid"}


def test_when_both_cut_the_senior_wins_whatever_the_clocks_say() -> None:
    for first, second in (("ann", "bob"), ("bob", "ann")):
        world = network_of("bob")
        for author in (first, second):
            world.cut(author, "bob" if author == "ann" else "ann", {})
        assert counting(world, world.grant("ann", "x"), world.grant("bob", "y")) == [True, False]


def test_authority_reaches_all_the_way_down() -> None:
    world = network_of("bob")
    world.grant("bob", "cid", "admin")
    world.grant("cid", "dan", "admin")
    world.cut("ann", "dan", {})
    assert counting(world, world.policy("dan", "x"), world.policy("cid", "y")) == [False, True]


def test_but_not_into_another_branch() -> None:
    world = network_of("bob", "cid")
    world.grant("cid", "dan", "admin")
    world.cut("bob", "dan", {})
    assert counting(world, world.policy("dan", "x")) == [True]


def test_any_admin_ends_any_mirror_or_publisher() -> None:
    world = network_of("bob", "cid")
    world.grant("bob", "dan", "publisher")
    world.cut("cid", "dan", {})
    assert counting(world, world.entry("dan")) == [False]


def test_a_publishing_grant_protects_an_admin_no_more_than_anybody() -> None:
    """A peer may end the publisher's grant that an admin also holds, not the admin's."""
    world = network_of("bob", "cid")
    publishing = world.grant("ann", "cid", "publisher")
    world.cut("bob", "cid", {})
    node = node_with(world)
    assert node.replica.trust.members(NOW_MS)[world.id("cid")].role is Role.ADMIN
    assert node.counts(publishing)
    assert counting(world, world.entry("cid")) == [True]


def test_the_network_key_ends_anything_and_what_follows_falls_with_it() -> None:
    world = network_of("bob")
    inside = world.grant("bob", "cid", "mirror")
    world.cut("network", "ann", {"": [world.said[1]]})
    later = world.grant("ann", "dan", "mirror")
    assert counting(world, inside, later) == [True, False]
    world.cut("network", "ann", {})
    assert names(world) == set(), "with ann's grants gone, nothing that rests on them counts"


def test_a_stolen_first_admin_is_replaced() -> None:
    world = network_of("bob")
    thief = world.grant("ann", "eve", "admin")
    world.cut("ann", "bob", {})
    world.cut("network", "ann", {"": [world.said[1]]}, reason="revoke")
    world.grant("network", "zoe", "admin")
    assert counting(world, thief, world.grant("bob", "x"), world.grant("zoe", "y")) == [False, True, True]


def test_undoing_what_a_stolen_admin_key_did() -> None:
    """Its cuts, its self-cut and its grants fall together with it."""
    world = network_of("bob")
    good = world.grant("bob", "cid", "publisher")
    world.cut("bob", "cid", {})
    world.grant("bob", "eve", "admin")
    world.cut("bob", "bob", {})
    world.cut("ann", "bob", {"": [good]}, reason="revoke")
    assert counting(world, good, world.entry("cid")) == [True, True]
    assert names(world) == {"ann", "cid"}


def test_a_cut_by_an_admin_that_was_cut_before_is_nothing() -> None:
    world = network_of("bob")
    world.grant("ann", "cid", "publisher")
    world.cut("ann", "bob")
    world.cut("bob", "cid", {})
    assert counting(world, world.entry("cid")) == [True]


def test_an_admin_may_leave() -> None:
    world = network_of("bob")
    admitted = world.grant("bob", "cid", "mirror")
    farewell = world.cut("bob", "bob")
    assert counting(world, admitted, world.grant("bob", "dan", "mirror")) == [True, False]
    assert names(world) == {"ann", "cid"}
    assert not node_with(world).counts(farewell), "it ends itself too, and takes effect all the same"


def test_an_admin_that_leaves_leaves_with_all_its_grants() -> None:
    world = network_of("bob")
    world.grant("ann", "bob", "publisher")
    before = world.entry("bob")
    world.cut("bob", "bob")
    assert counting(world, before, world.entry("bob")) == [True, False]
    assert names(world) == {"ann"}


def test_who_has_left_says_nothing_more_about_itself() -> None:
    """The key of an admin that left is found years later: it cannot take back what the farewell kept."""
    world = network_of("bob")
    admitted = world.grant("bob", "cid", "mirror")
    world.cut("bob", "bob")
    world.grant("ann", "bob", "mirror")
    world.cut("bob", "bob", {})
    assert counting(world, admitted) == [True]
    assert names(world) == {"ann", "bob", "cid"}


def test_a_key_is_rotated() -> None:
    world = network_of("bob")
    entry = world.entry("bob")
    world.grant("bob", "bob2", "admin")
    world.cut("bob", "bob", reason="rotate")
    assert counting(world, entry, world.entry("bob2"), world.entry("bob")) == [True, True, False]


def test_a_renewed_admin_keeps_its_place() -> None:
    """ann narrows her own carrying: cut and grant by herself. She still stands above those she admitted, and they not above her."""
    world = network_of("bob")
    world.cut("ann", "ann", reason="change")
    world.grant("ann", "ann", "admin", stages=("dev",))
    assert names(world) == {"bob"}, "a cut of oneself is the last word"
    world = network_of("bob")
    world.grant("ann", "ann", "admin", site="berlin")
    world.cut("bob", "ann", {})
    world.cut("ann", "bob", {})
    assert counting(world, world.grant("ann", "x"), world.grant("bob", "y")) == [True, False]


def test_an_admin_renewed_by_its_senior_keeps_authority_over_those_it_admitted() -> None:
    world = network_of("bob")
    world.grant("bob", "cid", "admin")
    world.cut("ann", "bob", reason="change")
    world.grant("ann", "bob", "admin", stages=("dev",))
    world.cut("bob", "cid", {})
    assert counting(world, world.policy("cid", "x"), world.policy("bob", "y")) == [False, True]


def test_a_demoted_and_readmitted_admin_is_no_senior_any_more() -> None:
    """bob comes back below cid, whom he had admitted: he cannot expel her now."""
    world = network_of("bob")
    world.grant("bob", "cid", "admin")
    world.cut("ann", "bob", reason="change")
    world.grant("cid", "bob", "admin")
    world.cut("bob", "cid", {})
    assert counting(world, world.policy("cid", "x")) == [True]


@pytest.mark.parametrize("admins", [("bob", "dan"), ("dan", "bob")])
def test_a_readmitted_admin_on_the_same_level_is_a_peer(admins: tuple[str, str]) -> None:
    """bob admitted cid while he stood above her; by then dan had also made him an admin of her level, which is all he has left."""
    world = network_of(*admins)
    world.grant("dan", "bob", "admin")
    admitted = world.grant("bob", "cid", "admin")
    world.cut("ann", "bob", {"": [admitted]}, at=1004)
    assert [record.header.hlc.ms for record in world.said] == [1001, 1002, 1003, 1004, 1005, 1004]
    world.cut("bob", "cid", {})
    assert counting(world, world.policy("cid", "x")) == [True]


def test_a_renewal_belongs_to_the_oldest_of_equal_grants() -> None:
    """It could rest on either; every node must choose the same one, for it ends with it."""
    for order in (1, -1):
        world = World().founded()
        world.grant("ann", "bob", "admin", until=Stamp.of(5000), site="first")
        world.grant("ann", "bob", "admin", site="second")
        world.grant("bob", "bob", "admin", site="renewed")
        trust = node_with(world, world.said[::order]).replica.trust
        assert [trust.members(now_ms)[world.id("bob")].site for now_ms in (5000, 5001)] == ["renewed", "second"]


def test_granting_each_other_is_no_ladder() -> None:
    world = network_of("bob")
    world.grant("bob", "cid", "admin")
    world.grant("cid", "bob", "admin")
    world.grant("bob", "bob", "admin")
    world.cut("bob", "ann", {})
    world.cut("ann", "bob", {})
    assert counting(world, world.policy("ann", "x"), world.policy("bob", "y")) == [True, False]


# --- What is not here yet, forks ---


def test_an_end_that_has_not_arrived_keeps_nothing_until_it_has() -> None:
    world = World().founded()
    world.grant("ann", "bob", "publisher")
    one, two = world.entry("bob"), world.entry("bob")
    world.cut("ann", "bob")
    node = node_with(world, [record for record in world.said if record is not two])
    node.replica.trust.take_changed()
    assert not node.counts(one)
    node.offer(two)
    assert node.replica.trust.take_changed() == {world.id("bob")}
    assert node.counts(one)
    assert node.counts(two)


def test_an_end_in_the_middle_of_a_run_is_found() -> None:
    world = World().founded()
    world.grant("ann", "bob", "publisher")
    one, two, three = (world.entry("bob") for _ in range(3))
    world.cut("ann", "bob", {"munki": [two]})
    assert counting(world, one, two, three) == [True, True, False]


def forked() -> tuple[World, list[Record]]:
    world = World().founded()
    world.grant("ann", "bob", "publisher")
    one, two, three = (world.entry("bob", str(number)) for number in range(3))
    return world, [one, two, three, world.entry("bob", "twin", after=one)]


def test_behind_a_fork_nothing_counts() -> None:
    world, records = forked()
    node = node_with(world)
    assert [node.why_not(record) for record in records] == ["", "fork", "fork", "fork"]


def test_finding_a_fork_changes_rights() -> None:
    world, (*records, twin) = forked()
    node = node_with(world, [record for record in world.said if record is not twin])
    node.replica.trust.take_changed()
    assert [node.counts(record) for record in records] == [True] * 3
    node.offer(twin)
    assert node.replica.trust.take_changed() == {world.id("bob")}
    assert [node.counts(record) for record in records] == [True, False, False]


def test_an_admin_names_the_true_branch() -> None:
    world, (one, two, three, twin) = forked()
    world.cut("ann", "bob", {"munki": [three]}, reason="revoke")
    assert counting(world, one, two, three, twin) == [True, True, True, False]


def test_a_fork_made_after_a_cut_takes_nothing_back() -> None:
    """Whoever steals the key of a removed member cannot void what was published: the cut has named it."""
    world = World().founded()
    world.grant("ann", "bob", "publisher")
    one, two = world.entry("bob"), world.entry("bob")
    world.cut("ann", "bob")
    twin = world.entry("bob", "twin", after=one, at=two.header.hlc.ms)
    assert counting(world, one, two, twin) == [True, True, False]


def test_no_admin_decides_about_its_own_fork() -> None:
    world = network_of("bob")
    one, two = world.grant("bob", "cid", "mirror"), world.grant("bob", "dan", "mirror")
    twin = world.grant("bob", "eve", "mirror", after=one)
    world.cut("bob", "bob", {"": [two]}, after=one, incarnation=2)
    assert counting(world, one, two, twin) == [True, False, False]


def test_a_forked_admin_starts_again_under_a_new_grant() -> None:
    world = network_of("bob")
    one = world.grant("bob", "cid", "mirror")
    world.grant("bob", "dan", "mirror")
    world.grant("bob", "eve", "mirror", after=one)
    again = world.grant("bob", "fay", "mirror", after=None, incarnation=2)
    assert counting(world, one, again) == [True, True]


# --- Shares ---


def shares(world: World) -> dict[str, tuple[bool, bool, tuple[str, ...]]]:
    found = node_with(world).replica.trust.shares()
    return {name: (share.public, share.immutable, share.stages) for name, share in found.items()}


def test_the_newest_policy_wins_and_immutable_stays_as_created() -> None:
    world = World().founded()
    created = world.policy("ann", "munki", public=True, immutable=True)
    world.policy("ann", "munki", public=False, immutable=False, stages=("test", "prod"))
    assert shares(world) == {"munki": (False, True, ("test", "prod"))}
    assert node_with(world).replica.trust.shares()["munki"].created == created.header.hlc


def test_a_removed_share_is_gone_and_may_be_created_anew() -> None:
    world = World().founded()
    world.policy("ann", "munki", immutable=True)
    world.policy("ann", "munki", removed=True)
    assert shares(world) == {}
    world.policy("ann", "munki", immutable=False)
    assert shares(world) == {"munki": (True, False, ("dev", "test", "prod"))}


def test_policies_that_do_not_count_make_no_share() -> None:
    world = World().founded()
    world.grant("ann", "bob", "publisher")
    world.policy("bob", "mine")
    world.policy("ann", "munki", public=False)
    world.policy("bob", "munki", public=True)
    assert shares(world) == {"munki": (False, False, ("dev", "test", "prod"))}


def test_shares_are_listed_by_name() -> None:
    world = World().founded()
    for name in ("munki", "jamf", "apps"):
        world.policy("ann", name)
    assert list(shares(world)) == ["apps", "jamf", "munki"]


# --- Questions ---


# --- Order of arrival, by name (the laws have it at random) ---


def in_both_orders(world: World, one: Record, other: Record) -> list[set[bytes]]:
    rest = [record for record in world.said if record not in (one, other)]
    return [set(node_with(world, [*rest, *pair]).counting()) for pair in ((one, other), (other, one))]


def test_self_cuts_are_judged_in_order_of_their_clocks() -> None:
    world = network_of("bob")
    admitted = world.grant("bob", "cid", "mirror")
    farewell = world.cut("bob", "bob", at=9000)
    earlier = world.cut("bob", "bob", {}, at=8000, after=admitted, incarnation=2)
    one, other = in_both_orders(world, farewell, earlier)
    assert one == other
    assert admitted.id not in one


def test_policies_are_a_history_in_order_of_their_clocks() -> None:
    world = network_of("bob")
    first, second = world.policy("ann", "munki", public=False, immutable=True), world.policy("bob", "munki", public=True)
    found = [node_with(world, [*world.said[:2], *pair]).replica.trust.shares() for pair in ((first, second), (second, first))]
    assert found[0] == found[1]
    assert found[0]["munki"].public
    assert found[0]["munki"].immutable


def test_the_newest_grant_is_that_of_the_latest_clock_not_of_the_highest_admin() -> None:
    world = network_of("bob")
    world.grant("ann", "cid", "mirror", site="of ann")
    world.grant("bob", "cid", "mirror", site="of bob")
    assert node_with(world).replica.trust.members(NOW_MS)[world.id("cid")].site == "of bob"
    world.grant("ann", "cid", "mirror", site="of ann again")
    assert node_with(world).replica.trust.members(NOW_MS)[world.id("cid")].site == "of ann again"


def test_may_answers_before_anything_is_said() -> None:
    world = network_of("bob")
    world.grant("ann", "cid", "publisher", shares=("munki",), paths=("apps",), stages=("dev",), until=Stamp.of(9000))
    trust = node_with(world).replica.trust

    def may(name: str, share: str = "munki", path_key: str | None = "apps/x", stage: str | None = "dev", role: Role = Role.PUBLISHER, at: int = 8000) -> bool:
        return trust.may(world.id(name), share=share, path_key=path_key, stage=stage, role=role, at=Stamp.of(at))

    assert may("cid")
    assert not may("cid", share="jamf")
    assert not may("cid", path_key="appsy")
    assert not may("cid", stage="prod")
    assert not may("cid", at=9001)
    assert not may("cid", at=1)
    assert not may("cid", "", None, None, Role.ADMIN)
    assert may("bob", "anything", "x", "prod")
    assert may("bob", "", None, None, Role.ADMIN)
    assert not may("eve")
    assert may("network", "", None, None, Role.ADMIN)
    assert not may("network")


def test_a_promotion_needs_both_stages() -> None:
    """Otherwise who may write at one stage could end what stands at another by naming it."""
    world = World().founded()
    world.grant("ann", "bob", "publisher", stages=("dev",))
    world.grant("ann", "cid", "publisher", stages=("dev", "prod"))
    into, within, both = world.entry("bob", source="prod", stage="dev"), world.entry("bob", stage="dev"), world.entry("cid", source="dev")
    node = node_with(world)
    assert [node.why_not(record) for record in (into, within, both)] == ["stage", "", ""]
    trust, at = node.replica.trust, Stamp.of(NOW_MS)
    may = [trust.may(world.id(name), share="munki", path_key="a", stage="dev", source="prod", role=Role.PUBLISHER, at=at) for name in ("bob", "cid")]
    assert may == [False, True]


def test_the_newest_takedown_that_counts_decides() -> None:
    world = network_of("bob", "cid")
    world.grant("ann", "eve", "publisher")
    content, other = sha256(b"x"), sha256(b"y")
    down = world.say("bob", "", Takedown(content, reason="licence"))
    world.say("eve", "", Takedown(other))
    assert dict(node_with(world).replica.trust.taken_down()) == {content: down}
    world.say("cid", "", Takedown(content, lifted=True))
    assert [dict(node_with(world, said).replica.trust.taken_down()) for said in (world.said, [*world.said[:4], *world.said[:3:-1]])] == [{}, {}]
    world.cut("ann", "cid", {})
    assert dict(node_with(world).replica.trust.taken_down()) == {content: down}


def test_may_says_no_after_a_cut() -> None:
    world = network_of("bob")
    world.cut("ann", "bob")
    trust = node_with(world).replica.trust
    assert not trust.may(world.id("bob"), share="", path_key=None, stage=None, role=Role.ADMIN, at=Stamp.of(NOW_MS))


def test_why_not_names_the_reason() -> None:
    world = World().founded()
    early = world.entry("bob", at=500)
    world.grant("ann", "bob", "publisher", shares=("munki", "jamf"), stages=("prod", "dev"), paths=("a",), until=Stamp.of(9000))
    world.grant("ann", "cid", "admin")
    world.cut("ann", "cid")
    world.grant("cid", "eve", "publisher")
    good = world.entry("bob")
    reasons = {
        early: "early",
        good: "",
        world.entry("network"): "role",
        world.entry("bob", share="other"): "share",
        world.entry("bob", stage="test"): "stage",
        world.entry("bob", "b"): "path",
        world.entry("eve"): "no-grant",
        world.entry("bob", share="jamf", stage="dev", at=9001): "expired",
    }
    world.cut("ann", "bob", {"munki": [good]}, at=8500)
    reasons[world.entry("bob", share="jamf", at=9000, after=None, incarnation=2)] = "cut"
    node = node_with(world)
    assert [node.why_not(record) for record in reasons] == list(reasons.values())
    assert set(reasons.values()) - {""} <= set(REASONS)
    stranger = Node(world)
    assert stranger.replica.trust.why_not(good, node.places[good.id]) == "stranger"


def test_an_unknown_type_is_never_applied() -> None:
    world = World().founded()
    entry = world.entry("ann")
    node = node_with(world)
    unknown = Record(msgspec.structs.replace(entry.envelope, type="novelty"), entry.id, entry.header, Unknown())
    assert node.counts(entry)
    assert node.replica.trust.why_not(unknown, node.places[entry.id]) == "unknown-type"


def test_take_changed_names_those_concerned() -> None:
    world = network_of("bob")
    node = node_with(world)
    assert node.replica.trust.take_changed() == {world.id("ann"), world.id("bob")}
    assert node.replica.trust.take_changed() == frozenset()
    node.offer(world.entry("ann"))
    node.offer(world.policy("ann", "munki"))
    assert node.replica.trust.take_changed() == frozenset()
    node.offer(world.grant("bob", "cid", "mirror"))
    assert node.replica.trust.take_changed() == {world.id("cid")}
    node.offer(world.cut("ann", "bob", {}))
    assert node.replica.trust.take_changed() == {world.id("bob"), world.id("cid")}


def test_grants_of_a_key_include_those_that_do_not_count() -> None:
    world = network_of("bob")
    world.grant("ann", "cid", "admin")
    world.cut("ann", "cid")
    made = [world.grant("cid", "eve", "admin"), world.grant("bob", "eve", "mirror")]
    trust = node_with(world).replica.trust
    assert trust.grants_of(world.id("eve")) == [record.body for record in made]
    assert trust.grants_of(world.id("nobody")) == []


def test_add_says_whether_anything_may_be_different() -> None:
    world = World().founded()
    policy, entry = world.policy("ann", "munki"), world.entry("ann")
    node = node_with(world)
    assert node.replica.trust.add(policy, node.places[policy.id], {})
    assert not node.replica.trust.add(entry, node.places[entry.id], {})


def test_may_end_tells_which_cut_would_take_effect() -> None:
    world = network_of("bob", "cid")
    world.grant("bob", "dan", "admin")
    world.grant("bob", "eve", "mirror")
    trust = node_with(world).replica.trust
    ends = {(author, subject) for author in world.keys for subject in world.keys if trust.may_end(world.id(author), world.id(subject), Stamp.of(NOW_MS))}
    people = {"ann", "bob", "cid", "dan", "eve"}
    effective = {pair for pair in ends if pair[1] in people}
    assert effective == {
        *(("network", name) for name in people),
        *(("ann", name) for name in people),
        *(("bob", name) for name in ("bob", "dan", "eve")),
        *(("cid", name) for name in ("cid", "eve")),
        *(("dan", name) for name in ("dan", "eve")),
    }


# --- What a former member is told ---


def test_a_membership_ends_with_the_first_cut_of_its_last_grant() -> None:
    world = network_of("cid")
    world.grant("ann", "bob")
    first = world.cut("ann", "bob")
    again = world.grant("ann", "bob")
    second = world.cut("ann", "bob")
    later = world.cut("cid", "bob", reason="revoke")
    assert node_with(world).replica.trust.ended(world.id("bob")) == second.header.hlc
    ends = [
        Node(world).deliver(one for one in world.said if one not in gone).replica.trust.ended(world.id("bob"))
        for gone in ([again, second, later], [first, again, second, later])
    ]
    assert ends == [first.header.hlc, None]


def test_nothing_but_a_cut_in_time_counts_as_the_end() -> None:
    world = World().founded()
    world.grant("ann", "bob", until=Stamp.of(2000))
    world.grant("ann", "cid")
    world.cut("bob", "cid")
    world.cut("ann", "bob", at=3000)
    trust = node_with(world).replica.trust
    assert [trust.ended(world.id(name)) for name in ("ann", "bob", "cid", "dan")] == [None] * 4


def test_what_was_said_until_then_comes_in_order_and_bounded() -> None:
    world = network_of("cid")
    world.policy("cid", "munki")
    world.grant("ann", "bob", Role.PUBLISHER)
    world.entry("bob")
    cut = world.cut("ann", "bob")
    world.policy("ann", "later")
    trust = node_with(world).replica.trust
    told = [record for record in world.said if not record.header.share][:-1]
    assert trust.said(cut.header.hlc, 100) == told
    assert trust.said(cut.header.hlc, 2) == told[-2:]
    message = parting(trust, world.id("bob"))
    assert message is not None
    assert message.envelopes == tuple(record.envelope for record in told)


def test_a_parting_fits_into_one_message() -> None:
    world = World().founded()
    world.grant("ann", "bob")
    for number in range(900):
        world.policy("ann", "munki", root="/".join([f"{number:0200}"] * 4))
    cut = world.cut("ann", "bob")
    message = parting(node_with(world).replica.trust, world.id("bob"))
    assert message is not None
    assert message.envelopes[-1] == cut.envelope
    size_bytes = sum(len(envelope.payload) for envelope in message.envelopes)
    assert RECORDS_BYTES_PER_MESSAGE - 2000 < size_bytes <= RECORDS_BYTES_PER_MESSAGE
    assert parting(node_with(world).replica.trust, world.id("ann")) is None
