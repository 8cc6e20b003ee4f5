"""Sets of units and bit-sliced counters against plain Python."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from replicad.protocol.fetch import sets

UNITS = st.frozensets(st.integers(0, 200))


@given(UNITS)
def test_members_and_of_are_inverse(units: frozenset[int]) -> None:
    assert list(sets.members(sets.of(units))) == sorted(units)


@given(UNITS, st.integers(0, 201))
def test_bitmaps_round_trip_and_ignore_what_lies_beyond(units: frozenset[int], count: int) -> None:
    mask = sets.of(units) & sets.full(count)
    bitmap = sets.to_bitmap(mask, count)
    assert len(bitmap) == (count + 7) // 8
    assert sets.from_bitmap(bitmap + b"\xff", count) == mask


@given(st.lists(st.tuples(st.booleans(), UNITS), max_size=30), UNITS)
def test_a_tally_counts_like_a_counter(steps: list[tuple[bool, frozenset[int]]], among: frozenset[int]) -> None:
    tally, expected = sets.Tally(), Counter[int]()
    for up, units in steps:
        if up:
            tally.add(sets.of(units))
            expected.update(units)
        else:
            tally.remove(sets.of(units))
            expected -= Counter(units)
    assert {unit: tally.of(unit) for unit in range(201) if tally.of(unit)} == dict(expected)
    assert tally.counted == sets.of(expected)
    fewest = min((expected[unit] for unit in among), default=0)
    assert tally.least(sets.of(among)) == sets.of(unit for unit in among if expected[unit] == fewest)


@given(st.dictionaries(st.integers(0, 200), st.integers(0, 1 << 20)), UNITS, st.data())
def test_a_tally_of_sizes_adds_up(sizes: dict[int, int], among: frozenset[int], data: st.DataObject) -> None:
    tally = sets.Tally()
    for unit, size in sizes.items():
        tally.put(1 << unit, data.draw(st.integers(0, 1 << 20)))  # what stood there before does not count
        tally.put(1 << unit, size)
    assert tally.total(sets.of(among)) == sum(sizes.get(unit, 0) for unit in among)


@given(st.frozensets(st.integers(0, 300), min_size=1), st.integers(0, 1 << 30))
def test_some_is_a_member(units: frozenset[int], seed: int) -> None:
    assert sets.some(sets.of(units), random.Random(seed).randrange) in units


def test_some_is_uniform_also_beside_gaps(dice: random.Random) -> None:
    units = [0, 1, 2, 900, 4000]
    counts = Counter(sets.some(sets.of(units), dice.randrange) for _ in range(5000))
    assert set(counts) == set(units)
    assert min(counts.values()) > 800
