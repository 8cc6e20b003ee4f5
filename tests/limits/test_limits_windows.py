"""Rates and windows of the week as people write them, on wall clocks that jump."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.model.limits import DAYS, RATE_MAX, RATE_MIN, Limits, Window, check_scope, parse_rate, show_rate

MB = 10**6
WINTER, SUMMER = timezone(timedelta(hours=1)), timezone(timedelta(hours=2))


class Berlin(tzinfo):
    """Central European time in 2026, so that the test needs no time zone database."""

    def utcoffset(self, when: datetime | None) -> timedelta:
        assert when is not None
        return SUMMER.utcoffset(None) if self._summer(when.replace(tzinfo=None)) else WINTER.utcoffset(None)

    def _summer(self, local: datetime) -> bool:
        return datetime(2026, 3, 29, 3) <= local < datetime(2026, 10, 25, 3)  # noqa: DTZ001 - the wall clock's

    def dst(self, when: datetime | None) -> timedelta:
        return self.utcoffset(when) - timedelta(hours=1)

    def fromutc(self, when: datetime) -> datetime:
        summer = datetime(2026, 3, 29, 1) <= when.replace(tzinfo=None) < datetime(2026, 10, 25, 1)  # noqa: DTZ001 - in UTC
        return when + timedelta(hours=2 if summer else 1)


def local(text: str) -> datetime:
    """A moment given in UTC, on a clock in Berlin."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).astimezone(Berlin())


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        pytest.param("5 MB/s", 5 * MB, id="decimal"),
        pytest.param("5MB/s", 5 * MB, id="no space"),
        pytest.param("1.5 MiB/s", 3 << 19, id="binary fraction"),
        pytest.param("0 B/s", 0, id="pause"),
        pytest.param("none", None, id="no limit"),
    ],
)
def test_rates(text: str, rate: int | None) -> None:
    assert parse_rate(text) == rate
    assert parse_rate(show_rate(rate)) == rate


@pytest.mark.parametrize("text", ["5", "5 MB", "5 Mbit/s", "-1 MB/s", "5 mb/s", "1 kB/s", "fast", "", "9999999 TB/s"])
def test_bad_rates_say_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected, got") as caught:
        parse_rate(text)
    assert "/s" in str(caught.value)


@given(st.one_of(st.none(), st.just(0), st.integers(RATE_MIN, RATE_MAX)))
def test_what_is_shown_is_read_again(rate: int | None) -> None:
    assert parse_rate(show_rate(rate)) == rate


@given(
    st.builds(
        Window,
        st.integers(0, 6),
        st.integers(0, 6),
        st.integers(0, 700),
        st.integers(701, 1440),
        st.sampled_from(["download", "upload", "site:syd1"]),
        st.sampled_from([None, 0, MB]),
    )
)
def test_windows_are_read_as_they_are_shown(window: Window) -> None:
    assert Window.parse(str(window)) == window


@pytest.mark.parametrize(
    "text",
    [
        "monday 08:00-18:00 download 1 MB/s",
        "mon 8:00-18:00 download 1 MB/s",
        "mon 08:00-08:00 download 1 MB/s",
        "mon 08:00-24:01 download 1 MB/s",
        "mon 24:00-08:00 download 1 MB/s",
        "mon 08:60-09:00 download 1 MB/s",
        "mon 08:00-18:00 downwards 1 MB/s",
        "mon 08:00-18:00 download",
        "mon 08:00-18:00 download 1 MB",
    ],
)
def test_bad_windows(text: str) -> None:
    with pytest.raises(ValueError, match="expected, got"):
        Window.parse(text)


@pytest.mark.parametrize("scope", ["down", "site:", "site:a b", ""])
def test_bad_scopes(scope: str) -> None:
    with pytest.raises(ValueError, match="expected, got"):
        check_scope(scope)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        pytest.param(
            "mon-fri 08:00-18:00 download 1 MB/s",
            ["2026-11-23T07:00", "2026-11-27T16:59"],
            ["2026-11-23T06:59", "2026-11-27T17:00", "2026-11-28T09:00"],
            id="week",
        ),
        pytest.param(
            "fri 22:00-06:00 download 1 MB/s",
            ["2026-11-27T21:00", "2026-11-28T04:59"],
            ["2026-11-28T05:00", "2026-11-28T21:00", "2026-11-27T04:00"],
            id="night",
        ),
        pytest.param(
            "sat-mon 00:00-24:00 download 1 MB/s", ["2026-11-27T23:00", "2026-11-30T22:59"], ["2026-11-27T22:59", "2026-11-30T23:00"], id="over the week's end"
        ),
        pytest.param("sun 02:00-03:00 download 1 MB/s", ["2026-03-22T01:30"], ["2026-03-29T00:59", "2026-03-29T01:00"], id="an hour that is skipped in March"),
        pytest.param(
            "sun 02:00-03:00 download 1 MB/s",
            ["2026-10-25T00:00", "2026-10-25T01:59"],
            ["2026-10-24T23:59", "2026-10-25T02:00"],
            id="an hour that comes twice in October",
        ),
    ],
)
def test_windows_follow_the_wall_clock(text: str, inside: list[str], outside: list[str]) -> None:
    limits = Limits({"download": 5 * MB}, (Window.parse(text),))
    assert [limits.at(local(moment)) for moment in inside] == [{"download": MB}] * len(inside)
    assert [limits.at(local(moment)) for moment in outside] == [{"download": 5 * MB}] * len(outside)


def test_of_overlapping_windows_the_first_counts() -> None:
    windows = tuple(map(Window.parse, ("mon 10:00-11:00 download none", "mon-sun 00:00-24:00 download 1 MB/s", "mon 00:00-24:00 upload 0 B/s")))
    limits = Limits({"download": 5 * MB, "upload": None}, windows)
    assert limits.at(local("2026-11-23T09:30")) == {"upload": 0}
    assert limits.at(local("2026-11-23T10:30")) == {"download": MB, "upload": 0}
    assert limits.at(local("2026-11-24T10:30")) == {"download": MB}


@given(
    day=st.integers(0, 6), minute=st.integers(0, 1439), first=st.integers(0, 6), last=st.integers(0, 6), start=st.integers(0, 1439), length=st.integers(1, 1440)
)
def test_a_window_covers_exactly_its_minutes(day: int, minute: int, first: int, last: int, start: int, length: int) -> None:
    """Against counting minutes of the week one by one."""
    end = (start + length) % 1440 or 1440
    window = Window(first, last, start, end, "download", MB) if end != start else Window(first, last, 0, 1440, "download", MB)
    covered = {
        (1440 * (first + days) + window.start + offset) % (7 * 1440)
        for days in range((last - first) % 7 + 1)
        for offset in range((window.end - window.start) % 1440 or 1440)
    }
    moment = datetime(2026, 11, 23, tzinfo=UTC) + timedelta(days=day, minutes=minute)
    assert DAYS[moment.weekday()] == DAYS[day]
    assert window.covers(moment) == (1440 * day + minute in covered)
