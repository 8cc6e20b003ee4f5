"""What records a change of rights needs: grants alone widen; narrowing role or shares is a cut and a new grant. Pure; nothing is signed here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

import msgspec
from msgspec import UNSET

from replicad.errors import ConflictError, InputError, NotAllowedError, NotFoundError
from replicad.model import paths
from replicad.model.access import check_network
from replicad.model.ids import Stamp
from replicad.model.records import NAME_MAX, NEAR_MAX, PATHS_MAX, Grant, Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from replicad.model.ids import Digest, NodeId
    from replicad.model.members import Member, Share
    from replicad.protocol.trust import Trust

LIFE_S_MIN = 600
LIFE_S_MAX = 3650 * 86_400
"""Bounds of a grant's life: below, clocks that differ (protocol.md section 3.3) would decide who is a member; above, "without end" says the same."""


class Wishes(TypedDict, total=False):
    """Rights that somebody asks for. What is absent stays as it is, for a newcomer as in ``NEWCOMER``; None means all, and for ``life_s`` no end."""

    role: Role | str
    shares: Sequence[str] | None
    stages: Sequence[str] | None
    paths: Sequence[str] | None
    networks: Sequence[str]
    site: str
    life_s: int | None


class Rights(msgspec.Struct, frozen=True):
    """What a grant gives. ``shares``, ``stages`` and ``paths`` (collision keys below which a publisher may write) None: all. ``life_s`` counts from the grant, None: without end. ``networks``: see ``Grant``."""

    role: Role
    shares: tuple[str, ...] | None = None
    stages: tuple[str, ...] | None = None
    site: str = ""
    paths: tuple[str, ...] | None = None
    life_s: int | None = None
    networks: tuple[str, ...] = ()

    def grant(self, subject: NodeId, name: str, *, at: Stamp, invite: Digest | None = None) -> Grant:
        """The record's body, to be signed ``at`` this time. Admins always have all shares and only publishers have paths; naming some would only mislead."""
        shares = None if self.role is Role.ADMIN else self.shares
        paths = self.paths if self.role is Role.PUBLISHER else None
        until = None if self.life_s is None else Stamp.of(at.ms + 1000 * self.life_s)
        return Grant(
            subject, name, self.role, self.site, shares=shares, paths=paths, stages=self.stages, until=until, invite=invite, networks=self.networks or UNSET
        )


NEWCOMER = Rights(Role.MIRROR)
"""Least privilege: whoever comes holds and serves, unless told otherwise."""


def of_member(member: Member) -> Rights:
    """What a member's grants add up to."""
    life_s = None if member.until is None else max(1, round((member.until.ms - member.admitted.ms) / 1000))
    return Rights(member.role, _sorted(member.shares), _sorted(member.stages), member.site, _sorted(member.paths), life_s, member.networks)


def revised(current: Rights, wishes: Wishes, *, existing: Mapping[str, Share]) -> Rights:
    """The current rights with what is wished replaced. InputError if that makes no sense, NotFoundError for a share that does not exist."""
    role = _role(wishes.get("role", current.role))
    paths = _paths(wishes["paths"], role=role) if "paths" in wishes else current.paths
    return Rights(
        role,
        _shares(wishes["shares"], existing=existing) if "shares" in wishes else current.shares,
        _stages(wishes["stages"], existing=existing) if "stages" in wishes else current.stages,
        _site(wishes["site"]) if "site" in wishes else current.site,
        paths if role is Role.PUBLISHER else None,
        _life_s(wishes["life_s"]) if "life_s" in wishes else current.life_s,
        _networks(wishes["networks"]) if "networks" in wishes else current.networks,
    )


def _role(role: Role | str) -> Role:
    try:
        return Role(role)
    except ValueError:
        raise InputError(f"role {role!r}: mirror, publisher or admin expected") from None


def _site(site: str) -> str:
    if len(site) > NAME_MAX or not site.isprintable():
        raise InputError(f"site: at most {NAME_MAX} characters, all of them printable, expected")
    return site


def _shares(shares: Sequence[str] | None, *, existing: Mapping[str, Share]) -> tuple[str, ...] | None:
    if shares is not None and not shares:
        raise InputError("no share at all: name one or leave it out for all")
    for share in shares or ():
        if share not in existing:
            raise NotFoundError(f"there is no share {share!r}", hint="replicad share list", code="no-such-share")
    return _sorted(shares)


def _stages(stages: Sequence[str] | None, *, existing: Mapping[str, Share]) -> tuple[str, ...] | None:
    if stages is not None and not stages:
        raise InputError("no stage at all: name one or leave it out for all")
    known = {stage for share in existing.values() for stage in share.stages}
    for stage in stages or ():
        if known and stage not in known:
            raise InputError(f"no share has a stage {stage!r} (there are {', '.join(sorted(known))})")
    return None if stages is None else tuple(stages)


def _paths(prefixes: Sequence[str] | None, *, role: Role) -> tuple[str, ...] | None:
    if prefixes is None:
        return None
    if role is not Role.PUBLISHER:
        raise InputError(f"a path prefix limits where a publisher may publish; role {role} has none", hint="--role publisher")
    if not 1 <= len(prefixes) <= PATHS_MAX:
        raise InputError(f"{len(prefixes)} path prefixes: 1 to {PATHS_MAX} expected, or none at all for everywhere")
    return _sorted(paths.key(paths.check(prefix.rstrip("/"))) for prefix in prefixes)


def _networks(networks: Sequence[str]) -> tuple[str, ...]:
    found = tuple(sorted({str(check_network(text)) for text in networks}))
    if len(found) > NEAR_MAX:
        raise InputError(f"{len(found)} networks: at most {NEAR_MAX} expected")
    return found


def _life_s(life_s: int | None) -> int | None:
    if life_s is not None and not LIFE_S_MIN <= life_s <= LIFE_S_MAX:
        raise InputError(f"life of {life_s} s: {LIFE_S_MIN // 60} minutes to {LIFE_S_MAX // 86400} days expected")
    return life_s


def narrows(current: Rights, wanted: Rights) -> bool:
    """Whether the change takes something away, so that earlier grants must be cut. Name, site, networks and stages are the newest grant's anyway."""
    return (
        wanted.role.rank < current.role.rank
        or (wanted.life_s is not None and (current.life_s is None or wanted.life_s < current.life_s))
        or (wanted.role is not Role.ADMIN and wanted.shares is not None and (current.shares is None or not set(current.shares) <= set(wanted.shares)))
        or (current.role is wanted.role is Role.PUBLISHER and not _all_below(current.paths, wanted.paths))
    )


def _all_below(current: Sequence[str] | None, wanted: Sequence[str] | None) -> bool:
    """Whether everything below the current prefixes is below a wanted one, too."""
    if wanted is None:
        return True
    return current is not None and all(any(paths.is_below(path, prefix) for prefix in wanted) for path in current)


def check_may_end(trust: Trust, author: NodeId, subject: NodeId, name: str, *, at: Stamp, past: bool = False) -> None:
    """Raises NotAllowedError unless a cut by ``author`` would take effect on the node's grants in force; ``past``: and on those before."""
    if not trust.may_end(author, subject, at, past=past):
        raise NotAllowedError(
            f"this node may not narrow or end {name}'s rights: only an admin above it, or the network key, may", hint="replicad peer show " + name
        )


def check_admin_remains(members: Iterable[Member], leaving: Member) -> None:
    """Raises ConflictError if the last admin would go: nobody could admit anybody any more, the node that left neither."""
    others = [member for member in members if member.id != leaving.id]
    if leaving.role is Role.ADMIN and all(member.role is not Role.ADMIN for member in others):
        raise ConflictError(
            f"{leaving.name} is the network's last admin; make another member admin first", code="last-admin", hint="replicad peer set NODE --role admin"
        )


def _sorted(names: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(sorted(set(names)))
