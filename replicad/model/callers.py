"""Who asks the admin door, and what that caller may do: a role, over all shares or some, everywhere or below a directory. And whom somebody who logs in is taken for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from replicad.model import paths

NAME_CHARS_MAX = 256
PASSWORD_CHARS_MAX = 256
"""Of what somebody gives who logs in."""


class AccessRole(StrEnum):
    """What people and scripts may do, from least to most; each may what those before it may."""

    VIEWER = "viewer"
    PUBLISHER = "publisher"
    OPERATOR = "operator"
    ADMIN = "admin"

    def includes(self, least: AccessRole) -> bool:
        """Whether this role may do what needs at least the other one."""
        return _RANK[self] >= _RANK[least]


_RANK = {role: rank for rank, role in enumerate(AccessRole)}


@dataclass(frozen=True, slots=True)
class Caller:
    """``name`` says to people who it is. ``shares`` None: all; ``path`` is the collision key of the directory below which it may see and change names, empty: everywhere."""

    name: str
    role: AccessRole
    shares: frozenset[str] | None = None
    path: str = ""

    @property
    def limited(self) -> bool:
        """Whether there is anything about shares and names that it may not see."""
        return self.shares is not None or bool(self.path)

    def reaches(self, share: str, path: str | None = None) -> bool:
        """Whether the share, or the name in it, is within its limits; without a path, whether anything of the share may be."""
        if self.shares is not None and share not in self.shares:
            return False
        return path is None or not self.path or paths.is_below(paths.key(path), self.path)


class Source(StrEnum):
    """Who vouches for an account: this node's own users, a directory, or a provider of OpenID Connect."""

    LOCAL = "local"
    LDAP = "ldap"
    OIDC = "oidc"


@dataclass(frozen=True, slots=True)
class Account:
    """A person who has proved to be it. ``shares`` and ``path`` as a caller's. Names of different sources are different people."""

    name: str
    source: Source
    role: AccessRole
    shares: frozenset[str] | None = None
    path: str = ""

    @property
    def caller(self) -> Caller:
        """As whom the person acts: ``user jane``, ``user jane (ldap)``."""
        suffix = "" if self.source is Source.LOCAL else f" ({self.source})"
        return Caller(f"user {self.name}{suffix}", self.role, self.shares, self.path)


class Authenticator(Protocol):
    """A directory of people besides this node's own users, such as LDAP. It is never asked about the name of a local user, so it can neither shadow one nor keep one out when it is down."""

    async def authenticate(self, name: str, password: str) -> Account | None:
        """Whose name and password these are; None if nobody's, or of somebody who has no role here, for whatever reason: who guesses is told no more.

        ``name`` and ``password`` are not empty, have at most NAME_CHARS_MAX and PASSWORD_CHARS_MAX characters, and are otherwise as a stranger gave them. Guesses are throttled before it is asked; how
        long it takes is bounded by itself. UnreachableError if it cannot tell now.
        """
        ...


@dataclass(frozen=True, slots=True)
class Retention:
    """How long actions of the admin door are kept: the newest ``actions`` of them (100,000 are 16 MB, measured with short paths), and none older than ``time_s`` (13 months: last year's audit can
    still be answered; a guess).
    """

    actions: int = 100_000
    time_s: float = 400 * 86_400.0
