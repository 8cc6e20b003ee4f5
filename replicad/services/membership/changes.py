"""What records a change of rights needs: grants alone widen; narrowing role or shares is a cut and a new grant. Pure; nothing is signed here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from replicad.errors import ConflictError, InputError, NotAllowedError, NotFoundError
from replicad.model.records import Cut, Grant, Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from replicad.model.ids import Digest, NodeId, RecordId, Stamp
    from replicad.model.members import Member, Share
    from replicad.protocol.trust import Trust

Unset = msgspec.UnsetType
UNSET = msgspec.UNSET


@dataclass(frozen=True)
class Rights:
    """What a grant gives. ``shares`` and ``stages`` None: all."""

    role: Role
    shares: tuple[str, ...] | None
    stages: tuple[str, ...] | None
    site: str

    def grant(self, subject: NodeId, name: str, *, invite: Digest | None = None) -> Grant:
        """The record's body. Admins always have all shares; naming some would only mislead."""
        shares = None if self.role is Role.ADMIN else self.shares
        return Grant(subject=subject, name=name, role=self.role, site=self.site, shares=shares, stages=self.stages, invite=invite)


def checked(*, role: Role | str, shares: Sequence[str] | None, stages: Sequence[str] | None, site: str, existing: Mapping[str, Share]) -> Rights:
    """Rights that somebody asks for, if they make sense. InputError, NotFoundError for a share that does not exist."""
    try:
        role = Role(role)
    except ValueError:
        raise InputError(f"role {role!r}: mirror, publisher or admin expected") from None
    for share in shares or ():
        if share not in existing:
            raise NotFoundError(f"there is no share {share!r}", hint="replicad share list", code="no-such-share")
    known_stages = {stage for share in existing.values() for stage in share.stages}
    for stage in stages or ():
        if known_stages and stage not in known_stages:
            raise InputError(f"no share has a stage {stage!r} (there are {', '.join(sorted(known_stages))})")
    if shares is not None and not shares:
        raise InputError("no share at all: name one or leave it out for all")
    if stages is not None and not stages:
        raise InputError("no stage at all: name one or leave it out for all")
    if len(site) > 63:
        raise InputError("site: at most 63 characters")
    return Rights(role, _sorted(shares), None if stages is None else tuple(stages), site)


def of_member(member: Member) -> Rights:
    """What a member's grants add up to."""
    return Rights(member.role, _sorted(member.shares), _sorted(member.stages), member.site)


def revised(
    current: Rights,
    *,
    role: Role | str | Unset,
    shares: Sequence[str] | Unset | None,
    stages: Sequence[str] | Unset | None,
    site: str | Unset,
    existing: Mapping[str, Share],
) -> Rights:
    """The current rights with what is set replaced; errors as in ``checked``."""
    asked = checked(
        role=current.role if isinstance(role, Unset) else role,
        shares=None if isinstance(shares, Unset) else shares,
        stages=None if isinstance(stages, Unset) else stages,
        site=current.site if isinstance(site, Unset) else site,
        existing=existing,
    )
    asked = replace(asked, shares=current.shares) if isinstance(shares, Unset) else asked
    return replace(asked, stages=current.stages) if isinstance(stages, Unset) else asked


def narrows(current: Rights, wanted: Rights) -> bool:
    """Whether the change takes something away, so that earlier grants must be cut. Name, site and stages are the newest grant's anyway."""
    if wanted.role.rank < current.role.rank:
        return True
    return wanted.role is not Role.ADMIN and wanted.shares is not None and (current.shares is None or not set(current.shares) <= set(wanted.shares))


def bodies(member: Member, wanted: Rights, ends: Mapping[str, Sequence[RecordId]]) -> list[Cut | Grant]:
    """The records that make the member's rights ``wanted``; none if they are that already. ``ends``: where the member's chains end now."""
    current = of_member(member)
    if wanted == current:
        return []
    grant = wanted.grant(member.id, member.name)
    return [cut(member.id, ends, reason="change"), grant] if narrows(current, wanted) else [grant]


def cut(subject: NodeId, ends: Mapping[str, Sequence[RecordId]], *, reason: str) -> Cut:
    """A cut that keeps everything said so far."""
    return Cut(subject=subject, ends={share: tuple(last) for share, last in ends.items()}, reason="remove" if reason == "remove" else "change")


def check_may_end(trust: Trust, author: NodeId, member: Member, at: Stamp) -> None:
    """Raises NotAllowedError unless a cut by ``author`` would take effect on the member."""
    if not trust.may_end(author, member.id, at):
        raise NotAllowedError(
            f"this node may not narrow or end {member.name}'s rights: only an admin above it, or the network key, may", hint="replicad peer show " + member.name
        )


def check_admin_remains(members: Iterable[Member], leaving: Member) -> None:
    """Raises ConflictError if the last admin would go while others stay."""
    others = [member for member in members if member.id != leaving.id]
    if leaving.role is Role.ADMIN and others and all(member.role is not Role.ADMIN for member in others):
        raise ConflictError(
            f"{leaving.name} is the network's last admin; make another member admin first", code="last-admin", hint="replicad peer set NODE --role admin"
        )


def _sorted(names: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(sorted(set(names)))
