"""Records in and out: what is accepted, refused, published, pulled; authoring and moving."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from catalog_world import SHARE, START_MS, World, audit, big_content, content_of, copy, entry, key, rows, sign, stored, tombstone

from replicad.catalog import Catalog
from replicad.errors import NotAllowedError, RecordError
from replicad.model.events import ContentHeld, EntriesChanged, RecordsCommitted, TrustChanged
from replicad.model.ids import NodeId, Stamp
from replicad.model.records import Cut, Envelope, Grant, Header, Policy, Record, Role
from replicad.protocol.clock import FUTURE_MAX_MS


def publisher(name: str, **options: object) -> Grant:
    return Grant(key(name).id, name, Role.PUBLISHER, **options)  # type: ignore[arg-type]


async def publish(catalog: Catalog, count: int, *, start: int = 0) -> tuple[Record, ...]:
    return await catalog.author(SHARE, [entry(f"file{number:04}", str(number)) for number in range(start, start + count)])


def envelopes(records: Sequence[Record]) -> list[Envelope]:
    return [record.envelope for record in records]


async def test_receiving_is_idempotent_and_in_any_order(world: World) -> None:
    async with world.founded() as ann, world.joined("bob", ann) as bob:
        said = envelopes(await publish(ann, 40))
        first = await bob.receive(said[::-1], source=ann.node)
        assert ([record.header.seq for record in first.new], first.duplicates, first.gaps, first.refused) == (list(range(1, 41)), 0, 0, ())
        again = await bob.receive(said, source=ann.node)
        assert (again.new, again.duplicates) == ((), 40)
        twice = await bob.receive([*envelopes(await publish(ann, 1, start=40))] * 3, source=ann.node)
        assert (len(twice.new), twice.duplicates) == (1, 2)
        await audit(bob)


async def test_what_lacks_its_predecessor_is_a_gap_and_leaves_no_trace(world: World) -> None:
    async with world.founded() as ann, world.joined("bob", ann) as bob:
        said = envelopes(await publish(ann, 10))
        received = await bob.receive([*said[:3], *said[5:]], source=ann.node)
        assert (len(received.new), received.gaps, received.refused) == (3, 5, ())
        assert (await bob.usage()).stages == {"prod": 3}
        received = await bob.receive(said, source=ann.node)
        assert (len(received.new), received.duplicates, received.gaps) == (7, 3, 0)


async def test_strangers_the_future_and_forgeries_are_refused_by_name(world: World) -> None:
    async with world.founded() as ann, world.joined("bob", ann) as bob:
        now = Stamp.of(START_MS)
        network = world.network.id

        def alone(name: str, *, hlc: Stamp = now, network: NodeId = network) -> Envelope:
            return sign(key(name), network, Header(key(name).id, SHARE, now, 1, None, hlc), entry("evil")).envelope

        good = alone("ann")
        flipped = Envelope(good.type, good.payload.replace(b"evil", b"EVIL"), good.key, good.signature)
        offered = [alone("eve"), alone("ann", hlc=Stamp.of(START_MS + FUTURE_MAX_MS + 1)), flipped, alone("ann", network=key("elsewhere").id)]
        received = await bob.receive(offered, source=ann.node)
        assert (received.new, received.gaps) == ((), 0)
        assert sorted(refusal.code for refusal in received.refused) == ["future", "signature", "signature", "stranger"]
        assert await rows(bob, "SELECT count(*) FROM record WHERE type = 'entry'") == [(0,)]
        world.now_ms += 2
        later = await bob.receive([offered[1]], source=ann.node)
        assert len(later.new) == 1


async def test_a_record_that_contradicts_its_predecessor_is_broken(world: World) -> None:
    async with world.founded() as ann, world.joined("bob", ann) as bob:
        (first,) = await publish(ann, 1)
        header = Header(ann.node, SHARE, first.header.incarnation, 2, first.id, first.header.hlc)
        received = await bob.receive([first.envelope, sign(key("ann"), world.network.id, header, entry("b")).envelope], source=None)
        assert ([refusal.code for refusal in received.refused], len(received.new)) == (["broken"], 1)


async def test_grants_and_what_they_admit_may_come_in_one_batch(world: World) -> None:
    async with world.founded() as ann, world.joined("bob", ann, publisher("bob")) as bob, world.open("cid", network=world.network.id) as cid:
        await publish(bob, 5)
        await copy(bob, ann)
        batch = await stored(ann)
        received = await cid.receive(batch[::-1], source=ann.node)
        assert (len(received.new), received.refused, received.gaps) == (len(batch), (), 0)
        assert len(await cid.entries(all_stages=True)) == 5
        await audit(cid)


async def test_a_long_batch_is_received_in_several_transactions(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replicad.catalog.journal.RECEIVE_PART", 7)
    async with world.founded() as ann, world.joined("bob", ann) as bob:
        world.events["bob"].clear()
        received = await bob.receive(envelopes(await publish(ann, 30)), source=ann.node)
        assert len(received.new) == 30
        assert [len(event.records) for event in world.events["bob"] if isinstance(event, RecordsCommitted)] == [7, 7, 7, 7, 2]


async def test_events_follow_the_commit_in_order(world: World) -> None:
    async with world.founded() as ann, world.joined("bob", ann) as bob:
        heard = world.events["bob"]
        heard.clear()
        (record,) = await ann.author(SHARE, [entry("Ä/File")])
        await bob.receive([record.envelope], source=ann.node)
        assert heard == [RecordsCommitted((record,), ann.node), EntriesChanged(SHARE, ("ä/file",))]
        heard.clear()
        await bob.receive([record.envelope], source=ann.node)
        assert heard == []
        own = world.events["ann"]
        own.clear()
        manifest = content_of("z")
        (record,) = await ann.author(SHARE, [entry("z", "z")], held=[manifest])
        assert own == [ContentHeld(((manifest.content, 1),)), RecordsCommitted((record,), None), EntriesChanged(SHARE, ("z",))]
        own.clear()
        (policy,) = await ann.author("", [Policy("jamf", public=False)])
        assert own == [RecordsCommitted((policy,), None), TrustChanged(), EntriesChanged("jamf", ())]


async def test_many_changed_names_are_told_as_any(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replicad.catalog.state.CHANGED_KEYS_MAX", 3)
    async with world.founded() as ann:
        world.events["ann"].clear()
        await publish(ann, 4)
        assert world.events["ann"][-1] == EntriesChanged(SHARE, ())


@pytest.mark.parametrize(
    ("grant", "body", "share"),
    [
        (Grant(key("bob").id, "bob", Role.MIRROR), entry("a"), SHARE),
        (publisher("bob"), Policy("new", public=True), ""),
        (publisher("bob", shares=("jamf",)), entry("a"), SHARE),
        (publisher("bob", stages=("dev",)), entry("a"), SHARE),
        (publisher("bob", paths=("a",)), entry("ab"), SHARE),
        (publisher("bob", paths=("a",)), tombstone("b"), SHARE),
        (publisher("bob", until=Stamp.of(START_MS - 1)), entry("a"), SHARE),
    ],
)
async def test_nothing_is_signed_that_would_not_count(world: World, grant: Grant, body: object, share: str) -> None:
    async with world.founded() as ann, world.joined("bob", ann, grant) as bob:
        with pytest.raises(NotAllowedError):
            await bob.author(share, [body])  # type: ignore[list-item]
        assert [record for record in await stored(bob) if record.key == bob.node] == []


async def test_authoring_is_all_or_nothing(world: World) -> None:
    async with world.founded() as ann, world.joined("bob", ann, publisher("bob", stages=("dev",))) as bob:
        before = await bob.usage()
        with pytest.raises(NotAllowedError, match="stage prod"):
            await bob.author(SHARE, [entry("a", stage="dev"), entry("b", stage="prod")], held=[content_of("x")])
        with pytest.raises(RecordError):
            await bob.author(SHARE, [entry("a", stage="dev"), entry("../b", stage="dev")], held=[content_of("x")])
        assert await bob.usage() == before
        assert not bob.is_held(content_of("x").content)
        (record,) = await bob.author(SHARE, [entry("a", stage="dev")])
        assert record.header.seq == 1
        await audit(bob)


async def test_authoring_holds_contents_in_the_same_transaction(world: World) -> None:
    async with world.founded() as ann:
        big = big_content("big")
        await ann.author(SHARE, [entry("a", big), entry("b", "b")], held=[big, content_of("b")])
        assert [one.available for one in await ann.entries()] == [True, True]
        assert await ann.wanted() == []
        assert await ann.manifest(big.content, big.id) == big


async def test_own_records_are_on_the_disk_before_anybody_hears_of_them(world: World) -> None:
    async with world.founded() as ann:
        order: list[str] = []
        await ann._database.write(lambda connection: connection.set_trace_callback(order.append))
        order.clear()
        ann.on_event = lambda event: order.append(type(event).__name__)
        await publish(ann, 1)
        assert "PRAGMA synchronous = FULL" in order
        assert order.index("PRAGMA synchronous = FULL") < order.index("COMMIT") < order.index("RecordsCommitted")


async def test_concurrent_authors_make_one_chain(world: World) -> None:
    async with world.founded() as ann:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(publish(ann, 3, start=number * 3)) for number in range(20)]
        records = [record for task in tasks for record in task.result()]
        assert sorted(record.header.seq for record in records) == list(range(1, 61))
        assert len(await rows(ann, "SELECT * FROM run WHERE share = ?", SHARE)) == 1
        await audit(ann)


async def test_the_network_key_may_speak_through_any_member(world: World) -> None:
    async with world.founded() as ann:
        (said,) = await ann.author_cut(ann.node, reason="rotate", key=world.network)
        assert said.header.origin == world.network.id
        assert ann.replica.trust.members(world.now_ms) == {}
        with pytest.raises(NotAllowedError):
            await publish(ann, 1)


async def test_a_revoked_publishers_files_vanish_and_come_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replicad.catalog.ledger.RECOUNT_BATCH", 7)
    async with world.founded() as ann, world.joined("bob", ann, publisher("bob")) as bob:
        said = await publish(bob, 20)
        await copy(bob, ann)
        world.events["ann"].clear()
        await ann.author("", [Cut(bob.node, {SHARE: (said[9].id,)}, "revoke")])
        assert len(await ann.entries()) == 10
        changed = [key for event in world.events["ann"] if isinstance(event, EntriesChanged) for key in event.keys]
        assert sorted(changed) == [f"file{number:04}" for number in range(10, 20)]
        await copy(ann, bob)
        assert len(await bob.entries()) == 0
        await audit(ann)
        await audit(bob)
        with pytest.raises(NotAllowedError):
            await publish(bob, 1)


async def test_a_cut_whose_end_arrives_later_keeps_what_it_names(world: World) -> None:
    async with world.founded() as ann, world.joined("bob", ann, publisher("bob")) as bob, world.joined("cid", ann) as cid:
        said = await publish(bob, 10)
        await copy(bob, ann)
        await cid.receive(envelopes(said[:3]), source=bob.node)
        await ann.author("", [Cut(bob.node, {SHARE: (said[5].id,)}, "revoke")])
        await cid.receive(await stored(ann, ""), source=ann.node)
        assert len(await cid.entries(all_stages=True)) == 0
        await cid.receive(envelopes(said), source=bob.node)
        assert len(await cid.entries(all_stages=True)) == 6
        await audit(cid)


async def test_unfinished_recounts_survive_a_restart(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replicad.catalog.ledger.RECOUNT_BATCH", 3)
    async with world.founded() as ann, world.joined("bob", ann, publisher("bob")) as bob:
        await publish(bob, 20)
        await copy(bob, ann)
        cut = Cut(bob.node, {}, "revoke")
        await ann._database.write(lambda connection: ann._ledger.author(connection, "", [cut], key=key("ann")), after=ann._committed)
        assert ann._ledger.unfinished
        assert len(await ann.entries()) == 20
    async with world.open("ann") as ann:
        assert len(await ann.entries()) == 0
        await audit(ann)


async def test_any_write_helps_to_finish_recounts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replicad.catalog.ledger.RECOUNT_BATCH", 15)
    async with world.founded() as ann, world.joined("bob", ann, publisher("bob")) as bob:
        await publish(bob, 20)
        await copy(bob, ann)
        cut = Cut(bob.node, {}, "revoke")
        await ann._database.write(lambda connection: ann._ledger.author(connection, "", [cut], key=key("ann")), after=ann._committed)
        left = []
        for _ in range(3):
            await ann.set_meta("a", "b")
            left.append(len(await ann.entries()))
        assert left == [5, 0, 0]


async def test_equivocation_is_kept_and_voids_what_follows(world: World) -> None:
    async with world.founded() as ann, world.joined("bob", ann, publisher("bob")) as bob, world.joined("cid", ann) as cid:
        await copy(ann, bob)
        said = await publish(bob, 6)
        other = sign(key("bob"), world.network.id, said[3].header, entry("other", "other"))
        await cid.receive([*envelopes(said[:3]), other.envelope], source=None)
        await ann.receive(envelopes(said), source=None)
        assert len(await ann.entries()) == 6
        assert len((await ann.receive([other.envelope], source=None)).new) == 1
        await cid.receive(envelopes(said), source=None)
        assert len(await ann.entries()) == len(await cid.entries(all_stages=True)) == 3
        assert ann.replica.chains.frontier_hash(SHARE) == cid.replica.chains.frontier_hash(SHARE)
        await audit(ann)
        await audit(cid)


async def test_a_pull_gets_what_is_missing_in_order(world: World) -> None:
    async with world.founded() as ann:
        await publish(ann, 5)
    world.now_ms += 1000
    async with world.open("ann") as ann, world.open("bob", network=world.network.id) as bob:
        await publish(ann, 5, start=5)
        said = await stored(ann, SHARE)
        await bob.receive(await stored(ann, ""), source=None)

        async def pull(**have: int) -> tuple[list[Envelope], bool]:
            runs = dict(
                zip(
                    ("first", "second"),
                    [Stamp(row[0]) for row in await rows(ann, "SELECT incarnation FROM run WHERE share = ? ORDER BY run", SHARE)],
                    strict=True,
                )
            )
            return await ann.records_for_pull(SHARE, ann.node, {runs[name]: seq for name, seq in have.items()}, bytes_max=1 << 20)

        assert await pull() == (said, False)
        assert await pull(first=3) == (said[3:], False)
        assert await pull(first=5) == (said[5:], False)
        assert await pull(second=8) == (said[8:], False)
        assert await pull(second=10) == ([], False)
        assert await pull(first=2, second=99) == ([], False)
        assert await ann.records_for_pull(SHARE, key("eve").id, {}, bytes_max=1000) == ([], False)
        assert await ann.records_for_pull(SHARE, ann.node, {}, bytes_max=1) == (said[:1], True)
        pulled: list[Envelope] = []
        more = True
        while more:
            batch, more = await ann.records_for_pull(SHARE, ann.node, bob.replica.chains.have(ann.node, SHARE), bytes_max=2000)
            assert sum(len(envelope.payload) for envelope in batch) <= 2000
            pulled += batch
            await bob.receive(batch, source=ann.node)
        assert pulled == said


async def test_an_answer_to_a_pull_has_at_most_1024_records(world: World) -> None:
    async with world.founded() as ann:
        await publish(ann, 1100)
        batch, more = await ann.records_for_pull(SHARE, ann.node, {}, bytes_max=1 << 30)
        assert (len(batch), more) == (1024, True)


async def test_records_by_id(world: World) -> None:
    async with world.founded() as ann:
        first, second = await publish(ann, 2)
        assert await ann.record(first.id) == first
        strange = sign(key("eve"), world.network.id, first.header, entry("evil")).id
        assert await ann.record(strange) is None
        assert await ann.known([first.id, second.id, strange]) == {first.id, second.id}


async def test_moving_to_another_network(world: World) -> None:
    elsewhere = World(world.directory / "elsewhere")
    elsewhere.directory.mkdir()
    elsewhere.network = key("other network")
    async with elsewhere.founded("zoe", share="jamf") as zoe, world.founded() as ann:
        await zoe.author("", [publisher("ann")])
        await zoe.author("jamf", [entry("there", "there"), entry("both", "x")])
        await publish(ann, 3)
        await ann.hold([content_of("x")])
        await ann.save_partials([(content_of("there").content, content_of("there").id, b"\x01")])
        await ann.add_pending(key("eve").id, b"{}", 1)
        old, members = ann.replica, set(ann.replica.trust.members(world.now_ms))
        assert await ann.visible(SHARE, "file0000")
        world.events["ann"].clear()
        moved = await ann.move(elsewhere.network.id, await stored(zoe))
        assert len(moved.new) == 5
        assert members == {ann.node}
        assert (ann.network, ann.replica is not old) == (elsewhere.network.id, True)
        assert set(ann.replica.trust.members(world.now_ms)) == {zoe.node, ann.node}
        assert await ann.visible(SHARE, "file0000") is None
        assert [(one.share, one.key, one.available) for one in await ann.entries()] == [("jamf", "both", True), ("jamf", "there", False)]
        assert [one.content for one in await ann.wanted()] == [content_of("there").content]
        assert (await ann.pending(), len(await ann.partials())) == ([], 1)
        assert [type(event) for event in world.events["ann"]] == [RecordsCommitted, TrustChanged, EntriesChanged, EntriesChanged]
        assert {event.share for event in world.events["ann"] if isinstance(event, EntriesChanged)} == {SHARE, "jamf"}
        (record,) = await ann.author("jamf", [entry("from ann")])
        assert len((await zoe.receive([record.envelope], source=ann.node)).new) == 1
        await audit(ann)
    async with world.open("ann") as ann:
        assert ann.network == elsewhere.network.id
        assert len(await ann.entries()) == 3
        await audit(ann)


async def test_nothing_of_the_old_network_is_shown_in_the_new_one(world: World) -> None:
    elsewhere = World(world.directory / "elsewhere")
    elsewhere.directory.mkdir()
    elsewhere.network = key("other network")
    async with elsewhere.founded("zoe") as zoe, world.founded() as ann:
        await zoe.author("", [publisher("ann")])
        await zoe.author(SHARE, [entry("file0000", "theirs")])
        await publish(ann, 2)
        assert [(await ann.visible(SHARE, name)) is not None for name in ("file0000", "file0001")] == [True, True]
        await ann.move(elsewhere.network.id, await stored(zoe))
        shown = await ann.visible(SHARE, "file0000")
        assert shown
        assert (shown.content, await ann.visible(SHARE, "file0001")) == (content_of("theirs").content, None)


async def test_a_batch_for_a_network_that_was_left_is_dropped(world: World) -> None:
    async with world.founded() as ann, world.joined("bob", ann) as bob:
        said = await publish(ann, 2)
        late = await bob._database.write(lambda connection: bob._ledger.receive(connection, said, network=key("elsewhere").id, source=None))
        assert late.records == []
