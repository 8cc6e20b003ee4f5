"""Limits on transfers between nodes, as people write them: rates in bytes per second, for a direction or a site, always or in windows of the week.

A window follows the wall clock of the node that has it: ``08:00`` is eight in the morning where its bytes arrive, also on the day on which the clocks change (an hour that is skipped
is in no window, one that comes twice is in its window twice).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
RATE_MIN = 16 << 10
"""Slower than that and the other side of a transfer takes it for dead (net.client.ClientConfig.rate_min)."""
RATE_MAX = 10**12
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MIN = 24 * 60
NONE = "none"
DOWNLOAD = "download"
UPLOAD = "upload"
SITE = "site:"
RATE_EXPECTED = f'a rate such as "5 MB/s" or "500 KiB/s", "0 B/s" (nothing but what is urgent) or "{NONE}" (no limit)'
WINDOW_EXPECTED = 'a window such as "mon-fri 08:00-18:00 download 1 MB/s", "sat 22:00-06:00 upload none" or "sun 00:00-24:00 site:syd1 2 MB/s"'
SITE_EXPECTED = 'a site and a rate such as "syd1 2 MB/s"'

_RATE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]*)(/s)?")
_WINDOW = re.compile(r"([a-z]{3})(?:-([a-z]{3}))?\s+(\d\d):(\d\d)\s*-\s*(\d\d):(\d\d)\s+(download|upload|site:\S+)\s+(.+)")

Rate = int | None
"""Bytes per second; None: no limit."""


def parse_rate(text: str) -> Rate:
    """``5 MB/s`` as bytes per second, ``none`` as None. ValueError says what was expected."""
    stripped = text.strip()
    if stripped == NONE:
        return None
    match = _RATE.fullmatch(stripped)
    if match is None or match[2] not in UNITS or match[3] is None:
        raise ValueError(f'{RATE_EXPECTED} expected, got "{text[:80]}" (units: {", ".join(f"{unit}/s" for unit in UNITS)})')
    rate = round(float(match[1]) * UNITS[match[2]])
    if rate and not RATE_MIN <= rate <= RATE_MAX:
        raise ValueError(f'0 B/s or {show_rate(RATE_MIN)} to {show_rate(RATE_MAX)} expected, got "{text[:80]}"')
    return rate


def show_rate(rate: Rate) -> str:
    """Exact, in the largest unit that divides it; what ``parse_rate`` reads."""
    if rate is None:
        return NONE
    unit = next((unit for unit in sorted(UNITS, key=lambda unit: -UNITS[unit]) if rate and rate % UNITS[unit] == 0), "B")
    return f"{rate // UNITS[unit]} {unit}/s"


@dataclass(frozen=True, slots=True)
class Window:
    """From ``first_day`` to ``last_day`` (0 is Monday; both included, over the end of the week too), each day from minute ``start`` to ``end``, ``scope`` has another rate. If ``end`` is not after
    ``start``, the window ends on the day after.
    """

    first_day: int
    last_day: int
    start: int
    end: int
    scope: str
    rate: Rate

    @classmethod
    def parse(cls, text: str) -> Window:
        """From ``mon-fri 08:00-18:00 download 1 MB/s``. ValueError says what was expected."""
        match = _WINDOW.fullmatch(text.strip())
        if match is None or match[1] not in DAYS or (match[2] or match[1]) not in DAYS:
            raise ValueError(f'{WINDOW_EXPECTED} expected, got "{text[:80]}" (days: {" ".join(DAYS)})')
        start, end = int(match[3]) * 60 + int(match[4]), int(match[5]) * 60 + int(match[6])
        if max(int(match[4]), int(match[6])) > 59 or start >= DAY_MIN or end > DAY_MIN or start == end:
            raise ValueError(f'two different times from 00:00 to 24:00 expected, got "{text[:80]}"')
        return cls(DAYS.index(match[1]), DAYS.index(match[2] or match[1]), start, end, match[7], parse_rate(match[8]))

    def __str__(self) -> str:
        days = DAYS[self.first_day] if self.first_day == self.last_day else f"{DAYS[self.first_day]}-{DAYS[self.last_day]}"
        return f"{days} {_clock(self.start)}-{_clock(self.end)} {self.scope} {show_rate(self.rate)}"

    def covers(self, local: datetime) -> bool:
        """Whether that moment, on the wall clock, is in it."""
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if self.start < self.end:
            return self._has(day) and self.start <= minute < self.end
        return (self._has(day) and minute >= self.start) or (self._has((day - 1) % 7) and minute < self.end)

    def _has(self, day: int) -> bool:
        return (day - self.first_day) % 7 <= (self.last_day - self.first_day) % 7


@dataclass(frozen=True, slots=True)
class Limits:
    """What one node allows: ``rates`` by scope (``download``, ``upload``, ``site:NAME``, the latter in each direction), and the windows in which other rates apply. Of overlapping windows the
    first one counts.
    """

    rates: Mapping[str, Rate] = field(default_factory=dict)
    windows: tuple[Window, ...] = ()

    def at(self, local: datetime) -> dict[str, int]:
        """The rates that apply at that moment on the wall clock; what is not in it has no limit."""
        now = dict(self.rates)
        for window in reversed(self.windows):
            if window.covers(local):
                now[window.scope] = window.rate
        return {scope: rate for scope, rate in now.items() if rate is not None}


def check_scope(scope: str) -> str:
    """The scope itself; ValueError for anything but ``download``, ``upload`` and ``site:NAME``."""
    if scope not in {DOWNLOAD, UPLOAD} and (not scope.startswith(SITE) or not re.fullmatch(r"\S{1,63}", scope.removeprefix(SITE))):
        raise ValueError(f'{DOWNLOAD}, {UPLOAD} or {SITE}NAME expected, got "{scope[:80]}"')
    return scope


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"
