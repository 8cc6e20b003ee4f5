"""Who is told what: the supply by itself."""

from __future__ import annotations

import random

import pytest

from replicad.crypto.hashing import sha256
from replicad.model.chunks import Extent
from replicad.model.ids import NodeId
from replicad.protocol.fetch import sets
from replicad.protocol.fetch.config import FRESH_S, GIVEN_S, HAVE_S, HOLD_S, SPREAD_S
from replicad.protocol.fetch.events import Say, Target
from replicad.protocol.fetch.firsts import FIRST_MAX
from replicad.protocol.fetch.supply import Asked, AskedSmall, Due, Has, Left, Servable, SmallHeld, Sought, Supply, SupplyEvent, UndeliveredSmall, Unwatch, Watch
from replicad.protocol.wire import Have, HaveMore, Hold, Small

COUNT = 8
TARGET = Target(sha256(b"content"), sha256(b"manifest"))
PEER, OTHER, FAR = (NodeId(bytes(31) + bytes([number])) for number in (1, 2, 3))


def news(supply: Supply, event: SupplyEvent, now: float) -> list[Have | HaveMore]:
    """What is said because of the event, at once and until news were gathered."""
    says = supply.handle(event, now) + supply.handle(Due(), now + HAVE_S)
    return [say.message for say in says if isinstance(say.message, Have | HaveMore)]


def test_a_peer_is_not_told_of_what_it_has_until_it_has_lost_it() -> None:
    supply = Supply(random.Random(1).randrange)
    supply.handle(Watch(PEER, TARGET, COUNT, 0), 0.0)
    supply.handle(Has(PEER, TARGET, sets.of((1, 3)), whole=False), 1.0)
    assert news(supply, Servable(TARGET, COUNT, sets.of((1, 3))), 1.0) == []
    assert news(supply, Servable(TARGET, COUNT, sets.of((1, 2, 3))), 2.0) == [HaveMore(*TARGET, chunks=(2,), suggest=())]
    assert news(supply, Has(PEER, TARGET, sets.of((1, 2)), whole=True), 3.0) == [HaveMore(*TARGET, chunks=(3,), suggest=())]
    assert news(supply, Servable(TARGET, COUNT, sets.full(COUNT)), 4.0) == [Have(*TARGET, bitmap=b"", complete=True)]


def test_several_who_fetch_the_same_are_each_suggested_other_chunks_and_one_alone_is_not() -> None:
    """Everybody takes what was suggested to it first, so what the only holder gives first goes to one of them each."""
    supply = Supply(random.Random(1).randrange)

    def suggested(event: SupplyEvent, now: float) -> dict[NodeId, set[int]]:
        says = supply.handle(event, now) + supply.handle(Due(), now + HAVE_S)
        return {say.node: set(say.message.suggest) for say in says if isinstance(say.message, HaveMore)}

    assert suggested(Watch(PEER, TARGET, 256, sets.full(256)), 0.0) == {}
    found = suggested(Watch(OTHER, TARGET, 256, sets.full(256)), 1.0)
    assert found.keys() == {PEER, OTHER}
    assert min(map(len, found.values())) > 1
    assert not found[PEER] & found[OTHER]


def test_of_small_contents_a_peer_is_not_told_either_what_it_said_meanwhile_that_it_has() -> None:
    supply = Supply(random.Random(1).randrange)
    first, second, third = (Small(sha256(bytes([number])), 1) for number in range(3))
    supply.handle(Sought(PEER, (first, second, third), ()), 0.0)
    assert supply.handle(SmallHeld((first,)), 1.0) == [Say(PEER, Hold((first,)))]
    assert supply.handle(SmallHeld((second, third)), 1.0 + HOLD_S / 2) == []
    supply.handle(Sought(PEER, (second,), (), active=False), 1.0 + HOLD_S / 2)
    assert supply.handle(Due(), 1.0 + HOLD_S) == [Say(PEER, Hold((third,)))]


def test_what_was_lost_before_it_was_told_is_not_told() -> None:
    supply = Supply(random.Random(1).randrange)
    first, second = (Small(sha256(bytes([number])), 1) for number in range(2))
    supply.handle(Sought(PEER, (first, second), ()), 0.0)
    supply.handle(SmallHeld((first,)), 1.0)
    supply.handle(SmallHeld((second,)), 1.0 + HOLD_S / 2)
    assert supply.handle(SmallHeld((second,), held=False), 1.0 + HOLD_S / 2) == [Say(PEER, Hold((second,), held=False))]
    assert supply.handle(Due(), 1.0 + HOLD_S) == []


def test_what_nobody_else_has_is_told_at_once_and_what_follows_it_soon_is_gathered() -> None:
    supply = Supply(random.Random(1).randrange)
    supply.handle(Watch(PEER, TARGET, COUNT, 0), 0.0)
    assert supply.handle(Servable(TARGET, COUNT, sets.of((1,))), 1.0) == [Say(PEER, HaveMore(*TARGET, chunks=(1,), suggest=()))]
    assert supply.handle(Servable(TARGET, COUNT, sets.of((1, 2))), 1.0 + FRESH_S / 4) == []
    assert supply.handle(Servable(TARGET, COUNT, sets.of((1, 2, 4))), 1.0 + FRESH_S / 2) == []
    assert supply.next_deadline() == 1.0 + FRESH_S
    assert supply.handle(Due(), 1.0 + FRESH_S) == [Say(PEER, HaveMore(*TARGET, chunks=(2, 4), suggest=()))]
    assert supply.next_deadline() is None


def test_what_others_have_as_well_is_told_later_or_with_what_nobody_else_has() -> None:
    def told(effects: list[Say], node: NodeId) -> list[tuple[int, ...]]:
        return [say.message.chunks for say in effects if say.node == node and isinstance(say.message, HaveMore) and say.message.chunks]

    supply = Supply(random.Random(1).randrange)
    for node in (PEER, OTHER):
        supply.handle(Watch(node, TARGET, COUNT, 0), 0.0)
    supply.handle(Has(OTHER, TARGET, sets.of((1, 2, 3)), whole=False), 0.5)
    supply.handle(Servable(TARGET, COUNT, sets.of((0,))), 1.0)
    assert supply.handle(Servable(TARGET, COUNT, sets.of((0, 1))), 1.0 + FRESH_S) == []
    assert supply.next_deadline() == 1.0 + HAVE_S
    effects = supply.handle(Due(), 1.0 + HAVE_S)
    assert (told(effects, PEER), told(effects, OTHER)) == ([(1,)], [])
    assert supply.handle(Servable(TARGET, COUNT, sets.of((0, 1, 2))), 1.0 + HAVE_S + FRESH_S / 2) == []
    assert supply.handle(Servable(TARGET, COUNT, sets.of((0, 1, 2, 4))), 1.0 + HAVE_S + FRESH_S / 2) == []
    assert supply.next_deadline() == 1.0 + HAVE_S + FRESH_S
    effects = supply.handle(Due(), 1.0 + HAVE_S + FRESH_S)
    assert (told(effects, PEER), told(effects, OTHER)) == ([(2, 4)], [(4,)])


EXTENT = Extent(2, 2)


def complete() -> Supply:
    """It has everything; two peers at the same site fetch it, and one at another."""
    supply = Supply(random.Random(1).randrange)
    for node in (PEER, OTHER, FAR):
        supply.handle(Watch(node, TARGET, COUNT, sets.full(COUNT), near=node != FAR), 0.0)
    supply.handle(Asked(PEER, TARGET, Extent(2, 1)), 1.0)
    supply.handle(Asked(PEER, TARGET, Extent(3, 1)), 1.5)
    return supply


def test_what_another_got_just_now_is_left_to_be_got_from_there() -> None:
    supply = complete()
    assert supply.spreads(OTHER, TARGET, EXTENT, 1.6)
    assert not supply.spreads(PEER, TARGET, EXTENT, 1.6), "it asks again for what it was sent"
    assert not supply.spreads(OTHER, TARGET, Extent(2, 3), 1.6), "nobody has the last of these"
    assert not supply.spreads(FAR, TARGET, EXTENT, 1.6), "those of other sites divide it among themselves"
    assert not supply.spreads(OTHER, TARGET, EXTENT, 1.0 + SPREAD_S), "the first of them is overdue"
    assert not supply.spreads(OTHER, Target(TARGET.content, sha256(b"another")), EXTENT, 1.6)


def test_nobody_can_keep_a_chunk_from_others_by_asking_again() -> None:
    supply = complete()
    supply.handle(Asked(PEER, TARGET, EXTENT), 1.0 + SPREAD_S - 0.1)
    assert not supply.spreads(OTHER, TARGET, EXTENT, 1.5 + SPREAD_S)


@pytest.mark.parametrize("end", [Unwatch(PEER, TARGET), Left(PEER)])
def test_what_went_to_somebody_who_is_gone_is_given_again(end: Unwatch | Left) -> None:
    supply = complete()
    supply.handle(end, 1.6)
    assert not supply.spreads(OTHER, TARGET, EXTENT, 1.6)


def test_who_fetches_itself_gives_to_everybody() -> None:
    supply = complete()
    supply.handle(Servable(TARGET, COUNT, sets.full(COUNT) & ~1), 1.6)
    assert not supply.spreads(OTHER, TARGET, EXTENT, 1.6)


def sought() -> tuple[Supply, tuple[Small, ...]]:
    """Two seek three small contents that are here; the first was given the first two of them a second after the start."""
    supply = Supply(random.Random(1).randrange)
    contents = tuple(Small(sha256(bytes([number])), 1) for number in range(3))
    for node in (PEER, OTHER):
        supply.handle(Sought(node, contents, contents), 0.0)
    supply.handle(AskedSmall(PEER, contents[:2]), 1.0)
    return supply, contents


def test_of_small_contents_a_peer_soon_has_what_another_was_given_first() -> None:
    supply, contents = sought()
    assert supply.spreads_small(OTHER, contents, 1.0) == {*contents[:2]}
    assert supply.spreads_small(PEER, contents, 1.0) == set(), "it asks again for what it was sent"
    supply.handle(AskedSmall(OTHER, contents), 1.5)
    assert supply.spreads_small(PEER, contents, 1.5) == {contents[2]}
    assert supply.spreads_small(OTHER, contents, 1.5) == {*contents[:2]}, "nobody keeps a content from others by asking for it as well"


def test_a_small_content_is_spread_for_a_while_by_somebody_who_is_there() -> None:
    supply, contents = sought()
    assert supply.spreads_small(OTHER, contents, 0.9 + GIVEN_S) == {*contents[:2]}
    assert supply.spreads_small(OTHER, contents, 1.0 + GIVEN_S) == set()
    supply.handle(Left(PEER), 2.0)
    assert supply.spreads_small(OTHER, contents, 2.0) == set()


@pytest.mark.parametrize("gone", [False, True])
def test_whoever_was_given_it_first_is_followed_by_another_when_that_is_over(gone: bool) -> None:
    supply, contents = sought()
    supply.handle(Sought(FAR, contents, contents), 0.0)
    supply.handle(AskedSmall(OTHER, contents[:1]), 1.5)
    assert supply.spreads_small(FAR, contents[:1], 0.9 + GIVEN_S), "it was not the first"
    now = 2.0 if gone else 1.0 + GIVEN_S
    if gone:
        supply.handle(Left(PEER), now)
    supply.handle(AskedSmall(OTHER, contents[:1]), now)
    assert supply.spreads_small(FAR, contents[:1], now) == {contents[0]}
    assert supply.spreads_small(OTHER, contents[:1], now) == set()


def test_nobody_waits_for_what_did_not_arrive() -> None:
    supply, contents = sought()
    supply.handle(UndeliveredSmall(OTHER, contents), 1.1)
    assert supply.spreads_small(OTHER, contents, 1.1) == {*contents[:2]}, "what did not arrive at somebody else does not matter"
    supply.handle(UndeliveredSmall(PEER, contents[1:]), 1.1)
    assert supply.spreads_small(OTHER, contents, 1.1) == {contents[0]}


def test_each_site_has_its_own_first() -> None:
    supply, contents = sought()
    assert supply.spreads_small(OTHER, contents, 1.0, site="paris") == set()
    supply.handle(AskedSmall(FAR, contents[:1], "paris"), 1.0)
    assert supply.spreads_small(OTHER, contents, 1.0, site="paris") == set(), "who is first has no link any more, or seeks nothing"
    supply.handle(Sought(FAR, contents, contents), 1.0)
    assert supply.spreads_small(OTHER, contents, 1.0, site="paris") == {contents[0]}
    assert supply.spreads_small(OTHER, contents, 1.0) == {*contents[:2]}


def test_who_was_given_a_small_content_first_is_forgotten_when_too_many_came_since() -> None:
    supply, contents = sought()
    supply.handle(AskedSmall(PEER, tuple(Small(sha256(number.to_bytes(8)), 1) for number in range(FIRST_MAX - 1))), 1.1)
    assert supply.spreads_small(OTHER, contents, 1.1) == {contents[1]}


def test_who_watches_or_seeks_is_counted_once() -> None:
    supply = complete()
    assert supply.watching == 3
    supply.handle(Sought(OTHER, (Small(sha256(b"small"), 5),), ()), 1.6)
    assert supply.watching == 3
    supply.handle(Unwatch(FAR, TARGET), 1.6)
    supply.handle(Unwatch(OTHER, TARGET), 1.6)
    assert supply.watching == 2
    supply.handle(Left(OTHER), 1.6)
    assert supply.watching == 1
