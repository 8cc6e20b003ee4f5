"""What the daemon says about a field of the API, said about the option of the command line, with durations as people write them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import click

from replicad.errors import InputError
from replicad.model.words import plural
from replicad.server.admin.bodies import RECORD_BEGINNING, TOKEN_NAME
from replicad.server.admin.people import CODE

_FIELD = re.compile(r"(\w+)(?:\[[^\]]*\])*: (.+)", re.DOTALL)
_NUMBER = re.compile(r"expected `\w+(?: \| null)?` (<=|>=) ([0-9]+)")
_LENGTH = re.compile(r"expected `(\w+)(?: \| null)?` of length (<=|>=) ([0-9]+)")
_FORM = re.compile(r"expected `str(?: \| null)?` matching regex '(.*)'")
_FORMS = {
    CODE: "six digits expected",
    RECORD_BEGINNING: "8 to 64 digits of a record's id expected, in lower case",
    TOKEN_NAME: "letters, digits and . _ @ - expected, at most 64, beginning with a letter or digit",
}
_AT = {"<=": "at most", ">=": "at least"}
_SECONDS = "_s"
"""Ends the name of a field that is a duration."""


def of_options(error: InputError, parameters: Sequence[click.Parameter]) -> InputError:
    """The same error as a person sees it."""
    found = _FIELD.fullmatch(error.message)
    if found is None:
        return error
    field, said = found.groups()
    said = _plain(said, is_duration=field.endswith(_SECONDS))
    return type(error)(f"{_option(field, parameters)}: {said}", hint=error.hint, code=error.error_code)


def _option(field: str, parameters: Sequence[click.Parameter]) -> str:
    """What the command line calls a field; the field itself if it is none of it."""
    name = field.removesuffix(_SECONDS)
    for one in parameters:
        if name == one.name or f"--{name}" in one.opts:
            return max(one.opts, key=len) if isinstance(one, click.Option) else one.make_metavar(click.Context(click.Command(None)))
    return field


def _plain(said: str, *, is_duration: bool) -> str:
    if number := _NUMBER.fullmatch(said):
        return f"{_AT[number[1]]} {_duration(int(number[2])) if is_duration else number[2]}"
    if length := _LENGTH.fullmatch(said):
        return f"{_AT[length[2]]} {plural(int(length[3]), 'character') if length[1] == 'str' else f'{length[3]} of them'}"
    if (form := _FORM.fullmatch(said)) and form[1] in _FORMS:
        return _FORMS[form[1]]
    return said


def _duration(seconds: int) -> str:
    """``24h``: in the largest unit of which it is several."""
    for unit, unit_s in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % unit_s == 0 and seconds > unit_s:
            return f"{seconds // unit_s}{unit}"
    return f"{seconds}s"
