"""The kinds of values in [limits]: what ``model.limits`` reads and writes, and time zones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from replicad.config.values import Text, quoted
from replicad.model.limits import RATE_EXPECTED, SITE, SITE_EXPECTED, WINDOW_EXPECTED, Rate, Window, check_scope, parse_rate, show_rate

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

_TEXT = Text(200)


class Written(Struct, frozen=True):
    """A value with a text form of its own: ``read`` (ValueError) and ``write``."""

    expects: str
    read: Callable[[str], Any]
    write: Callable[[Any], str]

    def parse(self, value: object) -> Any:
        """The value itself."""
        return self.read(_TEXT.parse(value))

    def from_text(self, text: str) -> object:
        """As in TOML."""
        return text

    def show(self, value: Any) -> str:
        """As it was written."""
        return quoted(self.write(value))


def _site(text: str) -> tuple[str, Rate]:
    name, _, rate = text.strip().partition(" ")
    if not rate:
        raise ValueError(f"{SITE_EXPECTED} expected, got {quoted(text)}")
    return check_scope(SITE + name).removeprefix(SITE), parse_rate(rate)


def _zone(text: str) -> ZoneInfo | None:
    if not text:
        return None
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - few configurations name one, and every command reads the configuration

    try:
        return ZoneInfo(text)
    except (OSError, ValueError, KeyError):
        raise ValueError(f'a time zone such as "Europe/Berlin" expected, got {quoted(text)}, which this system does not know') from None


RATE = Written(RATE_EXPECTED, parse_rate, show_rate)
"""Bytes per second, None for no limit."""
SITE_RATE = Written(SITE_EXPECTED, _site, lambda value: f"{value[0]} {show_rate(value[1])}")
"""(name of a site, bytes per second)."""
WINDOW = Written(WINDOW_EXPECTED, Window.parse, str)
ZONE = Written('a time zone such as "Europe/Berlin"', _zone, lambda value: "" if value is None else str(value))
"""None for the system's."""
