"""Pages of lists: a cursor says behind what the next page begins, so that nothing is shown twice or left out when the list changes meanwhile. It is opaque to clients."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from replicad.errors import InputError
from replicad.model.ids import from_wire, to_text
from replicad.server.admin import queries

T = TypeVar("T")
Key = tuple[int | str, str]


def write(place: object) -> str:
    """A cursor."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place, enc_hook=to_text)).decode()


def read(given: str | None, kind: type[T]) -> T | None:
    """The place in a cursor; None for the beginning. InputError if it was not made by ``write`` of such a place."""
    if given is None:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(given), type=kind, dec_hook=from_wire)
    except (binascii.Error, msgspec.DecodeError, InputError, UnicodeError, ValueError):
        raise InputError("after: not a cursor of this API; give the `next` of the page before") from None


def page(items: Iterable[T], asked: queries.PageQuery, key: Callable[[T], Key]) -> tuple[list[T], str | None]:
    """Of a list in memory: the page that is asked for, in the order of ``key``, and the cursor of the next one."""
    after = read(asked.after, tuple[int | str, str])
    try:
        found = sorted((one for one in items if after is None or key(one) > after), key=key)
    except TypeError:
        raise InputError("after: a cursor of another list") from None
    shown = found[: asked.limit]
    return shown, write(key(shown[-1])) if len(found) > len(shown) else None
