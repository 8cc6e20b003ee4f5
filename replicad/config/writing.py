"""Configuration as text: the commented example with every key, and the short file that ``replicad init`` writes."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from replicad.config.keys import REQUIRED, Key
from replicad.config.sections import KEYS, SECTIONS
from replicad.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

WIDTH = 100
_HEAD = """\
# Configuration of a replicad node: every key, with its default. Lines that begin with "# " and a key are the default; remove the "# " to change it.
# The program looks for --config FILE, $REPLICAD_CONFIG, /etc/replicad/replicad.toml and ~/.config/replicad/replicad.toml, in that order.
# An environment variable overrules a key: REPLICAD__DOWNLOADS__LISTEN is the key listen of [downloads]; lists are separated by commas.
# Sizes have a unit (kB, MB, GB, TB or KiB, MiB, GiB, TiB). Unknown keys are refused.
"""


def example() -> str:
    """Every section and key with its explanation and default: the text of config.example.toml."""
    parts = [_HEAD]
    for section, purpose in SECTIONS.items():
        parts.append(f"\n{_comment(purpose)}\n[{section}]\n")
        parts += [f"{_comment(key.help)}\n{_line(key)}\n" for key in KEYS if key.section == section]
    return "".join(parts)


def initial(given: Mapping[str, str]) -> str:
    """The file that ``replicad init`` writes: these keys ("section.name" to the text a person typed, empty ones left out) and nothing else. Raises InputError naming every bad one."""
    problems: list[str] = []
    sections: dict[str, list[str]] = {}
    for key in KEYS:
        text = given.get(key.path, "")
        if not text:
            continue
        try:
            value = key.kind.parse(key.kind.from_text(text))
        except ValueError as error:
            problems.append(f"{key.path}: {error}")
        else:
            sections.setdefault(key.section, []).append(f"{_comment(key.help)}\n{key.name} = {key.kind.show(value)}\n")
    if problems:
        raise InputError("\n".join(problems))
    body = "\n".join(f"[{section}]\n{''.join(lines)}" for section, lines in sections.items())
    return f"# Written by `replicad init`. Every key is explained by: replicad config example\n\n{body}"


def _line(key: Key) -> str:
    """A required key with its sample; otherwise the default, commented out."""
    if key.default is REQUIRED:
        return f"{key.name} = {key.sample}"
    sample = f"   # such as {key.sample}" if key.sample else ""
    return f"# {key.name} = {key.kind.show(key.default)}{sample}"


def _comment(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="## ", subsequent_indent="## ")
