"""Merge: named conflicts, then the laws of a set."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.crypto.hashing import sha256
from replicad.model.ids import RecordId, Stamp
from replicad.protocol.merge import RegisterRow, Resolution, resolve


def rid(name: str) -> RecordId:
    return RecordId(hashlib.sha256(name.encode()).digest())


def entry(name: str, at: int, *supersedes: str, counts: bool = True) -> RegisterRow:
    return RegisterRow(rid(name), Stamp(at), "entry", sha256(name.encode()), frozenset(map(rid, supersedes)), counts)


def tombstone(name: str, at: int, *supersedes: str, counts: bool = True) -> RegisterRow:
    return RegisterRow(rid(name), Stamp(at), "tombstone", None, frozenset(map(rid, supersedes)), counts)


CASES = {
    "nothing": ([], None, "", ""),
    "one entry": ([entry("a", 1)], "a", "", "a"),
    "a replacement": ([entry("a", 1), entry("b", 2, "a")], "b", "", "b"),
    "a replacement with an older clock": ([entry("a", 5), entry("b", 2, "a")], "b", "", "b"),
    "two at once: the later clock wins": ([entry("a", 1), entry("b", 2)], "b", "a", "ba"),
    "three at once: siblings from best to worst": ([entry("a", 1), entry("b", 3), entry("c", 2)], "b", "ca", "bca"),
    "a conflict resolved": ([entry("a", 1), entry("b", 2), entry("c", 3, "a", "b")], "c", "", "c"),
    "a delete": ([entry("a", 1), tombstone("t", 2, "a")], None, "", "t"),
    "an update beats a concurrent delete": ([entry("a", 1), tombstone("t", 9, "a"), entry("b", 2, "a")], "b", "", "tb"),
    "a delete removes only what it has seen": ([entry("a", 1), entry("b", 2), tombstone("t", 9, "a")], "b", "", "tb"),
    "published again after a delete": ([entry("a", 1), tombstone("t", 2, "a"), entry("b", 3, "t")], "b", "", "b"),
    "what does not count neither wins": ([entry("a", 1), entry("b", 9, "a", counts=False)], "a", "", "a"),
    "nor deletes": ([entry("a", 1), tombstone("t", 9, "a", counts=False)], "a", "", "a"),
    "a replacement whose replacement does not count": ([entry("a", 1), entry("b", 2, "a"), entry("c", 3, "b", counts=False)], "b", "", "b"),
    "supersedes what is not here": ([entry("b", 2, "unknown")], "b", "", "b"),
}
IMMUTABLE = {
    "one entry": ([entry("a", 1)], "a", "", "a"),
    "a replacement is void": ([entry("a", 1), entry("b", 2, "a")], "a", "", "a"),
    "a replacement with an older clock is void": ([entry("a", 5), entry("b", 2, "a")], "a", "", "a"),
    "two at once: the first writer wins": ([entry("a", 1), entry("b", 2)], "a", "b", "ab"),
    "deleted and published again": ([entry("a", 1), tombstone("t", 2, "a"), entry("b", 3, "t")], "b", "", "b"),
    "a delete and a replacement of the same": ([entry("a", 1), tombstone("t", 2, "a"), entry("b", 3, "a", "t")], None, "", "t"),
    "a void replacement supersedes nothing": ([entry("a", 1), entry("b", 2, "a"), entry("c", 3, "b")], "a", "", "a"),
    "the loser of a race after the winner was deleted": ([entry("a", 1), entry("b", 2), tombstone("t", 3, "a")], "b", "", "bt"),
    "what does not count is no first writer": ([entry("a", 1, counts=False), entry("b", 2)], "b", "", "b"),
}


def outcome(winner: str | None, siblings: str, live: str) -> Resolution:
    return Resolution(rid(winner) if winner else None, tuple(map(rid, siblings)), tuple(map(rid, live)))


@pytest.mark.parametrize("case", CASES)
def test_conflict(case: str) -> None:
    rows, winner, siblings, live = CASES[case]
    assert resolve(rows, immutable=False) == outcome(winner, siblings, live)


@pytest.mark.parametrize("case", IMMUTABLE)
def test_conflict_in_an_immutable_share(case: str) -> None:
    rows, winner, siblings, live = IMMUTABLE[case]
    assert resolve(rows, immutable=True) == outcome(winner, siblings, live)


def test_equal_clocks_are_decided_by_id() -> None:
    rows = [entry("a", 1), entry("b", 1)]
    assert resolve(rows, immutable=False).winner == max(rid("a"), rid("b"))
    assert resolve(rows, immutable=True).winner == min(rid("a"), rid("b"))


def test_a_promotion_ends_its_source() -> None:
    assert resolve([entry("a", 1)], immutable=False, elsewhere={rid("a")}) == outcome(None, "", "")


@st.composite
def registers(draw: st.DrawFn) -> list[RegisterRow]:
    rows: list[RegisterRow] = []
    for number in range(draw(st.integers(0, 8))):
        seen = [row.record for row in rows]
        supersedes = frozenset(draw(st.lists(st.sampled_from(seen), max_size=3))) if seen else frozenset()
        kind = draw(st.sampled_from(["entry", "entry", "tombstone"]))
        rows.append(
            RegisterRow(rid(str(number)), Stamp(draw(st.integers(1, 4))), kind, None if kind == "tombstone" else sha256(b""), supersedes, draw(st.booleans()))
        )  # type: ignore[arg-type]
    return rows


@given(registers(), st.randoms(use_true_random=False), st.booleans())
def test_order_of_arrival_does_not_matter(rows: list[RegisterRow], random: object, immutable: bool) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert resolve(shuffled, immutable=immutable) == resolve(rows, immutable=immutable)


@given(registers(), st.integers(0, 8), st.integers(0, 8), st.booleans())
def test_union_is_commutative_associative_and_idempotent(rows: list[RegisterRow], one: int, two: int, immutable: bool) -> None:
    a, b, c = set(rows[:one]), set(rows[two:]), set(rows[one:])
    assert resolve(a | b, immutable=immutable) == resolve(b | a, immutable=immutable)
    assert resolve((a | b) | c, immutable=immutable) == resolve(a | (b | c), immutable=immutable)
    assert resolve(a | b | a, immutable=immutable) == resolve(a | b, immutable=immutable)


@given(registers(), st.booleans())
def test_winner_and_siblings_are_live_entries_that_count(rows: list[RegisterRow], immutable: bool) -> None:
    found = resolve(rows, immutable=immutable)
    by_id = {row.record: row for row in rows}
    shown = [found.winner, *found.siblings] if found.winner else []
    assert all(by_id[record].kind == "entry" and by_id[record].counts for record in shown)
    assert set(shown) <= set(found.live)
    assert {record for record in found.live if by_id[record].kind == "entry"} == set(shown)
    order = [by_id[record].order for record in shown]
    assert order == sorted(order, reverse=not immutable)


@given(registers())
def test_what_does_not_count_has_no_effect(rows: list[RegisterRow]) -> None:
    assert resolve(rows, immutable=False) == resolve([row for row in rows if row.counts], immutable=False)


@given(registers())
def test_nothing_is_lost_without_a_successor(rows: list[RegisterRow]) -> None:
    """Every counting entry is live or superseded by something that counts: a loser is always retrievable or replaced on purpose."""
    live = set(resolve(rows, immutable=False).live)
    replaced = {record for row in rows if row.counts for record in row.supersedes}
    assert all(row.record in live or row.record in replaced for row in rows if row.counts)
