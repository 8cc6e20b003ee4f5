"""Conditional requests: RFC 9110 section 13, precedence included, and the three forms of a date."""

from __future__ import annotations

import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from replicad.server.downloads.conditions import Validators, Verdict, http_date, judge, parse_date, range_applies

TAG = '"aa11"'
OTHER = '"bb22"'
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
BEFORE = "Tue, 14 Nov 2023 22:13:19 GMT"
AFTER = "Tue, 14 Nov 2023 22:13:21 GMT"
NOW_S = 1_800_000_000.0
HERE = Validators(TAG, 1_700_000_000)
SEND, NOT_MODIFIED, FAILED = Verdict.SEND, Verdict.NOT_MODIFIED, Verdict.FAILED

CASES: dict[str, tuple[list[tuple[str, str]], Verdict]] = {
    "nothing": ([], SEND),
    "If-Match same": ([("If-Match", TAG)], SEND),
    "If-Match other": ([("If-Match", OTHER)], FAILED),
    "If-Match any": ([("If-Match", "*")], SEND),
    "If-Match in a list": ([("If-Match", f"{OTHER}, {TAG}")], SEND),
    "If-Match in two fields": ([("If-Match", OTHER), ("If-Match", TAG)], SEND),
    "If-Match is strong": ([("If-Match", f"W/{TAG}")], FAILED),
    "If-Match unquoted": ([("If-Match", "aa11")], FAILED),
    "If-Match empty": ([("If-Match", "")], FAILED),
    "If-None-Match same": ([("If-None-Match", TAG)], NOT_MODIFIED),
    "If-None-Match other": ([("If-None-Match", OTHER)], SEND),
    "If-None-Match any": ([("If-None-Match", "*")], NOT_MODIFIED),
    "If-None-Match is weak": ([("If-None-Match", f"W/{TAG}")], NOT_MODIFIED),
    "If-None-Match in a list": ([("If-None-Match", f'{OTHER} ,\t{TAG},"x,y"')], NOT_MODIFIED),
    "If-None-Match with empty elements": ([("If-None-Match", f",,{TAG},,")], NOT_MODIFIED),
    "If-None-Match tag with a comma": ([("If-None-Match", '"aa11,x"')], SEND),
    "If-None-Match unquoted": ([("If-None-Match", "aa11")], SEND),
    "If-None-Match half quoted": ([("If-None-Match", '"aa11')], SEND),
    "If-None-Match in other case": ([("If-None-Match", '"AA11"')], SEND),
    "If-Modified-Since same": ([("If-Modified-Since", DATE)], NOT_MODIFIED),
    "If-Modified-Since later": ([("If-Modified-Since", AFTER)], NOT_MODIFIED),
    "If-Modified-Since earlier": ([("If-Modified-Since", BEFORE)], SEND),
    "If-Modified-Since nonsense": ([("If-Modified-Since", "yesterday")], SEND),
    "If-Modified-Since another zone": ([("If-Modified-Since", "Tue, 14 Nov 2023 22:13:20 +0000")], SEND),
    "If-Unmodified-Since same": ([("If-Unmodified-Since", DATE)], SEND),
    "If-Unmodified-Since later": ([("If-Unmodified-Since", AFTER)], SEND),
    "If-Unmodified-Since earlier": ([("If-Unmodified-Since", BEFORE)], FAILED),
    "If-Unmodified-Since nonsense": ([("If-Unmodified-Since", "tomorrow")], SEND),
    "If-Match over If-Unmodified-Since": ([("If-Match", TAG), ("If-Unmodified-Since", BEFORE)], SEND),
    "If-Match fails whatever the date": ([("If-Match", OTHER), ("If-Unmodified-Since", AFTER)], FAILED),
    "If-None-Match over If-Modified-Since": ([("If-None-Match", OTHER), ("If-Modified-Since", AFTER)], SEND),
    "If-None-Match same, date earlier": ([("If-None-Match", TAG), ("If-Modified-Since", BEFORE)], NOT_MODIFIED),
    "If-Match before If-None-Match": ([("If-Match", OTHER), ("If-None-Match", TAG)], FAILED),
    "both match": ([("If-Match", TAG), ("If-None-Match", TAG)], NOT_MODIFIED),
    "If-Unmodified-Since before If-None-Match": ([("If-Unmodified-Since", BEFORE), ("If-None-Match", TAG)], FAILED),
    "If-Unmodified-Since holds, not modified since": ([("If-Unmodified-Since", DATE), ("If-Modified-Since", DATE)], NOT_MODIFIED),
}


@pytest.mark.parametrize(("fields", "expected"), CASES.values(), ids=CASES)
def test_judge(fields: list[tuple[str, str]], expected: Verdict) -> None:
    assert judge(CIMultiDict(fields), HERE, now_s=NOW_S) is expected


@pytest.mark.parametrize("name", ["If-Modified-Since", "If-Unmodified-Since"])
@pytest.mark.parametrize("date", [BEFORE, DATE, AFTER])
def test_dates_mean_nothing_for_a_thing_without_one(name: str, date: str) -> None:
    assert judge(CIMultiDict({name: date}), Validators(TAG, None), now_s=NOW_S) is SEND


IF_RANGE = {
    "none": (None, True),
    "the tag": (TAG, True),
    "another tag": (OTHER, False),
    "a weak tag": (f"W/{TAG}", False),
    "a list of tags": (f"{TAG}, {OTHER}", False),
    "unquoted": ("aa11", False),
    "the date": (DATE, True),
    "an earlier date": (BEFORE, False),
    "a later date": (AFTER, False),
    "the date in an old form": ("Tuesday, 14-Nov-23 22:13:20 GMT", True),
    "nonsense": ("soon", False),
    "empty": ("", False),
}


@pytest.mark.parametrize(("value", "expected"), IF_RANGE.values(), ids=IF_RANGE)
def test_if_range(value: str | None, expected: bool) -> None:
    assert range_applies(value, HERE, now_s=NOW_S) is expected


def test_if_range_by_a_date_that_is_too_young_to_be_strong() -> None:
    """RFC 9110 section 8.8.2.2: another version may still appear within the same second."""
    assert not range_applies(DATE, HERE, now_s=1_700_000_000.9)
    assert range_applies(DATE, HERE, now_s=1_700_000_001.0)
    assert range_applies(TAG, HERE, now_s=1_700_000_000.0)


def test_if_range_by_date_for_a_thing_without_one() -> None:
    assert not range_applies(DATE, Validators(TAG, None), now_s=NOW_S)


DATES = {
    "IMF-fixdate": ("Sun, 06 Nov 1994 08:49:37 GMT", 784111777),
    "RFC 850": ("Sunday, 06-Nov-94 08:49:37 GMT", 784111777),
    "asctime": ("Sun Nov  6 08:49:37 1994", 784111777),
    "asctime, two digits": ("Wed Nov 16 08:49:37 1994", 784975777),
    "RFC 850, more than 50 years ahead is the past": ("Sunday, 06-Nov-78 08:49:37 GMT", 279190177),
    "RFC 850, within 50 years is the future": ("Tuesday, 06-Nov-70 08:49:37 GMT", 3182489377),
    "leap second": ("Sat, 31 Dec 2016 23:59:60 GMT", 1483228800),
    "leap day": ("Thu, 29 Feb 2024 00:00:00 GMT", 1709164800),
    "no leap day": ("Wed, 29 Feb 2023 00:00:00 GMT", None),
    "day 0": ("Wed, 00 Feb 2023 00:00:00 GMT", None),
    "year 0": ("Wed, 01 Feb 0000 00:00:00 GMT", None),
    "hour 24": ("Sun, 06 Nov 1994 24:49:37 GMT", None),
    "small letters": ("sun, 06 nov 1994 08:49:37 gmt", None),
    "one digit": ("Sun, 6 Nov 1994 08:49:37 GMT", None),
    "more behind it": ("Sun, 06 Nov 1994 08:49:37 GMT; length=5", None),
    "empty": ("", None),
}


@pytest.mark.parametrize(("text", "expected"), DATES.values(), ids=DATES)
def test_date(text: str, expected: int | None) -> None:
    assert parse_date(text, now_s=NOW_S) == expected


@given(st.integers(0, 253_402_300_799))
def test_date_round_trip_and_another_opinion(seconds: int) -> None:
    assert parse_date(http_date(seconds), now_s=NOW_S) == seconds
    assert http_date(seconds) == email.utils.formatdate(seconds, usegmt=True)
