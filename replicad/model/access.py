"""Who may download from a share: part of its policy, so that an admin says it once and every node enforces it.

Nothing in here lets anybody in: passwords are Argon2id verifiers, tokens are hashes, the key for PreStage tokens is a public one. Every member of the network can read it all the same.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Annotated

import msgspec

from replicad.errors import InputError
from replicad.model.ids import Digest, Stamp

USERS_MAX = 128
TOKENS_MAX = 128
NETWORKS_MAX = 128
"""So that the whole of it, about 45 KiB, fits the 64 KiB of a record."""
CREDENTIAL_NAME_MAX = 63
PEM_MAX = 2048
"""A public RSA key of 8,192 bits is 1,420 characters."""

VERIFIER = r"^\$argon2id\$v=19\$m=[0-9]{1,5},t=[1-4],p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$"
"""At most 98 MiB and four passes: what a member signs costs every node that to check."""
_NAME = re.compile(r"[^\x00-\x20\x7f:]{1,63}")

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=CREDENTIAL_NAME_MAX)]
_Verifier = Annotated[str, msgspec.Meta(pattern=VERIFIER, max_length=128)]


class BearerToken(msgspec.Struct, frozen=True):
    """SHA-256 of the token as text, and the last moment of its life (None: no end)."""

    digest: Digest
    until: Stamp | None = None


class Access(msgspec.Struct, frozen=True):
    """``users``: name to verifier. ``tokens``: label to token. ``networks`` (CIDR): if there are any, clients elsewhere get nothing, whatever they know, of a public share, too.
    ``prestage``: a public RSA key (PEM) whose holder, a Jamf Pro server, signs PreStage tokens; empty: none.
    """

    users: Annotated[dict[_Name, _Verifier], msgspec.Meta(max_length=USERS_MAX)] = {}
    tokens: Annotated[dict[_Name, BearerToken], msgspec.Meta(max_length=TOKENS_MAX)] = {}
    networks: Annotated[tuple[Annotated[str, msgspec.Meta(max_length=49)], ...], msgspec.Meta(max_length=NETWORKS_MAX)] = ()
    prestage: Annotated[str, msgspec.Meta(max_length=PEM_MAX)] = ""


OPEN = Access()
"""Nothing said: a public share is everybody's, a private one nobody's."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def check_network(text: str) -> Network:
    """From CIDR notation in its canonical form (a single address means itself); InputError."""
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise InputError(
            f"network {text[:60]!r}: write an address and a prefix length whose other bits are 0, for example 10.4.0.0/16 or 2001:db8::/32"
        ) from None


def check_name(name: str) -> str:
    """The name of a user or token itself if it is legal, else InputError."""
    if not _NAME.fullmatch(name):
        raise InputError(f"name {name[:70]!r}: 1 to {CREDENTIAL_NAME_MAX} characters without spaces, control characters and colons expected")
    return name


def check(access: Access) -> None:
    """What a record's form demands beyond types and bounds. InputError."""
    for name in (*access.users, *access.tokens):
        check_name(name)
    check_canonical(access.networks)


def check_canonical(networks: Iterable[str]) -> None:
    """What a record's form demands of networks. InputError."""
    for text in networks:
        if str(check_network(text)) != text:
            raise InputError(f"network {text[:60]!r} is not in its canonical form")
