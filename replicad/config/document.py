"""One TOML file as tables, and the line of each key, which ``tomllib`` does not tell.

The lines come from a second, simple pass over the text: table headers and ``key =`` at the start of a line. What only looks like a key inside a multi-line string cannot shift the
message of a real key that stands before it; in the worst case a message names the line of its table.
"""

from __future__ import annotations

import codecs
import re
import tomllib
from typing import Any

from msgspec import Struct

from replicad.errors import ConfigurationError

DOCUMENT_BYTES_MAX = 1 << 20
_NAME = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_PATH = rf"{_NAME}(?:\s*\.\s*{_NAME})*"
_HEADER = re.compile(rf"\s*\[\[?\s*({_PATH})\s*\]\]?\s*(?:#.*)?")
_KEY = re.compile(rf"\s*({_PATH})\s*=")


class Document(Struct, frozen=True):
    """``name`` is the file's name in messages; ``tables`` what ``tomllib`` read; ``lines`` the first line of each dotted key and table."""

    name: str
    tables: dict[str, Any]
    lines: dict[tuple[str, ...], int]

    def at(self, *keys: str) -> str:
        """``replicad.toml:14`` for the key, or for the nearest table above it that has a line."""
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return f"{self.name}:{self.lines[keys]}" if keys else self.name


def read(name: str, encoded: bytes) -> Document:
    """The document in these bytes, or ConfigurationError naming the line where TOML's grammar is broken."""
    if len(encoded) > DOCUMENT_BYTES_MAX:
        raise ConfigurationError(f"{name}: too long for a configuration (at most {DOCUMENT_BYTES_MAX} bytes)")
    encoded = encoded.removeprefix(codecs.BOM_UTF8)  # some editors write it; TOML has no place for it
    try:
        text = encoded.decode()
    except UnicodeDecodeError as error:
        line = encoded.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{name}:{line}: not UTF-8 text") from None
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(_grammar(name, text, str(error))) from None
    return Document(name, tables, _locate(text))


def _grammar(name: str, text: str, message: str) -> str:
    """``tomllib``'s message with its line in front."""
    found = re.fullmatch(r"(.*) \((?:at line (\d+), column \d+|at end of document)\)", message, re.DOTALL)
    if found is None:
        return f"{name}: {message}"
    line = found[2] or str(text.count("\n") + (not text.endswith("\n")))
    return f"{name}:{line}: {found[1]}"


def _locate(text: str) -> dict[tuple[str, ...], int]:
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.fullmatch(line)
        if header:
            table = _names(header[1])
            _note(lines, table, number)
            continue
        key = _KEY.match(line)
        if key:
            _note(lines, table + _names(key[1]), number)
    return lines


def _note(lines: dict[tuple[str, ...], int], keys: tuple[str, ...], number: int) -> None:
    for length in range(1, len(keys) + 1):
        lines.setdefault(keys[:length], number)


def _names(path: str) -> tuple[str, ...]:
    return tuple(name.strip("\"'") for name in re.findall(_NAME, path))
