"""More kinds of values: spans of time, rates, switches."""

from __future__ import annotations

import re

from msgspec import Struct

from replicad.config.values import Size, Strings, Text, quoted
from replicad.model.limits import UNITS

DURATIONS_S = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
_NUMBER = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*(\S*)")
_TEXT = Text(80)
_SIZE = Size()


class Duration(Strings, Struct, frozen=True):
    """A span of time with a unit, in seconds."""

    least_s: float
    most_s: float
    expects = 'a duration such as "90 s", "12 h" or "30 d"'

    def parse(self, value: object) -> float:
        """Seconds."""
        text = _TEXT.parse(value)
        match = _NUMBER.fullmatch(text.strip())
        if match is None or match[2] not in DURATIONS_S:
            raise ValueError(f"{self.expects} expected, got {quoted(text)} (units: {', '.join(DURATIONS_S)})")
        seconds = float(match[1]) * DURATIONS_S[match[2]]
        if not self.least_s <= seconds <= self.most_s:
            raise ValueError(f"{shown_duration(self.least_s)} to {shown_duration(self.most_s)} expected, got {quoted(text)}")
        return seconds

    def show(self, value: float) -> str:
        """In the largest unit that divides it."""
        return quoted(shown_duration(value))


class Switch:
    """true or false."""

    expects = "true or false"

    def parse(self, value: object) -> bool:
        """The value itself."""
        if not isinstance(value, bool):
            raise ValueError(f"{self.expects} expected, without quotes")  # noqa: TRY004 - one error type for all that is wrong with a value
        return value

    def from_text(self, text: str) -> object:
        """The two words."""
        return {"true": True, "false": False}.get(text, text)

    def show(self, value: object) -> str:
        """As TOML."""
        return "true" if value else "false"


class Rate(Strings):
    """Bytes per second, at least 1000."""

    expects = 'a rate such as "16 MB/s"'

    def parse(self, value: object) -> int:
        """Bytes per second."""
        text = _TEXT.parse(value)
        if not text.endswith("/s"):
            raise ValueError(f"{self.expects} expected, got {quoted(text)}")
        rate = _SIZE.parse(text.removesuffix("/s"))
        if rate < UNITS["kB"]:
            raise ValueError(f"at least 1 kB/s expected, got {quoted(text)}")
        return rate

    def show(self, value: int) -> str:
        """In the largest decimal unit that divides it."""
        unit = next((unit for unit in ("GB", "MB", "kB") if value % UNITS[unit] == 0), "B")
        return quoted(f"{value // UNITS[unit]} {unit}/s")


def shown_duration(seconds: float) -> str:
    """In the largest unit that divides it."""
    unit = next((unit for unit in ("d", "h", "min") if seconds and seconds % DURATIONS_S[unit] == 0), "s")
    return f"{seconds / DURATIONS_S[unit]:g} {unit}"
