"""Members: what the counting grants of a node add up to, as ``protocol.trust`` computed it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from replicad.errors import InputError
from replicad.model.access import OPEN, Access
from replicad.model.ids import NodeId, Stamp
from replicad.model.records import Role

MUNKI = "munki"
"""The layout of a Munki repository: what its catalogs name is here before they are."""


@dataclass(frozen=True, slots=True)
class Member:
    """A node that holds at least one grant in force. ``role`` and ``shares`` are those of all its grants together; ``name``, ``site``, ``stages`` (what it carries) and ``networks`` (whose clients it may get from others, CIDR) those of the newest, made at ``admitted`` by ``admitted_by``.

    ``shares``, ``stages`` and ``paths`` (collision keys below which it may publish) are None for "all". ``until`` is the last stamp of the longest life among its grants, None if one has no end.
    """

    id: NodeId
    name: str
    role: Role
    site: str
    shares: frozenset[str] | None
    stages: frozenset[str] | None
    admitted: Stamp
    admitted_by: NodeId
    paths: frozenset[str] | None = None
    until: Stamp | None = None
    networks: tuple[str, ...] = ()

    def life_left(self, now_ms: int) -> float:
        """Which part of its life is left, 1.0 to 0.0; 1.0 without end."""
        if self.until is None:
            return 1.0
        return max(0.0, self.until.ms - now_ms) / max(1, self.until.ms - self.admitted.ms)

    def has_share(self, share: str) -> bool:
        """Whether records and content of that share may go to this member. The network's own chains may go to every member."""
        return share == "" or self.shares is None or share in self.shares

    def carries(self, share: str, stage: str) -> bool:
        """Whether this member should hold content of that share at that stage."""
        return self.has_share(share) and (self.stages is None or stage in self.stages)


@dataclass(frozen=True, slots=True)
class Share:
    """A share as the counting policies define it. ``stages`` from lowest to highest; the last is the default for publishing. ``layout`` is MUNKI or empty; ``root`` the directory where
    that tree begins, empty for the share's own; ``checksums`` are algorithms, also of newer versions; ``redirects``: see ``model.redirects``.
    """

    name: str
    public: bool
    immutable: bool
    stages: tuple[str, ...]
    created: Stamp
    access: Access = OPEN
    layout: str = ""
    root: str = ""
    checksums: tuple[str, ...] = ()
    redirects: Mapping[str, str] = field(default_factory=dict)

    def stage(self, named: str | None) -> str:
        """That stage, None: the last. InputError lists those that there are."""
        if named is not None and named not in self.stages:
            raise InputError(f"share {self.name} has no stage {named!r}; it has {', '.join(self.stages)}", code="no-such-stage")
        return self.stages[-1] if named is None else named
