"""The kinds of values a configuration key can have: sizes, addresses, files, and how each is read, checked and written.

Every kind reads what TOML gave (``parse``) and what an environment variable gave (``from_text``, always a string), and writes TOML (``show``). A value that does not fit is a
``ValueError`` whose text says what was expected; ``config.load`` adds where it stands.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from replicad.errors import InputError
from replicad.model.limits import UNITS
from replicad.model.redirects import check_base_url

_NUMBER = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*(\S*)")
_HOST = re.compile(r"[A-Za-z0-9._-]{0,253}|\[[0-9A-Fa-f:.]{2,45}\]")
_LIST_MAX = 64
OFF = Path("off")
"""What ``File`` gives for the word "off"."""


class Kind(Protocol):
    """What ``sections`` knows about a value."""

    @property
    def expects(self) -> str:
        """For people: "a size such as "5 GiB""."""

    def parse(self, value: object) -> Any:
        """The value from what TOML gave; ValueError."""

    def from_text(self, text: str) -> object:
        """What TOML would have given for this environment variable."""

    def show(self, value: Any) -> str:
        """As TOML."""


class Address(Struct, frozen=True):
    """Where to listen. ``host`` is empty for all interfaces; IPv6 addresses without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Reserve(Struct, frozen=True):
    """Room that stays free: a fraction of the file system or a number of bytes; the other one is 0."""

    fraction: float = 0.0
    size_bytes: int = 0


class Strings:
    """For kinds that are written as strings in TOML: the environment's text is what TOML would have given."""

    expects = ""

    def from_text(self, text: str) -> object:
        """As in TOML."""
        return text

    def show(self, value: Any) -> str:
        """Quoted; None as nothing."""
        return quoted("" if value is None else str(value))

    def _text(self, value: object) -> str:
        if not isinstance(value, str):
            raise ValueError(f"{self.expects} expected, got {_spoken(value)}")  # noqa: TRY004 - one error type for all that is wrong with a value
        return value


class Text(Strings, Struct, frozen=True):
    """A label of 0 (or 1, when it must not be empty) to ``longest`` printable characters."""

    longest: int
    may_be_empty: bool = True

    @property
    def expects(self) -> str:  # type: ignore[override]
        """Bounds included."""
        return f"text of {0 if self.may_be_empty else 1} to {self.longest} characters"

    def parse(self, value: object) -> str:
        """The text itself."""
        text = self._text(value)
        if not (0 if self.may_be_empty else 1) <= len(text) <= self.longest or not text.isprintable():
            raise ValueError(f"{self.expects}, all of them printable, expected, got {_spoken(value)}")
        return text


class Choice(Strings, Struct, frozen=True):
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def expects(self) -> str:  # type: ignore[override]
        """The words."""
        return " or ".join(quoted(word) for word in self.words)

    def parse(self, value: object) -> str:
        """The word itself."""
        if type(value) is int and str(value) in self.words:
            raise ValueError(f"write it in quotes: {quoted(str(value))}")
        text = self._text(value)
        if text not in self.words:
            raise ValueError(f"{self.expects} expected, got {quoted(text)}{suggestion(text, self.words)}")
        return text


class Integer(Struct, frozen=True):
    """A whole number within bounds."""

    least: int
    most: int

    @property
    def expects(self) -> str:
        """Bounds included."""
        return f"a whole number of {self.least} to {self.most}"

    def parse(self, value: object) -> int:
        """The number itself."""
        if type(value) is not int or not self.least <= value <= self.most:
            raise ValueError(f"{self.expects} expected, got {_spoken(value)}")
        return value

    def from_text(self, text: str) -> object:
        """Digits become a number."""
        return int(text) if re.fullmatch(r"-?\d{1,18}", text) else text

    def show(self, value: int) -> str:
        """Plain digits."""
        return str(value)


class Size(Strings, Struct, frozen=True):
    """Bytes with a unit, ``least`` to ``most`` of them."""

    least: int = 0
    most: int = 1 << 60
    expects = 'a size such as "64 MiB" or "5 GB"'

    def parse(self, value: object) -> int:
        """Bytes."""
        size = _size(self._text(value), expects=self.expects)
        if not self.least <= size <= self.most:
            raise ValueError(f"{shown_size(self.least)} to {shown_size(self.most)} expected, got {_spoken(value)}")
        return size

    def show(self, value: int) -> str:
        """In the largest binary unit that divides it."""
        return quoted(shown_size(value))


class Room(Strings):
    """Room to keep free: a percentage or a size."""

    expects = 'a percentage such as "5 %" or a size such as "20 GiB"'

    def parse(self, value: object) -> Reserve:
        """Either of the two."""
        text = self._text(value)
        if text.strip().endswith("%"):
            percent = re.fullmatch(r"(\d{1,2}(?:\.\d{1,3})?)\s*%", text.strip())
            if percent is None:
                raise ValueError(f'a percentage from "0 %" to "99.999 %" expected, got {_spoken(text)}')
            return Reserve(fraction=float(percent[1]) / 100)
        return Reserve(size_bytes=_size(text, expects=self.expects))

    def show(self, value: Reserve) -> str:
        """As it was written."""
        return quoted(shown_size(value.size_bytes) if value.size_bytes or not value.fraction else f"{value.fraction * 100:g} %")


class Listen(Strings, Struct, frozen=True):
    """HOST:PORT to listen on; ``may_be_off``: or "off", which gives None."""

    may_be_off: bool = False

    @property
    def expects(self) -> str:  # type: ignore[override]
        """With examples."""
        return 'HOST:PORT such as "127.0.0.1:8480", "[::1]:8480" or ":8480" (every interface)' + (' or "off"' if self.may_be_off else "")

    def parse(self, value: object) -> Address | None:
        """The address."""
        text = self._text(value)
        if self.may_be_off and text == "off":
            return None
        host, colon, port = text.rpartition(":")
        if not colon or not _HOST.fullmatch(host) or not re.fullmatch(r"\d{1,5}", port) or not 1 <= int(port) <= 65535:
            raise ValueError(f"{self.expects} expected, got {_spoken(value)}")
        return Address(host.strip("[]"), int(port))

    def show(self, value: Address | None) -> str:
        """As it was written."""
        return quoted("off" if value is None else str(value))


class Url(Strings):
    """The base URL of a door; empty gives None."""

    expects = 'a URL such as "https://ams1.example.org:8440"'

    def parse(self, value: object) -> str | None:
        """Without a trailing slash."""
        text = self._text(value)
        if not text:
            return None
        try:
            return check_base_url(text)
        except InputError:
            raise ValueError(f"{self.expects} expected, got {_spoken(value)}") from None


class File(Strings, Struct, frozen=True):
    """A path; empty gives None. ``~`` is the home directory; ``config.load`` makes it absolute. ``may_be_off``: the word "off" is no path, and gives ``OFF``."""

    may_be_off: bool = False

    @property
    def expects(self) -> str:  # type: ignore[override]
        """What it may be."""
        return 'a path or "off"' if self.may_be_off else "a path"

    def parse(self, value: object) -> Path | None:
        """Not checked against the disk."""
        text = self._text(value)
        if "\0" in text:
            raise ValueError("a path cannot contain a zero byte")
        if self.may_be_off and text == "off":
            return OFF
        return Path(text).expanduser() if text else None


class ChoiceOrFiles(Choice, frozen=True):
    """One of a few words, or a certificate file and its key file."""

    @property
    def expects(self) -> str:  # type: ignore[override]
        """The words and an example."""
        return f'{", ".join(quoted(word) for word in self.words)} or ["certificate.pem", "key.pem"]'

    def parse(self, value: object) -> str | tuple[Path, Path]:  # type: ignore[override]
        """The word, or both files."""
        if not isinstance(value, list):
            return super().parse(value)
        if len(value) != len(("certificate", "key")) or not all(isinstance(item, str) and item for item in value):
            raise ValueError(f"{self.expects} expected, got another list")
        return Path(value[0]).expanduser(), Path(value[1]).expanduser()

    def from_text(self, text: str) -> object:
        """Two files separated by a comma, or a word."""
        return [part.strip() for part in text.split(",")] if "," in text else text

    def show(self, value: str | tuple[Path, Path]) -> str:
        """As it was written."""
        return quoted(value) if isinstance(value, str) else f"[{', '.join(quoted(str(file)) for file in value)}]"


class ListOf(Struct, frozen=True):
    """A list of at most ``most`` values of one kind; in the environment separated by commas."""

    kind: Kind
    most: int = _LIST_MAX

    @property
    def expects(self) -> str:
        """What each item must be."""
        return f"a list, each item {self.kind.expects},"

    def parse(self, value: object) -> tuple[Any, ...]:
        """All items."""
        if not isinstance(value, list) or len(value) > self.most:
            raise ValueError(f"{self.expects} expected, at most {self.most} of them, got {_spoken(value)}")
        return tuple(self.kind.parse(item) for item in value)

    def from_text(self, text: str) -> object:
        """Split at commas."""
        return [self.kind.from_text(part.strip()) for part in text.split(",") if part.strip()]

    def show(self, value: tuple[Any, ...]) -> str:
        """As a TOML array."""
        return f"[{', '.join(self.kind.show(item) for item in value)}]"


def quoted(text: str) -> str:
    """A TOML basic string."""
    import json  # noqa: PLC0415 - for what is shown only; every command reads the configuration

    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def suggestion(word: str, known: tuple[str, ...] | list[str], *, before: str = "") -> str:
    """``; did you mean "quota"?`` or nothing; ``before`` stands before every word."""
    import difflib  # noqa: PLC0415 - for mistakes only; every command reads the configuration

    lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), lower, n=1)
    return f"; did you mean {quoted(before + lower[close[0]])}?" if close else ""


def shown_size(size: int) -> str:
    """Exact, in the largest binary unit that divides it."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % UNITS[unit] == 0:
            return f"{size // UNITS[unit]} {unit}"
    return f"{size} B"


def _size(text: str, *, expects: str) -> int:
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{expects} expected, got {quoted(text[:80])}")
    number, unit = match.groups()
    if unit not in UNITS:
        wrong = f"unknown unit {quoted(unit[:20])}" if unit else "the unit is missing"
        raise ValueError(f"{wrong} in {quoted(text[:80])} (units: {', '.join(UNITS)}){suggestion(unit, list(UNITS))}")
    return round(float(number) * UNITS[unit])


def _spoken(value: object) -> str:
    """A value as an error message names it."""
    if isinstance(value, str):
        return quoted(value if len(value) <= 80 else f"{value[:80]}...")
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a table"
    return str(value).lower() if isinstance(value, bool) else str(value)[:80]
