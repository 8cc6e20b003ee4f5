"""Values as people write them on the command line: durations, node counts, names inside a share. Callbacks for click's options and arguments."""

from __future__ import annotations

import re
import sys
from datetime import datetime
from pathlib import Path

import click

from replicad.errors import InputError

_UNITS_S = {"": 1.0, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([a-z]*)")
_NODES = re.compile(r"all|[1-9][0-9]{0,4}|(?:[1-9][0-9]?|100)%")

NODES_METAVAR = "all|N|P%"
IN_SHARE_METAVAR = "SHARE/PATH"
PLACE_METAVAR = "[SHARE[/PREFIX]]"
FILE_CHARS_MAX = 8192
"""Of a file that holds one value: a key, a secret."""


def duration(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """``90``, ``90s``, ``10m``, ``24h``, ``2d`` as seconds."""
    if value is None:
        return None
    found = _DURATION.fullmatch(value.strip())
    if not found or found[2] not in _UNITS_S:
        raise click.BadParameter(f"{value!r} is not a duration; write for example 90s, 10m, 24h or 2d")
    return float(found[1]) * _UNITS_S[found[2]]


def life(context: click.Context, parameter: click.Parameter, value: str | None) -> int | str | None:
    """A duration in whole seconds, or ``*``."""
    seconds = duration(context, parameter, value) if value != "*" else None
    return value if seconds is None else int(seconds)


def moment(_context: click.Context, _parameter: click.Parameter, value: str | None) -> datetime | None:
    """A time in ISO 8601; without a zone it is this machine's."""
    if value is None:
        return None
    try:
        return datetime.fromisoformat(value.strip()).astimezone()
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{value!r} is not a time; write for example 2026-11-12T14:03 or 2026-11-12T14:03:00+01:00") from None


def named(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """A name that says something."""
    if not value.strip():
        raise click.BadParameter("it is empty; write a name")
    return value


def nodes(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """``all``, a number of nodes, or a percentage of those that want it."""
    if value is not None and not _NODES.fullmatch(value):
        raise click.BadParameter(f"{value!r}: write all, a number of nodes (1 or more) or a percentage (1% to 100%)")
    return value


def in_share(_context: click.Context | None, _parameter: click.Parameter | None, value: str) -> tuple[str, str]:
    """``SHARE/PATH`` as (share, path)."""
    share, _, path = value.partition("/")
    if not share or not path:
        raise click.BadParameter(f"{value!r}: write {IN_SHARE_METAVAR}, for example munki/pkgs/Firefox-145.0.pkg")
    return share, path


def in_place(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, str]:
    """``SHARE/PATH`` of a file or of a directory, which may end in a slash."""
    return in_share(context, parameter, value.rstrip("/"))


def in_one_share(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, list[str]]:
    """Several ``SHARE/PATH`` of one share as (share, paths); a directory may end in a slash."""
    found = [in_place(context, parameter, value) for value in values]
    shares = sorted({share for share, _ in found})
    if len(shares) > 1:
        raise click.BadParameter(f"all of them must be of one share; these are of {' and '.join(shares)}")
    return shares[0], [path for _, path in found]


def place(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str | None, str]:
    """``SHARE``, ``SHARE/`` or ``SHARE/PREFIX`` as (share, prefix); (None, "") for everything."""
    if value is None:
        return None, ""
    share, _, prefix = value.partition("/")
    if not share:
        raise click.BadParameter(f"{value!r}: write SHARE or SHARE/PREFIX, for example munki/pkgs")
    return share, prefix.rstrip("/")


def text_of(file: Path) -> str:
    """What stands in a small file (``-``: on standard input); at most 8192 characters of it. InputError if it cannot be read."""
    try:
        if str(file) == "-":
            return sys.stdin.read(FILE_CHARS_MAX)
        with file.open() as opened:
            return opened.read(FILE_CHARS_MAX)
    except (OSError, UnicodeError) as error:
        raise InputError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or 'not text'}") from None


def first_line(file: Path) -> str:
    """A secret. Never an argument: those are in everybody's process list."""
    return text_of(file).partition("\n")[0].rstrip("\r")
