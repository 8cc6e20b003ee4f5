"""The hybrid clock: grows whatever the time of day does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.errors import ConflictError
from replicad.model.ids import Stamp
from replicad.protocol.clock import FUTURE_MAX_MS, HybridClock, check_may_author, contradiction_ms, is_future

TIMES_MS = st.integers(0, 2**47 - 1 - FUTURE_MAX_MS)


def test_follows_the_time_of_day() -> None:
    clock = HybridClock()
    assert clock.tick(5000) == Stamp.of(5000)
    assert clock.tick(6000) == Stamp.of(6000)


def test_counts_within_a_millisecond_and_when_time_goes_back() -> None:
    clock = HybridClock(Stamp.of(5000))
    assert [clock.tick(5000), clock.tick(5000), clock.tick(4000)] == [Stamp.of(5000, 1), Stamp.of(5000, 2), Stamp.of(5000, 3)]


def test_a_full_counter_runs_into_the_next_millisecond() -> None:
    assert HybridClock(Stamp.of(5000, 0xFFFF)).tick(5000) == Stamp.of(5001)


def test_is_later_than_what_it_observed() -> None:
    clock = HybridClock()
    clock.observe(Stamp.of(9000, 7))
    clock.observe(Stamp.of(8000))
    assert clock.tick(5000) == Stamp.of(9000, 8)


def test_ten_minutes_are_not_the_future() -> None:
    assert not is_future(Stamp.of(1000 + FUTURE_MAX_MS, 0xFFFF), 1000)
    assert is_future(Stamp.of(1001 + FUTURE_MAX_MS), 1000)


@pytest.mark.parametrize(
    ("skews_s", "apart_s"),
    [
        ([], 0),
        ([400], 400),
        ([-400], 400),
        ([0, 900], 0),
        ([400, -500], 400),
        ([1, 2, 900], 2),
        ([1, 900, -900], 900),
        ([0, 0, 900, 900], 0),
    ],
)
def test_what_most_peers_say_about_the_clock_decides_whether_a_node_signs(skews_s: list[int], apart_s: int) -> None:
    skews_ms = [1000 * skew for skew in skews_s]
    assert contradiction_ms(skews_ms) == 1000 * apart_s
    if apart_s >= 300:
        with pytest.raises(ConflictError) as refused:
            check_may_author(skews_ms)
        assert refused.value.error_code == "clock-skew"
    else:
        check_may_author(skews_ms)
    check_may_author([299_999])
    with pytest.raises(ConflictError):
        check_may_author([-300_000])


@given(st.lists(st.tuples(st.booleans(), TIMES_MS), max_size=30))
def test_every_stamp_is_greater_than_all_before(steps: list[tuple[bool, int]]) -> None:
    clock, seen = HybridClock(), [Stamp(0)]
    for ticks, now_ms in steps:
        if ticks:
            stamp = clock.tick(now_ms)
            assert stamp > max(seen)
            assert stamp >= Stamp.of(now_ms)
            seen.append(stamp)
        else:
            clock.observe(Stamp.of(now_ms))
            seen.append(Stamp.of(now_ms))
        assert type(clock.last) is Stamp
