"""What the configuration says about who else vouches for people: a directory, a provider of OpenID Connect, and the role that its groups give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from replicad.errors import ConfigurationError
from replicad.model.callers import AccessRole

SECRET_BYTES_MAX = 4096
CALLBACK = "/oidc/callback"
"""Where a provider sends browsers back to, at the admin door."""
TICKET_S = 600
"""How long that may take: to type a password and a second factor there."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What a group gives: a role, over some shares or (None) all."""

    role: AccessRole
    shares: frozenset[str] | None = None


def strongest(found: Iterable[Rights]) -> Rights | None:
    """Of several groups the greatest role, over all shares for which one of them gives that role; lesser roles give nothing besides. None if there is no group."""
    rights = list(found)
    if not rights:
        return None
    role = max((one.role for one in rights), key=list(AccessRole).index)
    shares: frozenset[str] = frozenset()
    for one in rights:
        if one.role is role:
            if one.shares is None:
                return Rights(role)
            shares |= one.shares
    return Rights(role, shares)


@dataclass(frozen=True, slots=True)
class LdapConfig:
    """``urls`` are ldaps://, or ldap:// with ``start_tls``. ``groups`` maps the name (DN) of a group to what it gives. ``timeout_s`` bounds all that one login asks of one server."""

    urls: tuple[str, ...]
    base: str
    groups: Mapping[str, Rights]
    start_tls: bool = False
    ca: Path | None = None
    bind_dn: str = ""
    bind_password_file: Path | None = None
    name_attribute: str = "uid"
    user_filter: str = "(objectClass=person)"
    group_base: str = ""
    group_filter: str = "(|(member={dn})(uniqueMember={dn}))"
    timeout_s: float = 5.0
    """A guess: a directory across the ocean answers six questions in 2 s."""


@dataclass(frozen=True, slots=True)
class OidcConfig:
    """``url`` is how browsers reach the admin door; ``hosts`` are those of the provider besides the issuer's; ``groups`` maps a value of the claim ``groups_claim`` to what it gives."""

    issuer: str
    client_id: str
    url: str
    groups: Mapping[str, Rights]
    client_secret_file: Path | None = None
    scopes: tuple[str, ...] = ("openid", "profile")
    name_claim: str = "preferred_username"
    groups_claim: str = "groups"
    hosts: tuple[str, ...] = ()
    ca: Path | None = None


def read_secret(path: Path | None, *, key: str) -> str:
    """The first line of the file; empty without one. ConfigurationError, naming the ``key`` of the configuration, if there is none in it."""
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            text = file.read(SECRET_BYTES_MAX).decode().partition("\n")[0].strip("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{key}: cannot read {path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None
    if not text:
        raise ConfigurationError(f"{key}: the first line of {path} is empty")
    return text
