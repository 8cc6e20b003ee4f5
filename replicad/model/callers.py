"""Who asks the admin door, and what that caller may do: a role, over all shares or some, everywhere or below some directories."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from replicad.model import paths


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


@dataclass(frozen=True, slots=True)
class Retention:
    """How long actions of the admin door are kept: the newest ``actions`` of them (100,000 are 16 MB, measured with short paths), and none older than ``time_s`` (13 months: last year's audit can
    still be answered; a guess).
    """

    actions: int = 100_000
    time_s: float = 400 * 86_400.0
