"""Conditional requests: RFC 9110 section 13, for GET and HEAD of a file whose validators never lie.

Pure. The ETag is strong and names the content; Last-Modified comes from the signed entry, so both are equal on every node and a client may go on with another node where the first one died.
"""

from __future__ import annotations

import calendar
import re
import time
from enum import Enum
from functools import lru_cache
from typing import NamedTuple, Protocol


class Fields(Protocol):
    """A request's header fields by case-insensitive name."""

    def get(self, name: str, /) -> str | None:
        """The first field of that name."""

    def getall(self, name: str, default: tuple[str, ...], /) -> list[str] | tuple[str, ...]:
        """Every field of that name."""


class Validators(NamedTuple):
    """``etag`` with its quotes; ``modified`` in seconds since 1970, None if the thing has no date."""

    etag: str
    modified: int | None


class Verdict(Enum):
    """What section 13.2.2 comes to."""

    SEND = 200
    NOT_MODIFIED = 304
    FAILED = 412


ANY = "*"
_TAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\udcff]*")')
_LIST = re.compile(rf"[ \t,]*(?:{_TAG.pattern}[ \t]*(?:,[ \t,]*|$))+")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_LONG_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_CLOCK = r"(?P<hour>[01]\d|2[0-3]):(?P<minute>[0-5]\d):(?P<second>[0-5]\d|60)"
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_DATES = (
    re.compile(rf"(?:{'|'.join(_DAYS)}), (?P<day>\d\d) {_MONTH} (?P<year>\d{{4}}) {_CLOCK} GMT"),
    re.compile(rf"(?:{'|'.join(_LONG_DAYS)}), (?P<day>\d\d)-{_MONTH}-(?P<short_year>\d\d) {_CLOCK} GMT"),
    re.compile(rf"(?:{'|'.join(_DAYS)}) {_MONTH} (?P<day>[ \d]\d) {_CLOCK} (?P<year>\d{{4}})"),
)


def judge(fields: Fields, validators: Validators, *, now_s: float) -> Verdict:
    """Section 13.2.2, steps 1 to 4. A date that is not valid is ignored (sections 13.1.3, 13.1.4); a list of tags that is not valid matches nothing."""
    if wanted := fields.getall("If-Match", ()):
        if not _names(wanted, validators.etag, weak=False):
            return Verdict.FAILED
    elif (since := _date(fields.get("If-Unmodified-Since"), now_s)) is not None and validators.modified is not None and validators.modified > since:
        return Verdict.FAILED
    if known := fields.getall("If-None-Match", ()):
        if _names(known, validators.etag, weak=True):
            return Verdict.NOT_MODIFIED
    elif (since := _date(fields.get("If-Modified-Since"), now_s)) is not None and validators.modified is not None and validators.modified <= since:
        return Verdict.NOT_MODIFIED
    return Verdict.SEND


def range_applies(if_range: str | None, validators: Validators, *, now_s: float) -> bool:
    """Step 5, section 13.1.5: whether a Range may be honoured. A tag must match strongly. A date must be exactly Last-Modified, and a strong validator: older than a second (section 8.8.2.2)."""
    if if_range is None:
        return True
    if '"' in if_range:
        return if_range.strip(" \t") == validators.etag
    return validators.modified is not None and validators.modified <= now_s - 1 and _date(if_range, now_s) == validators.modified


@lru_cache(maxsize=1024)
def http_date(seconds: int) -> str:
    """IMF-fixdate of seconds since 1970, as in ``Sun, 06 Nov 1994 08:49:37 GMT``."""
    when = time.gmtime(seconds)
    return f"{_DAYS[when.tm_wday]}, {when.tm_mday:02} {_MONTHS[when.tm_mon - 1]} {when.tm_year:04} {when.tm_hour:02}:{when.tm_min:02}:{when.tm_sec:02} GMT"


def parse_date(text: str, *, now_s: float) -> int | None:
    """Seconds since 1970 of an HTTP-date in any of its three forms (RFC 9110 section 5.6.7), None if it is none. ``now_s`` places a two-digit year: at most 50 years ahead."""
    for form in _DATES:
        if (found := form.fullmatch(text)) is not None:
            named = found.groupdict()
            year = int(named["year"]) if named.get("year") else _full_year(int(named["short_year"]), time.gmtime(now_s).tm_year)
            month, day = _MONTHS.index(named["month"]) + 1, int(named["day"])
            if year < 1 or not 1 <= day <= calendar.monthrange(year, month)[1]:
                return None
            return calendar.timegm((year, month, day, int(named["hour"]), int(named["minute"]), int(named["second"])))
    return None


def _full_year(short: int, this_year: int) -> int:
    year = this_year - this_year % 100 + short
    return year - 100 if year > this_year + 50 else year


def _date(text: str | None, now_s: float) -> int | None:
    return None if text is None else parse_date(text.strip(" \t"), now_s=now_s)


def _names(lists: list[str] | tuple[str, ...], etag: str, *, weak: bool) -> bool:
    """Whether the joined lists name the tag: strong comparison never matches a weak one, weak comparison ignores the mark (section 8.8.3.2)."""
    joined = ", ".join(lists).strip(" \t")
    if joined == ANY:
        return True
    if _LIST.fullmatch(joined) is None:
        return False
    return any(found[2] == etag and (weak or not found[1]) for found in _TAG.finditer(joined))
