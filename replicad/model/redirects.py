"""Where a share sends its clients instead of serving them: part of its policy, so that an admin says it once and every node does it. Most shares say nothing, and their clients are never sent anywhere.

A network (CIDR, ``any`` for everybody that no other one contains) to a target: ``nearest`` (the nearest node that holds the file), ``here`` (nowhere: an exception from a wider network) or the base
URL of a cache or CDN, below which it has ``/{share}/{path}``. The longest prefix that contains the client decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from replicad.errors import InputError
from replicad.model.access import check_network

ANY, HERE, NEAREST = "any", "here", "nearest"
REDIRECTS_MAX = 16
URL_CHARS_MAX = 500
"""All of it is 9 KiB at most: a record has room for that beside the largest access."""

Redirects = Annotated[
    dict[Annotated[str, msgspec.Meta(max_length=49)], Annotated[str, msgspec.Meta(max_length=URL_CHARS_MAX)]], msgspec.Meta(max_length=REDIRECTS_MAX)
]


def check_base_url(text: str) -> str:
    """An http or https URL of printable ASCII to which a path can be appended, without its trailing slashes. InputError."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and parts.hostname and not parts.username and not parts.query and not parts.fragment and parts.port != 0
    except ValueError:
        usable = False
    if not usable or len(text) > URL_CHARS_MAX or not text.isascii() or not text.isprintable() or set(text) & set("<>\"' "):
        raise InputError(f"{text[:60]!r} is no base URL such as https://cdn.example.org")
    return text.rstrip("/")


def canonical(redirects: Mapping[str, str]) -> dict[str, str]:
    """The same in the form that a record has. InputError names what is wrong."""
    found = {}
    for network, target in redirects.items():
        try:
            found[ANY if network == ANY else str(check_network(network))] = target if target in {HERE, NEAREST} else check_base_url(target)
        except InputError as error:
            raise InputError(f"redirects: {error.message}", hint="NETWORK=TARGET: a network (CIDR) or any; nearest, here or a base URL") from None
    return found


def check(redirects: Mapping[str, str]) -> None:
    """What a record's form demands beyond types and bounds. InputError."""
    if canonical(redirects) != redirects:
        raise InputError("redirects are not in their canonical form")
