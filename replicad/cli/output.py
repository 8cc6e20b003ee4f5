"""What people and programs read: data on stdout, talk on stderr, tables, sizes, dates.

Labels come from other nodes and other people: nothing is printed to a terminal before ``clean`` has taken its control characters away.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime

import click
import msgspec

from replicad.errors import ReplicadError

RIGHT = ">"


class Failure(msgspec.Struct, frozen=True):
    """On stderr, when a verb fails. ``code`` is stable, ``message`` a sentence, ``hint`` the next command (may be empty)."""

    code: str
    message: str
    hint: str


class Output(msgspec.Struct, frozen=True):
    """How this invocation speaks. ``as_json``: one object on stdout, errors as an object on stderr, no talk."""

    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    color: bool = False

    @property
    def live(self) -> bool:
        """Whether a moving display on stderr is wanted."""
        return sys.stderr.isatty() and not self.as_json and not self.quiet

    @property
    def asks(self) -> bool:
        """Whether there is somebody to ask."""
        return not self.as_json and sys.stdin.isatty()

    def data(self, answer: msgspec.Struct, text: str) -> None:
        """The answer: as JSON, or as ``text`` for people."""
        if self.as_json:
            click.echo(msgspec.json.encode(answer))
        elif text:
            click.echo(text, color=self.color)

    def talk(self, text: str) -> None:
        """A sentence for people, on stderr."""
        if not self.quiet and not self.as_json:
            click.echo(text, err=True, color=self.color)

    def detail(self, text: str) -> None:
        """A sentence for people who asked for more."""
        if self.verbose:
            self.talk(text)

    def error(self, error: ReplicadError) -> None:
        """An error: what happened, then the next command."""
        if self.as_json:
            click.echo(msgspec.json.encode(Failure(error.error_code, error.message, error.hint)), err=True)
            return
        lines = [self.paint("error: ", "red") + clean(error.message, lines=True), *(f"  {clean(line)}" for line in error.hint.splitlines())]
        click.echo("\n".join(lines), err=True, color=self.color)

    def paint(self, text: str, color: str) -> str:
        """The text in a colour, if colours are wanted."""
        return click.style(text, fg=color) if self.color else text

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before something that destroys; without a terminal, or with ``yes``, go ahead. Raises ReplicadError("declined") on a "no"."""
        if not yes and self.asks and not click.confirm(question, err=True):
            raise ReplicadError("nothing was changed", code="declined")


def clean(text: str, *, lines: bool = False) -> str:
    """The text without control characters (terminal escapes); ``lines`` keeps line feeds."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or (lines and c == "\n") else "\N{REPLACEMENT CHARACTER}" for c in text)


def size(count: float) -> str:
    """Bytes in binary units: ``142.6 MiB``."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        count /= 1024
        if count < 1000 or unit == "TiB":
            break
    return f"{count:.1f} {unit}"


def duration(seconds: float) -> str:
    """``0.4 s``, ``38 s``, ``4 min``, ``3 h 20 min``, ``12 d 4 h``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 120:
        return f"{whole} s"
    for unit, unit_s, part, part_s in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if whole >= unit_s:
            rest = whole % unit_s // part_s
            return f"{whole // unit_s} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{whole // 60} min"


@functools.lru_cache(maxsize=1024)
def moment(iso: str) -> str:
    """An ISO 8601 date in local time, to the minute: ``2026-11-12 14:03``."""
    return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M")


def since(iso: str) -> str:
    """``since 02:14 (7 h)``; with the day if it was not today."""
    then = datetime.fromisoformat(iso).astimezone()
    clock = then.strftime("%H:%M" if then.date() == datetime.now().astimezone().date() else "%Y-%m-%d %H:%M")
    return f"since {clock} ({duration(max(0.0, time.time() - then.timestamp()))})"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; a head that starts with ``>`` aligns its column to the right. Without rows, the heads alone."""
    cells = [[head.removeprefix(RIGHT) for head in heads], *([clean(cell) for cell in row] for row in rows)]
    right = [head.startswith(RIGHT) for head in heads]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    lines = ("  ".join(cell.rjust(width) if to_right else cell.ljust(width) for cell, width, to_right in zip(row, widths, right, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)
